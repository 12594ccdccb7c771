package microsandbox_test

// The Go examples of the reference pages, unchanged except for indentation, each in its own
// function. The commands that they run are scripts of the same names in the sandbox.

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"syscall"
	"testing"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

func typicalFlow(ctx context.Context, sb *m.Sandbox) error {
	out, err := sb.Exec(ctx, "python3", []string{"-c", "print(1 + 1)"})
	if err != nil {
		return err // transport / timeout / spawn failure
	}
	if !out.Success() {
		log.Printf("exited %d: %s", out.ExitCode(), out.Stderr())
	}
	fmt.Print(out.Stdout())
	return nil
}

func earlierFlow(ctx context.Context, sb *m.Sandbox) error {
	out, err := sb.Exec(ctx, "python3", []string{"-c", "print(1+1)"})
	if err != nil {
		return err // transport / timeout / spawn failure
	}
	if !out.Success() {
		log.Printf("program exited %d: %s", out.ExitCode(), out.Stderr())
	}
	return nil
}

// The example of Exec, and that of WithExecEnv.
func execExample(ctx context.Context, sb *m.Sandbox) error {
	out, err := sb.Exec(ctx, "make", []string{"build"},
		m.WithExecCwd("/app"),
		m.WithExecEnv(map[string]string{"DEBUG": "1"}),
	)
	if err == nil {
		fmt.Print(out.Stdout())
	}
	return err
}

func shellExample(ctx context.Context, sb *m.Sandbox) error {
	out, err := sb.Shell(ctx, "echo $HOME && ls /tmp")
	if err != nil {
		return err
	}
	fmt.Print(out.Stdout())
	return nil
}

func execStreamExample(ctx context.Context, sb *m.Sandbox) error {
	h, err := sb.ExecStream(ctx, "cat", nil, m.WithExecStdinPipe())
	if err != nil {
		return err
	}
	defer h.Close()
	return nil
}

func shellStreamExample(ctx context.Context, sb *m.Sandbox) error {
	h, err := sb.ShellStream(ctx, "tail -f /var/log/app.log")
	if err != nil {
		return err
	}
	defer h.Close()

	for {
		ev, err := h.Recv(ctx)
		if err != nil {
			return err
		}
		switch ev.Kind {
		case m.ExecEventStdout:
			os.Stdout.Write(ev.Data)
		case m.ExecEventDone:
			return nil
		}
	}
}

// The loop of an earlier page, with all kinds of events.
func earlierLoop(ctx context.Context, sb *m.Sandbox) error {
	h, err := sb.ShellStream(ctx, "tail -f /var/log/app.log")
	if err != nil {
		return err
	}
	defer h.Close()
	for {
		ev, err := h.Recv(ctx)
		if err != nil {
			return err
		}
		switch ev.Kind {
		case m.ExecEventStarted:
			fmt.Printf("started pid=%d\n", ev.PID)
		case m.ExecEventStdout:
			os.Stdout.Write(ev.Data)
		case m.ExecEventStderr:
			os.Stderr.Write(ev.Data)
		case m.ExecEventExited:
			fmt.Printf("exited code=%d\n", ev.ExitCode)
		case m.ExecEventStdinError:
			fmt.Printf("stdin error: %s\n", ev.Failure.Message)
		case m.ExecEventDone:
			return nil
		}
	}
}

func takeStdinExample(h *m.ExecHandle) {
	sink := h.TakeStdin()
	sink.Write([]byte("hello\n"))
	sink.Close()
}

func recvExample(ctx context.Context, h *m.ExecHandle) error {
	for {
		ev, err := h.Recv(ctx)
		if err != nil {
			return err
		}
		switch ev.Kind {
		case m.ExecEventStarted:
			fmt.Printf("started pid=%d\n", ev.PID)
		case m.ExecEventStdout:
			os.Stdout.Write(ev.Data)
		case m.ExecEventStderr:
			os.Stderr.Write(ev.Data)
		case m.ExecEventExited:
			fmt.Printf("exited code=%d\n", ev.ExitCode)
		case m.ExecEventDone:
			return nil
		}
	}
}

func collectExample(ctx context.Context, h *m.ExecHandle) error {
	out, err := h.Collect(ctx)
	if err != nil {
		return err
	}
	fmt.Print(out.Stdout())
	return nil
}

func signalExample(ctx context.Context, h *m.ExecHandle) error {
	if err := h.Signal(ctx, int(syscall.SIGTERM)); err != nil {
		return err
	}
	return nil
}

