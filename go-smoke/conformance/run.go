package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// scale stretches times on a slow machine.
var scale = func() float64 {
	if scale, err := strconv.ParseFloat(os.Getenv("MSB_TEST_TIME_SCALE"), 64); err == nil {
		return scale
	}
	return 1
}()

var resources = strings.Fields("cpu fsize data stack core rss nproc nofile memlock as locks" +
	" sigpending msgqueue nice rtprio rttime")

// outcome is everything that a case can say something about.
type outcome struct {
	ending
	err        error
	closed     bool
	output     *[2][]byte
	totals     *[2]uint64
	truncated  bool
	writerLeft *bool
	events     []string
	stdinErrs  int
	took       time.Duration
}

// run is one run of a case.
type run struct {
	*testCase
	sb          *sandbox
	own         string
	deadline    time.Time
	exec        *exec
	sink        *sink
	others      []*exec
	id          string
	taken       bool
	inputClosed bool
	fed         chan error
	kinds       []string
	stdinErrs   int
	seen        map[string][]byte
	looked      map[string]int
}

// once runs a case once, and tells what was wrong.
func once(c *testCase, sb *sandbox, own string) string {
	r := &run{
		testCase: c, sb: sb, own: own,
		deadline: time.Now().Add(time.Duration(30 * scale * float64(time.Second))),
		seen:     map[string][]byte{}, looked: map[string]int{},
	}
	defer r.cleanUp()
	if err := r.doAll(c.Before); err != nil {
		return "before: " + err.Error()
	}
	o, err := r.run()
	if err != nil {
		return err.Error()
	}
	if c.AlsoTTY && c.TTY != nil && o.output != nil {
		o.output[0] = bytes.ReplaceAll(o.output[0], []byte("\r\n"), []byte("\n"))
	}
	if problem := problem(c, o, own); problem != "" {
		return problem
	}
	if err := r.doAll(c.After); err != nil {
		return "afterwards: " + err.Error()
	}
	return ""
}

func (r *run) run() (*outcome, error) {
	begun := time.Now()
	if r.AtOnce > 0 {
		return r.atOnce(begun)
	}
	var err error
	if r.exec, r.sink, err = r.sb.stream(r.options()); err != nil {
		r.exec = nil
		return &outcome{err: err, took: time.Since(begun)}, nil
	}
	if r.id, err = r.exec.id(); err != nil {
		return nil, err
	}
	if err := r.doAll(r.Steps); err != nil {
		return nil, err
	}
	o := &outcome{closed: true}
	switch {
	case r.exec == nil:
	case r.Mode == "collect":
		o, err = r.collected(r.exec, begun)
	case r.Mode == "wait":
		o, err = r.waited(begun)
	default:
		o, err = r.streamed(begun)
	}
	if err == nil && r.fed != nil {
		if err = <-r.fed; err != nil {
			err = fmt.Errorf("feeding: %w", err)
		}
	}
	return o, err
}

func (r *run) atOnce(begun time.Time) (o *outcome, err error) {
	for i := 0; i < r.AtOnce; i++ {
		e, _, err := r.sb.stream(r.options())
		if err != nil {
			return nil, err
		}
		r.others = append(r.others, e)
	}
	for _, e := range r.others {
		if o, err = r.collected(e, begun); err != nil {
			return nil, err
		}
		if problem := problem(r.testCase, o, r.own); problem != "" {
			return nil, fmt.Errorf("one of %d: %s", r.AtOnce, problem)
		}
	}
	return o, nil
}

func (r *run) options() execOptions {
	cmd := r.Cmd
	if cmd == nil {
		cmd = r.Script
	}
	o := execOptions{cmd: value(cmd, r.own), script: r.Script != nil, waitEOF: r.WaitForEOF}
	for _, arg := range r.Args {
		o.args = append(o.args, value(arg, r.own))
	}
	for _, pair := range r.Env {
		o.env = append(o.env, [2][]byte{value(pair[0], r.own), value(pair[1], r.own)})
	}
	if r.Cwd != nil {
		o.cwd = value(r.Cwd, r.own)
	}
	if r.User != nil {
		o.user = []byte(*r.User)
	}
	if r.TTY != nil {
		o.tty = true
		if r.TTY.Rows != nil {
			o.size = &[2]uint16{*r.TTY.Rows, *r.TTY.Cols}
		}
	}
	if r.TimeoutMs != nil {
		timeout := time.Duration(*r.TimeoutMs) * time.Millisecond
		o.timeout = &timeout
	}
	if r.DrainMs != nil {
		drain := time.Duration(*r.DrainMs) * time.Millisecond
		o.drain = &drain
	}
	o.maxOutput = r.MaxOutput
	number := func(limit any) uint64 {
		if limit == "infinity" {
			return ^uint64(0)
		}
		n, _ := integer(limit)
		return uint64(n)
	}
	for _, limit := range r.Rlimits {
		for at, name := range resources {
			if name == limit.Resource {
				o.rlimits = append(o.rlimits, rlimit{uint32(at), number(limit.Soft), number(limit.Hard)})
			}
		}
	}
	if given, is := r.Stdin.(object); is {
		o.stdin = value(given["bytes"], r.own)
	}
	o.pipe = r.Stdin == "pipe"
	return o
}

