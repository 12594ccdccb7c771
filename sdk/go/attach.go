package microsandbox

import (
	"context"
	"strings"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// attachConfig collects AttachOptions.
type attachConfig struct {
	exec ExecConfig
	args []string
	keys string
}

// AttachOption configures an attach. Later options win.
type AttachOption func(*attachConfig)

func forExec(option ExecOption) AttachOption {
	return func(c *attachConfig) { option(&c.exec) }
}

// WithAttachArgs adds arguments of the command.
func WithAttachArgs(args ...string) AttachOption {
	return func(c *attachConfig) { c.args = append(c.args, args...) }
}

// WithAttachEnv sets environment variables, which override the sandbox's. Used again, the maps are
// merged.
func WithAttachEnv(env map[string]string) AttachOption { return forExec(WithExecEnv(env)) }

// WithAttachCwd sets the working directory.
func WithAttachCwd(path string) AttachOption { return forExec(WithExecCwd(path)) }

// WithAttachUser sets the user: a name, uid, name:group or uid:gid of the sandbox.
func WithAttachUser(user string) AttachOption { return forExec(WithExecUser(user)) }

// WithAttachTimeout kills the command and everything it started after this time.
func WithAttachTimeout(d time.Duration) AttachOption { return forExec(WithExecTimeout(d)) }

// WithAttachRlimit sets both limits of a resource to the same value.
func WithAttachRlimit(resource RlimitResource, limit uint64) AttachOption {
	return forExec(WithExecRlimit(resource, limit))
}

// WithAttachRlimitRange sets the soft and the hard limit of a resource.
func WithAttachRlimitRange(resource RlimitResource, soft, hard uint64) AttachOption {
	return forExec(WithExecRlimitRange(resource, soft, hard))
}

// WithDetachKeys sets the keys that detach from the command: characters and names such as ctrl-p,
// separated by commas. The default is ctrl-].
func WithDetachKeys(keys string) AttachOption {
	return func(c *attachConfig) {
		if c.keys = keys; keys == "" || strings.IndexByte(keys, 0) >= 0 {
			c.exec.refuse("the detach keys are empty or contain NUL")
		}
	}
}

// Attach runs a command on this process's terminal, which is its standard input and output, until
// the command exits or the detach keys (ctrl-]) are typed. It returns the exit code, or 128 plus
// the signal number as a shell does. It returns -1 if the keys were typed or the terminal hung up:
// the command keeps running, and AttachSession reattaches to it.
//
// The terminal is in raw mode during the call; its settings are restored before Attach returns,
// also when ctx is done, which leaves the command running. Without a terminal it fails with
// ErrNotATerminal.
func (s *Sandbox) Attach(ctx context.Context, cmd string, args ...string) (int, error) {
	return s.AttachWith(ctx, cmd, WithAttachArgs(args...))
}

// AttachWith is Attach with options.
func (s *Sandbox) AttachWith(ctx context.Context, cmd string, opts ...AttachOption) (int, error) {
	config := newAttachConfig(opts)
	options, err := config.exec.raw(cmd, config.args, false)
	if err != nil {
		return -1, err
	}
	return s.attach(ctx, &ffi.AttachOptions{Exec: options, DetachKeys: config.keys})
}

// AttachShell runs the sandbox's shell as Attach runs a command.
func (s *Sandbox) AttachShell(ctx context.Context) (int, error) {
	return s.attach(ctx, &ffi.AttachOptions{})
}

// AttachSession attaches to an existing session from now on. Of the options it uses only the detach
// keys.
func (s *Sandbox) AttachSession(ctx context.Context, id string, opts ...AttachOption) (int, error) {
	config := newAttachConfig(opts)
	if config.exec.err != nil {
		return -1, config.exec.err
	}
	if err := noNUL(id); err != nil {
		return -1, err
	}
	if id == "" {
		return -1, invalid("the session id is empty")
	}
	return s.attach(ctx, &ffi.AttachOptions{Session: id, DetachKeys: config.keys})
}

func newAttachConfig(opts []AttachOption) *attachConfig {
	return applied(&attachConfig{}, opts)
}

// attach blocks a thread until it returns. Only closing its handle ends it early, so a cancellable
// call opens a handle of its own.
func (s *Sandbox) attach(ctx context.Context, options *ffi.AttachOptions) (int, error) {
	if err := ctx.Err(); err != nil {
		return -1, err
	}
	if ctx.Done() == nil {
		code, _, err := s.raw.Attach(options)
		return attached(code, err)
	}
	own, err := ffi.OpenSandbox(s.name, false)
	if err != nil {
		return -1, wrap(err)
	}
	defer own.Close()
	if err := own.WaitReady(ctx, nil); err != nil {
		return -1, wrap(err)
	}
	done := make(chan result[int], 1)
	go func() {
		code, _, err := own.Attach(options)
		done <- result[int]{code, err}
	}()
	select {
	case r := <-done:
		return attached(r.value, r.err)
	case <-s.raw.Done():
		_ = own.Close()
		r := <-done // the terminal is restored by then
		return attached(r.value, r.err)
	case <-ctx.Done():
		_ = own.Close()
		<-done // as above
		return -1, ctx.Err()
	}
}

func attached(code int, err error) (int, error) {
	if err != nil {
		return -1, wrap(err)
	}
	return code, nil
}
