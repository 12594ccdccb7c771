package microsandbox

import (
	"context"
	"syscall"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// Exec runs a command and collects its output. cmd is the program: neither a shell nor the image's
// entry point is involved, and a name without a slash is looked up in the command's own PATH. The
// error is not nil only if the command did not start, timed out or was lost.
//
// If ctx is done first, Exec kills the command with its process tree and returns ctx.Err().
func (s *Sandbox) Exec(ctx context.Context, cmd string, args []string, opts ...ExecOption) (*ExecOutput, error) {
	return s.collect(ctx, cmd, args, false, opts)
}

// Shell runs a script with -c in the sandbox's shell, /bin/sh unless WithShell sets another, and
// collects its output as Exec does.
func (s *Sandbox) Shell(ctx context.Context, command string, opts ...ExecOption) (*ExecOutput, error) {
	return s.collect(ctx, command, nil, true, opts)
}

// ExecStream starts a command and returns a handle that streams its events; see Exec for cmd and
// args. It does not wait for the start: a failure to start is an event of the handle. The caller
// closes the handle.
//
// ctx bounds only the start.
func (s *Sandbox) ExecStream(ctx context.Context, cmd string, args []string, opts ...ExecOption) (*ExecHandle, error) {
	return s.start(ctx, cmd, args, false, newExecConfig(opts))
}

// ShellStream starts a script as Shell does and returns a handle like ExecStream.
func (s *Sandbox) ShellStream(ctx context.Context, command string, opts ...ExecOption) (*ExecHandle, error) {
	return s.start(ctx, command, nil, true, newExecConfig(opts))
}

// startedExec holds the handles of a command that was started or reattached.
type startedExec struct {
	exec *ffi.Exec
	sink *ffi.Sink
}

func (s startedExec) close() {
	_ = s.exec.Close()
	if s.sink != nil {
		_ = s.sink.Close()
	}
}

func (s *Sandbox) start(
	ctx context.Context, cmd string, args []string, shell bool, config *ExecConfig,
) (*ExecHandle, error) {
	options, err := config.raw(cmd, args, shell)
	if err != nil {
		return nil, err
	}
	begin := func() (startedExec, error) {
		exec, sink, err := s.raw.Stream(options, config.StdinPipe)
		return startedExec{exec, sink}, err
	}
	// A command without a handle must not keep running.
	abandon := func(late startedExec) {
		_ = late.exec.Signal(int(syscall.SIGKILL), true)
		late.close()
	}
	// Usually this only queues a request, but it may have to connect first.
	made, err := runBlocking(ctx, begin, abandon)
	if err != nil {
		return nil, err
	}
	return newExecHandle(made, config), nil
}

func (s *Sandbox) collect(
	ctx context.Context, cmd string, args []string, shell bool, opts []ExecOption,
) (*ExecOutput, error) {
	config := newExecConfig(opts)
	h, err := s.start(ctx, cmd, args, shell, config)
	if err != nil {
		return nil, err
	}
	if config.StdinPipe {
		// No caller can write to it, so close it at once.
		_ = h.TakeStdin().Close()
	}
	out, err := h.Collect(ctx)
	if h.ended.Load() {
		_ = h.Close()
		return out, err
	}
	// Cancelled, or a writer failed. No handle to the command would be left.
	h.abandon()
	return nil, err
}

// abandonTime is how long a cancelled call waits for the command to be killed, so that it is gone
// when the call returns unless the sandbox does not respond.
const abandonTime = 100 * time.Millisecond

// abandon kills the command and closes the handle.
func (h *ExecHandle) abandon() {
	killed := make(chan struct{})
	go func() {
		_ = h.raw.Signal(int(syscall.SIGKILL), true)
		_ = h.Close()
		close(killed)
	}()
	timer := time.NewTimer(abandonTime)
	defer timer.Stop()
	select {
	case <-killed:
	case <-timer.C:
	}
}

// ReattachFrom is a position in the output of a session, counting the bytes of both outputs
// together: ReattachStart, ReattachNow, or a result of ExecHandle.Position.
type ReattachFrom int64

const (
	// ReattachStart is the first byte.
	ReattachStart ReattachFrom = 0
	// ReattachNow is the current end of the output.
	ReattachNow ReattachFrom = ffi.FromNow
)

// Reattach returns a handle on a session that is running or ended recently, by its id, from a
// position on. About the last mebibyte of a session's output is kept; ExecHandle.Position reports
// how many of the requested bytes are missing. Several handles may follow one session, also from
// several processes; a handle that is not read blocks the command for all of them.
func (s *Sandbox) Reattach(ctx context.Context, id string, from ReattachFrom) (*ExecHandle, error) {
	if err := noNUL(id); err != nil {
		return nil, err
	}
	if from < ReattachNow {
		return nil, invalid("the position is negative")
	}
	made, err := runBlocking(ctx, func() (startedExec, error) {
		exec, sink, err := s.raw.Reattach(id, int64(from))
		return startedExec{exec, sink}, err
	}, startedExec.close)
	if err != nil {
		return nil, err
	}
	return newExecHandle(made, &ExecConfig{}), nil
}
