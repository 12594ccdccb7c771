package microsandbox_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

func TestA1ExitCodeIsAResult(t *testing.T) {
	sb := box(t)
	out, err := sb.Exec(soon(t), "sh", []string{"-c", "echo out; echo err >&2; exit 7"})
	must(t, err)
	equal(t, "stdout", out.Stdout(), "out\n")
	equal(t, "stderr", out.Stderr(), "err\n")
	equal(t, "code", out.ExitCode(), 7)
	equal(t, "success", out.Success(), false)
	out, err = sb.Shell(soon(t), "kill -TERM $$")
	must(t, err)
	equal(t, "code after a signal", out.ExitCode(), -1)
	equal(t, "signal", out.Exit().Signal, syscall.SIGTERM)
}

func TestA1FailureToStartIsTyped(t *testing.T) {
	sb := box(t)
	out, err := sb.Exec(soon(t), "no-such-program", nil)
	if out != nil {
		t.Fatal(out)
	}
	kind(t, err, m.ErrExecFailed)
	var failure *m.ExecFailure
	if !errors.As(err, &failure) {
		t.Fatal(err)
	}
	equal(t, "kind", failure.Kind, "not_found")
	equal(t, "errno", *failure.Errno, int(syscall.ENOENT))
	equal(t, "errno's name", failure.ErrnoName, "ENOENT")
	equal(t, "stage", failure.Stage, "execve")
	equal(t, "path", failure.Path, "no-such-program")
	for _, wanted := range []error{exec.ErrNotFound, fs.ErrNotExist, syscall.ENOENT} {
		if !errors.Is(err, wanted) {
			t.Errorf("%v is not %v", err, wanted)
		}
	}
	_, err = sb.Exec(soon(t), "/etc/passwd", nil)
	if !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
}

func TestD3TimeoutCarriesTheOutputSoFar(t *testing.T) {
	sb := box(t)
	begun := time.Now()
	_, err := sb.Shell(soon(t), "echo so far; echo and this >&2; exec sleep 600", m.WithExecTimeout(20*time.Millisecond))
	kind(t, err, m.ErrExecTimeout)
	if time.Since(begun) < time.Second {
		t.Error("the timeout was not rounded up to a whole second")
	}
	var failed *m.Error
	if !errors.As(err, &failed) || !os.IsTimeout(failed) {
		t.Fatal(err)
	}
	equal(t, "stdout", failed.Output.Stdout(), "so far\n")
	equal(t, "stderr", failed.Output.Stderr(), "and this\n")
	equal(t, "timed out", failed.Output.Exit().TimedOut, true)
	h := start(t, sb, "exec sleep 600", m.WithExecTimeout(time.Second))
	code, err := h.Wait(soon(t))
	kind(t, err, m.ErrExecTimeout)
	equal(t, "code", code, -1)
}

