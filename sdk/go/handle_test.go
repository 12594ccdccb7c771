package microsandbox_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

func TestB1EventsOfACommand(t *testing.T) {
	sb := box(t)
	h := start(t, sb, "echo hi; exit 5")
	all := receive(t, h, m.ExecEventDone)
	equal(t, "kinds", kinds(all), "started stdout exited done")
	if all[0].PID == 0 || string(all[1].Data) != "hi\n" {
		t.Error(all[0], all[1])
	}
	equal(t, "code", all[2].ExitCode, 5)
	if all[2].Exit.WallTime <= 0 || all[2].Exit.MaxRSS == 0 {
		t.Error(*all[2].Exit)
	}
	for i := 0; i < 2; i++ {
		again, err := h.Recv(soon(t))
		must(t, err)
		equal(t, "event after the end", again.Kind, m.ExecEventDone)
	}
	code, err := h.Wait(soon(t))
	must(t, err)
	equal(t, "code", code, 5)

	failed, err := sb.ExecStream(soon(t), "none", nil)
	must(t, err)
	defer failed.Close()
	all = receive(t, failed, m.ExecEventDone)
	equal(t, "kinds", kinds(all), "failed done")
	equal(t, "failure", all[0].Failure.Kind, "not_found")
}

func TestB7LostSandboxReportsNoExit(t *testing.T) {
	sb := box(t)
	h := start(t, sb, "echo hi; exec sleep 600", m.WithExecStdinPipe())
	waiting := start(t, sb, "exec sleep 600")
	piped := start(t, sb, "exec sleep 600")
	pipe, err := piped.StdoutPipe()
	must(t, err)
	receive(t, h, m.ExecEventStdout)
	must(t, sb.Kill(soon(t)))
	all := receive(t, h, m.ExecEventDone)
	equal(t, "kinds", kinds(all), "lost done")
	if all[0].Reason == "" || h.Exit() != nil {
		t.Error(all[0], h.Exit())
	}
	code, err := waiting.Wait(soon(t))
	kind(t, err, m.ErrStreamLost)
	equal(t, "code", code, -1)
	_, err = io.ReadAll(pipe)
	kind(t, err, m.ErrStreamLost)
	_, err = h.TakeStdin().WriteCtx(soon(t), []byte("x"))
	kind(t, err, m.ErrStreamLost)
	kind(t, h.Kill(soon(t)), m.ErrStreamLost)
}

func TestDoneContextRejectsCalls(t *testing.T) {
	sb := box(t)
	h := start(t, sb, "exec sleep 600", m.WithExecStdinPipe())
	receive(t, h, m.ExecEventStarted)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for name, call := range map[string]func() error{
		"kill":      func() error { return h.Kill(over) },
		"signal":    func() error { return h.Signal(over, 15) },
		"recv":      func() error { _, err := h.Recv(over); return err },
		"wait":      func() error { _, err := h.Wait(over); return err },
		"stop":      func() error { return sb.Stop(over) },
		"kill it":   func() error { return sb.Kill(over) },
		"wait stop": func() error { return sb.WaitUntilStopped(over) },
		"info":      func() error { _, err := sb.Info(over); return err },
		"sessions":  func() error { _, err := sb.Sessions(over); return err },
		"list":      func() error { _, err := m.ListSandboxes(over); return err },
		"remove":    func() error { return m.RemoveSandbox(over, sb.Name(), m.WithForce()) },
		"write":     func() error { _, err := h.TakeStdin().WriteCtx(over, []byte("x")); return err },
		"logs":      func() error { _, err := sb.Logs(over); return err },
	} {
		if err := call(); err != context.Canceled {
			t.Errorf("%s: %v", name, err)
		}
	}
	sessions, err := sb.Sessions(soon(t))
	must(t, err)
	equal(t, "it runs", len(sessions) == 1 && sessions[0].Running(), true)
}

func TestC3UnreadInputIsBrokenPipe(t *testing.T) {
	h := start(t, box(t), "exec <&-; echo closed; exec sleep 600", m.WithExecStdinPipe())
	sink := h.TakeStdin()
	if h.TakeStdin() != nil {
		t.Error("TakeStdin returned the sink twice")
	}
	receive(t, h, m.ExecEventStdout)
	var err error
	for err == nil {
		_, err = sink.WriteCtx(soon(t), []byte("x"))
	}
	kind(t, err, m.ErrBrokenPipe)
	if !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
	all := receive(t, h, m.ExecEventStdinError)
	failure := all[len(all)-1].Failure
	equal(t, "kind", failure.Kind, "broken_pipe")
	equal(t, "errno", failure.ErrnoName, "EPIPE")
	must(t, sink.Close())
	must(t, sink.Close())
	_, err = sink.Write([]byte("x"))
	kind(t, err, m.ErrClosed)
	if !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	must(t, h.Kill(soon(t)))
}

