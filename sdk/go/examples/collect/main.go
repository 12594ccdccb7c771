// Runs a script in a new sandbox and prints its output.
//
//	MSB_DRIVER=container go run ./examples/collect ROOTFS 'echo hello; exit 3'
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

func run(ctx context.Context, image, script string) (code int, err error) {
	if err := m.EnsureInstalled(ctx); err != nil {
		return 1, err
	}
	name := fmt.Sprint("collect-", os.Getpid())
	sb, err := m.CreateSandbox(ctx, name, m.WithImage(image))
	if err != nil {
		return 1, err
	}
	defer func() {
		_ = sb.Close()
		// ctx may be done here.
		if gone := m.RemoveSandbox(context.Background(), name, m.WithForce()); err == nil {
			err = gone
		}
	}()
	out, err := sb.Shell(ctx, script, m.WithExecTimeout(time.Minute))
	var failed *m.Error
	if errors.As(err, &failed) && failed.Output != nil {
		out = failed.Output // the output so far
	}
	if out == nil {
		return 1, err
	}
	os.Stdout.Write(out.StdoutBytes())
	os.Stderr.Write(out.StderrBytes())
	return out.ExitCode(), err
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: collect ROOTFS SCRIPT")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code, err := run(ctx, os.Args[1], os.Args[2])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "collect:", err)
		os.Exit(1)
	}
	os.Exit(code)
}
