package microsandbox

import (
	"context"
	"io"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// ExecSink is the writing end of a command's input, from ExecHandle.TakeStdin. It is independent of
// the handle. It is safe for concurrent use; writes are not interleaved.
type ExecSink struct{ raw *ffi.Sink }

var _ io.WriteCloser = (*ExecSink)(nil)

// Write writes all of p, waiting while the command does not read. An empty write is a no-op.
// Closing the sink or the end of the command ends the wait. If the command no longer reads, the
// error is of kind ErrBrokenPipe, and errors.Is finds syscall.EPIPE.
func (sk *ExecSink) Write(p []byte) (int, error) {
	return sk.WriteCtx(context.Background(), p)
}

// WriteCtx is Write with cancellation. It returns how many bytes were written until then; they stay
// written.
func (sk *ExecSink) WriteCtx(ctx context.Context, p []byte) (int, error) {
	n, err := sk.raw.Write(ctx, p)
	return n, wrap(err)
}

// Close ends the input: the command reads end-of-file, or on a terminal the end-of-file key.
// Closing again is a no-op.
func (sk *ExecSink) Close() error { return wrap(sk.raw.Close()) }
