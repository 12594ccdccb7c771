// Executes the requests of the conformance judge with the Go SDK, and reports the results. The
// protocol is in conformance/README.md. Every request runs in a goroutine of its own.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// request is a line of the judge, and the bytes that follow it. A *int is the number of a part.
type request struct {
	ID         uint64   `json:"id"`
	Do         string   `json:"do"`
	Sandbox    uint64   `json:"sandbox"`
	Exec       uint64   `json:"exec"`
	Name       *int     `json:"name"`
	Image      *int     `json:"image"`
	Workdir    *int     `json:"workdir"`
	Shell      *int     `json:"shell"`
	User       *int     `json:"user"`
	Cmd        *int     `json:"cmd"`
	Script     *int     `json:"script"`
	Args       []int    `json:"args"`
	Env        [][2]int `json:"env"`
	Cwd        *int     `json:"cwd"`
	Stdin      *int     `json:"stdin"`
	Data       *int     `json:"data"`
	StdinPipe  bool     `json:"stdin_pipe"`
	TTY        bool     `json:"tty"`
	WaitForEOF bool     `json:"wait_for_eof"`
	Rows       *uint16  `json:"rows"`
	Cols       *uint16  `json:"cols"`
	TimeoutMs  *int64   `json:"timeout_ms"`
	DrainMs    *int64   `json:"drain_ms"`
	MaxOutput  *int64   `json:"max_output"`
	Rlimits    [][4]any `json:"rlimits"`
	Session    string   `json:"session"`
	Until      string   `json:"until"`
	On         string   `json:"on"`
	Times      int      `json:"times"`
	Signal     int      `json:"signal"`
	Lengths    []int    `json:"parts"`
	parts      [][]byte
}

type object map[string]any

// done is the result of a request, and its bytes.
type done struct {
	line  any
	parts [][]byte
}

var ok = done{line: "ok"}

// handle is an exec, and its sink once that was taken.
type handle struct {
	*m.ExecHandle
	sink *m.ExecSink
}

var (
	lock      sync.Mutex // of the tables
	sandboxes = map[uint64]*m.Sandbox{}
	handles   = map[uint64]*handle{}
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
			r.reply(object{"done": d.line}, d.parts...)
		}()
	}
}

func read(input *bufio.Reader) (*request, error) {
	line, err := input.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	r := &request{}
	if err := json.Unmarshal(line, r); err != nil {
		return nil, err
	}
	for _, length := range r.Lengths {
		part := make([]byte, length)
		if _, err := io.ReadFull(input, part); err != nil {
			return nil, err
		}
		r.parts = append(r.parts, part)
	}
	return r, nil
}

// reply writes one reply, uninterrupted.
func (r *request) reply(line object, parts ...[]byte) {
	lengths := []int{}
	for _, part := range parts {
		lengths = append(lengths, len(part))
	}
	line["id"], line["parts"] = r.ID, lengths
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	writing.Lock()
	defer writing.Unlock()
	os.Stdout.Write(append(text, '\n'))
	for _, part := range parts {
		os.Stdout.Write(part)
	}
}

func (r *request) text(part *int) string {
	if part == nil {
		return ""
	}
	return string(r.parts[*part])
}

// failed is the result of a request whose call failed; some errors are endings of a command.
func failed(err error) done {
	var known *m.Error
	if !errors.As(err, &known) {
		return done{object{"error": object{"kind": "testee", "message": 0}}, [][]byte{[]byte(err.Error())}}
	}
	switch f := known.Failure; known.Kind {
	case m.ErrExecFailed:
		errno := 0
		if f.Errno != nil {
			errno = *f.Errno
		}
		return done{object{"failed": object{"kind": f.Kind, "stage": f.Stage, "errno": errno,
			"errno_name": f.ErrnoName, "message": 0, "path": 1}}, [][]byte{[]byte(f.Message), []byte(f.Path)}}
	case m.ErrExecTimeout:
		return collected(known.Output, true)
	}
	return done{object{"error": object{"kind": known.Kind.String(), "message": 0}}, [][]byte{[]byte(known.Message)}}
}

func exited(e *m.ExecExit) object {
	return object{"code": e.Code, "signal": int(e.Signal), "core": e.CoreDumped, "timed_out": e.TimedOut,
		"cpu_us": (e.UserTime + e.SystemTime).Microseconds(), "wall_us": e.WallTime.Microseconds(),
		"max_rss": e.MaxRSS}
}

func collected(out *m.ExecOutput, raised bool) done {
	line := exited(out.Exit())
	line["success"], line["raised"] = out.Success(), raised
	line["output"] = object{"stdout": 0, "stderr": 1, "stdout_total": out.StdoutTotal(),
		"stderr_total": out.StderrTotal(), "truncated": out.Truncated(), "writer_left": out.WriterLeft()}
	return done{object{"exited": line}, [][]byte{out.StdoutBytes(), out.StderrBytes()}}
}

func (r *request) act() (done, error) {
	switch r.Do {
	case "hello":
		return done{line: object{"hello": object{}}}, nil
	case "create":
		return ok, r.create()
	}
	lock.Lock()
	sb, h := sandboxes[r.Sandbox], handles[r.Exec]
	lock.Unlock()
	if sb != nil {
		return r.inSandbox(sb)
	}
	if h == nil {
		return ok, errors.New("no such exec")
	}
	return r.onHandle(h)
}

