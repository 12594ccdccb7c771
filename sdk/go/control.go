package microsandbox

import (
	"context"
	"syscall"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// Control gives the means to act on the command apart from its events. It is of no use any more when
// the handle is closed.
func (h *ExecHandle) Control() *ExecControl { return &ExecControl{h.raw} }

// ExecControl acts on a command while others read its handle. None of its calls waits for a reader.
type ExecControl struct{ raw *ffi.Exec }

// ID is as ExecHandle.ID.
func (c *ExecControl) ID() (string, error) {
	id, err := c.raw.ID()
	return id, wrap(err)
}

// Kill is as ExecHandle.Kill.
func (c *ExecControl) Kill(ctx context.Context) error {
	return do(ctx, func() error { return c.raw.Signal(int(syscall.SIGKILL), true) })
}

// Signal is as ExecHandle.Signal.
func (c *ExecControl) Signal(ctx context.Context, signal int) error {
	return do(ctx, func() error { return c.raw.Signal(signal, false) })
}

// Resize is as ExecHandle.Resize.
func (c *ExecControl) Resize(ctx context.Context, rows, cols uint16) error {
	if rows == 0 || cols == 0 {
		return invalid("a terminal has at least one row and one column")
	}
	return do(ctx, func() error { return c.raw.Resize(rows, cols) })
}
