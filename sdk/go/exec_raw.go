package microsandbox

import (
	"math"
	"sort"
	"strings"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// applied applies options to a config. It ignores nil options.
func applied[C any, O ~func(*C)](c *C, opts []O) *C {
	for _, option := range opts {
		if option != nil {
			option(c)
		}
	}
	return c
}

func newExecConfig(opts []ExecOption) *ExecConfig {
	return applied(&ExecConfig{}, opts)
}

// raw validates what C cannot express and returns the options for C.
func (c *ExecConfig) raw(cmd string, args []string, shell bool) (*ffi.ExecOptions, error) {
	if c.err != nil {
		return nil, c.err
	}
	env, err := pairs(c.Env, "variable")
	if err != nil {
		return nil, err
	}
	args = append(append([]string(nil), args...), c.Args...)
	texts := append([]string{cmd, c.Cwd, c.User}, args...)
	if err := noNUL(texts...); err != nil {
		return nil, err
	}
	if c.StdinPipe && c.Stdin != nil {
		return nil, invalid("the input is both a pipe and given bytes")
	}
	if (c.Rows == 0) != (c.Cols == 0) || c.Rows != 0 && !c.TTY {
		return nil, invalid("a terminal size needs rows, columns and a terminal")
	}
	o := &ffi.ExecOptions{
		Cmd: cmd, Args: args, Env: env, Cwd: c.Cwd, User: c.User, StdinData: c.Stdin,
		Rows: c.Rows, Cols: c.Cols, TimeoutNs: uint64(wholeSeconds(c.Timeout)),
		DrainNs: uint64(c.Drain), MaxOutput: uint64(c.MaxOutput),
	}
	if c.Timeout < 0 {
		return nil, invalid("the timeout is negative")
	}
	if c.Drain < 0 {
		o.DrainNs = 1 // 0 means default in C
	}
	if c.MaxOutput < 0 {
		o.MaxOutput = 1 // as above; outputOf discards the byte
	}
	for flag, set := range map[uint32]bool{
		ffi.Shell: shell, ffi.TTY: c.TTY, ffi.WaitForEOF: c.WaitForEOF,
	} {
		if set {
			o.Flags |= flag
		}
	}
	for _, limit := range c.Rlimits {
		o.Rlimits = append(o.Rlimits, ffi.Rlimit{
			Resource: uint32(limit.Resource), Soft: limit.Soft, Hard: limit.Hard,
		})
	}
	return o, nil
}

func wholeSeconds(d time.Duration) time.Duration {
	if d <= 0 || d > math.MaxInt64-time.Second {
		return d
	}
	return (d + time.Second - 1) / time.Second * time.Second
}

func noNUL(texts ...string) error {
	for _, text := range texts {
		if strings.IndexByte(text, 0) >= 0 {
			return invalid("an argument contains NUL")
		}
	}
	return nil
}

// pairs returns NAME=value, sorted by name.
func pairs(all map[string]string, what string) ([]string, error) {
	texts := make([]string, 0, len(all))
	for name, value := range all {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, invalid("the name of a " + what + " is empty or contains '=' or NUL")
		}
		if err := noNUL(value); err != nil {
			return nil, err
		}
		texts = append(texts, name+"="+value)
	}
	sort.Strings(texts)
	return texts, nil
}
