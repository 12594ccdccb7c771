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

// rootfs is the root filesystem from conformance/make-rootfs: busybox and a helper.
var rootfs = os.Getenv("MSB_TEST_ROOTFS")

func TestMain(main *testing.M) {
	if rootfs == "" {
		fmt.Fprintln(os.Stderr, "MSB_TEST_ROOTFS is not set; run make test-go, which sets it")
		os.Exit(1)
	}
	os.Exit(main.Run())
}

// scaled multiplies a time by MSB_TEST_TIME_SCALE, for slow machines.
func scaled(d time.Duration) time.Duration {
	if scale, err := strconv.ParseFloat(os.Getenv("MSB_TEST_TIME_SCALE"), 64); err == nil {
		return time.Duration(float64(d) * scale)
	}
	return d
}

// soon returns a context with a deadline for the whole test.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), scaled(time.Minute))
	t.Cleanup(cancel)
	return ctx
}

var boxes atomic.Int64

// box returns a new sandbox, which is removed at the end of the test.
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

// kind fails the test unless the error has this kind.
func kind(t testing.TB, err error, wanted m.ErrorKind) {
	t.Helper()
	if !m.IsKind(err, wanted) {
		t.Fatalf("got %v, wanted %v", err, wanted)
	}
}

// until polls a condition.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(scaled(30 * time.Second)); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func threads(t testing.TB) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	must(t, err)
	return len(tasks)
}

// descriptors returns the number of open descriptors of this process, including one for the
// directory.
func descriptors(t testing.TB) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(open)
}

// start starts a script and closes its handle at the end of the test.
func start(t testing.TB, sb *m.Sandbox, script string, opts ...m.ExecOption) *m.ExecHandle {
	t.Helper()
	h, err := sb.ShellStream(soon(t), script, opts...)
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return h
}

// receive returns all events up to the first one of a kind.
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
			t.Fatalf("done before %v: %v", last, kinds(all))
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
