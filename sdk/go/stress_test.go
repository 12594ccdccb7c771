package microsandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

func TestWaitingGoroutinesHoldNoThreads(t *testing.T) {
	const many = 200
	sb := box(t)
	before := threads(t)
	type waiting struct {
		h    *m.ExecHandle
		sink *m.ExecSink
	}
	var all []waiting
	ends := make(chan error, many)
	for i := 0; i < many; i++ {
		h := start(t, sb, "exec cat", m.WithExecStdinPipe())
		sink := h.TakeStdin()
		all = append(all, waiting{h, sink})
		go func(i int) {
			switch i % 3 { // receiving, collecting, waiting
			case 0:
				for {
					event, err := h.Recv(soon(t))
					if err != nil || event.Kind == m.ExecEventDone {
						ends <- err
						return
					}
				}
			case 1:
				out, err := h.Collect(soon(t))
				if err == nil && out.Stdout() != "done" {
					err = errors.New(out.Stdout())
				}
				ends <- err
			default:
				_, err := h.Wait(soon(t))
				ends <- err
			}
		}(i)
	}
	// A command that was started later has ended, so all of them wait by now.
	_, err := sb.Exec(soon(t), "true", nil)
	must(t, err)
	// Concurrent calls into C use a thread each for a few microseconds.
	grown := threads(t) - before
	t.Logf("%d more threads", grown)
	if grown > many/2 {
		t.Errorf("%d waiting goroutines used %d threads", many, grown)
	}
	for _, one := range all {
		_, err := one.sink.Write([]byte("done"))
		must(t, err)
		must(t, one.sink.Close())
	}
	for range all {
		must(t, <-ends)
	}
}

// B5: a million numbered lines, read in every way with random cancellation.
func TestB5CancelsLoseNothing(t *testing.T) {
	const lines = 1_000_000
	sb := box(t)
	script := fmt.Sprintf("exec seq 1 %d", lines)
	check := func(t *testing.T, got []byte) {
		t.Helper()
		for i := 1; i <= lines; i++ {
			line, rest, _ := bytes.Cut(got, []byte("\n"))
			if n, err := strconv.Atoi(string(line)); err != nil || n != i {
				t.Fatalf("line %d is %q", i, line)
			}
			got = rest
		}
		equal(t, "bytes left", len(got), 0)
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	impatient := func(random *rand.Rand) (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), time.Duration(random.Intn(300))*time.Microsecond)
	}
	t.Run("Recv", func(t *testing.T) {
		random := rand.New(rand.NewSource(seed))
		h := start(t, sb, script)
		var got bytes.Buffer
		var order []m.ExecEventKind
		cancelled := 0
		for len(order) == 0 || order[len(order)-1] != m.ExecEventDone {
			ctx, cancel := impatient(random)
			event, err := h.Recv(ctx)
			cancel()
			switch {
			case err == context.DeadlineExceeded:
				cancelled++
			case err != nil:
				t.Fatal(err)
			case event.Kind == m.ExecEventStdout:
				got.Write(event.Data)
			default:
				order = append(order, event.Kind)
			}
		}
		equal(t, "events", fmt.Sprint(order), "[started exited done]")
		check(t, got.Bytes())
		t.Logf("cancelled %d times", cancelled)
		if cancelled == 0 {
			t.Error("no call was cancelled")
		}
	})
	t.Run("Collect", func(t *testing.T) {
		random := rand.New(rand.NewSource(seed))
		h := start(t, sb, script)
		for {
			ctx, cancel := impatient(random)
			out, err := h.Collect(ctx)
			cancel()
			if err == nil {
				check(t, out.StdoutBytes())
				return
			}
			same(t, "error", err, context.DeadlineExceeded)
		}
	})
	t.Run("writer", func(t *testing.T) {
		random := rand.New(rand.NewSource(seed))
		var got bytes.Buffer
		h := start(t, sb, script, m.WithStdout(&got))
		for {
			ctx, cancel := impatient(random)
			_, err := h.Wait(ctx)
			cancel()
			if err == nil {
				check(t, got.Bytes())
				return
			}
			same(t, "error", err, context.DeadlineExceeded)
		}
	})
	t.Run("pipe", func(t *testing.T) {
		h := start(t, sb, script)
		pipe, err := h.StdoutPipe()
		must(t, err)
		got, err := io.ReadAll(pipe)
		must(t, err)
		check(t, got)
	})
}

