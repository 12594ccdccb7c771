package microsandbox

import (
	"context"
	"io"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// ExecSink is the writing end of a command's input, taken by ExecHandle.TakeStdin. It and the handle
// have lives of their own. Several goroutines may write: a write is not mixed with another.
type ExecSink struct{ raw *ffi.Sink }

var _ io.WriteCloser = (*ExecSink)(nil)

// Write writes all of p, and waits while the command does not read. An empty one does nothing.
// Closing the sink, or the end of the command, ends the wait. When the command does not read any more
// the error is of kind ErrBrokenPipe, and errors.Is finds syscall.EPIPE.
func (sk *ExecSink) Write(p []byte) (int, error) {
	return sk.WriteCtx(context.Background(), p)
}

// WriteCtx is Write that can be given up. It tells how much was written until then, which stays
// written.
func (sk *ExecSink) WriteCtx(ctx context.Context, p []byte) (int, error) {
	n, err := sk.raw.Write(ctx, p)
	return n, wrap(err)
}

// Close ends the input: the command reads end-of-file, or on a terminal the key that means it.
// Closing again does nothing.
func (sk *ExecSink) Close() error { return wrap(sk.raw.Close()) }
