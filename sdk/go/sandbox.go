package microsandbox

import (
	"context"
	"math"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// Sandbox is a handle on a sandbox. It is safe for use by several goroutines. Closing it ends
// nothing inside: a sandbox is ended by Stop or Kill, by its options, or with the process that
// created it unless it is detached.
type Sandbox struct {
	raw  *ffi.Sandbox
	name string
}

// CreateSandbox creates a sandbox and starts it. WithImage is needed. Names are 1 to 128 letters,
// digits, '.', '_' and '-', beginning with a letter or digit.
//
// When ctx ends first, CreateSandbox returns at once. While the image is got, that ends too, and there
// is no sandbox; what has begun later is not undone: the sandbox is found by its name.
func CreateSandbox(ctx context.Context, name string, opts ...SandboxOption) (*Sandbox, error) {
	config := newSandboxConfig(opts)
	options, err := config.raw(name)
	if err != nil {
		return nil, err
	}
	create := func() (*ffi.Sandbox, error) { return ffi.CreateSandbox(options) }
	return ready(ctx, name, create, config.told)
}

// GetSandbox finds a sandbox by its name, running or not, whoever created it.
func GetSandbox(ctx context.Context, name string) (*Sandbox, error) {
	return open(ctx, name, false)
}

// StartSandbox starts a sandbox that is not running, with the files it was left with.
func StartSandbox(ctx context.Context, name string) (*Sandbox, error) {
	return open(ctx, name, true)
}

func open(ctx context.Context, name string, start bool) (*Sandbox, error) {
	if err := validName(name); err != nil {
		return nil, err
	}
	return ready(ctx, name, func() (*ffi.Sandbox, error) { return ffi.OpenSandbox(name, start) }, nil)
}

// ready begins and waits, in Go's poller. told may be nil.
func ready(
	ctx context.Context, name string, begin func() (*ffi.Sandbox, error), told func(ffi.Progress),
) (*Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw, err := begin()
	if err != nil {
		return nil, wrap(err)
	}
	there := false
	defer func() {
		if !there { // told may have panicked
			_ = raw.Close()
		}
	}()
	if err := raw.WaitReady(ctx, told); err != nil {
		return nil, wrap(err)
	}
	there = true
	return &Sandbox{raw: raw, name: name}, nil
}

// RemoveOption changes what RemoveSandbox does.
type RemoveOption func(*removeConfig)

type removeConfig struct{ force bool }

// WithForce kills a sandbox that is running before it is removed.
func WithForce() RemoveOption { return func(c *removeConfig) { c.force = true } }

// RemoveSandbox removes a sandbox that is not running, and its files. One that is running is an
// error of kind ErrSandboxRunning, unless WithForce is given.
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

// Name gives its name.
func (s *Sandbox) Name() string { return s.name }

// stopTime is how long commands have to end by themselves.
const stopTime = 10 * time.Second

// Stop ends the sandbox in order: its commands are asked to end, killed after ten seconds, and then
// it is gone with all that ran in it. Giving up the call does not undo it.
func (s *Sandbox) Stop(ctx context.Context) error { return s.StopWithTimeout(ctx, stopTime) }

// StopWithTimeout is Stop with another time; 0 kills at once what runs.
func (s *Sandbox) StopWithTimeout(ctx context.Context, grace time.Duration) error {
	if grace < 0 {
		return invalid("the time to stop is negative")
	}
	ms := wholeMillis(grace)
	if ms > math.MaxUint32 {
		ms = math.MaxUint32
	}
	return do(ctx, func() error { return s.raw.Stop(uint32(ms)) })
}

// Kill ends the sandbox at once. Giving up the call does not undo it.
func (s *Sandbox) Kill(ctx context.Context) error { return do(ctx, s.raw.Kill) }

// WaitUntilStopped waits until the sandbox has ended: stopped, killed, or as its options said. That
// it ended by itself is an error of kind ErrSandboxCrashed.
func (s *Sandbox) WaitUntilStopped(ctx context.Context) error { return wrap(s.raw.Wait(ctx)) }

// Close closes the handle and wakes who waits on it. The sandbox runs on, and so do the commands
// and their handles. Closing again does nothing.
func (s *Sandbox) Close() error { return wrap(s.raw.Close()) }

// Detach closes the handle of a sandbox that outlives this process. One that was not created with
// WithDetached ends with the process that created it, and cannot be changed afterwards: that is an
// error of kind ErrUnsupported, and the handle stays open.
func (s *Sandbox) Detach(ctx context.Context) error {
	info, err := s.Info(ctx)
	if err != nil {
		return err
	}
	if !info.Detached {
		return &Error{Kind: ErrUnsupported,
			Message: "the sandbox ends with the process that created it; create it WithDetached"}
	}
	return s.Close()
}

// wholeMillis rounds up, so that no time becomes none.
func wholeMillis(d time.Duration) uint64 {
	if d > math.MaxInt64-time.Millisecond {
		return uint64(d / time.Millisecond)
	}
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}
