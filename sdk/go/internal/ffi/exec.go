package ffi

// #include "abi.h"
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// The kinds of events, numbered as in the header; End has no number there.
const (
	End        = 0
	Started    = C.MSB_EVENT_STARTED
	Stdout     = C.MSB_EVENT_STDOUT
	Stderr     = C.MSB_EVENT_STDERR
	StdinError = C.MSB_EVENT_STDIN_ERROR
	Exited     = C.MSB_EVENT_EXITED
	Failed     = C.MSB_EVENT_FAILED
	LostEvent  = C.MSB_EVENT_LOST
)

// Flags of the end of a stream and of an output.
const (
	WriterLeft = C.MSB_EVENT_WRITER_LEFT
	Cut        = C.MSB_EVENT_CUT
	Truncated  = C.MSB_OUTPUT_TRUNCATED
)

// Flags of a command and of an exit.
const (
	TTY        = C.MSB_EXEC_TTY
	WaitForEOF = C.MSB_EXEC_WAIT_FOR_EOF
	Shell      = C.MSB_EXEC_SHELL
	CoreDumped = C.MSB_EXIT_CORE_DUMPED
	RanOut     = C.MSB_EXIT_TIMED_OUT
	SessionTTY = C.MSB_SESSION_TTY
)

// FromNow is the position of the current end of the output.
const FromNow = C.MSB_FROM_NOW

// Exec is a handle on a command. One goroutine at a time may be in Next, Wait or Collect; the
// caller ensures it.
type Exec struct {
	raw   *C.msb_exec
	ready *Ready

	// Filled by the reader's calls, to avoid an allocation per call.
	event C.msb_event
	err   C.msb_error
	last  Event
}

// Event is a received event. Data is borrowed from C until Release.
type Event struct {
	Kind    uint32
	Value   int64
	Data    []byte
	Exit    *Exit
	Failure *Failure
	Flags   uint32
}

// Exit is the exit status of a command.
type Exit struct {
	Code, Signal        int
	Flags               uint32
	UserNs, SystemNs    uint64
	WallNs, MaxResident uint64
}

// Failure is the reason why a command did not start.
type Failure struct {
	Kind, Stage, ErrnoName, Message, Path string
	Errno                                 int
}

// Output is the collected output of a command.
type Output struct {
	Kind                     uint32
	Exit                     *Exit
	Failure                  *Failure
	Lost                     string
	Stdout, Stderr           []byte
	StdoutTotal, StderrTotal uint64
	Flags                    uint32
}

// Rlimit is a limit on a resource, given by its Linux number.
type Rlimit struct {
	Resource   uint32
	Soft, Hard uint64
}

// Stream starts a command, with or without a pipe for its input. The first call on an opened
// sandbox may block to connect.
func (s *Sandbox) Stream(o *ExecOptions, pipe bool) (*Exec, *Sink, error) {
	a := newArena(o.size())
	defer a.free()
	options, err := o.lend(a), C.go_error()
	var raw *C.msb_exec
	var input *C.msb_sink
	out := &input
	if !pipe {
		out = nil
	}
	status := C.msb_exec_stream(s.raw, &options, &raw, out, &err)
	runtime.KeepAlive(s)
	if status < 0 {
		return nil, nil, newError(&err)
	}
	exec, sink := newExec(raw, input)
	return exec, sink, nil
}

// Reattach opens a handle on a session. The sink is nil if the session's input is not open.
func (s *Sandbox) Reattach(id string, from int64) (*Exec, *Sink, error) {
	a := newArena(textSize(id))
	defer a.free()
	err := C.go_error()
	var raw *C.msb_exec
	var input *C.msb_sink
	status := C.msb_exec_reattach(s.raw, a.text(id), C.int64_t(from), &raw, &input, &err)
	runtime.KeepAlive(s)
	if status < 0 {
		return nil, nil, newError(&err)
	}
	exec, sink := newExec(raw, input)
	return exec, sink, nil
}

func newExec(raw *C.msb_exec, input *C.msb_sink) (*Exec, *Sink) {
	e := &Exec{raw: raw, ready: newReady(func() (int, error) { return descriptor(unsafe.Pointer(raw)) })}
	C.go_error_init(&e.err)
	// An unreachable handle can only be closed here.
	runtime.SetFinalizer(e, func(e *Exec) { _ = e.Close() })
	if input == nil {
		return e, nil
	}
	return e, newSink(input)
}

// descriptor returns the descriptor of a handle. It is borrowed from the library.
func descriptor(handle unsafe.Pointer) (int, error) {
	var fd C.int32_t
	err := C.go_error()
	if status := C.msb_handle_fd(handle, &fd, &err); status < 0 {
		return 0, newError(&err)
	}
	return int(fd), nil
}

// closeHandle closes a handle of the library once and removes the finalizer of its owner.
func closeHandle(owner any, ready *Ready, raw unsafe.Pointer) error {
	if ready.Close() {
		runtime.SetFinalizer(owner, nil)
		C.msb_handle_close(raw)
	}
	return nil
}

// Close closes the handle and wakes blocked calls. The command keeps running.
func (e *Exec) Close() error {
	return closeHandle(e, e.ready, unsafe.Pointer(e.raw))
}

// Closed reports whether Close was called.
func (e *Exec) Closed() bool { return e.ready.Closed() }

