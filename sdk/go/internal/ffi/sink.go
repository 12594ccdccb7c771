package ffi

// #include "abi.h"
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// Sink is the writing end of a command's input.
type Sink struct {
	raw   *C.msb_sink
	ready *Ready

	// Holds a token while no writer is active: a lock whose wait can be cancelled.
	lock chan struct{}
	err  C.msb_error
}

func newSink(raw *C.msb_sink) *Sink {
	s := &Sink{
		raw:   raw,
		ready: newReady(func() (int, error) { return descriptor(unsafe.Pointer(raw)) }),
		lock:  make(chan struct{}, 1),
	}
	s.lock <- struct{}{}
	C.go_error_init(&s.err)
	runtime.SetFinalizer(s, func(s *Sink) { _ = s.Close() })
	return s
}

// Write writes all of the data. On failure or cancellation it returns how much was written.
func (s *Sink) Write(ctx context.Context, data []byte) (written int, err error) {
	if s.ready.Closed() {
		return 0, errClosed
	}
	if len(data) == 0 {
		return 0, nil
	}
	select {
	case <-s.lock:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.ready.closed:
		return 0, errClosed
	}
	defer func() { s.lock <- struct{}{} }()
	defer runtime.KeepAlive(s)
	for written < len(data) {
		var taken C.size_t
		rest := data[written:]
		status, err := s.ready.until(ctx, func() C.msb_status {
			first := (*C.uint8_t)(unsafe.Pointer(&rest[0]))
			return C.msb_sink_write(s.raw, first, C.size_t(len(rest)), 0, &taken, &s.err)
		})
		if err == nil && status < 0 {
			err = newError(&s.err)
		}
		if err != nil {
			return written, err
		}
		written += int(taken)
	}
	return written, nil
}

// Close ends the input and wakes blocked writers.
func (s *Sink) Close() error {
	return closeHandle(s, s.ready, unsafe.Pointer(s.raw))
}