func TestC2WritesAreOrderedAndCancellable(t *testing.T) {
	sb := box(t)
	h := start(t, sb, "until [ -e /tmp/go ]; do usleep 1000; done; exec cat", m.WithExecStdinPipe())
	sink := h.TakeStdin()
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(i % 251)
	}
	ctx, cancel := context.WithCancel(soon(t))
	type result struct {
		n   int
		err error
	}
	written := make(chan result)
	go func() {
		n, err := sink.WriteCtx(ctx, data)
		written <- result{n, err}
	}()
	time.AfterFunc(50*time.Millisecond, cancel)
	first := <-written
	same(t, "error", first.err, context.Canceled)
	if first.n == 0 || first.n == len(data) {
		t.Fatal(first.n)
	}
	out, err := sb.Shell(soon(t), "touch /tmp/go")
	must(t, err)
	equal(t, "other command", out.Success(), true)
	go func() {
		n, err := sink.Write(data[first.n:])
		if closed := sink.Close(); err == nil {
			err = closed
		}
		written <- result{n, err}
	}()
	got, err := h.Collect(soon(t))
	must(t, err)
	must(t, (<-written).err)
	if !bytes.Equal(got.StdoutBytes(), data) {
		t.Error(len(got.StdoutBytes()), "bytes came back, of", len(data))
	}
	n, err := sink.Write(nil)
	kind(t, err, m.ErrClosed)
	equal(t, "written", n, 0)
}

func TestB9SecondReaderIsBusyControlWorks(t *testing.T) {
	h := start(t, box(t), "exec cat", m.WithExecStdinPipe())
	receive(t, h, m.ExecEventStarted)
	read := make(chan *m.ExecEvent)
	go func() {
		event, err := h.Recv(soon(t))
		for m.IsKind(err, m.ErrBusy) {
			event, err = h.Recv(soon(t))
		}
		read <- event
	}()
	until(t, "the other one reads", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_, err := h.Recv(ctx)
		return m.IsKind(err, m.ErrBusy)
	})
	_, err := h.Collect(soon(t))
	kind(t, err, m.ErrBusy)
	_, err = h.Wait(soon(t))
	kind(t, err, m.ErrBusy)
	_, err = h.StdoutPipe()
	kind(t, err, m.ErrBusy)
	control := h.Control()
	id, err := control.ID()
	must(t, err)
	other, err := h.ID()
	must(t, err)
	equal(t, "id", id, other)
	kind(t, control.Resize(soon(t), 1, 1), m.ErrNotATerminal)
	kind(t, control.Resize(soon(t), 0, 1), m.ErrInvalidArgument)
	kind(t, control.Signal(soon(t), 0), m.ErrInvalidArgument)
	must(t, control.Kill(soon(t)))
	equal(t, "event", (<-read).Kind, m.ExecEventExited)
	err = h.Signal(soon(t), int(syscall.SIGTERM))
	kind(t, err, m.ErrNoSuchProcess)
	if !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}

func TestB8Terminal(t *testing.T) {
	h := start(t, box(t), "trap 'stty size; exit' WINCH; stty size; while :; do usleep 1000; done",
		m.WithExecSize(50, 132))
	var seen bytes.Buffer
	read := func(text string) {
		t.Helper()
		for !strings.Contains(seen.String(), text) {
			event, err := h.Recv(soon(t))
			must(t, err)
			if event.Kind == m.ExecEventDone {
				t.Fatal(seen.String())
			}
			seen.Write(event.Data)
		}
	}
	read("50 132\r\n")
	must(t, h.Resize(soon(t), 40, 100))
	read("40 100\r\n")
	receive(t, h, m.ExecEventDone)
}

func TestB10CancelledCollectKeepsOutput(t *testing.T) {
	sb := box(t)
	for _, opts := range [][]m.ExecOption{nil, {m.WithStderr(io.Discard)}} {
		h := start(t, sb, "rm -f /tmp/more; echo first; until [ -e /tmp/more ]; do usleep 1000; done; echo second", opts...)
		for i := 0; i < 20; i++ {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*time.Millisecond)
			_, err := h.Collect(ctx)
			cancel()
			same(t, "error", err, context.DeadlineExceeded)
		}
		_, err := sb.Shell(soon(t), "touch /tmp/more")
		must(t, err)
		out, err := h.Collect(soon(t))
		must(t, err)
		equal(t, "output", out.Stdout(), "first\nsecond\n")
		equal(t, "total", out.StdoutTotal(), 13)
		again, err := h.Collect(soon(t))
		must(t, err)
		equal(t, "again", again.Stdout(), "")
	}
}

