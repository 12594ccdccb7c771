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
// One goroutine per handle sits in the poller, on behalf of all that wait: so a wait can be given up
// without a trace, and no thread is held. Its descriptor is a duplicate, since an os.File closes
// what it has, and it is made when somebody has to wait for the first time.
type Ready struct {
	descriptor func() (int, error)

	mu     sync.Mutex
	file   *os.File
	conn   syscall.RawConn
	turn   *turn         // not nil while a goroutine polls
	closed chan struct{} // closed by Close
	done   bool
}

// turn is one time that a goroutine polls.
type turn struct {
	over chan struct{}
	err  error // set before over is closed
}

func newReady(descriptor func() (int, error)) *Ready {
	return &Ready{descriptor: descriptor, closed: make(chan struct{})}
}

// Wait returns when the descriptor is readable, perhaps for nothing. The caller has looked before
// and found nothing. With ctx over it returns the context's error at once.
func (r *Ready) Wait(ctx context.Context) error {
	t, err := r.poll()
	if err != nil {
		return err
	}
	select {
	case <-t.over:
		return t.err
	case <-ctx.Done():
		return ctx.Err()
	case <-r.closed:
		return errClosed
	}
}

// poll gives the turn that is under way, or begins one.
func (r *Ready) poll() (*turn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return nil, errClosed
	}
	if r.turn != nil {
		return r.turn, nil
	}
	if r.file == nil {
		if err := r.open(); err != nil {
			return nil, err
		}
	}
	t := &turn{over: make(chan struct{})}
	r.turn = t
	go func() {
		// Waking up says only that something has changed since; so each time the descriptor is
		// asked itself, also before the first sleep.
		err := r.conn.Read(readable)
		r.mu.Lock()
		if r.turn = nil; err != nil && !r.done {
			t.err = systemError("wait for a descriptor", err)
		} else if r.done {
			t.err = errClosed
		}
		r.mu.Unlock()
		close(t.over)
	}()
	return t, nil
}

func (r *Ready) open() error {
	theirs, err := r.descriptor()
	if err != nil {
		return err
	}
	// Duplicated and closed on exec in one step, so that no program started meanwhile inherits it.
	own, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(theirs), syscall.F_DUPFD_CLOEXEC, 3)
	if errno != 0 {
		return systemError("duplicate a descriptor", errno)
	}
	// Before there is a file of it: os.NewFile polls only what does not block.
	if err := syscall.SetNonblock(int(own), true); err != nil {
		_ = syscall.Close(int(own))
		return systemError("make a descriptor not block", err)
	}
	r.file = os.NewFile(own, "microsandbox")
	if r.conn, err = r.file.SyscallConn(); err != nil {
		return systemError("poll a descriptor", err)
	}
	return nil
}

// Close wakes all that wait, and takes the descriptor out of the poller. It reports whether it was
// the first to do so.
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
		// Waits until the poller has let go of it.
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

// readable asks the kernel whether a descriptor is readable now.
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
