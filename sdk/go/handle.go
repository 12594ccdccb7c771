package microsandbox

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// ExecHandle follows one command. It is safe for use by several goroutines; one at a time reads it.
//
// It has to be closed when it is not needed any more. Closing leaves the command running.
type ExecHandle struct {
	raw    *ffi.Exec
	config *ExecConfig

	// Held by who reads, and by pipes for good.
	reading sync.Mutex
	kept    [2]gathered // by Collect with a writer for one of the outputs
	exit    atomic.Pointer[ExecExit]
	ended   atomic.Bool // how it ended is known, or that it never will be

	mu    sync.Mutex
	stdin *ExecSink // until it is taken
	pipes *pipes
}

// gathered is what was collected so far, when the library does not do it.
type gathered struct {
	data  []byte
	total uint64
}

func newExecHandle(made started, config *ExecConfig) *ExecHandle {
	h := &ExecHandle{raw: made.exec, config: config}
	if made.sink != nil {
		h.stdin = &ExecSink{made.sink}
	}
	return h
}

// ID gives the session's id: 32 hexadecimal digits, never used again. It is the same in every
// language, in logs and in msb.
func (h *ExecHandle) ID() (string, error) {
	id, err := h.raw.ID()
	return id, wrap(err)
}

// TakeStdin gives the writing end of the input, once: nil if there is none or it was taken before.
// It has a life of its own and is to be closed; closing it ends the input. If it is not taken, closing
// the handle closes it.
func (h *ExecHandle) TakeStdin() *ExecSink {
	h.mu.Lock()
	defer h.mu.Unlock()
	sink := h.stdin
	h.stdin = nil
	return sink
}

// read begins to read, which one does at a time.
func (h *ExecHandle) read() error {
	switch {
	case h.reading.TryLock():
		return nil
	case h.raw.Closed():
		return &Error{Kind: ErrClosed, Message: "the handle is closed"}
	}
	return &Error{Kind: ErrBusy, Message: "another goroutine reads this handle, or its pipes do"}
}

// Recv waits for the next event. At the end it gives ExecEventDone, again and again. Giving up loses
// nothing: the next call gets the event.
func (h *ExecHandle) Recv(ctx context.Context) (*ExecEvent, error) {
	if err := h.read(); err != nil {
		return nil, err
	}
	defer h.reading.Unlock()
	for {
		raw, err := h.raw.Next(ctx)
		if err != nil {
			return nil, wrap(err)
		}
		event := newEvent(raw)
		h.raw.Release()
		if event == nil {
			continue
		}
		if event.Exit != nil {
			h.exit.Store(event.Exit)
		}
		return event, nil
	}
}

// Collect waits for the end of the command and of its output, and gives what was not received
// before. What is gathered when it is given up is there for the next call.
func (h *ExecHandle) Collect(ctx context.Context) (*ExecOutput, error) {
	if err := h.read(); err != nil {
		return nil, err
	}
	defer h.reading.Unlock()
	if h.config.Stdout != nil || h.config.Stderr != nil {
		if err := h.drain(ctx, ExecEventDone); err != nil {
			return nil, wrap(err)
		}
	}
	raw, err := h.raw.Collect(ctx)
	if err != nil {
		return nil, wrap(err)
	}
	for i, of := range []struct {
		data  *[]byte
		total *uint64
	}{{&raw.Stdout, &raw.StdoutTotal}, {&raw.Stderr, &raw.StderrTotal}} {
		if kept := &h.kept[i]; kept.total > 0 {
			*of.data, *of.total = kept.data, kept.total
			*kept = gathered{}
		}
	}
	return h.outputOf(raw)
}

// Wait waits until the command has ended and gives its exit code; -1 for a death by signal. Output
// that comes until then goes to the writers of WithStdout and WithStderr, else it is thrown away. It
// can be called again. With StdoutPipe or StderrPipe nothing is thrown away: the pipes have to be
// read.
func (h *ExecHandle) Wait(ctx context.Context) (int, error) {
	h.mu.Lock()
	p := h.pipes
	h.mu.Unlock()
	if p != nil {
		return p.wait(ctx)
	}
	if err := h.read(); err != nil {
		return -1, err
	}
	defer h.reading.Unlock()
	if h.config.Stdout != nil || h.config.Stderr != nil {
		if err := h.drain(ctx, ExecEventExited); err != nil {
			return -1, wrap(err)
		}
	}
	raw, err := h.raw.Wait(ctx)
	if err != nil {
		return -1, wrap(err)
	}
	out, err := h.outputOf(raw)
	return out.ExitCode(), err
}

