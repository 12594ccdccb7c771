// Executes the requests of the conformance judge with the Go SDK, and reports the results. The
// protocol is in conformance/README.md. Every request runs in a goroutine of its own.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// request is an id, an action, and then the values of each name.
type request struct {
	id, do string
	values map[string][]string
}

// done is the result of a request: a word, and values.
type done []any

var ok = done{"ok"}

// handle is an exec, and its sink once that was taken.
type handle struct {
	*m.ExecHandle
	sink *m.ExecSink
}

var (
	lock      sync.Mutex // of the tables
	sandboxes = map[string]*m.Sandbox{}
	handles   = map[string]*handle{}
	writing   sync.Mutex // of a reply
	ctx       = context.Background()
)

func main() {
	input := bufio.NewReader(os.Stdin)
	for {
		r, err := read(input)
		if err == io.EOF {
			return
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "testee:", err)
			os.Exit(1)
		}
		go func() {
			d, err := r.act()
			if err != nil {
				d = failed(err)
			}
			r.reply(d...)
		}()
	}
}

func read(input *bufio.Reader) (*request, error) {
	line, err := input.ReadString('\n')
	if err != nil {
		return nil, err
	}
	var fields []string
	for _, length := range strings.Fields(line) {
		size, _ := strconv.Atoi(length)
		field := make([]byte, size)
		if _, err := io.ReadFull(input, field); err != nil {
			return nil, err
		}
		fields = append(fields, string(field))
	}
	r := &request{fields[0], fields[1], map[string][]string{}}
	for at := 2; at < len(fields); at += 2 {
		r.values[fields[at]] = append(r.values[fields[at]], fields[at+1])
	}
	return r, nil
}

// reply writes one reply, uninterrupted.
func (r *request) reply(values ...any) {
	lengths, fields := []string{strconv.Itoa(len(r.id))}, r.id
	for _, value := range values {
		field := ""
		if data, isData := value.([]byte); isData {
			field = string(data)
		} else {
			field = fmt.Sprint(value)
		}
		lengths = append(lengths, strconv.Itoa(len(field)))
		fields += field
	}
	writing.Lock()
	defer writing.Unlock()
	os.Stdout.WriteString(strings.Join(lengths, " ") + "\n" + fields)
}

func (r *request) has(name string) bool { return r.values[name] != nil }

func (r *request) text(name string) string {
	if !r.has(name) {
		return ""
	}
	return r.values[name][0]
}

func (r *request) number(name string) int64 {
	number, _ := strconv.ParseInt(r.text(name), 10, 64)
	return number
}

// failed is the result of a request whose call failed; some errors are endings of a command.
func failed(err error) done {
	var known *m.Error
	if !errors.As(err, &known) {
		return done{"error", "testee", err}
	}
	switch f := known.Failure; known.Kind {
	case m.ErrExecFailed:
		errno := 0
		if f.Errno != nil {
			errno = *f.Errno
		}
		return done{"failed", f.Kind, f.Stage, errno, f.ErrnoName, f.Message, f.Path}
	case m.ErrExecTimeout:
		return collected(known.Output, true)
	}
	return done{"error", known.Kind, known.Message}
}

func exited(word string, e *m.ExecExit, success any) done {
	return done{word, e.Code, int(e.Signal), e.CoreDumped, e.TimedOut, success,
		(e.UserTime + e.SystemTime).Microseconds(), e.WallTime.Microseconds(), e.MaxRSS}
}

func collected(out *m.ExecOutput, raised bool) done {
	return append(exited("collected", out.Exit(), out.Success()), raised, out.StdoutBytes(), out.StderrBytes(),
		out.StdoutTotal(), out.StderrTotal(), out.Truncated(), out.WriterLeft())
}

func (r *request) act() (done, error) {
	lock.Lock()
	sb, h := sandboxes[r.text("sandbox")], handles[r.text("exec")]
	lock.Unlock()
	switch {
	case r.do == "hello":
		return done{"hello"}, nil
	case r.do == "create":
		return ok, r.create()
	case sb != nil:
		return r.inSandbox(sb)
	case h != nil:
		return r.onHandle(h)
	}
	return ok, errors.New("no such sandbox or exec")
}

func (r *request) create() error {
	opts := []m.SandboxOption{m.WithImage(r.text("image"))}
	for name, option := range map[string]func(string) m.SandboxOption{
		"workdir": m.WithWorkdir, "shell": m.WithShell, "user": m.WithUser} {
		if r.has(name) {
			opts = append(opts, option(r.text(name)))
		}
	}
	for env := r.values["env"]; len(env) > 0; env = env[2:] {
		opts = append(opts, m.WithEnv(map[string]string{env[0]: env[1]}))
	}
	sb, err := m.CreateSandbox(ctx, r.text("name"), opts...)
	lock.Lock()
	sandboxes[r.id] = sb
	lock.Unlock()
	return err
}

func (r *request) inSandbox(sb *m.Sandbox) (done, error) {
	switch r.do {
	case "remove":
		if err := sb.StopWithTimeout(ctx, 0); err != nil {
			return ok, err
		}
		if err := sb.Close(); err != nil {
			return ok, err
		}
		return ok, m.RemoveSandbox(ctx, sb.Name())
	case "listed":
		sessions, err := sb.Sessions(ctx)
		state := "unknown"
		for _, session := range sessions {
			if session.ID == r.text("session") && session.Running() {
				state = "running"
			} else if session.ID == r.text("session") {
				state = "ended"
			}
		}
		return done{"state", state}, err
	case "reattach":
		return r.started(sb.Reattach(ctx, r.text("session"), m.ReattachNow))
	}
	args, opts := r.values["arg"], r.options()
	switch shell := append(opts, m.WithExecArgs(args...)); {
	case r.do == "start" && r.has("script"):
		return r.started(sb.ShellStream(ctx, r.text("script"), shell...))
	case r.do == "start":
		return r.started(sb.ExecStream(ctx, r.text("cmd"), args, opts...))
	case r.has("script"):
		return ended(sb.Shell(ctx, r.text("script"), shell...))
	default:
		return ended(sb.Exec(ctx, r.text("cmd"), args, opts...))
	}
}

