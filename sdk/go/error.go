package microsandbox

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// ErrorKind is the category of a failure. See [IsKind].
type ErrorKind int

// The kinds of failures. Later versions may add some.
const (
	// ErrUnknown is a failure of a kind that this version does not know.
	ErrUnknown ErrorKind = iota
	// ErrExecFailed: the command failed to start. errors.As finds the *ExecFailure.
	ErrExecFailed
	// ErrExecTimeout: the command timed out and was killed. Error.Output has its output.
	ErrExecTimeout
	// ErrStreamLost: the connection to the sandbox was lost before the command's exit status was
	// known. Error.Output has the output until then.
	ErrStreamLost
	// ErrInvalidArgument: an argument is invalid.
	ErrInvalidArgument
	// ErrInvalidConfig: the configuration is invalid, such as the name of a sandbox.
	ErrInvalidConfig
	// ErrSandboxNotFound: no sandbox has this name.
	ErrSandboxNotFound
	// ErrSandboxAlreadyExists: a sandbox with this name exists.
	ErrSandboxAlreadyExists
	// ErrSandboxNotRunning: the sandbox is not running.
	ErrSandboxNotRunning
	// ErrSandboxRunning: the sandbox is running; the call needs a stopped one.
	ErrSandboxRunning
	// ErrSandboxCrashed: the sandbox ended unexpectedly.
	ErrSandboxCrashed
	// ErrNoDriver: no driver is usable on this host.
	ErrNoDriver
	// ErrBootFailed: the sandbox failed to start.
	ErrBootFailed
	// ErrBrokenPipe: the command no longer reads its input.
	ErrBrokenPipe
	// ErrBusy: another goroutine reads this handle, or another attach uses the terminal.
	ErrBusy
	// ErrClosed: the handle was closed.
	ErrClosed
	// ErrNoSuchProcess: the command has ended.
	ErrNoSuchProcess
	// ErrNoSuchSession: the session is not known in this sandbox, or ended too long ago.
	ErrNoSuchSession
	// ErrNotATerminal: there is no terminal, here or in the session.
	ErrNotATerminal
	// ErrLimitReached: a limit is reached.
	ErrLimitReached
	// ErrTimedOut: an answer took too long.
	ErrTimedOut
	// ErrUnsupported: not supported here, or by this version.
	ErrUnsupported
	// ErrProtocol: the other side violated the protocol.
	ErrProtocol
	// ErrIO: a system call failed.
	ErrIO
	// ErrInternal: an internal invariant of the library was violated.
	ErrInternal
	// ErrNotInstalled: a part of the installation is missing; see EnsureInstalled.
	ErrNotInstalled
	// ErrImageNotFound: the image is in neither the store nor the registry.
	ErrImageNotFound
	// ErrImageUnauthorized: the registry denied access: the credentials are missing or wrong, or the
	// image does not exist.
	ErrImageUnauthorized
	// ErrRegistryUnreachable: the registry cannot be reached, is not trusted, or reports an error.
	ErrRegistryUnreachable
	// ErrImageInvalid: the image is malformed, malicious, or not for this machine.
	ErrImageInvalid
	// ErrImageInUse: a sandbox uses the image.
	ErrImageInUse
	// ErrImageFailed: the process that handles images died.
	ErrImageFailed
	// ErrNoSpace: there is not enough disk space.
	ErrNoSpace
	// ErrNoCommand: the image has no default command.
	ErrNoCommand
	// ErrVolumeNotFound: no volume has this name.
	ErrVolumeNotFound
	// ErrVolumeAlreadyExists: a volume with this name exists.
	ErrVolumeAlreadyExists
	// ErrVolumeInUse: a sandbox uses the volume.
	ErrVolumeInUse
	// ErrPathNotFound: a path does not exist.
	ErrPathNotFound
	// ErrPermissionDenied: the user may not do this with a file.
	ErrPermissionDenied
	// ErrFilesystem: a file system reports an error.
	ErrFilesystem
)