// Exit tells how the command ended and what it used, once Recv, Wait or Collect has said that it has
// ended; nil before, and if it never ran or was lost.
func (h *ExecHandle) Exit() *ExecExit { return h.exit.Load() }

// drain hands output to the writers until the end of the command or of its output. What has no
// writer is kept for Collect, or thrown away by Wait.
func (h *ExecHandle) drain(ctx context.Context, until ExecEventKind) error {
	for {
		raw, err := h.raw.Next(ctx)
		if err != nil {
			return err
		}
		kind := raw.Kind
		switch kind {
		case ffi.Stdout:
			err = h.put(0, h.config.Stdout, raw.Data, until)
		case ffi.Stderr:
			err = h.put(1, h.config.Stderr, raw.Data, until)
		}
		h.raw.Release()
		if err != nil || kind == ffi.End {
			return err
		}
		if kind == ffi.Exited && until == ExecEventExited {
			return nil
		}
	}
}

func (h *ExecHandle) put(stream int, to io.Writer, data []byte, until ExecEventKind) error {
	if to != nil {
		n, err := to.Write(data)
		if err == nil && n < len(data) {
			err = io.ErrShortWrite
		}
		return err
	}
	if until != ExecEventDone {
		return nil
	}
	kept := &h.kept[stream]
	kept.total += uint64(len(data))
	if most := h.config.MaxOutput; most > 0 {
		if room := int(most) - len(kept.data); len(data) > room {
			data = data[:room]
		}
	}
	kept.data = append(kept.data, data...)
	return nil
}

// outputOf makes a result or an error of how the command ended.
func (h *ExecHandle) outputOf(raw *ffi.Output) (*ExecOutput, error) {
	out := &ExecOutput{
		exit: newExit(raw.Exit), stdout: raw.Stdout, stderr: raw.Stderr,
		stdoutTotal: raw.StdoutTotal, stderrTotal: raw.StderrTotal,
		writerLeft: raw.Flags&ffi.WriterLeft != 0,
	}
	h.ended.Store(true)
	if out.exit != nil {
		h.exit.Store(out.exit)
	}
	if h.config.MaxOutput < 0 {
		out.stdout, out.stderr = nil, nil
	}
	switch {
	case raw.Failure != nil:
		failure := newFailure(raw.Failure)
		return nil, &Error{Kind: ErrExecFailed, Message: failure.Message, Failure: failure,
			Errno: syscall.Errno(raw.Failure.Errno)}
	case out.exit == nil:
		return nil, &Error{Kind: ErrStreamLost, Message: raw.Lost, Output: out}
	case out.exit.TimedOut:
		message := "the command's time was over, and it was killed"
		if h.config.Timeout > 0 {
			message = "the command took longer than " + wholeSeconds(h.config.Timeout).String() +
				", and was killed"
		}
		return nil, &Error{Kind: ErrExecTimeout, Message: message, Output: out}
	case h.config.WaitForEOF && raw.Flags&ffi.Cut != 0:
		message := "the connection to the sandbox was lost before the end of the output"
		return nil, &Error{Kind: ErrStreamLost, Message: message, Output: out}
	}
	return out, nil
}

// Position tells where in the output this handle is: behind the last byte that it has handed out,
// collected or thrown away, of both outputs together. Sandbox.Reattach goes on there. missed is how
// many bytes Reattach was asked for that are no longer kept.
func (h *ExecHandle) Position() (position ReattachFrom, missed uint64, err error) {
	at, missed, err := h.raw.Position()
	return ReattachFrom(at), missed, wrap(err)
}

// Kill sends SIGKILL to everything that the command started. That it has ended already is an error
// which errors.Is finds to be os.ErrProcessDone.
func (h *ExecHandle) Kill(ctx context.Context) error { return h.Control().Kill(ctx) }

// Signal sends a signal to the command and its process group. The number is Linux's:
// int(syscall.SIGTERM).
func (h *ExecHandle) Signal(ctx context.Context, signal int) error {
	return h.Control().Signal(ctx, signal)
}

// Resize changes the size of the command's terminal; it gets SIGWINCH.
func (h *ExecHandle) Resize(ctx context.Context, rows, cols uint16) error {
	return h.Control().Resize(ctx, rows, cols)
}

// Close closes the handle and wakes who waits on it. The command runs on. Closing again does
// nothing.
func (h *ExecHandle) Close() error {
	err := h.raw.Close()
	h.mu.Lock()
	sink, p := h.stdin, h.pipes
	h.stdin = nil
	h.mu.Unlock()
	if p != nil {
		p.abort()
	}
	if sink != nil {
		_ = sink.Close()
	}
	return wrap(err)
}