func ended(out *m.ExecOutput, err error) (done, error) {
	if err != nil {
		return ok, err
	}
	return collected(out, false), nil
}

func (r *request) started(h *m.ExecHandle, err error) (done, error) {
	if err != nil {
		return ok, err
	}
	lock.Lock()
	handles[r.id] = &handle{ExecHandle: h}
	lock.Unlock()
	id, err := h.ID()
	return done{"started", id}, err
}

func (r *request) options() (opts []m.ExecOption) {
	add := func(name string, option func() m.ExecOption) {
		if r.has(name) {
			opts = append(opts, option())
		}
	}
	for env := r.values["env"]; len(env) > 0; env = env[2:] {
		opts = append(opts, m.WithExecEnv(map[string]string{env[0]: env[1]}))
	}
	for limit := r.values["rlimit"]; len(limit) > 0; limit = limit[4:] {
		bound := func(text string) uint64 {
			if number, err := strconv.ParseUint(text, 10, 64); err == nil {
				return number
			}
			return m.RlimitInfinity
		}
		resource, _ := strconv.Atoi(limit[1])
		opts = append(opts, m.WithExecRlimitRange(m.RlimitResource(resource), bound(limit[2]), bound(limit[3])))
	}
	ms := func(name string) time.Duration { return time.Duration(r.number(name)) * time.Millisecond }
	add("cwd", func() m.ExecOption { return m.WithExecCwd(r.text("cwd")) })
	add("user", func() m.ExecOption { return m.WithExecUser(r.text("user")) })
	add("stdin", func() m.ExecOption { return m.WithExecStdin([]byte(r.text("stdin"))) })
	add("tty", m.WithExecTTY)
	add("rows", func() m.ExecOption { return m.WithExecSize(r.size("rows"), r.size("cols")) })
	add("wait_for_eof", m.WithExecWaitForEOF)
	add("stdin_pipe", m.WithExecStdinPipe)
	add("timeout_ms", func() m.ExecOption { return m.WithExecTimeout(ms("timeout_ms")) })
	add("drain_ms", func() m.ExecOption { return m.WithExecDrain(ms("drain_ms")) })
	add("max_output", func() m.ExecOption { return m.WithExecMaxOutput(r.number("max_output")) })
	return opts
}

func (r *request) size(name string) uint16 { return uint16(r.number(name)) }

func (r *request) onHandle(h *handle) (done, error) {
	switch r.do {
	case "recv":
		for {
			over, err := r.recv(ctx, h)
			if err != nil || over {
				return ok, err
			}
		}
	case "wait":
		return r.wait(ctx, h)
	case "collect":
		return ended(h.Collect(ctx))
	case "give_up":
		return r.giveUp(h)
	case "take_stdin":
		sink := h.TakeStdin()
		if sink != nil {
			h.sink = sink
		}
		return done{"yes", sink != nil}, nil
	case "write":
		_, err := h.sink.Write([]byte(r.text("data")))
		return ok, err
	case "close_stdin":
		return ok, h.sink.Close()
	case "signal":
		return ok, h.Signal(ctx, int(r.number("signal")))
	case "kill":
		return ok, h.Kill(ctx)
	case "resize":
		return ok, h.Resize(ctx, r.size("rows"), r.size("cols"))
	case "close":
		return ok, h.Close()
	case "forget":
		lock.Lock()
		delete(handles, r.text("exec"))
		lock.Unlock()
		if h.sink != nil {
			_ = h.sink.Close()
		}
		return ok, h.Close()
	}
	return ok, errors.New("no such action: " + r.do)
}

// recv receives an event, reports it, and returns whether the judge waits for it.
func (r *request) recv(ctx context.Context, h *handle) (bool, error) {
	event, err := h.Recv(ctx)
	if err != nil {
		return false, err
	}
	kind := event.Kind.String()
	switch event.Kind {
	case m.ExecEventStdout, m.ExecEventStderr:
		r.reply("event", kind, event.Data)
	case m.ExecEventDone:
		kind = "end"
		fallthrough
	default:
		r.reply("event", kind)
	}
	return kind == "end" || r.text("until") == "any" || r.text("until") == kind, nil
}

func (r *request) wait(ctx context.Context, h *handle) (done, error) {
	code, err := h.Wait(ctx)
	if m.IsKind(err, m.ErrExecTimeout) {
		err = nil
		code = h.Exit().Code
	}
	if err != nil {
		return ok, err
	}
	exit := h.Exit()
	if exit == nil || exit.Code != code {
		return ok, fmt.Errorf("waiting said %d, and then the exit is %+v", code, exit)
	}
	return exited("exited", exit, ""), nil
}

// giveUp starts and cancels a call, repeatedly.
func (r *request) giveUp(h *handle) (done, error) {
	ended := false
	for i := r.number("times"); i > 0; i-- {
		short, cancel := context.WithTimeout(ctx, 100*time.Microsecond)
		var err error
		switch r.text("on") {
		case "recv":
			_, err = r.recv(short, h)
		case "wait":
			_, err = r.wait(short, h)
		default:
			_, err = h.Collect(short)
		}
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return ok, err
		}
		ended = ended || err == nil
	}
	return done{"yes", ended}, nil
}
