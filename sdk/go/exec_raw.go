package microsandbox

import (
	"math"
	"sort"
	"strings"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

func newExecConfig(opts []ExecOption) *ExecConfig {
	c := &ExecConfig{}
	for _, option := range opts {
		if option != nil {
			option(c)
		}
	}
	return c
}

// raw checks what C cannot say, and gives the options for it.
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
		return nil, invalid("the input is either a pipe or given bytes")
	}
	if (c.Rows == 0) != (c.Cols == 0) || c.Rows != 0 && !c.TTY {
		return nil, invalid("a terminal's size has rows and columns, and needs a terminal")
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
		o.DrainNs = 1 // 0 is the default there
	}
	if c.MaxOutput < 0 {
		o.MaxOutput = 1 // as above; outputOf takes away the byte
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
			return invalid("a NUL in a text that a NUL ends")
		}
	}
	return nil
}

// pairs gives NAME=value in the order of the names.
func pairs(all map[string]string, what string) ([]string, error) {
	texts := make([]string, 0, len(all))
	for name, value := range all {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, invalid("the name of a " + what + " is empty or has '=' or a NUL in it")
		}
		if err := noNUL(value); err != nil {
			return nil, err
		}
		texts = append(texts, name+"="+value)
	}
	sort.Strings(texts)
	return texts, nil
}
