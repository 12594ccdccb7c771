package microsandbox

import (
	"context"
	"syscall"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// Exec runs a command and collects its output. The program is cmd as it stands: no shell and no
// entry point of the image is asked, and a name without a slash is looked up in the command's own
// PATH. The error is not nil only if the command did not start, ran out of time or was lost.
//
// When ctx ends first, the command is killed with all that it started, and Exec returns ctx.Err().
func (s *Sandbox) Exec(ctx context.Context, cmd string, args []string, opts ...ExecOption) (*ExecOutput, error) {
	return s.collect(ctx, cmd, args, false, opts)
}

// Shell runs a script as the sandbox's shell does with -c, /bin/sh unless WithShell set another, and
// collects its output. Else it is as Exec.
func (s *Sandbox) Shell(ctx context.Context, command string, opts ...ExecOption) (*ExecOutput, error) {
	return s.collect(ctx, command, nil, true, opts)
}

// ExecStream starts a command and returns a handle to follow it with; see Exec for cmd and args. It
// does not wait for the start: that the command could not be started is an event of the handle, which
// has to be closed.
//
// ctx is for the start only.
func (s *Sandbox) ExecStream(ctx context.Context, cmd string, args []string, opts ...ExecOption) (*ExecHandle, error) {
	return s.start(ctx, cmd, args, false, newExecConfig(opts))
}

// ShellStream starts a script as Shell does and returns a handle as ExecStream does.
func (s *Sandbox) ShellStream(ctx context.Context, command string, opts ...ExecOption) (*ExecHandle, error) {
	return s.start(ctx, command, nil, true, newExecConfig(opts))
}

// started is what comes of starting or taking up a command.
type started struct {
	exec *ffi.Exec
	sink *ffi.Sink
}

func (s started) close() {
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
	begin := func() (started, error) {
		exec, sink, err := s.raw.Stream(options, config.StdinPipe)
		return started{exec, sink}, err
	}
	// What nobody has a handle on is not to run.
	abandon := func(late started) {
		_ = late.exec.Signal(int(syscall.SIGKILL), true)
		late.close()
	}
	// Mostly it only puts a request into a queue; but it may have to connect first.
	made, err := onThread(ctx, begin, abandon)
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
		// Nobody can write to it: so its end comes at once.
		_ = h.TakeStdin().Close()
	}
	out, err := h.Collect(ctx)
	if h.ended.Load() {
		_ = h.Close()
		return out, err
	}
	// Given up, or a writer failed. Nobody could reach the command any more.
	h.abandon()
	return nil, err
}

// abandonTime is how long a call that was given up stays for the command's death, so that it is gone
// when the call returns, unless the sandbox does not answer.
const abandonTime = 100 * time.Millisecond

// abandon kills the command and closes the handle.
func (h *ExecHandle) abandon() {
	killed := make(chan struct{})
	go func() {
		_ = h.raw.Signal(int(syscall.SIGKILL), true)
		_ = h.Close()
		close(killed)
	}()
	patience := time.NewTimer(abandonTime)
	defer patience.Stop()
	select {
	case <-killed:
	case <-patience.C:
	}
}

// ReattachFrom is a position in the output of a session, which counts the bytes of both outputs
// together: ReattachStart, ReattachNow, or what ExecHandle.Position tells.
type ReattachFrom int64

const (
	// ReattachStart is the first byte.
	ReattachStart ReattachFrom = 0
	// ReattachNow is what is still to come.
	ReattachNow ReattachFrom = ffi.FromNow
)

// Reattach follows a session that runs or ended a short while ago, by its id, from a position on.
// About the last mebibyte of a session's output is kept; ExecHandle.Position tells how much of what
// was asked for is missing. Several handles may follow one session, also in several processes; one
// that is not read holds the command up for all of them.
func (s *Sandbox) Reattach(ctx context.Context, id string, from ReattachFrom) (*ExecHandle, error) {
	if err := noNUL(id); err != nil {
		return nil, err
	}
	if from < ReattachNow {
		return nil, invalid("the position is negative")
	}
	made, err := onThread(ctx, func() (started, error) {
		exec, sink, err := s.raw.Reattach(id, int64(from))
		return started{exec, sink}, err
	}, started.close)
	if err != nil {
		return nil, err
	}
	return newExecHandle(made, &ExecConfig{}), nil
}