// until calls look until it returns something else than MSB_AGAIN, waiting for the descriptor in
// between. Cancelling loses nothing, because only look consumes data.
func (r *Ready) until(ctx context.Context, look func() C.msb_status) (C.msb_status, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if r.Closed() {
			return 0, errClosed
		}
		if status := look(); status != C.MSB_AGAIN {
			return status, nil
		}
		if err := r.Wait(ctx); err != nil {
			return 0, err
		}
	}
}

// read calls until for the reader and converts a negative status to an error.
func (e *Exec) read(ctx context.Context, look func() C.msb_status) (C.msb_status, error) {
	defer runtime.KeepAlive(e)
	status, err := e.ready.until(ctx, look)
	if err == nil && status < 0 {
		err = newError(&e.err)
	}
	return status, err
}

// Next waits for the next event, which is valid until Release. The caller releases it before the
// next call.
func (e *Exec) Next(ctx context.Context) (*Event, error) {
	_, err := e.read(ctx, func() C.msb_status { return C.go_recv(e.raw, &e.event, &e.err) })
	if err != nil {
		return nil, err
	}
	e.last = borrow(&e.event)
	return &e.last, nil
}

// Release releases the event of Next, which returns its credit to the command. It may be called
// after Close.
func (e *Exec) Release() {
	C.msb_event_release(&e.event)
	e.last = Event{}
}

// Wait waits until the command ends and discards its output.
func (e *Exec) Wait(ctx context.Context) (*Output, error) {
	_, err := e.read(ctx, func() C.msb_status { return C.go_wait(e.raw, &e.event, &e.err) })
	if err != nil {
		return nil, err
	}
	defer C.msb_event_release(&e.event)
	event := borrow(&e.event)
	o := &Output{Kind: event.Kind, Exit: event.Exit, Failure: event.Failure}
	if event.Kind == LostEvent {
		o.Lost = string(event.Data)
	}
	return o, nil
}

// Collect waits until the command and its output end.
func (e *Exec) Collect(ctx context.Context) (*Output, error) {
	raw := C.go_output()
	_, err := e.read(ctx, func() C.msb_status { return C.msb_exec_collect(e.raw, 0, &raw, &e.err) })
	if err != nil {
		return nil, err
	}
	defer C.msb_output_release(&raw)
	return &Output{
		Kind:        uint32(raw.kind),
		Exit:        exit(raw.exit),
		Failure:     failure(raw.failure),
		Lost:        string(view(raw.lost, raw.lost_len)),
		Stdout:      append([]byte(nil), view(raw.stdout_data, raw.stdout_len)...),
		Stderr:      append([]byte(nil), view(raw.stderr_data, raw.stderr_len)...),
		StdoutTotal: uint64(raw.stdout_total),
		StderrTotal: uint64(raw.stderr_total),
		Flags:       uint32(raw.flags),
	}, nil
}

// view returns a slice of C memory.
func view(data *C.uint8_t, length C.size_t) []byte {
	return unsafe.Slice((*byte)(data), int(length))
}

// borrow returns an event whose Data is C memory.
func borrow(raw *C.msb_event) Event {
	return Event{
		Kind:    uint32(raw.kind),
		Value:   int64(raw.value),
		Data:    view(raw.data, raw.len),
		Exit:    exit(raw.exit),
		Failure: failure(raw.failure),
		Flags:   uint32(raw.flags),
	}
}

func exit(raw *C.msb_exec_exit) *Exit {
	if raw == nil {
		return nil
	}
	return &Exit{
		Code:        int(raw.code),
		Signal:      int(raw.signal),
		Flags:       uint32(raw.flags),
		UserNs:      uint64(raw.user_ns),
		SystemNs:    uint64(raw.system_ns),
		WallNs:      uint64(raw.wall_ns),
		MaxResident: uint64(raw.max_rss),
	}
}

func failure(raw *C.msb_exec_failure) *Failure {
	if raw == nil {
		return nil
	}
	return &Failure{
		Kind:      C.GoString(raw.kind_name),
		Stage:     C.GoString(raw.stage),
		ErrnoName: C.GoString(raw.os_error_name),
		Message:   C.GoString(raw.message),
		Path:      C.GoString(raw.path),
		Errno:     int(raw.os_error),
	}
}

// ID returns the session id.
func (e *Exec) ID() (string, error) {
	var id [C.MSB_SESSION_ID_LEN]C.char
	err := C.go_error()
	status := C.msb_exec_id(e.raw, &id[0], &err)
	runtime.KeepAlive(e)
	return C.GoString(&id[0]), check(status, &err)
}

// Position returns the position in the output, and how many requested bytes are no longer buffered.
func (e *Exec) Position() (position, missed uint64, failed error) {
	var at, gone C.uint64_t
	err := C.go_error()
	status := C.msb_exec_position(e.raw, &at, &gone, &err)
	runtime.KeepAlive(e)
	return uint64(at), uint64(gone), check(status, &err)
}

// Signal sends a signal to the command's process group or process tree, and waits for the reply.
func (e *Exec) Signal(number int, tree bool) error {
	flags, err := C.uint32_t(C.MSB_SIGNAL_GROUP), C.go_error()
	if tree {
		flags = C.MSB_SIGNAL_TREE
	}
	status := C.msb_exec_signal(e.raw, C.int32_t(number), flags, &err)
	runtime.KeepAlive(e)
	return check(status, &err)
}

// Resize changes the size of the terminal, and waits for the reply.
func (e *Exec) Resize(rows, cols uint16) error {
	err := C.go_error()
	status := C.msb_exec_resize(e.raw, C.uint16_t(rows), C.uint16_t(cols), &err)
	runtime.KeepAlive(e)
	return check(status, &err)
}