// String returns the kind's name, which is the same in every language: "exec_timeout".
func (k ErrorKind) String() string {
	if k == ErrNotInstalled {
		return "not_installed"
	}
	if name := kindName(k); name != "" {
		return name
	}
	return "unknown"
}

// Error is the error of a failed call. A call whose context is done returns the context's error
// instead.
type Error struct {
	// Kind classifies the failure.
	Kind ErrorKind
	// Message is one line of human-readable text.
	Message string
	// Errno is the system's error number, of the host or the sandbox, or 0.
	Errno syscall.Errno
	// Path is the file in the sandbox on which an operation failed; else it is empty.
	Path string
	// Failure has the details of ErrExecFailed if known; else it is nil.
	Failure *ExecFailure
	// Output is the command's output so far, with ErrExecTimeout and ErrStreamLost from a call that
	// collects output; else it is nil.
	Output *ExecOutput
}

// Error returns the kind's name and the message.
func (e *Error) Error() string {
	return "microsandbox: " + e.Kind.String() + ": " + e.Message
}

// Unwrap returns the underlying *ExecFailure or system error, if there is one.
func (e *Error) Unwrap() error {
	switch {
	case e.Failure != nil:
		return e.Failure
	case e.Errno != 0:
		return e.Errno
	case e.Kind == ErrBrokenPipe:
		return syscall.EPIPE
	case e.Kind == ErrNoSpace:
		return syscall.ENOSPC
	case e.Kind == ErrNoSuchProcess:
		return syscall.ESRCH
	}
	return nil
}

// Is reports whether target is the error of package os with the same meaning.
func (e *Error) Is(target error) bool {
	switch target {
	case os.ErrProcessDone:
		return e.Kind == ErrNoSuchProcess
	case os.ErrClosed:
		return e.Kind == ErrClosed
	case os.ErrDeadlineExceeded:
		return e.Timeout()
	case os.ErrNotExist:
		return e.Kind == ErrSandboxNotFound || e.Kind == ErrImageNotFound ||
			e.Kind == ErrPathNotFound
	case os.ErrExist:
		return e.Kind == ErrSandboxAlreadyExists
	case os.ErrPermission:
		return e.Kind == ErrPermissionDenied
	}
	return false
}

// Timeout reports whether the call or the command timed out; os.IsTimeout uses it.
func (e *Error) Timeout() bool { return e.Kind == ErrExecTimeout || e.Kind == ErrTimedOut }

// IsKind reports whether err, or an error that it wraps, is an *Error of this kind.
func IsKind(err error, kind ErrorKind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}

func invalid(message string) *Error { return &Error{Kind: ErrInvalidArgument, Message: message} }

// wrap converts an error of package ffi to an *Error. Context errors are returned unchanged.
func wrap(err error) error {
	var raw *ffi.Error
	if !errors.As(err, &raw) {
		return err
	}
	kind := kindOf(raw.Status)
	message := raw.Message
	if message == "" {
		message = "the call failed"
	}
	return &Error{Kind: kind, Message: message, Errno: syscall.Errno(raw.Errno)}
}

type result[T any] struct {
	value T
	err   error
}

// runBlocking makes a call that blocks a thread because it has no descriptor to poll. When ctx is
// done it returns at once, and abandon receives the late result of the call.
func runBlocking[T any](ctx context.Context, call func() (T, error), abandon func(T)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if ctx.Done() == nil {
		value, err := call()
		return value, wrap(err)
	}
	done := make(chan result[T], 1)
	go func() {
		value, err := call()
		done <- result[T]{value, err}
	}()
	select {
	case r := <-done:
		return r.value, wrap(r.err)
	case <-ctx.Done():
		if abandon != nil {
			go func() {
				if r := <-done; r.err == nil {
					abandon(r.value)
				}
			}()
		}
		return none, ctx.Err()
	}
}

// do is runBlocking for a call without a result.
func do(ctx context.Context, call func() error) error {
	_, err := runBlocking(ctx, func() (struct{}, error) { return struct{}{}, call() }, nil)
	return err
}