func (r *request) create() error {
	opts := []m.SandboxOption{m.WithImage(r.text(r.Image))}
	for _, option := range []struct {
		part *int
		make func(string) m.SandboxOption
	}{{r.Workdir, m.WithWorkdir}, {r.Shell, m.WithShell}, {r.User, m.WithUser}} {
		if option.part != nil {
			opts = append(opts, option.make(r.text(option.part)))
		}
	}
	for i := range r.Env {
		opts = append(opts, m.WithEnv(map[string]string{r.text(&r.Env[i][0]): r.text(&r.Env[i][1])}))
	}
	sb, err := m.CreateSandbox(ctx, r.text(r.Name), opts...)
	lock.Lock()
	sandboxes[r.ID] = sb
	lock.Unlock()
	return err
}

func (r *request) inSandbox(sb *m.Sandbox) (done, error) {
	switch r.Do {
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
			if session.ID == r.Session && session.Running() {
				state = "running"
			} else if session.ID == r.Session {
				state = "ended"
			}
		}
		return done{line: object{"state": state}}, err
	case "reattach":
		return r.started(sb.Reattach(ctx, r.Session, m.ReattachNow))
	}
	var args []string
	for i := range r.Args {
		args = append(args, r.text(&r.Args[i]))
	}
	opts, script := r.options(), r.text(r.Script)
	switch shell := append(opts, m.WithExecArgs(args...)); {
	case r.Do == "start" && r.Script != nil:
		return r.started(sb.ShellStream(ctx, script, shell...))
	case r.Do == "start":
		return r.started(sb.ExecStream(ctx, r.text(r.Cmd), args, opts...))
	case r.Script != nil:
		return ended(sb.Shell(ctx, script, shell...))
	default:
		return ended(sb.Exec(ctx, r.text(r.Cmd), args, opts...))
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
	handles[r.ID] = &handle{ExecHandle: h}
	lock.Unlock()
	id, err := h.ID()
	return done{line: object{"started": object{"session": id}}}, err
}

func (r *request) options() (opts []m.ExecOption) {
	add := func(set bool, option func() m.ExecOption) {
		if set {
			opts = append(opts, option())
		}
	}
	for i := range r.Env {
		opts = append(opts, m.WithExecEnv(map[string]string{r.text(&r.Env[i][0]): r.text(&r.Env[i][1])}))
	}
	for _, limit := range r.Rlimits {
		bound := func(value any) uint64 {
			if number, err := strconv.ParseUint(value.(string), 10, 64); err == nil {
				return number
			}
			return m.RlimitInfinity
		}
		resource := m.RlimitResource(limit[1].(float64))
		opts = append(opts, m.WithExecRlimitRange(resource, bound(limit[2]), bound(limit[3])))
	}
	ms := func(number int64) time.Duration { return time.Duration(number) * time.Millisecond }
	add(r.Cwd != nil, func() m.ExecOption { return m.WithExecCwd(r.text(r.Cwd)) })
	add(r.User != nil, func() m.ExecOption { return m.WithExecUser(r.text(r.User)) })
	add(r.Stdin != nil, func() m.ExecOption { return m.WithExecStdin(r.parts[*r.Stdin]) })
	add(r.TTY, m.WithExecTTY)
	add(r.Rows != nil, func() m.ExecOption { return m.WithExecSize(*r.Rows, *r.Cols) })
	add(r.WaitForEOF, m.WithExecWaitForEOF)
	add(r.StdinPipe, m.WithExecStdinPipe)
	add(r.TimeoutMs != nil, func() m.ExecOption { return m.WithExecTimeout(ms(*r.TimeoutMs)) })
	add(r.DrainMs != nil, func() m.ExecOption { return m.WithExecDrain(ms(*r.DrainMs)) })
	add(r.MaxOutput != nil, func() m.ExecOption { return m.WithExecMaxOutput(*r.MaxOutput) })
	return opts
}

func (r *request) onHandle(h *handle) (done, error) {
	switch r.Do {
	case "recv":
		for {
			kind, err := r.recv(ctx, h)
			if err != nil || kind == "end" || kind == r.Until || r.Until == "any" {
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
		return done{line: object{"sink": sink != nil}}, nil
	case "write":
		_, err := h.sink.Write(r.parts[*r.Data])
		return ok, err
	case "close_stdin":
		return ok, h.sink.Close()
	case "signal":
		return ok, h.Signal(ctx, r.Signal)
	case "kill":
		return ok, h.Kill(ctx)
	case "resize":
		return ok, h.Resize(ctx, *r.Rows, *r.Cols)
	case "close":
		return ok, h.Close()
	case "forget":
		lock.Lock()
		delete(handles, r.Exec)
		lock.Unlock()
		if h.sink != nil {
			_ = h.sink.Close()
		}
		return ok, h.Close()
	}
	return ok, errors.New("no such action: " + r.Do)
}

// recv receives an event, reports it, and returns its kind.
func (r *request) recv(ctx context.Context, h *handle) (string, error) {
	event, err := h.Recv(ctx)
	if err != nil {
		return "", err
	}
	kind := event.Kind.String()
	switch event.Kind {
	case m.ExecEventStdout, m.ExecEventStderr:
		r.reply(object{"event": kind, "data": 0}, event.Data)
	case m.ExecEventDone:
		kind = "end"
		fallthrough
	default:
		r.reply(object{"event": kind})
	}
	return kind, nil
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
	return done{line: object{"exited": exited(exit)}}, nil
}

// giveUp starts and cancels a call, repeatedly.
func (r *request) giveUp(h *handle) (done, error) {
	ended := false
	for i := 0; i < r.Times; i++ {
		short, cancel := context.WithTimeout(ctx, 100*time.Microsecond)
		var err error
		switch r.On {
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
	return done{line: object{"ended": ended}}, nil
}
