package microsandbox

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// ExecHandle streams one command. It is safe for concurrent use; it has one reader at a time.
//
// The caller closes it. Closing leaves the command running.
type ExecHandle struct {
	raw    *ffi.Exec
	config *ExecConfig

	// Held by the reader; pipes hold it for good.
	reading sync.Mutex
	kept    [2]collected // output collected while the other stream has a writer
	exit    atomic.Pointer[ExecExit]
	ended   atomic.Bool // the exit is known, or known to be lost

	mu    sync.Mutex
	stdin *ExecSink // until TakeStdin
	pipes *pipes
}

// collected is the output so far when the SDK collects it instead of the library.
type collected struct {
	data  []byte
	total uint64
}

func newExecHandle(made startedExec, config *ExecConfig) *ExecHandle {
	h := &ExecHandle{raw: made.exec, config: config}
	if made.sink != nil {
		h.stdin = &ExecSink{made.sink}
	}
	return h
}

// ID returns the session id: 32 hexadecimal digits, never reused. It is the same in every language,
// in logs and in msb.
func (h *ExecHandle) ID() (string, error) {
	id, err := h.raw.ID()
	return id, wrap(err)
}

// TakeStdin returns the writing end of the input, once: nil if there is none or it was taken
// before. It is independent of the handle; the caller closes it, which ends the input. If it is not
// taken, closing the handle closes it.
func (h *ExecHandle) TakeStdin() *ExecSink {
	h.mu.Lock()
	defer h.mu.Unlock()
	sink := h.stdin
	h.stdin = nil
	return sink
}

// read acquires the reader's lock without waiting.
func (h *ExecHandle) read() error {
	switch {
	case h.reading.TryLock():
		return nil
	case h.raw.Closed():
		return &Error{Kind: ErrClosed, Message: "the handle is closed"}
	}
	return &Error{Kind: ErrBusy, Message: "another goroutine or a pipe reads this handle"}
}

// Recv waits for the next event. At the end every call returns ExecEventDone. Cancelling loses no
// event: the next call returns it.
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

// Collect waits for the exit of the command and the end of its output, and returns the output that
// was not received before. The output of a cancelled call is kept for the next one.
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
			*kept = collected{}
		}
	}
	return h.outputOf(raw)
}

// Wait waits until the command exits and returns its exit code; -1 if a signal killed it. Output
// until then goes to the writers of WithStdout and WithStderr, else it is discarded. It can be
// called again. With StdoutPipe or StderrPipe no piped output is discarded: the caller must read
// the pipes.
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

// Exit returns the exit status and resource usage once Recv, Wait or Collect has reported the exit;
// nil before, and if the command did not start or was lost.
func (h *ExecHandle) Exit() *ExecExit { return h.exit.Load() }

// drain writes output to the writers until the command exits or its output ends. Output without a
// writer is kept for Collect and discarded for Wait.
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

// outputOf converts the end of the command to a result or an error.
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
		message := "the command timed out and was killed"
		if h.config.Timeout > 0 {
			message = "the command timed out after " + wholeSeconds(h.config.Timeout).String() +
				" and was killed"
		}
		return nil, &Error{Kind: ErrExecTimeout, Message: message, Output: out}
	case h.config.WaitForEOF && raw.Flags&ffi.Cut != 0:
		message := "connection to the sandbox lost before the end of the output"
		return nil, &Error{Kind: ErrStreamLost, Message: message, Output: out}
	}
	return out, nil
}

// Position returns this handle's position in the output: the offset after the last byte that it
// delivered, collected or discarded, counting both streams together. Sandbox.Reattach can continue
// there. missed is the number of bytes that were requested of Reattach and are no longer buffered.
func (h *ExecHandle) Position() (position ReattachFrom, missed uint64, err error) {
	at, missed, err := h.raw.Position()
	return ReattachFrom(at), missed, wrap(err)
}

// Kill sends SIGKILL to the command's process tree. If the command has already ended, errors.Is
// matches the error with os.ErrProcessDone.
func (h *ExecHandle) Kill(ctx context.Context) error { return h.Control().Kill(ctx) }

// Signal sends a signal to the command's process group. The number is Linux's:
// int(syscall.SIGTERM).
func (h *ExecHandle) Signal(ctx context.Context, signal int) error {
	return h.Control().Signal(ctx, signal)
}

// Resize changes the size of the command's terminal, which sends SIGWINCH.
func (h *ExecHandle) Resize(ctx context.Context, rows, cols uint16) error {
	return h.Control().Resize(ctx, rows, cols)
}

// Close closes the handle and wakes blocked calls. The command keeps running. Closing again is a
// no-op.
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