// B6: a stopped reader blocks the command, and resumed reading unblocks it.
func TestB6StoppedReaderBlocksCommand(t *testing.T) {
	sb := box(t)
	h := start(t, sb, "head -c 20000000 /dev/zero; echo over >&2")
	receive(t, h, m.ExecEventStdout)
	id, err := h.ID()
	must(t, err)
	total := func() uint64 {
		sessions, err := sb.Sessions(soon(t))
		must(t, err)
		for _, session := range sessions {
			if session.ID == id {
				return session.OutputTotal
			}
		}
		t.Fatal("the session is gone")
		return 0
	}
	last := uint64(0)
	until(t, "the command is blocked", func() bool {
		time.Sleep(20 * time.Millisecond)
		now := total()
		blocked := now == last
		last = now
		return blocked
	})
	if last > 4<<20 {
		t.Errorf("%d bytes were received without a reader", last)
	}
	out, err := h.Collect(soon(t))
	must(t, err)
	equal(t, "stderr", out.Stderr(), "over\n")
}

// All calls at once, from many goroutines, on handles that are closed concurrently.
func TestConcurrentHandleUse(t *testing.T) {
	sb := box(t)
	var all sync.WaitGroup
	for i := 0; i < 24; i++ {
		h, err := sb.ShellStream(soon(t), "while read -r x; do echo $x; echo $x >&2; done; exec sleep 0.1", m.WithExecStdinPipe())
		must(t, err)
		sink, control, ctx := h.TakeStdin(), h.Control(), soon(t)
		for _, use := range []func() error{
			func() error { _, err := h.Recv(ctx); return err },
			func() error { _, err := h.Recv(ctx); return err },
			func() error { _, err := sink.Write([]byte("a line\n")); return err },
			func() error { _, err := sink.WriteCtx(ctx, []byte("a line\n")); return err },
			func() error { return control.Signal(ctx, 28) },
			func() error { _, err := control.ID(); return err },
			func() error { _, _, err := h.Position(); return err },
			func() error { h.TakeStdin(); h.Exit(); return nil },
		} {
			use := use
			all.Add(1)
			go func() {
				defer all.Done()
				for j := 0; j < 50; j++ {
					if err := use(); m.IsKind(err, m.ErrClosed) {
						return
					}
				}
			}()
		}
		all.Add(1)
		go func(wait time.Duration) {
			defer all.Done()
			time.Sleep(wait)
			_ = control.Kill(ctx)
			_ = h.Close()
			_ = sink.Close()
		}(time.Duration(i) * time.Millisecond)
	}
	all.Wait()
	sessions, err := sb.Sessions(soon(t))
	must(t, err)
	equal(t, "sessions", len(sessions), 24)
}

