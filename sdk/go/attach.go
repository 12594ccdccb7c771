package microsandbox

import (
	"context"
	"strings"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// attachConfig is filled by AttachOptions.
type attachConfig struct {
	exec ExecConfig
	args []string
	keys string
}

// AttachOption changes how a command is attached to the terminal. Later options win.
type AttachOption func(*attachConfig)

func forExec(option ExecOption) AttachOption {
	return func(c *attachConfig) { option(&c.exec) }
}

// WithAttachArgs adds arguments of the command.
func WithAttachArgs(args ...string) AttachOption {
	return func(c *attachConfig) { c.args = append(c.args, args...) }
}

// WithAttachEnv sets variables on top of the sandbox's. Used again, the maps are merged.
func WithAttachEnv(env map[string]string) AttachOption { return forExec(WithExecEnv(env)) }

// WithAttachCwd sets the working directory.
func WithAttachCwd(path string) AttachOption { return forExec(WithExecCwd(path)) }

// WithAttachUser sets the user: a name, uid, name:group or uid:gid of the sandbox.
func WithAttachUser(user string) AttachOption { return forExec(WithExecUser(user)) }

// WithAttachTimeout kills the command, and all that it started, after this time.
func WithAttachTimeout(d time.Duration) AttachOption { return forExec(WithExecTimeout(d)) }

// WithAttachRlimit sets the soft and the hard limit of a resource.
func WithAttachRlimit(resource RlimitResource, limit uint64) AttachOption {
	return forExec(WithExecRlimit(resource, limit))
}

// WithAttachRlimitRange sets the soft and the hard limit of a resource.
func WithAttachRlimitRange(resource RlimitResource, soft, hard uint64) AttachOption {
	return forExec(WithExecRlimitRange(resource, soft, hard))
}

// WithDetachKeys sets what is typed to leave the command running: characters, and names such as
// ctrl-p, with commas between them. Without it that is ctrl-].
func WithDetachKeys(keys string) AttachOption {
	return func(c *attachConfig) {
		if c.keys = keys; keys == "" || strings.IndexByte(keys, 0) >= 0 {
			c.exec.refuse("the detach keys are empty or have a NUL in them")
		}
	}
}

// Attach runs a command on this process's terminal, its standard input and output, until it ends or
// the detach keys are typed, ctrl-]. It gives the exit code, or 128 and the number of the signal, as a
// shell would show it; -1 when the keys were typed or the terminal hung up: then the command runs on,
// and AttachSession takes it up again.
//
// The terminal is in raw mode meanwhile and has its settings back when Attach returns, also when ctx
// is over, which leaves the command running. Without a terminal it fails with ErrNotATerminal.
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

// AttachShell is Attach with the sandbox's shell.
func (s *Sandbox) AttachShell(ctx context.Context) (int, error) {
	return s.attach(ctx, &ffi.AttachOptions{})
}

// AttachSession is Attach with a session that is there already, from now on. Of the options it takes
// the detach keys.
func (s *Sandbox) AttachSession(ctx context.Context, id string, opts ...AttachOption) (int, error) {
	config := newAttachConfig(opts)
	if config.exec.err != nil {
		return -1, config.exec.err
	}
	if err := noNUL(id); err != nil {
		return -1, err
	}
	if id == "" {
		return -1, invalid("the session's id is empty")
	}
	return s.attach(ctx, &ffi.AttachOptions{Session: id, DetachKeys: config.keys})
}

func newAttachConfig(opts []AttachOption) *attachConfig {
	c := &attachConfig{}
	for _, option := range opts {
		if option != nil {
			option(c)
		}
	}
	return c
}

// attach has a thread until it ends. What ends it early is that its handle is closed: so one that may
// be given up has a handle of its own.
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
		r := <-done // with the terminal as it was
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
