package ffi

// #include "abi.h"
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// The kinds of records, numbered as in the header; LogsEnd has no number there.
const (
	LogsEnd        = 0
	LogsStdout     = C.MSB_LOG_STDOUT
	LogsStderr     = C.MSB_LOG_STDERR
	LogsStarted    = C.MSB_LOG_STARTED
	LogsExited     = C.MSB_LOG_EXITED
	LogsFailed     = C.MSB_LOG_FAILED
	LogsLost       = C.MSB_LOG_LOST
	LogsOther      = C.MSB_LOG_OTHER
	LogsIncomplete = C.MSB_LOG_INCOMPLETE
)

// Logs is a reader of a sandbox's log. One goroutine at a time may be in Next; the caller ensures
// it.
type Logs struct {
	raw    *C.msb_log
	ready  *Ready
	record C.msb_log_record
	err    C.msb_error
}

// Record is one record of a log. All its memory is Go's.
type Record struct {
	Kind, Flags   uint32
	TimeNs, Value int64
	Session       string
	Data          []byte
	Argv          []string
	Exit          *Exit
	Failure       *Failure
}

// Logs opens the log of the sandbox.
func (s *Sandbox) Logs(follow bool, session string, sinceNs int64) (*Logs, error) {
	a := newArena(textSize(session))
	defer a.free()
	options, err := C.go_log_options(), C.go_error()
	if follow {
		options.flags = C.MSB_LOG_FOLLOW
	}
	options.session, options.since_ns = a.optional(session), C.int64_t(sinceNs)
	var raw *C.msb_log
	status := C.msb_log_open(s.raw, &options, &raw, &err)
	runtime.KeepAlive(s)
	if status < 0 {
		return nil, newError(&err)
	}
	l := &Logs{raw: raw, ready: newReady(func() (int, error) { return descriptor(unsafe.Pointer(raw)) })}
	C.go_error_init(&l.err)
	runtime.SetFinalizer(l, func(l *Logs) { _ = l.Close() })
	return l, nil
}

// Next waits for the next record.
func (l *Logs) Next(ctx context.Context) (*Record, error) {
	defer runtime.KeepAlive(l)
	status, err := l.ready.until(ctx, func() C.msb_status {
		return C.go_log_recv(l.raw, &l.record, &l.err)
	})
	if err == nil && status < 0 {
		err = newError(&l.err)
	}
	if err != nil {
		return nil, err
	}
	// &l.record is written out in the call, so that cgo checks only this field.
	defer C.msb_log_record_release(&l.record)
	raw := &l.record
	return &Record{
		Kind: uint32(raw.kind), Flags: uint32(raw.flags),
		TimeNs: int64(raw.time_ns), Value: int64(raw.value), Session: goText(raw.session),
		Data: append([]byte(nil), view(raw.data, raw.len)...),
		Argv: goTexts(raw.argv, raw.argv_len), Exit: exit(raw.exit), Failure: failure(raw.failure),
	}, nil
}

// Closed reports whether Close was called.
func (l *Logs) Closed() bool { return l.ready.Closed() }

// Close closes the reader and wakes a blocked Next.
func (l *Logs) Close() error {
	return closeHandle(l, l.ready, unsafe.Pointer(l.raw))
}
