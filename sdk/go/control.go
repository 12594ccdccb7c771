package microsandbox

import (
	"context"
	"syscall"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// Control returns an ExecControl, which acts on the command without reading its events. Its calls
// fail once the handle is closed.
func (h *ExecHandle) Control() *ExecControl { return &ExecControl{h.raw} }

// ExecControl acts on a command while another goroutine reads its handle. Its calls never wait for
// the reader.
type ExecControl struct{ raw *ffi.Exec }

// ID returns the session id; see ExecHandle.ID.
func (c *ExecControl) ID() (string, error) {
	id, err := c.raw.ID()
	return id, wrap(err)
}

// Kill sends SIGKILL; see ExecHandle.Kill.
func (c *ExecControl) Kill(ctx context.Context) error {
	return do(ctx, func() error { return c.raw.Signal(int(syscall.SIGKILL), true) })
}

// Signal sends a signal; see ExecHandle.Signal.
func (c *ExecControl) Signal(ctx context.Context, signal int) error {
	return do(ctx, func() error { return c.raw.Signal(signal, false) })
}

// Resize changes the terminal size; see ExecHandle.Resize.
func (c *ExecControl) Resize(ctx context.Context, rows, cols uint16) error {
	if rows == 0 || cols == 0 {
		return invalid("a terminal needs at least one row and one column")
	}
	return do(ctx, func() error { return c.raw.Resize(rows, cols) })
}
