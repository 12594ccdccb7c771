package microsandbox

import (
	"io"
	"time"
)

// ExecConfig configures one command. Zero means default. The WithExec options set its fields;
// WithExecConfig sets all of them.
type ExecConfig struct {
	// Args follow the arguments of the call. For a script, the first is $0, the next $1.
	Args []string
	// Cwd is the working directory in the sandbox; empty: the sandbox's.
	Cwd string
	// Timeout is the time after which the command and everything it started are killed. It is rounded
	// up to whole seconds. 0: never.
	Timeout time.Duration
	// StdinPipe creates a pipe for the input; see ExecHandle.TakeStdin.
	StdinPipe bool
	// User is a name, uid, name:group or uid:gid; empty: the sandbox's.
	User string
	// Env overrides the sandbox's environment variables.
	Env map[string]string
	// TTY gives the command a terminal.
	TTY bool
	// Rows and Cols are the terminal's size; 0: 24 and 80.
	Rows, Cols uint16
	// Stdin is the whole input, followed by end-of-file; nil: /dev/null.
	Stdin []byte
	// Rlimits are set before the command runs.
	Rlimits []Rlimit
	// Drain is how long output of background processes is forwarded after the command's exit.
	// 0: 250 ms; negative: not at all.
	Drain time.Duration
	// WaitForEOF forwards output until every writer has closed it, without a time limit.
	WaitForEOF bool
	// MaxOutput is the number of bytes of each stream that a collecting call keeps; it counts the
	// rest. 0: all; negative: none.
	MaxOutput int64
	// Stdout and Stderr receive the output instead of the result of Exec, Shell, Collect and Wait.
	Stdout, Stderr io.Writer

	err error
}

// ExecOption modifies an ExecConfig. Later options win.
type ExecOption func(*ExecConfig)

// refuse records the first invalid option; the call that uses the config returns it.
func (c *ExecConfig) refuse(message string) {
	if c.err == nil {
		c.err = invalid(message)
	}
}

// WithExecConfig sets all fields of the config. Later options modify a copy.
func WithExecConfig(config ExecConfig) ExecOption {
	return func(c *ExecConfig) {
		failed := c.err
		*c = config
		c.Env = nil
		WithExecEnv(config.Env)(c)
		c.Args = append([]string(nil), config.Args...)
		c.Rlimits = append([]Rlimit(nil), config.Rlimits...)
		if c.err == nil {
			c.err = failed
		}
	}
}

// WithExecArgs appends arguments to those of the call. Shell has no others: the first is the
// script's $0, the next its $1.
func WithExecArgs(args ...string) ExecOption {
	return func(c *ExecConfig) { c.Args = append(c.Args, args...) }
}

// WithExecCwd sets the working directory in the sandbox.
func WithExecCwd(path string) ExecOption {
	return func(c *ExecConfig) {
		if c.Cwd = path; path == "" {
			c.refuse("the working directory is empty")
		}
	}
}

// WithExecTimeout sets a time limit, measured by the sandbox's clock. On expiry the command and its
// process tree are killed, and a call that waits for it fails with ErrExecTimeout. It is rounded up
// to whole seconds and must be more than 0.
func WithExecTimeout(d time.Duration) ExecOption {
	return func(c *ExecConfig) {
		if c.Timeout = d; d <= 0 {
			c.refuse("the timeout must be more than 0")
		}
	}
}

// WithExecStdinPipe creates a pipe for the input; ExecHandle.TakeStdin returns its writing end.
func WithExecStdinPipe() ExecOption { return func(c *ExecConfig) { c.StdinPipe = true } }

// WithExecStdin sets the whole input, which may be empty, followed by end-of-file.
func WithExecStdin(data []byte) ExecOption {
	return func(c *ExecConfig) {
		if c.Stdin = data; data == nil {
			c.Stdin = []byte{}
		}
	}
}

// WithExecUser sets the user: a name, uid, name:group or uid:gid of the sandbox.
func WithExecUser(user string) ExecOption {
	return func(c *ExecConfig) {
		if c.User = user; user == "" {
			c.refuse("the user is empty")
		}
	}
}

// WithExecEnv sets environment variables, which override the sandbox's. Used again, the maps are
// merged.
func WithExecEnv(env map[string]string) ExecOption {
	return func(c *ExecConfig) {
		if c.Env == nil {
			c.Env = make(map[string]string, len(env))
		}
		for name, value := range env {
			c.Env[name] = value
		}
	}
}

// WithExecTTY gives the command a terminal. Both outputs are then delivered as standard output.
func WithExecTTY() ExecOption { return func(c *ExecConfig) { c.TTY = true } }

// WithExecSize gives the command a terminal of this size.
func WithExecSize(rows, cols uint16) ExecOption {
	return func(c *ExecConfig) {
		c.TTY, c.Rows, c.Cols = true, rows, cols
		if rows == 0 || cols == 0 {
			c.refuse("a terminal needs at least one row and one column")
		}
	}
}

// WithExecRlimit sets both limits of a resource to the same value.
func WithExecRlimit(resource RlimitResource, limit uint64) ExecOption {
	return WithExecRlimitRange(resource, limit, limit)
}

// WithExecRlimitRange sets the soft and the hard limit of a resource. The soft limit must not
// exceed the hard one.
func WithExecRlimitRange(resource RlimitResource, soft, hard uint64) ExecOption {
	return func(c *ExecConfig) { c.Rlimits = append(c.Rlimits, Rlimit{resource, soft, hard}) }
}

// WithExecDrain sets how long output of background processes is forwarded after the command's exit,
// instead of 250 ms.
func WithExecDrain(d time.Duration) ExecOption {
	return func(c *ExecConfig) {
		if c.Drain = d; d == 0 {
			c.Drain = -1
		}
		if d < 0 {
			c.refuse("the drain time is negative")
		}
	}
}

// WithExecWaitForEOF forwards output until every writer has closed it.
func WithExecWaitForEOF() ExecOption { return func(c *ExecConfig) { c.WaitForEOF = true } }

// WithExecMaxOutput limits the number of bytes of each stream that a collecting call keeps; it
// counts the rest. See ExecOutput.Truncated.
func WithExecMaxOutput(bytes int64) ExecOption {
	return func(c *ExecConfig) {
		if c.MaxOutput = bytes; bytes == 0 {
			c.MaxOutput = -1
		}
		if bytes < 0 {
			c.refuse("the output limit is negative")
		}
	}
}

// WithStdout writes standard output to w instead of collecting it, as os/exec's Cmd.Stdout does:
// from the goroutine that calls Exec, Shell, Collect or Wait. If w fails, that call fails, and Exec
// and Shell kill the command. Recv still returns the output.
func WithStdout(w io.Writer) ExecOption { return func(c *ExecConfig) { c.Stdout = w } }

// WithStderr writes standard error to w; see WithStdout. Both may use the same writer.
func WithStderr(w io.Writer) ExecOption { return func(c *ExecConfig) { c.Stderr = w } }
