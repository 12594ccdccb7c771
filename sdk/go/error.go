package microsandbox

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// ErrorKind classifies failures. See [IsKind].
type ErrorKind int

// The kinds of failures. New ones may come.
const (
	// ErrUnknown is a failure that this version has no kind for.
	ErrUnknown ErrorKind = iota
	// ErrExecFailed: the command never started. errors.As finds the *ExecFailure.
	ErrExecFailed
	// ErrExecTimeout: the command's time ran out, and it was killed. Error.Output has its output.
	ErrExecTimeout
	// ErrStreamLost: the sandbox went away before the command's end was known. Error.Output has the
	// output until then.
	ErrStreamLost
	// ErrInvalidArgument: the call makes no sense as it was made.
	ErrInvalidArgument
	// ErrInvalidConfig: the sandbox cannot be what it was asked to be, by its name for example.
	ErrInvalidConfig
	// ErrSandboxNotFound: no sandbox has this name.
	ErrSandboxNotFound
	// ErrSandboxAlreadyExists: a sandbox has this name already.
	ErrSandboxAlreadyExists
	// ErrSandboxNotRunning: the sandbox is not running.
	ErrSandboxNotRunning
	// ErrSandboxRunning: the sandbox is running, and the call needs one that is not.
	ErrSandboxRunning
	// ErrSandboxCrashed: the sandbox ended by itself.
	ErrSandboxCrashed
	// ErrNoDriver: no driver is usable on this host.
	ErrNoDriver
	// ErrBootFailed: the sandbox did not come up.
	ErrBootFailed
	// ErrBrokenPipe: the command no longer reads its input.
	ErrBrokenPipe
	// ErrBusy: another goroutine reads this handle, or another attach has the terminal.
	ErrBusy
	// ErrClosed: the handle was closed.
	ErrClosed
	// ErrNoSuchProcess: the command has ended.
	ErrNoSuchProcess
	// ErrNoSuchSession: the session is not known in this sandbox, or ended too long ago.
	ErrNoSuchSession
	// ErrNotATerminal: there is no terminal, here or in the session.
	ErrNotATerminal
	// ErrLimitReached: a bound is reached.
	ErrLimitReached
	// ErrTimedOut: an answer did not come in time.
	ErrTimedOut
	// ErrUnsupported: not possible here, or with this version.
	ErrUnsupported
	// ErrProtocol: the other side broke the protocol.
	ErrProtocol
	// ErrIO: the system refused something.
	ErrIO
	// ErrInternal: the library broke a promise to itself.
	ErrInternal
	// ErrNotInstalled: a part of the installation is missing; see EnsureInstalled.
	ErrNotInstalled
	// ErrImageNotFound: no such image, in the store or in the registry.
	ErrImageNotFound
	// ErrImageUnauthorized: the registry wants other credentials, or there is no such image and it
	// does not say so.
	ErrImageUnauthorized
	// ErrRegistryUnreachable: the registry cannot be reached, is not trusted, or is in trouble.
	ErrRegistryUnreachable
	// ErrImageInvalid: the image is broken, hostile, or not for this machine.
	ErrImageInvalid
	// ErrImageInUse: a sandbox uses the image.
	ErrImageInUse
	// ErrImageFailed: the process that works on images died.
	ErrImageFailed
	// ErrNoSpace: the disk is too full.
	ErrNoSpace
	// ErrNoCommand: the image names no command of its own.
	ErrNoCommand
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

// Error is a failed call. A call whose context is done fails with the context's error instead.
type Error struct {
	// Kind classifies the failure.
	Kind ErrorKind
	// Message is one line of human-readable text.
	Message string
	// Errno is the system's error number, of the host or the sandbox, or 0.
	Errno syscall.Errno
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
		return e.Kind == ErrSandboxNotFound || e.Kind == ErrImageNotFound
	case os.ErrExist:
		return e.Kind == ErrSandboxAlreadyExists
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