func (r *run) collected(e *exec, begun time.Time) (*outcome, error) {
	got, err := until(e.waiter, r.deadline, e.collect)
	if err != nil {
		return nil, err
	}
	return &outcome{
		ending: got.ending, output: &[2][]byte{got.stdout, got.stderr},
		totals:    &[2]uint64{got.stdoutTotal, got.stderrTotal},
		truncated: got.truncated, writerLeft: &got.writerLeft, took: time.Since(begun),
	}, nil
}

func (r *run) waited(begun time.Time) (*outcome, error) {
	first, err := until(r.exec.waiter, r.deadline, r.exec.wait)
	if err != nil {
		return nil, err
	}
	took := time.Since(begun)
	second, err := until(r.exec.waiter, r.deadline, r.exec.wait)
	if err == nil && first.String() != second.String() {
		err = fmt.Errorf("a second wait said %v after %v", second, first)
	}
	return &outcome{ending: first, took: took}, err
}

func (r *run) streamed(begun time.Time) (*outcome, error) {
	took := time.Duration(0)
	for !r.has("end") {
		events, err := until(r.exec.waiter, r.deadline, r.exec.recvMany)
		if err != nil {
			return nil, fmt.Errorf("%w after %v", err, r.kinds)
		}
		for _, event := range events {
			r.take(event)
		}
		if took == 0 && r.has("exited") {
			took = time.Since(begun)
		}
	}
	if took == 0 {
		took = time.Since(begun)
	}
	for i := 0; i < 2; i++ {
		event, err := until(r.exec.waiter, r.deadline, r.exec.recv)
		if err == nil && event.kind != "end" {
			err = fmt.Errorf("%v came after the end", event)
		}
		if err != nil {
			return nil, err
		}
	}
	end, err := until(r.exec.waiter, r.deadline, r.exec.wait)
	if err != nil {
		return nil, err
	}
	o := &outcome{ending: end, output: &[2][]byte{r.seen["stdout"], r.seen["stderr"]},
		events: r.kinds, stdinErrs: r.stdinErrs, took: took}
	rest, err := until(r.exec.waiter, r.deadline, r.exec.collect)
	if end.exit != nil {
		o.writerLeft = &rest.writerLeft
	}
	return o, err
}

func (r *run) has(kind string) bool { return contains(r.kinds, kind) }

func (r *run) take(e event) {
	switch e.kind {
	case "stdout", "stderr":
		r.seen[e.kind] = append(r.seen[e.kind], e.data...)
	case "stdin_error":
		r.stdinErrs++
	}
	// Output comes in pieces of any size, and the end is told for ever.
	again := len(r.kinds) > 0 && r.kinds[len(r.kinds)-1] == e.kind
	if !again || e.kind != "stdout" && e.kind != "stderr" && e.kind != "end" {
		r.kinds = append(r.kinds, e.kind)
	}
}

// receive takes events until it is so.
func (r *run) receive(so func() bool) error {
	for !so() {
		if r.exec == nil {
			return errors.New("the handle is closed")
		}
		if r.has("end") {
			return fmt.Errorf("the end came first: %v, %s", r.kinds, show(r.seen["stdout"]))
		}
		event, err := until(r.exec.waiter, r.deadline, r.exec.recv)
		if err != nil {
			return fmt.Errorf("%w after %v, %s", err, r.kinds, show(r.seen["stdout"]))
		}
		r.take(event)
	}
	return nil
}

func (r *run) waitText(name string, text []byte) error {
	found := func() int { return bytes.Index(r.seen[name][r.looked[name]:], text) }
	err := r.receive(func() bool { return found() >= 0 })
	if err == nil {
		r.looked[name] += found() + len(text)
	}
	return err
}

func (r *run) doAll(steps []any) error {
	for i, step := range steps {
		if err := r.do(step); err != nil {
			text, _ := json.Marshal(step)
			return fmt.Errorf("step %d (%s): %w", i+1, text, err)
		}
	}
	return nil
}

func (r *run) do(step any) error {
	if name, is := step.(string); is {
		return r.doPlain(name)
	}
	for name, content := range step.(object) {
		switch name {
		case "wait":
			return r.receive(func() bool { return r.has(content.(string)) })
		case "wait_stdout", "wait_stderr":
			return r.waitText(strings.TrimPrefix(name, "wait_"), value(content, r.own))
		case "write", "write_fails", "feed":
			return r.input(name, content)
		case "signal":
			return r.signal(content, false)
		case "signal_fails":
			return fails(r.signal(content.(object)["signal"], false), content.(object)["error"])
		case "kill_fails":
			return fails(r.signal(json.Number("9"), true), content)
		case "resize":
			return r.resize(content.([]any)...)
		case "resize_fails":
			size := content.(object)
			return fails(r.resize(size["rows"], size["cols"]), size["error"])
		case "give_up":
			return r.giveUp(content.(object))
		case "run":
			return r.beside(content.(object))
		case "until":
			script := "until " + content.(string) + "; do usleep 10000; done"
			return r.beside(object{"script": script, "stdout": object{}})
		case "listed":
			state, err := r.sb.listed(r.id)
			if err == nil && state != content {
				err = fmt.Errorf("session %s is %s", r.id, state)
			}
			return err
		}
	}
	return fmt.Errorf("unknown step %v", step)
}

