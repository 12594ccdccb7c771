package microsandbox

import (
	"context"
	"io"
	"sync"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// pipeSize is how many bytes one pipe holds for its reader. When it is full, the command has to wait.
const pipeSize = 256 << 10

// StdoutPipe gives standard output as a reader, which ends with the output. As with os/exec, ask for
// the pipes before reading one; an output without a pipe is thrown away; and a command stands still
// while one of its pipes is full, so two of them are read by two goroutines. Wait gives the exit code
// afterwards. From now on Recv and Collect are refused with ErrBusy.
//
// The reader fails where the command could not be started (ErrExecFailed) or was lost
// (ErrStreamLost). Closing it throws away what is left.
func (h *ExecHandle) StdoutPipe() (io.ReadCloser, error) { return h.pipe(0) }

// StderrPipe is StdoutPipe for standard error.
func (h *ExecHandle) StderrPipe() (io.ReadCloser, error) { return h.pipe(1) }

func (h *ExecHandle) pipe(stream int) (io.ReadCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pipes == nil {
		if err := h.read(); err != nil {
			return nil, err
		}
		// For good: nobody else is to read this handle.
		h.pipes = &pipes{handle: h, exited: make(chan struct{})}
	}
	return h.pipes.add(stream)
}

// pipes hands out a command's output to readers of their own.
type pipes struct {
	handle *ExecHandle

	mu      sync.Mutex
	begun   bool
	readers [2]*pipeReader
	exited  chan struct{} // closed when the command has ended, or will not be heard of
	code    int           // before that
	failed  error
}

func (p *pipes) add(stream int) (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun || p.readers[stream] != nil {
		return nil, invalid("the pipe was asked for before, or after the other one was read")
	}
	r := &pipeReader{pipes: p}
	r.changed.L = &r.mu
	p.readers[stream] = r
	return r, nil
}

// begin starts the goroutine that fills the pipes.
func (p *pipes) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun {
		p.begun = true
		go p.fill()
	}
}

func (p *pipes) fill() {
	end, told := io.EOF, false
	tell := func(code int, err error) {
		if !told {
			told, p.code, p.failed = true, code, err
			close(p.exited)
		}
	}
	for {
		raw, err := p.handle.raw.Next(context.Background())
		if err != nil {
			err = wrap(err)
			tell(-1, err)
			p.end(err)
			return
		}
		kind := raw.Kind
		switch kind {
		case ffi.Stdout:
			p.readers[0].put(raw.Data)
		case ffi.Stderr:
			p.readers[1].put(raw.Data)
		case ffi.Exited, ffi.Failed, ffi.LostEvent:
			out, err := p.handle.outputOf(ending(raw))
			if tell(out.ExitCode(), err); kind != ffi.Exited {
				end = err
			}
		}
		p.handle.raw.Release()
		if kind == ffi.End {
			p.end(end)
			return
		}
	}
}

// ending is what an event tells of a command's end.
func ending(raw *ffi.Event) *ffi.Output {
	o := &ffi.Output{Kind: raw.Kind, Exit: raw.Exit, Failure: raw.Failure}
	if raw.Kind == ffi.LostEvent {
		o.Lost = string(raw.Data)
	}
	return o
}

func (p *pipes) end(err error) {
	for _, r := range p.readers {
		if r != nil {
			r.fail(err)
		}
	}
}

// abort wakes who reads and who fills.
func (p *pipes) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(&Error{Kind: ErrClosed, Message: "the handle is closed"})
}

func (p *pipes) wait(ctx context.Context) (int, error) {
	p.begin()
	select {
	case <-p.exited:
		return p.code, p.failed
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

// pipeReader is one of the pipes.
type pipeReader struct {
	pipes *pipes

	mu      sync.Mutex
	changed sync.Cond
	data    []byte
	at      int   // how much of data was read
	err     error // when there is no more
	closed  bool
}

// put waits for room. What nobody will read is thrown away.
func (r *pipeReader) put(data []byte) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.data)-r.at >= pipeSize && r.err == nil && !r.closed {
		r.changed.Wait()
	}
	if r.err != nil || r.closed {
		return
	}
	if r.at > 0 && len(r.data)+len(data) > cap(r.data) {
		r.data, r.at = r.data[:copy(r.data, r.data[r.at:])], 0
	}
	r.data = append(r.data, data...)
	r.changed.Broadcast()
}

func (r *pipeReader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	r.changed.Broadcast()
}

func (r *pipeReader) Read(to []byte) (int, error) {
	r.pipes.begin()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.at == len(r.data) && r.err == nil && !r.closed && len(to) > 0 {
		r.changed.Wait()
	}
	switch {
	case r.closed:
		return 0, &Error{Kind: ErrClosed, Message: "the pipe is closed"}
	case r.at < len(r.data):
		n := copy(to, r.data[r.at:])
		if r.at += n; r.at == len(r.data) {
			r.data, r.at = r.data[:0], 0
		}
		r.changed.Broadcast()
		return n, nil
	case len(to) == 0:
		return 0, nil
	}
	return 0, r.err
}

func (r *pipeReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.data, r.at = true, nil, 0
	r.changed.Broadcast()
	return nil
}