func writeExample(ctx context.Context, sb *m.Sandbox) error {
	h, err := sb.ExecStream(ctx, "cat", nil, m.WithExecStdinPipe())
	if err != nil {
		return err
	}
	defer h.Close()

	sink := h.TakeStdin()
	sink.Write([]byte("hello\n"))
	sink.Close()

	out, _ := h.Collect(ctx)
	fmt.Print(out.Stdout()) // "hello\n"
	return nil
}

func timeoutExample(ctx context.Context, sb *m.Sandbox) error {
	out, err := sb.Shell(ctx, "long-running-task",
		m.WithExecTimeout(30*time.Second))
	if m.IsKind(err, m.ErrExecTimeout) {
		log.Println("timed out")
	}
	if err == nil {
		fmt.Print(out.Stdout())
	}
	return err
}

func guideExecute(ctx context.Context, sb *m.Sandbox) error {
	output, err := sb.Exec(ctx, "python", []string{"-c", "print('hello')"})
	fmt.Print(output.Stdout())     // "hello\n"
	fmt.Println(output.Success())  // true
	fmt.Println(output.ExitCode()) // 0
	return err
}

func guideOptions(ctx context.Context, sb *m.Sandbox) error {
	output, err := sb.Exec(ctx, "python", []string{"compute.py"},
		m.WithExecCwd("/app"),
		m.WithExecEnv(map[string]string{"PYTHONPATH": "/app/lib"}),
		m.WithExecTimeout(30*time.Second),
	)
	if err == nil {
		fmt.Print(output.Stdout())
	}
	return err
}

func guideShell(ctx context.Context, sb *m.Sandbox) error {
	output, err := sb.Shell(ctx, "ls -la /app && echo done")
	if err == nil {
		fmt.Print(output.Stdout())
	}
	return err
}

func guideStream(ctx context.Context, sb *m.Sandbox) (err error) {
	handle, err := sb.ExecStream(ctx, "tail", []string{"-f", "/var/log/app.log"})
	for {
		event, err := handle.Recv(ctx)
		if err != nil {
			return err
		}
		switch event.Kind {
		case m.ExecEventStdout:
			os.Stdout.Write(event.Data)
		case m.ExecEventStderr:
			os.Stderr.Write(event.Data)
		case m.ExecEventExited:
			fmt.Printf("Exited: %d\n", event.ExitCode)
		case m.ExecEventDone:
			return nil
		}
	}
}

func guideAttach(ctx context.Context, sb *m.Sandbox) error {
	// Attach to the default shell.
	exitCode, err := sb.AttachShell(ctx)
	if err != nil {
		return err
	}
	fmt.Println("shell exited with", exitCode)

	// Attach to a specific command.
	exitCode, err = sb.Attach(ctx, "python")
	if err != nil {
		return err
	}
	fmt.Println("python exited with", exitCode)
	return nil
}

func guideStdin(ctx context.Context, sb *m.Sandbox) error {
	handle, err := sb.ExecStream(ctx, "python", nil, m.WithExecStdinPipe())
	stdin := handle.TakeStdin()
	_, _ = stdin.Write([]byte("print('hello')\n"))
	_, _ = stdin.Write([]byte("exit()\n"))
	_ = stdin.Close()
	_, err = handle.Wait(ctx)
	return err
}

func guideSession(ctx context.Context, sb *m.Sandbox) error {
	handle, err := sb.ExecStream(ctx, "python", []string{"server.py"})
	if err != nil {
		return err
	}
	sessionID, err := handle.ID()
	fmt.Println(len(sessionID))
	return err
}

// standIns creates the commands that the examples run, with the features that they use.
const standIns = `
mkdir -p /app /var/log /usr/bin
echo logged > /var/log/app.log
cat > /usr/bin/python <<'END'
#!/bin/sh
case "$*" in
"-c print(1 + 1)" | "-c print(1+1)") echo 2 ;;
"-c print('hello')") echo hello ;;
compute.py) echo computed with $PYTHONPATH in $(pwd) ;;
server.py) exec sleep 600 ;;
"") while read -r line; do
	[ "$line" != "print('hello')" ] || echo hello
	[ "$line" != "exit()" ] || exit 0
done ;;
*) exit 2 ;;
esac
END
cat > /usr/bin/make <<'END'
#!/bin/sh
echo made "$@" with DEBUG=$DEBUG in $(pwd)
END
cat > /usr/bin/long-running-task <<'END'
#!/bin/sh
echo it took not that long
END
cp /usr/bin/python /usr/bin/python3
chmod 755 /usr/bin/*
`

