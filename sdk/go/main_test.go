package microsandbox_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// rootfs is what conformance/make-rootfs made: busybox and a helper.
var rootfs = os.Getenv("MSB_TEST_ROOTFS")

func TestMain(main *testing.M) {
	if rootfs == "" {
		fmt.Fprintln(os.Stderr, "MSB_TEST_ROOTFS names no root filesystem: scripts/test-go makes one")
		os.Exit(1)
	}
	os.Exit(main.Run())
}

// scaled stretches a time on a slow machine.
func scaled(d time.Duration) time.Duration {
	if scale, err := strconv.ParseFloat(os.Getenv("MSB_TEST_TIME_SCALE"), 64); err == nil {
		return time.Duration(float64(d) * scale)
	}
	return d
}

// soon is a context that ends a test that hangs.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), scaled(time.Minute))
	t.Cleanup(cancel)
	return ctx
}

var boxes atomic.Int64

// box gives a new sandbox, which ends with the test.
func box(t testing.TB, opts ...m.SandboxOption) *m.Sandbox {
	t.Helper()
	name := fmt.Sprintf("go-%d-%d", os.Getpid(), boxes.Add(1))
	sb, err := m.CreateSandbox(soon(t), name, append([]m.SandboxOption{m.WithImage(rootfs)}, opts...)...)
	must(t, err)
	t.Cleanup(func() {
		must(t, sb.Close())
		must(t, m.RemoveSandbox(context.Background(), name, m.WithForce()))
	})
	return sb
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t testing.TB, what string, got, wanted T) {
	t.Helper()
	if got != wanted {
		t.Fatalf("%s: got %v, wanted %v", what, got, wanted)
	}
}

// same is equal for errors.
func same(t testing.TB, what string, got, wanted error) {
	t.Helper()
	if got != wanted {
		t.Fatalf("%s: got %v, wanted %v", what, got, wanted)
	}
}

// kind fails unless the error is of this kind.
func kind(t testing.TB, err error, wanted m.ErrorKind) {
	t.Helper()
	if !m.IsKind(err, wanted) {
		t.Fatalf("got %v, wanted %v", err, wanted)
	}
}

// until waits for a condition that something else brings about.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(scaled(30 * time.Second)); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func threads(t testing.TB) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	must(t, err)
	return len(tasks)
}

// descriptors are what this process has open, by what they are, without what a directory needs.
func descriptors(t testing.TB) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(open)
}

// start follows a new command, whose handle is closed with the test.
func start(t testing.TB, sb *m.Sandbox, script string, opts ...m.ExecOption) *m.ExecHandle {
	t.Helper()
	h, err := sb.ShellStream(soon(t), script, opts...)
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return h
}

// receive gives events until one of this kind has come.
func receive(t testing.TB, h *m.ExecHandle, last m.ExecEventKind) (all []*m.ExecEvent) {
	t.Helper()
	for {
		event, err := h.Recv(soon(t))
		must(t, err)
		all = append(all, event)
		if event.Kind == last {
			return all
		}
		if event.Kind == m.ExecEventDone {
			t.Fatalf("the end came before %v: %v", last, kinds(all))
		}
	}
}

func kinds(events []*m.ExecEvent) string {
	var names []string
	for _, event := range events {
		names = append(names, event.Kind.String())
	}
	return strings.Join(names, " ")
}
