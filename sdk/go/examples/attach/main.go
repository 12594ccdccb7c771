// Opens a shell in a running sandbox on this terminal. ctrl-] detaches and leaves it running.
//
//	go run ./examples/attach NAME
package main

import (
	"context"
	"fmt"
	"os"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

func run(ctx context.Context, name string) (int, error) {
	sb, err := m.GetSandbox(ctx, name)
	if err != nil {
		return 1, err
	}
	defer sb.Close()
	code, err := sb.AttachShell(ctx)
	if err != nil {
		return 1, err
	}
	if code == -1 {
		fmt.Println("\ndetached; the shell keeps running")
		return 0, nil
	}
	return code, nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: attach NAME")
		os.Exit(2)
	}
	code, err := run(context.Background(), os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "attach:", err)
	}
	os.Exit(code)
}
