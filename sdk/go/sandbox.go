package microsandbox

import (
	"context"
	"math"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// Sandbox is a handle on a sandbox. It is safe for concurrent use. Closing it does not end the
// sandbox: Stop, Kill, its options, or the exit of the process that created it do, the last unless
// it is detached.
type Sandbox struct {
	raw  *ffi.Sandbox
	name string
}

// CreateSandbox creates a sandbox and starts it. WithImage is required. Names are 1 to 128 letters,
// digits, '.', '_' and '-', beginning with a letter or digit.
//
// If ctx is done first, CreateSandbox returns at once. During the image pull this cancels creation;
// after the pull creation continues, and GetSandbox finds the sandbox.
func CreateSandbox(ctx context.Context, name string, opts ...SandboxOption) (*Sandbox, error) {
	config := newSandboxConfig(opts)
	options, err := config.raw(name)
	if err != nil {
		return nil, err
	}
	create := func() (*ffi.Sandbox, error) { return ffi.CreateSandbox(options) }
	return ready(ctx, name, create, config.progress)
}

// GetSandbox finds a sandbox by its name, running or not, created by any process.
func GetSandbox(ctx context.Context, name string) (*Sandbox, error) {
	return open(ctx, name, false)
}

// StartSandbox starts a stopped sandbox with its existing files.
func StartSandbox(ctx context.Context, name string) (*Sandbox, error) {
	return open(ctx, name, true)
}

func open(ctx context.Context, name string, start bool) (*Sandbox, error) {
	if err := validName(name); err != nil {
		return nil, err
	}
	return ready(ctx, name, func() (*ffi.Sandbox, error) { return ffi.OpenSandbox(name, start) }, nil)
}

// ready begins an operation and waits for it in Go's poller. report may be nil.
func ready(
	ctx context.Context, name string, begin func() (*ffi.Sandbox, error), report func(ffi.Progress),
) (*Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw, err := begin()
	if err != nil {
		return nil, wrap(err)
	}
	done := false
	defer func() {
		if !done { // report may have panicked
			_ = raw.Close()
		}
	}()
	if err := raw.WaitReady(ctx, report); err != nil {
		return nil, wrap(err)
	}
	done = true
	return &Sandbox{raw: raw, name: name}, nil
}

// RemoveOption configures RemoveSandbox and RemoveImage.
type RemoveOption func(*removeConfig)

type removeConfig struct{ force bool }

// WithForce kills a running sandbox before removing it.
func WithForce() RemoveOption { return func(c *removeConfig) { c.force = true } }

// RemoveSandbox removes a sandbox and its files. A running sandbox is an error of kind
// ErrSandboxRunning unless WithForce is given.
func RemoveSandbox(ctx context.Context, name string, opts ...RemoveOption) error {
	if err := validName(name); err != nil {
		return err
	}
	var config removeConfig
	for _, option := range opts {
		option(&config)
	}
	return do(ctx, func() error { return ffi.RemoveSandbox(name, config.force) })
}

// Name returns the name of the sandbox.
func (s *Sandbox) Name() string { return s.name }

// stopTime is the default grace period of Stop.
const stopTime = 10 * time.Second

// Stop stops the sandbox: it signals the commands to exit, kills them after ten seconds, and ends
// the sandbox. Cancelling the call does not undo it.
func (s *Sandbox) Stop(ctx context.Context) error { return s.StopWithTimeout(ctx, stopTime) }

// StopWithTimeout is Stop with another grace period; 0 kills the commands at once.
func (s *Sandbox) StopWithTimeout(ctx context.Context, grace time.Duration) error {
	if grace < 0 {
		return invalid("the grace period is negative")
	}
	ms := wholeMillis(grace)
	if ms > math.MaxUint32 {
		ms = math.MaxUint32
	}
	return do(ctx, func() error { return s.raw.Stop(uint32(ms)) })
}

// Kill kills the sandbox and everything in it. Cancelling the call does not undo it.
func (s *Sandbox) Kill(ctx context.Context) error { return do(ctx, s.raw.Kill) }

// WaitUntilStopped waits until the sandbox has ended: stopped, killed, or by its options. An
// unexpected end is an error of kind ErrSandboxCrashed.
func (s *Sandbox) WaitUntilStopped(ctx context.Context) error { return wrap(s.raw.Wait(ctx)) }

// Close closes the handle and wakes blocked calls. The sandbox and its commands keep running, and
// handles on them stay valid. Closing again is a no-op.
func (s *Sandbox) Close() error { return wrap(s.raw.Close()) }

// Detach closes the handle of a sandbox that outlives this process. A sandbox that was created
// without WithDetached ends with the process that created it, which cannot be changed: that is an
// error of kind ErrUnsupported, and the handle stays open.
func (s *Sandbox) Detach(ctx context.Context) error {
	info, err := s.Info(ctx)
	if err != nil {
		return err
	}
	if !info.Detached {
		return &Error{Kind: ErrUnsupported,
			Message: "cannot detach the sandbox: it ends with the process that created it; create it WithDetached"}
	}
	return s.Close()
}

// wholeMillis rounds up, so that a positive duration does not become 0.
func wholeMillis(d time.Duration) uint64 {
	if d > math.MaxInt64-time.Millisecond {
		return uint64(d / time.Millisecond)
	}
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}