// pagesBox returns a sandbox for the examples.
func pagesBox(t testing.TB) *m.Sandbox {
	sb := box(t, m.WithEnv(map[string]string{"PATH": "/usr/bin:/bin"}))
	out, err := sb.Shell(soon(t), standIns)
	must(t, err)
	if !out.Success() {
		t.Fatal(out.Stderr())
	}
	return sb
}

// printed returns what a function writes to standard output.
func printed(t *testing.T, f func() error) string {
	t.Helper()
	read, write, err := os.Pipe()
	must(t, err)
	before := os.Stdout
	os.Stdout = write
	text := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(read)
		text <- all
	}()
	failed := f()
	os.Stdout = before
	must(t, write.Close())
	all := string(<-text)
	must(t, read.Close())
	if failed != nil {
		t.Fatalf("%v, after %q", failed, all)
	}
	return all
}

func TestPageExamples(t *testing.T) {
	sb, ctx := pagesBox(t), soon(t)
	for name, example := range map[string]struct {
		f      func(context.Context, *m.Sandbox) error
		wanted string
	}{
		"typical flow":  {typicalFlow, "2\n"},
		"earlier flow":  {earlierFlow, ""},
		"Exec":          {execExample, "made build with DEBUG=1 in /app\n"},
		"Shell":         {shellExample, "/root\n"},
		"ExecStream":    {execStreamExample, ""},
		"Write":         {writeExample, "hello\n"},
		"timeout":       {timeoutExample, "it took not that long\n"},
		"guide execute": {guideExecute, "hello\ntrue\n0\n"},
		"guide options": {guideOptions, "computed with /app/lib in /app\n"},
		"guide stdin":   {guideStdin, ""},
		"guide session": {guideSession, "32\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := printed(t, func() error { return example.f(ctx, sb) })
			equal(t, "output", got, example.wanted)
		})
	}
	got := printed(t, func() error { return guideShell(ctx, sb) })
	if len(got) < 6 || got[len(got)-5:] != "done\n" {
		t.Errorf("%q", got)
	}
}

// The examples that follow a log end when their command is killed.
func TestPageExamplesOfFollowing(t *testing.T) {
	sb, ctx := pagesBox(t), soon(t)
	for name, example := range map[string]struct {
		f      func(context.Context, *m.Sandbox) error
		wanted string
	}{
		"ShellStream":  {shellStreamExample, "logged\n"},
		"earlier loop": {earlierLoop, "started pid=%d\nlogged\nexited code=-1\n"},
		"guide stream": {guideStream, "logged\nExited: -1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			pid := make(chan uint32, 1)
			failed := make(chan error, 1)
			go func() { failed <- killAfterOutput(ctx, sb, pid) }()
			got := printed(t, func() error { return example.f(ctx, sb) })
			must(t, <-failed)
			wanted := example.wanted
			if name == "earlier loop" {
				wanted = fmt.Sprintf(wanted, <-pid)
			}
			equal(t, "output", got, wanted)
		})
	}
}

// killAfterOutput kills the running command once it has written output.
func killAfterOutput(ctx context.Context, sb *m.Sandbox, pid chan<- uint32) error {
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		sessions, err := sb.Sessions(ctx)
		if err != nil {
			return err
		}
		for _, session := range sessions {
			if session.Running() && session.OutputTotal > 0 {
				pid <- session.PID
				h, err := sb.Reattach(ctx, session.ID, m.ReattachNow)
				if err != nil {
					return err
				}
				defer h.Close()
				return h.Kill(ctx)
			}
		}
	}
	return ctx.Err()
}

func TestPageExamplesOnHandles(t *testing.T) {
	sb, ctx := pagesBox(t), soon(t)
	h := start(t, sb, "exec cat", m.WithExecStdinPipe())
	takeStdinExample(h)
	equal(t, "Collect", printed(t, func() error { return collectExample(ctx, h) }), "hello\n")
	h = start(t, sb, "echo out; exit 3")
	got := printed(t, func() error { return recvExample(ctx, h) })
	var pid int
	if _, err := fmt.Sscanf(got, "started pid=%d\nout\nexited code=3\n", &pid); err != nil {
		t.Errorf("%q: %v", got, err)
	}
	h = start(t, sb, "exec sleep 600")
	must(t, signalExample(ctx, h))
	code, err := h.Wait(ctx)
	must(t, err)
	equal(t, "code", code, -1)
	equal(t, "signal", h.Exit().Signal, syscall.SIGTERM)
}
