package ffi

import (
	"context"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Ready waits in Go's poller until the descriptor of a handle is readable.
//
// One goroutine per handle polls on behalf of all waiters, so that a wait can be cancelled without
// side effects and holds no thread. It polls a duplicate of the descriptor, because an os.File
// closes its own; the first wait makes the duplicate.
type Ready struct {
	descriptor func() (int, error)

	mu     sync.Mutex
	file   *os.File
	conn   syscall.RawConn
	poll   *poll         // not nil while a goroutine polls
	closed chan struct{} // closed by Close
	done   bool
}

// poll is one wait in the poller, shared by all waiters.
type poll struct {
	done chan struct{}
	err  error // set before done is closed
}

func newReady(descriptor func() (int, error)) *Ready {
	return &Ready{descriptor: descriptor, closed: make(chan struct{})}
}

// Wait waits until the descriptor is readable, perhaps spuriously. The caller has found nothing to
// read before. When ctx is done it returns the context's error at once.
func (r *Ready) Wait(ctx context.Context) error {
	p, err := r.join()
	if err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	case <-r.closed:
		return errClosed
	}
}

// join returns the current poll, or starts one.
func (r *Ready) join() (*poll, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return nil, errClosed
	}
	if r.poll != nil {
		return r.poll, nil
	}
	if r.file == nil {
		if err := r.open(); err != nil {
			return nil, err
		}
	}
	p := &poll{done: make(chan struct{})}
	r.poll = p
	go func() {
		// A wakeup only means that the state has changed since, so query the descriptor each time,
		// also before the first sleep.
		err := r.conn.Read(readable)
		r.mu.Lock()
		if r.poll = nil; err != nil && !r.done {
			p.err = systemError("wait for a descriptor", err)
		} else if r.done {
			p.err = errClosed
		}
		r.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

func (r *Ready) open() error {
	borrowed, err := r.descriptor()
	if err != nil {
		return err
	}
	// Duplicate with close-on-exec in one step, so that no concurrent fork inherits it.
	own, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(borrowed), syscall.F_DUPFD_CLOEXEC, 3)
	if errno != 0 {
		return systemError("duplicate a descriptor", errno)
	}
	// Must precede os.NewFile, which polls only non-blocking descriptors.
	if err := syscall.SetNonblock(int(own), true); err != nil {
		_ = syscall.Close(int(own))
		return systemError("set a descriptor to non-blocking", err)
	}
	r.file = os.NewFile(own, "microsandbox")
	if r.conn, err = r.file.SyscallConn(); err != nil {
		return systemError("poll a descriptor", err)
	}
	return nil
}

// Close wakes all waiters and removes the descriptor from the poller. It reports whether it was the
// first call.
func (r *Ready) Close() bool {
	r.mu.Lock()
	first := !r.done
	r.done = true
	file := r.file
	r.mu.Unlock()
	if !first {
		return false
	}
	close(r.closed)
	if file != nil {
		// Waits until the poller has released it.
		_ = file.Close()
	}
	return true
}

// Closed reports whether Close was called.
func (r *Ready) Closed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

// readable reports whether a descriptor is readable now.
func readable(fd uintptr) bool {
	const pollIn = 1
	asked := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: pollIn}
	var none syscall.Timespec
	n, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&asked)), 1,
		uintptr(unsafe.Pointer(&none)), 0, 0, 0)
	return errno == 0 && n > 0
}