func TestD1CloseWakesAndDoesNotKill(t *testing.T) {
	sb := box(t)
	for name, wait := range map[string]func(*m.ExecHandle, *m.ExecSink) error{
		"recv":    func(h *m.ExecHandle, _ *m.ExecSink) error { _, err := h.Recv(soon(t)); return err },
		"wait":    func(h *m.ExecHandle, _ *m.ExecSink) error { _, err := h.Wait(soon(t)); return err },
		"collect": func(h *m.ExecHandle, _ *m.ExecSink) error { _, err := h.Collect(soon(t)); return err },
		"write": func(_ *m.ExecHandle, s *m.ExecSink) error {
			_, err := s.Write(make([]byte, 16<<20))
			return err
		},
		"pipe": func(h *m.ExecHandle, _ *m.ExecSink) error {
			pipe, err := h.StdoutPipe()
			must(t, err)
			_, err = pipe.Read(make([]byte, 1))
			return err
		},
	} {
		h := start(t, sb, "exec sleep 600", m.WithExecStdinPipe())
		receive(t, h, m.ExecEventStarted)
		sink := h.TakeStdin()
		id, err := h.ID()
		must(t, err)
		woken := make(chan error)
		go func() { woken <- wait(h, sink) }()
		time.Sleep(5 * time.Millisecond) // either order is valid; usually the call waits by now
		must(t, h.Close())
		if name == "write" {
			must(t, sink.Close())
		}
		if err := <-woken; !m.IsKind(err, m.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, h.Close())
		must(t, sink.Close())
		_, err = h.Recv(soon(t))
		kind(t, err, m.ErrClosed)
		kind(t, h.Kill(soon(t)), m.ErrClosed)
		_, err = h.ID()
		kind(t, err, m.ErrClosed)
		sessions, err := sb.Sessions(soon(t))
		must(t, err)
		for _, session := range sessions {
			if session.ID == id && !session.Running() {
				t.Errorf("%s: Close ended the command: %+v", name, *session.Exit)
			}
		}
		again, err := sb.Reattach(soon(t), id, m.ReattachNow)
		must(t, err)
		must(t, again.Kill(soon(t)))
		code, err := again.Wait(soon(t))
		must(t, err)
		equal(t, "code", code, -1)
		must(t, again.Close())
	}
}

func TestD5ReattachResumesAtPosition(t *testing.T) {
	sb := box(t)
	h := start(t, sb, "echo first; until [ -e /tmp/more ]; do usleep 1000; done; echo second; cat", m.WithExecStdinPipe())
	receive(t, h, m.ExecEventStdout)
	at, missed, err := h.Position()
	must(t, err)
	equal(t, "position", at, 6)
	equal(t, "missed", missed, 0)
	id, err := h.ID()
	must(t, err)
	must(t, h.TakeStdin().Close())
	must(t, h.Close())
	_, err = sb.Shell(soon(t), "touch /tmp/more")
	must(t, err)
	// The first Collect waits for the end, so that the third position is within the output.
	for _, c := range []struct {
		from   m.ReattachFrom
		wanted string
	}{{m.ReattachStart, "first\nsecond\n"}, {at, "second\n"}, {at + 3, "ond\n"}} {
		again, err := sb.Reattach(soon(t), id, c.from)
		must(t, err)
		out, err := again.Collect(soon(t))
		must(t, err)
		equal(t, "output", out.Stdout(), c.wanted)
		must(t, again.Close())
	}
}

func TestPipesBehaveLikeOSExec(t *testing.T) {
	sb := box(t)
	h := start(t, sb, "for i in 1 2 3; do echo line $i; done; echo oops >&2; exit 6")
	stdout, err := h.StdoutPipe()
	must(t, err)
	stderr, err := h.StderrPipe()
	must(t, err)
	lines := bufio.NewScanner(stdout)
	for i := 1; i <= 3; i++ {
		equal(t, "a line", lines.Scan(), true)
		equal(t, "line", lines.Text(), "line "+string(rune('0'+i)))
	}
	equal(t, "a line", lines.Scan(), false)
	must(t, lines.Err())
	rest, err := io.ReadAll(stderr)
	must(t, err)
	equal(t, "stderr", string(rest), "oops\n")
	code, err := h.Wait(soon(t))
	must(t, err)
	equal(t, "code", code, 6)
	_, err = h.Recv(soon(t))
	kind(t, err, m.ErrBusy)
	_, err = h.StdoutPipe()
	kind(t, err, m.ErrInvalidArgument)

	// Output without a pipe is discarded; a full pipe blocks the command.
	big := start(t, sb, "head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero; echo end")
	stdout, err = big.StdoutPipe()
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = big.Wait(ctx)
	same(t, "no reader", err, context.DeadlineExceeded)
	all, err := io.ReadAll(stdout)
	must(t, err)
	equal(t, "length", len(all), 5_000_004)
	// A closed reader does not block the command.
	big = start(t, sb, "head -c 5000000 /dev/zero; exit 8")
	stdout, err = big.StdoutPipe()
	must(t, err)
	must(t, stdout.Close())
	code, err = big.Wait(soon(t))
	must(t, err)
	equal(t, "code", code, 8)
	_, err = stdout.Read(make([]byte, 1))
	kind(t, err, m.ErrClosed)
	// A command that did not start fails its reader instead of returning no output.
	none, err := sb.ExecStream(soon(t), "none", nil)
	must(t, err)
	defer none.Close()
	stdout, err = none.StdoutPipe()
	must(t, err)
	_, err = io.ReadAll(stdout)
	kind(t, err, m.ErrExecFailed)
	_, err = none.Wait(soon(t))
	kind(t, err, m.ErrExecFailed)
}