func TestA2InvalidOptionsAreRejected(t *testing.T) {
	sb := box(t)
	for what, opts := range map[string][]m.ExecOption{
		"no time":                {m.WithExecTimeout(0)},
		"negative time":          {m.WithExecTimeout(-time.Second)},
		"negative time in place": {m.WithExecConfig(m.ExecConfig{Timeout: -1})},
		"no rows":                {m.WithExecSize(0, 80)},
		"no columns":             {m.WithExecSize(24, 0)},
		"half a size":            {m.WithExecConfig(m.ExecConfig{TTY: true, Rows: 3})},
		"a size, no terminal":    {m.WithExecConfig(m.ExecConfig{Rows: 3, Cols: 3})},
		"empty directory":        {m.WithExecCwd("")},
		"NUL in the directory":   {m.WithExecCwd("/\x00")},
		"empty user":             {m.WithExecUser("")},
		"NUL in the user":        {m.WithExecUser("a\x00")},
		"empty name":             {m.WithExecEnv(map[string]string{"": "x"})},
		"'=' in a name":          {m.WithExecEnv(map[string]string{"A=B": "x"})},
		"NUL in a name":          {m.WithExecEnv(map[string]string{"A\x00": "x"})},
		"NUL in a value":         {m.WithExecEnv(map[string]string{"A": "\x00"})},
		"negative drain":         {m.WithExecDrain(-1)},
		"negative bound":         {m.WithExecMaxOutput(-1)},
		"two kinds of input":     {m.WithExecStdin(nil), m.WithExecStdinPipe()},
		"soft above hard":        {m.WithExecRlimitRange(m.RlimitNofile, 2, 1)},
		"unknown resource":       {m.WithExecRlimit(99, 1)},
		"hidden by a config":     {m.WithExecTimeout(0), m.WithExecConfig(m.ExecConfig{})},
	} {
		_, err := sb.Exec(soon(t), "true", nil, opts...)
		if !m.IsKind(err, m.ErrInvalidArgument) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := sb.Exec(soon(t), "a\x00b", nil)
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.Exec(soon(t), "true", []string{"a\x00b"})
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.Shell(soon(t), "true\x00")
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.Exec(soon(t), "", nil)
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.Reattach(soon(t), "\x00", 0)
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.Reattach(soon(t), strings.Repeat("0", 32), -2)
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.Reattach(soon(t), strings.Repeat("0", 32), m.ReattachStart)
	kind(t, err, m.ErrNoSuchSession)
}

func TestOptionsOfACommand(t *testing.T) {
	sb := box(t, m.WithEnv(map[string]string{"A": "sandbox", "B": "sandbox"}))
	base := m.ExecConfig{Cwd: "/etc", Env: map[string]string{"A": "config"}}
	out, err := sb.Shell(soon(t), `pwd; echo $A $B $C; id -u; ulimit -n; wc -c`,
		m.WithExecConfig(base),
		m.WithExecEnv(map[string]string{"B": "first", "C": "first"}),
		m.WithExecEnv(map[string]string{"C": "second"}),
		m.WithExecUser("1000"),
		m.WithExecRlimitRange(m.RlimitNofile, 64, 128),
		m.WithExecStdin([]byte("12345")),
		m.WithExecTimeout(time.Minute))
	must(t, err)
	equal(t, "output", out.Stdout(), "/etc\nconfig first second\n1000\n64\n5\n")
	equal(t, "the config itself", len(base.Env), 1)
	// A5: the options of a command do not change the sandbox.
	out, err = sb.Shell(soon(t), `pwd; echo $A $B $C; id -u`)
	must(t, err)
	equal(t, "afterwards", out.Stdout(), "/\nsandbox sandbox\n0\n")
}

func TestA10DefaultInputIsNull(t *testing.T) {
	sb := box(t)
	out, err := sb.Shell(soon(t), "readlink /proc/self/fd/0; cat")
	must(t, err)
	equal(t, "input", out.Stdout(), "/dev/null\n")
	// An empty input is a pipe, not /dev/null.
	out, err = sb.Shell(soon(t), "readlink /proc/self/fd/0; cat", m.WithExecStdin(nil))
	must(t, err)
	if !strings.HasPrefix(out.Stdout(), "pipe:") {
		t.Error(out.Stdout())
	}
	// A pipe without a writer is at end-of-file at once.
	out, err = sb.Exec(soon(t), "cat", nil, m.WithExecStdinPipe())
	must(t, err)
	equal(t, "a pipe", out.Stdout(), "")
}

func TestA4MaxOutputTruncates(t *testing.T) {
	sb := box(t)
	for most, kept := range map[int64]int{0: 0, 1: 1, 1000: 1000, 70_000: 70_000, 80_000: 70_000} {
		for _, opts := range [][]m.ExecOption{nil, {m.WithStderr(&bytes.Buffer{})}} {
			out, err := sb.Exec(soon(t), "helper", []string{"write", "70000"},
				append(opts, m.WithExecMaxOutput(most))...)
			must(t, err)
			equal(t, "length", len(out.StdoutBytes()), kept)
			equal(t, "total", out.StdoutTotal(), 70_000)
			equal(t, "truncated", out.Truncated(), kept < 70_000)
		}
	}
}

func TestD4CancelledExecKillsCommand(t *testing.T) {
	sb := box(t)
	ctx, cancel := context.WithCancel(soon(t))
	given := make(chan error)
	go func() {
		_, err := sb.Shell(ctx, "sleep 601 & echo $$ > /tmp/given; sleep 602")
		given <- err
	}()
	ps := func() string {
		out, err := sb.Shell(soon(t), "ps -o args")
		must(t, err)
		return out.Stdout()
	}
	until(t, "the command runs", func() bool { return strings.Contains(ps(), "sleep 602") })
	cancel()
	begun := time.Now()
	same(t, "error", <-given, context.Canceled)
	if took := time.Since(begun); took > scaled(5*time.Second) {
		t.Error("Exec returned after", took)
	}
	until(t, "the command is gone", func() bool { return !strings.Contains(ps(), "sleep 60") })
	_, err := sb.Exec(ctx, "true", nil)
	same(t, "done context", err, context.Canceled)
	_, err = sb.ExecStream(ctx, "true", nil)
	same(t, "done context", err, context.Canceled)
}

func TestWritersReceiveOutput(t *testing.T) {
	sb := box(t)
	var stdout, both bytes.Buffer
	out, err := sb.Shell(soon(t), "echo one; echo two >&2; exit 3", m.WithStdout(&stdout))
	must(t, err)
	equal(t, "written", stdout.String(), "one\n")
	equal(t, "collected", out.Stdout()+out.Stderr(), "two\n")
	equal(t, "code", out.ExitCode(), 3)
	h := start(t, sb, "echo one; echo two >&2; exit 4", m.WithStdout(&both), m.WithStderr(&both))
	code, err := h.Wait(soon(t))
	must(t, err)
	equal(t, "code", code, 4)
	if got := both.String(); got != "one\ntwo\n" && got != "two\none\n" {
		t.Error(got)
	}
	_, err = sb.Exec(soon(t), "none", nil, m.WithStdout(&both))
	kind(t, err, m.ErrExecFailed)
	full := errors.New("full")
	_, err = sb.Shell(soon(t), "echo x; exec sleep 603", m.WithStdout(failing{full}))
	same(t, "failing writer", err, full)
	until(t, "the command is gone", func() bool {
		out, err := sb.Shell(soon(t), "ps -o args")
		must(t, err)
		return !strings.Contains(out.Stdout(), "sleep 603")
	})
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
