package microsandbox

import (
	"context"
	"io"
	"sync"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// pipeSize is how many bytes one pipe buffers for its reader. A full pipe blocks the command.
const pipeSize = 256 << 10

// StdoutPipe returns a reader of standard output, which ends with the output. As with os/exec,
// request the pipes before reading one. Output without a pipe is discarded. A command blocks while
// one of its pipes is full, so read two pipes from two goroutines. Wait returns the exit code
// afterwards. From now on Recv and Collect fail with ErrBusy.
//
// The reader fails if the command did not start (ErrExecFailed) or was lost (ErrStreamLost).
// Closing it discards the rest.
func (h *ExecHandle) StdoutPipe() (io.ReadCloser, error) { return h.pipe(0) }

// StderrPipe returns a reader of standard error; see StdoutPipe.
func (h *ExecHandle) StderrPipe() (io.ReadCloser, error) { return h.pipe(1) }

func (h *ExecHandle) pipe(stream int) (io.ReadCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pipes == nil {
		if err := h.read(); err != nil {
			return nil, err
		}
		// The lock is never released: the pipes are the handle's only reader.
		h.pipes = &pipes{handle: h, exited: make(chan struct{})}
	}
	return h.pipes.add(stream)
}

// pipes distributes a command's output to one reader per stream.
type pipes struct {
	handle *ExecHandle

	mu      sync.Mutex
	begun   bool
	readers [2]*pipeReader
	exited  chan struct{} // closed when the command has ended or is lost
	code    int           // set before exited is closed
	failed  error
}

func (p *pipes) add(stream int) (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun || p.readers[stream] != nil {
		return nil, invalid("cannot open the pipe: it was opened before, or the other pipe was read")
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
	end, reported := io.EOF, false
	report := func(code int, err error) {
		if !reported {
			reported, p.code, p.failed = true, code, err
			close(p.exited)
		}
	}
	for {
		raw, err := p.handle.raw.Next(context.Background())
		if err != nil {
			err = wrap(err)
			report(-1, err)
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
			out, err := p.handle.outputOf(exitOutput(raw))
			if report(out.ExitCode(), err); kind != ffi.Exited {
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

// exitOutput converts the last event of a command to an output without data.
func exitOutput(raw *ffi.Event) *ffi.Output {
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

// abort wakes the readers and fill.
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

// pipeReader is the reading end of one pipe.
type pipeReader struct {
	pipes *pipes

	mu      sync.Mutex
	changed sync.Cond
	data    []byte
	at      int   // bytes of data already read
	err     error // set at the end
	closed  bool
}

// put appends data, waiting for room. It discards data without a reader.
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