// Commands leak no goroutine, descriptor or thread, however they were used.
func TestNothingLeaks(t *testing.T) {
	sb := box(t)
	use := func() {
		out, err := sb.Shell(soon(t), "echo hi; sleep 0.01")
		must(t, err)
		equal(t, "output", out.Stdout(), "hi\n")
		_, err = sb.Exec(soon(t), "none", nil)
		kind(t, err, m.ErrExecFailed)
		h, err := sb.ShellStream(soon(t), "sleep 0.02; echo late; exec cat", m.WithExecStdinPipe())
		must(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		_, err = h.Collect(ctx) // cancelled while a goroutine is in the poller
		same(t, "cancelled", err, context.DeadlineExceeded)
		cancel()
		sink := h.TakeStdin()
		_, err = sink.Write(make([]byte, 100))
		must(t, err)
		must(t, sink.Close())
		pipe, err := h.StdoutPipe()
		must(t, err)
		_, err = io.ReadAll(pipe)
		must(t, err)
		must(t, h.Close())
		given, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		_, err = sb.Exec(given, "sleep", []string{"600"})
		cancel()
		same(t, "cancelled", err, context.DeadlineExceeded)
		left, err := sb.ExecStream(soon(t), "sleep", []string{"0.01"}, m.WithExecStdinPipe())
		must(t, err)
		must(t, left.Close())
	}
	for i := 0; i < 3; i++ {
		use()
	}
	// Finalizers must not close handles during the measurement.
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	fds, routines, tasks := descriptors(t), runtime.NumGoroutine(), threads(t)
	for i := 0; i < 30; i++ {
		use()
	}
	// Those of cancelled calls are closed last.
	until(t, "descriptors are closed", func() bool { return descriptors(t) <= fds })
	// The test's own contexts have timers, but no goroutines.
	until(t, "goroutines have ended", func() bool { return runtime.NumGoroutine() <= routines })
	if now := threads(t); now > tasks+8 {
		t.Errorf("%d threads became %d", tasks, now)
	}
}

// The garbage collector closes unreachable handles; the commands keep running.
func TestUnreachableHandlesAreClosed(t *testing.T) {
	sb := box(t)
	before := descriptors(t)
	func() {
		for i := 0; i < 20; i++ {
			h, err := sb.Reattach(soon(t), idOf(t, sb), m.ReattachNow)
			must(t, err)
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			_, _ = h.Wait(ctx) // creates a descriptor and a goroutine in the poller
			cancel()
		}
	}()
	until(t, "the handles are closed", func() bool {
		runtime.GC()
		return descriptors(t) <= before+2
	})
	sessions, err := sb.Sessions(soon(t))
	must(t, err)
	for _, session := range sessions {
		equal(t, "running", session.Running(), true)
	}
}

// idOf starts a long command, drops its handle, and returns the session id.
func idOf(t *testing.T, sb *m.Sandbox) string {
	h, err := sb.ExecStream(soon(t), "sleep", []string{"600"})
	must(t, err)
	id, err := h.ID()
	must(t, err)
	return id
}

// A12: many commands at once, and many in sequence.
func TestA12ManyCommands(t *testing.T) {
	sb := box(t)
	var all sync.WaitGroup
	failed := make(chan error, 500)
	for i := 0; i < 500; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			out, err := sb.Exec(soon(t), "echo", []string{strconv.Itoa(i)})
			if err == nil && out.Stdout() != strconv.Itoa(i)+"\n" {
				err = fmt.Errorf("%d: %q", i, out.Stdout())
			}
			failed <- err
		}(i)
	}
	all.Wait()
	for i := 0; i < 500; i++ {
		must(t, <-failed)
	}
	before := threads(t)
	for i := 0; i < 300; i++ {
		out, err := sb.Exec(soon(t), "true", nil)
		must(t, err)
		equal(t, "success", out.Success(), true)
	}
	if now := threads(t); now > before+4 {
		t.Errorf("%d threads became %d", before, now)
	}
}

// A4: both outputs at once, byte for byte. MSB_TEST_MIB sets a larger size.
func TestA4BigOutput(t *testing.T) {
	mib := 32
	if given, err := strconv.Atoi(os.Getenv("MSB_TEST_MIB")); err == nil {
		mib = given
	}
	sb := box(t)
	out, err := sb.Exec(soon(t), "helper", []string{"write-both", strconv.Itoa(mib << 20), "65536"})
	must(t, err)
	for name, data := range map[string][]byte{"stdout": out.StdoutBytes(), "stderr": out.StderrBytes()} {
		equal(t, name, len(data), mib<<20)
		for i, b := range data {
			if b != byte(i%251) {
				t.Fatalf("%s: byte %d is %d", name, i, b)
			}
		}
	}
}
