package microsandbox

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// ExecEventKind is the kind of an ExecEvent.
type ExecEventKind int

// The kinds of events. A handle delivers at most one Started, which is first, any number of Stdout,
// Stderr and StdinError, exactly one of Exited, Failed and Lost, and then Done on every call.
const (
	// ExecEventStarted: the command is running. PID is valid.
	ExecEventStarted ExecEventKind = iota + 1
	// ExecEventStdout: Data is from standard output; on a terminal, from both outputs.
	ExecEventStdout
	// ExecEventStderr: Data is from standard error.
	ExecEventStderr
	// ExecEventExited: the command exited. ExitCode and Exit are valid. Only output of background
	// processes may follow.
	ExecEventExited
	// ExecEventFailed: the command did not start and has no exit code. Failure is valid.
	ExecEventFailed
	// ExecEventStdinError: the command no longer reads its input. Failure is valid. It may continue to
	// run.
	ExecEventStdinError
	// ExecEventLost: the connection to the sandbox was lost; the exit status is unknown. Reason is
	// valid.
	ExecEventLost
	// ExecEventDone: no more events follow.
	ExecEventDone
)

var eventNames = [...]string{
	"", "started", "stdout", "stderr", "exited", "failed", "stdin_error", "lost", "done",
}

// String returns the kind's name: "stdout".
func (k ExecEventKind) String() string {
	if k <= 0 || int(k) >= len(eventNames) {
		return fmt.Sprintf("ExecEventKind(%d)", int(k))
	}
	return eventNames[k]
}

// ExecEvent is one event of a command. Kind says which fields are set.
type ExecEvent struct {
	// Kind is the kind of the event.
	Kind ExecEventKind
	// PID is the process id in the sandbox, with ExecEventStarted.
	PID uint32
	// Data is the output, with ExecEventStdout and ExecEventStderr. The caller owns it.
	Data []byte
	// ExitCode is the exit code, with ExecEventExited; -1 if a signal killed it.
	ExitCode int
	// Exit has the exit status and resource usage, with ExecEventExited; else it is nil.
	Exit *ExecExit
	// Failure is set with ExecEventFailed and ExecEventStdinError; else it is nil.
	Failure *ExecFailure
	// Reason is one line with the reason, with ExecEventLost.
	Reason string
	// WriterLeft reports, with ExecEventDone, that a background process still had the output open.
	WriterLeft bool
	// Cut reports, with ExecEventDone, that the connection was lost after the exit: output of
	// background processes may be missing.
	Cut bool
}

// ExecExit is the exit status of a command and its resource usage, which includes children that it
// waited for.
type ExecExit struct {
	// Code is the exit code; -1 if a signal killed it.
	Code int
	// Signal is the number of the signal that killed it; 0 for none.
	Signal syscall.Signal
	// CoreDumped reports whether it dumped core.
	CoreDumped bool
	// TimedOut reports whether it was killed because it timed out.
	TimedOut bool
	// UserTime and SystemTime are the CPU time used.
	UserTime, SystemTime time.Duration
	// WallTime is the time from start to exit.
	WallTime time.Duration
	// MaxRSS is the maximum resident set size, in bytes.
	MaxRSS uint64
}

// ExecFailure is the reason why a command did not start or its input could not be written. As an
// error it wraps the errno, so that errors.Is finds os.ErrNotExist and os.ErrPermission.
type ExecFailure struct {
	// Kind is one of not_found, permission_denied, not_executable, bad_cwd, bad_args,
	// resource_limit, user_setup_failed, out_of_memory, pty_setup_failed and other; with
	// ExecEventStdinError it is broken_pipe.
	Kind string
	// Errno is the error number in the sandbox, of Linux; nil when no system call failed.
	Errno *int
	// ErrnoName is its name: "ENOENT"; empty without one.
	ErrnoName string
	// Message is one line of human-readable text.
	Message string
	// Path is the program, directory or name that the failure concerns. It need not be UTF-8.
	Path string
	// Stage is the step that failed: "execve", "chdir", ...
	Stage string
}

// Error returns the message.
func (f *ExecFailure) Error() string { return f.Message }

// Unwrap returns the errno, if there is one.
func (f *ExecFailure) Unwrap() error {
	if f.Errno == nil {
		return nil
	}
	return syscall.Errno(*f.Errno)
}

// Is reports whether target is exec.ErrNotFound and the program was not found.
func (f *ExecFailure) Is(target error) bool {
	return target == exec.ErrNotFound && f.Kind == "not_found"
}

func newExit(raw *ffi.Exit) *ExecExit {
	if raw == nil {
		return nil
	}
	return &ExecExit{
		Code:       raw.Code,
		Signal:     syscall.Signal(raw.Signal),
		CoreDumped: raw.Flags&ffi.CoreDumped != 0,
		TimedOut:   raw.Flags&ffi.RanOut != 0,
		UserTime:   time.Duration(raw.UserNs),
		SystemTime: time.Duration(raw.SystemNs),
		WallTime:   time.Duration(raw.WallNs),
		MaxRSS:     raw.MaxResident,
	}
}

func newFailure(raw *ffi.Failure) *ExecFailure {
	if raw == nil {
		return nil
	}
	f := &ExecFailure{Kind: raw.Kind, ErrnoName: raw.ErrnoName, Message: raw.Message,
		Path: raw.Path, Stage: raw.Stage}
	if raw.Errno != 0 {
		f.Errno = &raw.Errno
	}
	return f
}

// stdinFailure returns the failure for input that the command no longer reads.
func stdinFailure(errno int) *ExecFailure {
	f := &ExecFailure{Kind: "broken_pipe", Stage: "write", Message: "the command no longer reads its input"}
	if errno == 0 {
		return f
	}
	f.Errno = &errno
	if err := syscall.Errno(errno); errors.Is(err, syscall.EPIPE) {
		f.ErrnoName = "EPIPE"
	} else {
		f.Message += ": " + err.Error()
	}
	return f
}

var eventKinds = [...]ExecEventKind{
	ffi.End:        ExecEventDone,
	ffi.Started:    ExecEventStarted,
	ffi.Stdout:     ExecEventStdout,
	ffi.Stderr:     ExecEventStderr,
	ffi.StdinError: ExecEventStdinError,
	ffi.Exited:     ExecEventExited,
	ffi.Failed:     ExecEventFailed,
	ffi.LostEvent:  ExecEventLost,
}

// newEvent copies a borrowed event. It returns nil for an unknown kind.
func newEvent(raw *ffi.Event) *ExecEvent {
	if int(raw.Kind) >= len(eventKinds) {
		return nil
	}
	e := &ExecEvent{Kind: eventKinds[raw.Kind]}
	switch e.Kind {
	case ExecEventStdout, ExecEventStderr:
		e.Data = append([]byte(nil), raw.Data...)
	case ExecEventStarted:
		e.PID = uint32(raw.Value)
	case ExecEventExited:
		e.ExitCode, e.Exit = int(raw.Value), newExit(raw.Exit)
	case ExecEventFailed:
		e.Failure = newFailure(raw.Failure)
	case ExecEventStdinError:
		e.Failure = stdinFailure(int(raw.Value))
	case ExecEventLost:
		e.Reason = string(raw.Data)
	case ExecEventDone:
		e.WriterLeft, e.Cut = raw.Flags&ffi.WriterLeft != 0, raw.Flags&ffi.Cut != 0
	}
	return e
}
