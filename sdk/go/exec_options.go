package microsandbox

import (
	"io"
	"time"
)

// ExecConfig says how one command is run. Zero means default. It is filled by the WithExec options;
// WithExecConfig takes a whole one.
type ExecConfig struct {
	// Args come behind the arguments of the call. Of a script, the first is its $0, the next its $1.
	Args []string
	// Cwd is the working directory in the sandbox; empty: the sandbox's.
	Cwd string
	// Timeout is the time after which the command is killed, with all that it started. It is
	// rounded up to whole seconds. 0: never.
	Timeout time.Duration
	// StdinPipe makes a pipe for the input; see ExecHandle.TakeStdin.
	StdinPipe bool
	// User is a name, uid, name:group or uid:gid; empty: the sandbox's.
	User string
	// Env is set on top of the sandbox's variables.
	Env map[string]string
	// TTY gives the command a terminal.
	TTY bool
	// Rows and Cols are the terminal's size; 0: 24 and 80.
	Rows, Cols uint16
	// Stdin is the whole input, followed by its end; nil: none, as from /dev/null.
	Stdin []byte
	// Rlimits are set before the command runs.
	Rlimits []Rlimit
	// Drain is how long output of others that still hold the command's output is forwarded after its
	// exit. 0: 250 ms; negative: not at all.
	Drain time.Duration
	// WaitForEOF forwards output until all that hold it have closed it, however long that takes.
	WaitForEOF bool
	// MaxOutput is how many bytes of each output a call that collects keeps; it counts the rest.
	// 0: all; negative: none.
	MaxOutput int64
	// Stdout and Stderr get the output instead of the result of Exec, Shell, Collect and Wait.
	Stdout, Stderr io.Writer

	err error
}

// ExecOption changes an ExecConfig. Later options win.
type ExecOption func(*ExecConfig)

// refuse keeps the first option that makes no sense, for the call that gets it.
func (c *ExecConfig) refuse(message string) {
	if c.err == nil {
		c.err = invalid(message)
	}
}

// WithExecConfig takes all of a config that was made before. Options behind it change a copy.
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

// WithExecArgs adds arguments behind those of the call. Shell has no others: the first is the script's
// $0, the next its $1.
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

// WithExecTimeout sets a time limit, of the sandbox's own clock: then the command is killed with all
// that it started, and a call that waits for it fails with ErrExecTimeout. It is rounded up to whole
// seconds and has to be more than 0.
func WithExecTimeout(d time.Duration) ExecOption {
	return func(c *ExecConfig) {
		if c.Timeout = d; d <= 0 {
			c.refuse("a timeout has to be more than 0")
		}
	}
}

// WithExecStdinPipe makes a pipe for the input, which ExecHandle.TakeStdin gives.
func WithExecStdinPipe() ExecOption { return func(c *ExecConfig) { c.StdinPipe = true } }

// WithExecStdin gives the whole input, which may be empty, followed by its end.
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

// WithExecEnv sets variables on top of the sandbox's. Used again, the maps are merged.
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

// WithExecTTY gives the command a terminal. Both its outputs then come as standard output.
func WithExecTTY() ExecOption { return func(c *ExecConfig) { c.TTY = true } }

// WithExecSize gives the command a terminal of this size.
func WithExecSize(rows, cols uint16) ExecOption {
	return func(c *ExecConfig) {
		c.TTY, c.Rows, c.Cols = true, rows, cols
		if rows == 0 || cols == 0 {
			c.refuse("a terminal has at least one row and one column")
		}
	}
}

// WithExecRlimit sets the soft and the hard limit of a resource.
func WithExecRlimit(resource RlimitResource, limit uint64) ExecOption {
	return WithExecRlimitRange(resource, limit, limit)
}

// WithExecRlimitRange sets the soft and the hard limit of a resource, of which the soft one must not
// be higher.
func WithExecRlimitRange(resource RlimitResource, soft, hard uint64) ExecOption {
	return func(c *ExecConfig) { c.Rlimits = append(c.Rlimits, Rlimit{resource, soft, hard}) }
}

// WithExecDrain sets how long output of others that still hold the command's output is forwarded
// after its exit, instead of 250 ms.
func WithExecDrain(d time.Duration) ExecOption {
	return func(c *ExecConfig) {
		if c.Drain = d; d == 0 {
			c.Drain = -1
		}
		if d < 0 {
			c.refuse("the time to drain is negative")
		}
	}
}

// WithExecWaitForEOF forwards output until all that hold it have closed it.
func WithExecWaitForEOF() ExecOption { return func(c *ExecConfig) { c.WaitForEOF = true } }

// WithExecMaxOutput keeps at most so many bytes of each output in a call that collects, and counts
// on: see ExecOutput.Truncated.
func WithExecMaxOutput(bytes int64) ExecOption {
	return func(c *ExecConfig) {
		if c.MaxOutput = bytes; bytes == 0 {
			c.MaxOutput = -1
		}
		if bytes < 0 {
			c.refuse("the most output is negative")
		}
	}
}

// WithStdout writes standard output to w instead of collecting it, as os/exec's Cmd.Stdout does:
// from the goroutine that calls Exec, Shell, Collect or Wait. If w fails, so does that call, and
// Exec and Shell kill the command. Recv gives the output as ever.
func WithStdout(w io.Writer) ExecOption { return func(c *ExecConfig) { c.Stdout = w } }

// WithStderr is WithStdout for standard error. It may be the same writer.
func WithStderr(w io.Writer) ExecOption { return func(c *ExecConfig) { c.Stderr = w } }
