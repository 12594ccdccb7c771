package main

// The other files are those of go-smoke's runner, which drives the C ABI; this one stands in the
// place of its abi.go and drives the SDK.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// failure is a call that failed.
type failure struct {
	kind    string // as the cases name it
	message string
}

func (f *failure) Error() string { return f.kind + ": " + f.message }

func check(err error) error {
	var failed *m.Error
	if errors.As(err, &failed) {
		return &failure{failed.Kind.String(), failed.Message}
	}
	return err
}

// waiter holds the context that the calls of a handle are made with.
type waiter struct{ ctx context.Context }

// until makes a call that waits.
func until[T any](w *waiter, deadline time.Time, call func() (T, bool, error)) (T, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	w.ctx = ctx
	defer func() { w.ctx = nil }()
	result, _, err := call()
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("hung: %w", err)
	}
	return result, err
}

// within makes a call; outside of until, one that is given up as soon as it has begun.
func within[T any](w *waiter, call func(context.Context) (T, error)) (T, bool, error) {
	if w.ctx != nil {
		result, err := call(w.ctx)
		return result, true, check(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Microsecond)
	defer cancel()
	result, err := call(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return result, false, nil
	}
	return result, true, check(err)
}

type sandbox struct{ *m.Sandbox }

type sandboxOptions struct {
	name, image, workdir, shell, user string
	env                               [][]byte
}

func createSandbox(o sandboxOptions) (*sandbox, error) {
	opts := []m.SandboxOption{m.WithImage(o.image)}
	for _, option := range []struct {
		value string
		make  func(string) m.SandboxOption
	}{{o.workdir, m.WithWorkdir}, {o.shell, m.WithShell}, {o.user, m.WithUser}} {
		if option.value != "" {
			opts = append(opts, option.make(option.value))
		}
	}
	for _, pair := range o.env {
		name, value, _ := bytes.Cut(pair, []byte("="))
		opts = append(opts, m.WithEnv(map[string]string{string(name): string(value)}))
	}
	sb, err := m.CreateSandbox(context.Background(), o.name, opts...)
	return &sandbox{sb}, err
}

// end stops the sandbox and removes it.
func (sb *sandbox) end(name string) error {
	ctx := context.Background()
	if err := sb.StopWithTimeout(ctx, 0); err != nil {
		return err
	}
	if err := sb.Close(); err != nil {
		return err
	}
	return m.RemoveSandbox(ctx, name)
}

// listed tells whether a session is known, and whether it has ended.
func (sb *sandbox) listed(id string) (string, error) {
	sessions, err := sb.Sessions(context.Background())
	for _, session := range sessions {
		switch {
		case session.ID != id:
		case session.Running():
			return "running", err
		default:
			return "ended", err
		}
	}
	return "unknown", err
}

type rlimit struct {
	resource   uint32
	soft, hard uint64
}

type execOptions struct {
	cmd                  []byte
	args                 [][]byte
	env                  [][2][]byte
	cwd, user, stdin     []byte // nil: not set
	script, tty, waitEOF bool
	pipe                 bool
	rlimits              []rlimit
	size                 *[2]uint16     // nil: not set
	timeout, drain       *time.Duration // as above
	maxOutput            *uint64        // as above
}

func (o *execOptions) options() (opts []m.ExecOption) {
	add := func(set bool, option func() m.ExecOption) {
		if set {
			opts = append(opts, option())
		}
	}
	for _, pair := range o.env {
		opts = append(opts, m.WithExecEnv(map[string]string{string(pair[0]): string(pair[1])}))
	}
	for _, l := range o.rlimits {
		opts = append(opts, m.WithExecRlimitRange(m.RlimitResource(l.resource), l.soft, l.hard))
	}
	add(o.cwd != nil, func() m.ExecOption { return m.WithExecCwd(string(o.cwd)) })
	add(o.user != nil, func() m.ExecOption { return m.WithExecUser(string(o.user)) })
	add(o.stdin != nil, func() m.ExecOption { return m.WithExecStdin(o.stdin) })
	add(o.tty, m.WithExecTTY)
	add(o.size != nil, func() m.ExecOption { return m.WithExecSize(o.size[0], o.size[1]) })
	add(o.waitEOF, m.WithExecWaitForEOF)
	add(o.pipe, m.WithExecStdinPipe)
	add(o.timeout != nil, func() m.ExecOption { return m.WithExecTimeout(*o.timeout) })
	add(o.drain != nil, func() m.ExecOption { return m.WithExecDrain(*o.drain) })
	add(o.maxOutput != nil, func() m.ExecOption { return m.WithExecMaxOutput(int64(*o.maxOutput)) })
	return opts
}

// exec is one command. One goroutine at a time may wait for it.
type exec struct {
	*m.ExecHandle
	*waiter
}

type sink struct {
	*m.ExecSink
	*waiter
}

func (sb *sandbox) stream(o execOptions) (*exec, *sink, error) {
	args := make([]string, len(o.args))
	for i, arg := range o.args {
		args[i] = string(arg)
	}
	cmd, ctx, opts := string(o.cmd), context.Background(), o.options()
	var h *m.ExecHandle
	var err error
	if o.script {
		h, err = sb.ShellStream(ctx, cmd, append(opts, m.WithExecArgs(args...))...)
	} else {
		h, err = sb.ExecStream(ctx, cmd, args, opts...)
	}
	if err != nil {
		return nil, nil, check(err)
	}
	if input := h.TakeStdin(); input != nil {
		return &exec{h, &waiter{}}, &sink{input, &waiter{}}, nil
	}
	return &exec{h, &waiter{}}, nil, nil
}

// reattach follows a session from now on.
func (sb *sandbox) reattach(id string) (*exec, error) {
	h, err := sb.Reattach(context.Background(), id, m.ReattachNow)
	return &exec{h, &waiter{}}, check(err)
}

func (e *exec) close() error { return check(e.Close()) }

func (e *exec) id() (string, error) {
	id, err := e.ID()
	return id, check(err)
}

func (e *exec) signal(number int, tree bool) error {
	if tree {
		return check(e.Kill(context.Background()))
	}
	return check(e.Signal(context.Background(), number))
}

func (e *exec) resize(rows, cols uint16) error {
	return check(e.Resize(context.Background(), rows, cols))
}

type exitStatus struct {
	code, signal   int
	core, timedOut bool
	cpu, wall      time.Duration
	maxRSS         uint64
}

type execFailure struct {
	kind, stage, errnoName, message, path string
	errno                                 int
}

type ending struct {
	exit    *exitStatus
	failure *execFailure
	lost    string
}

func (e ending) String() string {
	switch {
	case e.exit != nil:
		return fmt.Sprintf("%+v", *e.exit)
	case e.failure != nil:
		return fmt.Sprintf("%+v", *e.failure)
	}
	return "lost: " + e.lost
}

func newEnding(exit *m.ExecExit, failed *m.ExecFailure, lost string) ending {
	e := ending{lost: lost}
	if exit != nil {
		e.exit = &exitStatus{exit.Code, int(exit.Signal), exit.CoreDumped, exit.TimedOut,
			exit.UserTime + exit.SystemTime, exit.WallTime, exit.MaxRSS}
	}
	if failed != nil {
		e.failure = &execFailure{kind: failed.Kind, stage: failed.Stage,
			errnoName: failed.ErrnoName, message: failed.Message, path: failed.Path}
		if failed.Errno != nil {
			e.failure.errno = *failed.Errno
		}
	}
	return e
}

// endingOf takes apart the errors that are endings here.
func endingOf(err error) (ending, *m.ExecOutput, bool) {
	var failed *m.Error
	if !errors.As(err, &failed) {
		return ending{}, nil, false
	}
	switch failed.Kind {
	case m.ErrExecFailed:
		return newEnding(nil, failed.Failure, ""), failed.Output, true
	case m.ErrExecTimeout:
		return newEnding(failed.Output.Exit(), nil, ""), failed.Output, true
	case m.ErrStreamLost:
		return newEnding(nil, nil, failed.Message), failed.Output, true
	}
	return ending{}, nil, false
}

type event struct {
	kind string
	data []byte
	ending
}

// recv receives the next event.
func (e *exec) recv() (event, bool, error) {
	return within(e.waiter, func(ctx context.Context) (event, error) {
		got, err := e.Recv(ctx)
		if err != nil {
			return event{}, err
		}
		kind := got.Kind.String()
		if got.Kind == m.ExecEventDone {
			kind = "end"
		}
		return event{kind, got.Data, newEnding(got.Exit, got.Failure, got.Reason)}, nil
	})
}

// recvMany receives one as well: the SDK has no call for more.
func (e *exec) recvMany() ([]event, bool, error) {
	one, there, err := e.recv()
	return []event{one}, there, err
}

// wait waits for the end of the command.
func (e *exec) wait() (ending, bool, error) {
	return within(e.waiter, func(ctx context.Context) (ending, error) {
		code, err := e.Wait(ctx)
		if end, _, is := endingOf(err); is {
			return end, nil
		}
		if err != nil {
			return ending{}, err
		}
		if exit := e.Exit(); exit == nil || exit.Code != code {
			return ending{}, fmt.Errorf("waiting said %d, and then the exit is %+v", code, exit)
		}
		return newEnding(e.Exit(), nil, ""), nil
	})
}

type output struct {
	ending
	stdout, stderr           []byte
	stdoutTotal, stderrTotal uint64
	truncated, writerLeft    bool
}

// collect waits for the end of the command and of its output.
func (e *exec) collect() (output, bool, error) {
	return within(e.waiter, func(ctx context.Context) (output, error) {
		out, err := e.Collect(ctx)
		end, soFar, is := endingOf(err)
		if is {
			out = soFar
		} else if err != nil {
			return output{}, err
		} else {
			end = newEnding(out.Exit(), nil, "")
		}
		if out == nil {
			return output{ending: end}, nil
		}
		return output{end, out.StdoutBytes(), out.StderrBytes(), out.StdoutTotal(),
			out.StderrTotal(), out.Truncated(), out.WriterLeft()}, nil
	})
}

// write writes all of the data.
func (s *sink) write(data []byte) (int, bool, error) {
	return within(s.waiter, func(ctx context.Context) (int, error) { return s.WriteCtx(ctx, data) })
}

func (s *sink) close() error { return check(s.Close()) }

// closedAgain is what a second closing says: nothing.
func closedAgain(err error) error { return err }

func (s *sink) free() {}

// inexpressible tells why the SDK cannot say what a case asks for: it can.
func inexpressible(*testCase) string { return "" }
