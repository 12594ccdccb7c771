// Streams many commands at once: one goroutine for each, and no blocked threads.
//
//	MSB_DRIVER=container go run ./examples/many ROOTFS 100
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// follow runs a script and counts the bytes of its output.
func follow(ctx context.Context, sb *m.Sandbox, script string) (bytes, code int, err error) {
	h, err := sb.ShellStream(ctx, script)
	if err != nil {
		return 0, 0, err
	}
	defer h.Close()
	for {
		event, err := h.Recv(ctx)
		if err != nil {
			return bytes, code, err
		}
		switch event.Kind {
		case m.ExecEventStdout:
			bytes += len(event.Data)
		case m.ExecEventExited:
			code = event.ExitCode
		case m.ExecEventFailed:
			return bytes, code, event.Failure
		case m.ExecEventLost:
			return bytes, code, fmt.Errorf("lost: %s", event.Reason)
		case m.ExecEventDone:
			return bytes, code, nil
		}
	}
}

func run(image string, count int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	name := fmt.Sprint("many-", os.Getpid())
	sb, err := m.CreateSandbox(ctx, name, m.WithImage(image))
	if err != nil {
		return err
	}
	defer m.RemoveSandbox(context.Background(), name, m.WithForce())
	defer sb.Close()

	var all sync.WaitGroup
	var mu sync.Mutex
	var first error
	bytes, codes := 0, 0
	for i := 0; i < count; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			script := fmt.Sprintf("sleep 0.%d; head -c %d /dev/zero; exit %d", i%5, i*1000, i%3)
			n, code, err := follow(ctx, sb, script)
			mu.Lock()
			defer mu.Unlock()
			bytes, codes = bytes+n, codes+code
			if err != nil && first == nil {
				first = err
				cancel()
			}
		}(i)
	}
	all.Wait()
	fmt.Println(bytes, "bytes, sum of the exit codes", codes)
	return first
}

func main() {
	count := 0
	if len(os.Args) == 3 {
		count, _ = strconv.Atoi(os.Args[2])
	}
	if count < 1 {
		fmt.Fprintln(os.Stderr, "usage: many ROOTFS COUNT")
		os.Exit(2)
	}
	if err := run(os.Args[1], count); err != nil {
		fmt.Fprintln(os.Stderr, "many:", err)
		os.Exit(1)
	}
}
