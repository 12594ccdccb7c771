// The cost of the Go SDK, as ratios to the same work in C in the same run.
//
//	bench ROOTFS
//
// As in benches/c, the variants of a comparison take turns and the result is the median of the
// ratios of each turn. `make bench` builds and runs this; MSB_BENCH_TURNS shortens it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"strconv"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

const bulk = 256 << 20

var (
	sb      *m.Sandbox
	ctx     = context.Background()
	writing = fmt.Sprintf("exec dd if=/dev/zero bs=65536 count=%d 2>/dev/null", bulk/65536)
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func expect(what string, got, wanted int) {
	if got != wanted {
		must(fmt.Errorf("%s: received %d instead of %d", what, got, wanted))
	}
}

func median(values []float64) float64 {
	sorted := append([]float64(nil), values...)
	sort.Float64s(sorted)
	return sorted[len(sorted)/2]
}

type variant struct {
	name  string
	run   func() int    // returns the amount of work done
	pause time.Duration // before each run
}

// compare runs the variants in turns and prints their rates.
func compare(title, unit string, per float64, turns int, all ...variant) {
	if few, err := strconv.Atoi(os.Getenv("MSB_BENCH_TURNS")); err == nil && few > 0 && few < turns {
		turns = few
	}
	rates := make([][]float64, len(all))
	allocs := make([]float64, len(all))
	for turn := -1; turn < turns; turn++ { // the first turn warms caches
		for i, v := range all {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			time.Sleep(v.pause)
			begun := time.Now()
			done := v.run()
			took := time.Since(begun).Seconds()
			runtime.ReadMemStats(&after)
			if turn >= 0 {
				rates[i] = append(rates[i], float64(done)/per/took)
				allocs[i] = float64(after.Mallocs-before.Mallocs) / float64(done)
			}
		}
	}
	fmt.Printf("\n%s (%d turns)\n\n| | %s | ratio | allocations |\n| --- | ---: | ---: | ---: |\n", title, turns, unit)
	for i, v := range all {
		ratios := make([]float64, turns)
		for turn := range ratios {
			ratios[turn] = rates[i][turn] / rates[0][turn]
		}
		made := "" // omitted for bulk transfers
		if per == 1 {
			made = fmt.Sprintf("%.1f", allocs[i])
		}
		fmt.Printf("| %s | %.0f | %.2f | %s |\n", v.name, median(rates[i]), median(ratios), made)
	}
}

func recvAll() int {
	h, err := sb.ShellStream(ctx, writing)
	must(err)
	defer h.Close()
	for total := 0; ; {
		event, err := h.Recv(ctx)
		must(err)
		if total += len(event.Data); event.Kind == m.ExecEventDone {
			return total
		}
	}
}

type counter struct{ total int }

func (c *counter) Write(data []byte) (int, error) {
	c.total += len(data)
	return len(data), nil
}

func writeAll() int {
	var to counter
	_, err := sb.Shell(ctx, writing, m.WithStdout(&to))
	must(err)
	return to.total
}

func pipeAll() int {
	h, err := sb.ShellStream(ctx, writing)
	must(err)
	defer h.Close()
	pipe, err := h.StdoutPipe()
	must(err)
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, pipe, make([]byte, 64<<10))
	must(err)
	return int(n)
}

func collectAll() int {
	out, err := sb.Shell(ctx, writing)
	must(err)
	return len(out.StdoutBytes())
}

func bulkOf(name string, run func() int) variant {
	return variant{name, func() int {
		n := run()
		expect(name, n, bulk)
		return n
	}, 0}
}

func smallEvents() {
	// How many events a full queue holds.
	const script, most = "while :; do echo x; echo y >&2; done", 500
	const pause = 50 * time.Millisecond
	c := cStart(script)
	defer c.end()
	h, err := sb.ShellStream(ctx, script)
	must(err)
	defer h.Close()
	defer h.Kill(ctx)
	compare("Small events from a full queue", "events/s", 1, 50,
		variant{"msb_exec_recv, in C", func() int { return c.drain(most) }, pause},
		variant{"Recv", func() int {
			for i := 0; i < most; i++ {
				_, err := h.Recv(ctx)
				must(err)
			}
			return most
		}, pause})
}

func echoes() {
	c := cStart("exec cat")
	defer c.end()
	h, err := sb.ShellStream(ctx, "exec cat", m.WithExecStdinPipe())
	must(err)
	defer h.Close()
	sink := h.TakeStdin()
	defer sink.Close()
	byteOf, impatient := []byte("x"), ctx
	back := func() int {
		const times = 100
		for i := 0; i < times; i++ {
			_, err := sink.WriteCtx(impatient, byteOf)
			must(err)
			for got := 0; got == 0; {
				event, err := h.Recv(impatient)
				must(err)
				got = len(event.Data)
			}
		}
		return times
	}
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	compare("One-byte round trip", "round trips/s", 1, 50,
		variant{"msb_sink_write, msb_exec_recv, in C", func() int { return c.echo(100) }, 0},
		variant{"Write, Recv", back, 0},
		variant{"the same with a cancellable context", func() int {
			impatient = cancelled
			defer func() { impatient = ctx }()
			return back()
		}, 0})
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: bench ROOTFS")
		os.Exit(2)
	}
	name := fmt.Sprint("bench-go-", os.Getpid())
	var err error
	sb, err = m.CreateSandbox(ctx, name, m.WithImage(os.Args[1]))
	must(err)
	if !cOpen(name) {
		must(fmt.Errorf("cannot open the sandbox from C"))
	}
	compare("One command, start to end", "commands/s", 1, 200,
		variant{"msb_exec_stream + msb_exec_collect, in C", func() int { cCollect("exit 0"); return 1 }, 0},
		variant{"Shell", func() int {
			_, err := sb.Shell(ctx, "exit 0")
			must(err)
			return 1
		}, 0})
	compare("256 MiB of output", "MiB/s", 1<<20, 9,
		bulkOf("msb_exec_recv, in C", func() int { return cRecv(writing) }),
		bulkOf("Recv", recvAll),
		bulkOf("Shell to a writer", writeAll),
		bulkOf("StdoutPipe", pipeAll),
		bulkOf("msb_exec_collect, in C", func() int { return cCollect(writing) }),
		bulkOf("Shell", collectAll))
	smallEvents()
	echoes()
	cClose()
	must(sb.Close())
	must(m.RemoveSandbox(ctx, name, m.WithForce()))
}
