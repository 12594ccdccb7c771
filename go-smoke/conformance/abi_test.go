package main

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"
)

func box(t *testing.T) *sandbox {
	t.Helper()
	name := "go-" + t.Name()
	sb, err := createSandbox(sandboxOptions{name: name, image: os.Getenv("MSB_TEST_ROOTFS")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.end(name); err != nil {
			t.Error(err)
		}
	})
	return sb
}

func start(t *testing.T, sb *sandbox, o execOptions) (*exec, *sink) {
	t.Helper()
	e, s, err := sb.stream(o)
	if err != nil {
		t.Fatal(err)
	}
	return e, s
}

func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

func soon() time.Time { return time.Now().Add(20 * time.Second) }

func TestGoroutinesThatWaitTakeNoThreads(t *testing.T) {
	sb := box(t)
	const many = 100
	before, ends := threads(t), make(chan error, many)
	var execs []*exec
	var sinks []*sink
	for i := 0; i < many; i++ {
		e, s := start(t, sb, execOptions{cmd: []byte("cat"), pipe: true})
		execs, sinks = append(execs, e), append(sinks, s)
		go func() {
			got, err := until(e.waiter, soon(), e.collect)
			if err == nil && (got.exit == nil || !bytes.Equal(got.stdout, []byte("done"))) {
				err = errors.New(got.String())
			}
			ends <- err
		}()
	}
	// All have been started, and wait, when the last one answers.
	if state, err := sb.listed(mustID(t, execs[many-1])); state != "running" || err != nil {
		t.Fatal(state, err)
	}
	if grown := threads(t) - before; grown > 3*runtime.GOMAXPROCS(0)+8 {
		t.Errorf("%d goroutines that wait took %d threads", many, grown)
	}
	for _, s := range sinks {
		if _, err := until(s.waiter, soon(), func() (int, bool, error) { return s.write([]byte("done")) }); err != nil {
			t.Error(err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
		s.file.Close()
	}
	for range execs {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	for _, e := range execs {
		if err := e.close(); err != nil {
			t.Error(err)
		}
	}
}

func mustID(t *testing.T, e *exec) string {
	t.Helper()
	id, err := e.id()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestAWaitHasADeadlineAndLosesNothing(t *testing.T) {
	e, s := start(t, box(t), execOptions{cmd: []byte("cat"), pipe: true})
	begun := time.Now()
	_, err := until(e.waiter, begun.Add(50*time.Millisecond), e.collect)
	if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) < 50*time.Millisecond {
		t.Fatal(err, time.Since(begun))
	}
	if _, err := until(s.waiter, soon(), func() (int, bool, error) { return s.write([]byte("x")) }); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	got, err := until(e.waiter, soon(), e.collect)
	if err != nil || string(got.stdout) != "x" {
		t.Fatal(got, err)
	}
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
}

func TestClosingWakesTheWaiter(t *testing.T) {
	sb := box(t)
	e, _ := start(t, sb, execOptions{cmd: []byte("sleep"), args: [][]byte{[]byte("600")}})
	id, woken := mustID(t, e), make(chan error)
	go func() {
		_, err := until(e.waiter, soon(), e.wait)
		woken <- err
	}()
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	again, err := sb.reattach(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.signal(9, true); err != nil {
		t.Fatal(err)
	}
	if end, err := until(again.waiter, soon(), again.wait); err != nil || end.exit.signal != 9 {
		t.Fatal(end, err)
	}
	var closed *failure
	if err := again.close(); err != nil {
		t.Fatal(err)
	}
	if err := again.signal(9, true); !errors.As(err, &closed) || closed.kind != "closed" {
		t.Fatal(err)
	}
}