func (r *run) doPlain(name string) error {
	switch name {
	case "wait_exit":
		end, err := until(r.exec.waiter, r.deadline, r.exec.wait)
		if err == nil && end.exit == nil {
			err = fmt.Errorf("it did not exit: %v", end)
		}
		return err
	case "close_stdin":
		sink, err := r.pipe()
		if err != nil {
			return err
		}
		err = sink.close()
		if r.inputClosed {
			return closedAgain(err)
		}
		r.inputClosed = true
		return err
	case "no_sink":
		if r.sink != nil && !r.taken {
			return errors.New("there is a writing end")
		}
		return nil
	case "kill":
		return r.signal(json.Number("9"), true)
	case "close":
		err := r.exec.close()
		r.exec = nil
		return err
	}
	return errors.New("unknown step " + name)
}

// pipe gives the writing end, which is then taken.
func (r *run) pipe() (*sink, error) {
	if r.sink == nil {
		return nil, errors.New("there is no writing end")
	}
	r.taken = true
	return r.sink, nil
}

func (r *run) writeAll(s *sink, data []byte) error {
	for {
		n, err := until(s.waiter, r.deadline, func() (int, bool, error) { return s.write(data) })
		if data = data[n:]; err != nil || len(data) == 0 {
			return err
		}
	}
}

func (r *run) input(name string, content any) error {
	sink, err := r.pipe()
	if err != nil {
		return err
	}
	switch name {
	case "write":
		return r.writeAll(sink, value(content, r.own))
	case "write_fails":
		data := value(content.(object)["data"], r.own)
		for {
			if err := r.writeAll(sink, data); err != nil {
				return fails(err, content.(object)["error"])
			}
		}
	}
	r.fed = make(chan error, 1)
	go func() {
		err := r.writeAll(sink, value(content, r.own))
		var failed *failure
		if errors.As(err, &failed) && failed.kind == "broken_pipe" {
			err = nil
		}
		if closed := sink.close(); err == nil {
			err = closed
		}
		r.fed <- err
	}()
	return nil
}

func fails(err error, wanted any) error {
	var failed *failure
	if errors.As(err, &failed) && failed.kind == wanted {
		return nil
	}
	return fmt.Errorf("expected %v, got %v", wanted, err)
}

// signal goes by another handle of the session's when the case's own is closed.
func (r *run) signal(number any, tree bool) error {
	n, _ := integer(number)
	e := r.exec
	if e == nil {
		var err error
		if e, err = r.sb.reattach(r.id); err != nil {
			return err
		}
		defer e.close()
	}
	return e.signal(int(n), tree)
}

func (r *run) resize(size ...any) error {
	rows, _ := integer(size[0])
	cols, _ := integer(size[1])
	return r.exec.resize(uint16(rows), uint16(cols))
}

func (r *run) giveUp(content object) error {
	times, _ := integer(content["times"])
	for ; times > 0; times-- {
		switch content["on"] {
		case "recv":
			event, there, err := r.exec.recv()
			if err != nil {
				return err
			}
			if there {
				r.take(event)
			}
		case "wait":
			if _, _, err := r.exec.wait(); err != nil {
				return err
			}
		case "collect":
			if _, there, err := r.exec.collect(); there || err != nil {
				return fmt.Errorf("it ended while collecting was given up: %v", err)
			}
		}
	}
	return nil
}

// beside runs another command.
func (r *run) beside(content object) error {
	e, _, err := r.sb.stream(execOptions{cmd: value(content["script"], r.own), script: true})
	if err != nil {
		return err
	}
	defer e.close()
	got, err := until(e.waiter, r.deadline, e.collect)
	if err != nil {
		return err
	}
	if got.exit == nil || got.exit.code != 0 {
		return fmt.Errorf("%v, %s", got.ending, show(got.stderr))
	}
	if problem := mismatch(content["stdout"], got.stdout, r.own); problem != "" {
		return errors.New(problem)
	}
	return nil
}

// cleanUp leaves nothing behind, whatever went wrong. Most commands have ended.
func (r *run) cleanUp() {
	if r.id != "" {
		_ = r.signal(json.Number("9"), true)
	}
	for _, e := range r.others {
		_ = e.signal(9, true)
		_ = e.close()
	}
	if r.exec != nil {
		_ = r.exec.close()
	}
	if r.sink != nil {
		_ = r.sink.close()
		r.sink.free()
	}
}
