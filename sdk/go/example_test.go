package microsandbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// exampleBox returns a sandbox for the examples below; end removes it.
func exampleBox() (sb *m.Sandbox, end func()) {
	ctx := context.Background()
	name := fmt.Sprint("example-", os.Getpid())
	sb, err := m.CreateSandbox(ctx, name, m.WithImage(rootfs), m.WithReplace())
	if err != nil {
		log.Fatal(err)
	}
	return sb, func() {
		_ = sb.Close()
		_ = m.RemoveSandbox(ctx, name, m.WithForce())
	}
}

func Example() {
	ctx := context.Background()
	sb, err := m.CreateSandbox(ctx, "example", m.WithImage(rootfs), m.WithReplace())
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		_ = sb.Kill(ctx)
		_ = sb.Close()
		_ = m.RemoveSandbox(ctx, "example")
	}()

	out, err := sb.Exec(ctx, "sh", []string{"-c", "echo hello; exit 3"})
	if err != nil {
		log.Fatal(err) // did not start, timed out or was lost
	}
	fmt.Print(out.Stdout())
	fmt.Println(out.ExitCode(), out.Success())
	// Output:
	// hello
	// 3 false
}

func ExampleSandbox_Exec_failures() {
	sb, end := exampleBox()
	defer end()
	ctx := context.Background()

	_, err := sb.Exec(ctx, "no-such-program", nil)
	var failure *m.ExecFailure
	if errors.As(err, &failure) {
		fmt.Println(failure.Kind, failure.ErrnoName, errors.Is(err, fs.ErrNotExist))
	}

	_, err = sb.Shell(ctx, "echo so far; sleep 600", m.WithExecTimeout(time.Second))
	var failed *m.Error
	if m.IsKind(err, m.ErrExecTimeout) && errors.As(err, &failed) {
		fmt.Printf("timed out after %q\n", failed.Output.Stdout())
	}
	// Output:
	// not_found ENOENT true
	// timed out after "so far\n"
}

func ExampleExecHandle_Recv() {
	sb, end := exampleBox()
	defer end()
	ctx := context.Background()

	h, err := sb.ShellStream(ctx, "echo one; echo two >&2; exit 3")
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	for {
		event, err := h.Recv(ctx)
		if err != nil {
			log.Fatal(err)
		}
		switch event.Kind {
		case m.ExecEventFailed:
			fmt.Println(event.Failure)
		case m.ExecEventExited:
			fmt.Println("exited with", event.ExitCode)
		case m.ExecEventLost:
			fmt.Println("lost:", event.Reason)
		case m.ExecEventDone:
			return
		}
	}
	// Output: exited with 3
}

func ExampleExecHandle_StdoutPipe() {
	sb, end := exampleBox()
	defer end()
	ctx := context.Background()

	h, err := sb.ShellStream(ctx, "seq 1 3")
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	stdout, err := h.StdoutPipe()
	if err != nil {
		log.Fatal(err)
	}
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		fmt.Println("line", lines.Text())
	}
	code, err := h.Wait(ctx)
	fmt.Println(code, err)
	// Output:
	// line 1
	// line 2
	// line 3
	// 0 <nil>
}

func ExampleWithStdout() {
	sb, end := exampleBox()
	defer end()

	out, err := sb.Shell(context.Background(), "seq 1 2; exit 1", m.WithStdout(os.Stdout))
	fmt.Println(out.ExitCode(), err)
	// Output:
	// 1
	// 2
	// 1 <nil>
}

func ExampleExecHandle_TakeStdin() {
	sb, end := exampleBox()
	defer end()
	ctx := context.Background()

	h, err := sb.ExecStream(ctx, "sort", nil, m.WithExecStdinPipe())
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	stdin := h.TakeStdin()
	fmt.Fprintln(stdin, "pear")
	fmt.Fprintln(stdin, "apple")
	if err := stdin.Close(); err != nil {
		log.Fatal(err)
	}
	out, err := h.Collect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(out.Stdout())
	// Output:
	// apple
	// pear
}
