package microsandbox_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// What an error knows is found by errors.Is and errors.As, also when another error wraps it.
func TestErrorsAreFoundThroughOthers(t *testing.T) {
	number := int(syscall.EACCES)
	failure := &m.ExecFailure{Kind: "not_found", Errno: &number, Message: "it failed", Path: "prog"}
	table := []struct {
		err *m.Error
		is  []error
	}{
		{&m.Error{Kind: m.ErrExecFailed, Failure: failure},
			[]error{failure, exec.ErrNotFound, syscall.EACCES, fs.ErrPermission}},
		{&m.Error{Kind: m.ErrIO, Errno: syscall.EMFILE}, []error{syscall.EMFILE}},
		{&m.Error{Kind: m.ErrBrokenPipe}, []error{syscall.EPIPE}},
		{&m.Error{Kind: m.ErrNoSpace}, []error{syscall.ENOSPC}},
		{&m.Error{Kind: m.ErrNoSpace, Errno: syscall.EDQUOT}, []error{syscall.EDQUOT}},
		{&m.Error{Kind: m.ErrNoSuchProcess}, []error{os.ErrProcessDone, syscall.ESRCH}},
		{&m.Error{Kind: m.ErrClosed}, []error{os.ErrClosed}},
		{&m.Error{Kind: m.ErrSandboxNotFound}, []error{fs.ErrNotExist}},
		{&m.Error{Kind: m.ErrImageNotFound}, []error{fs.ErrNotExist}},
		{&m.Error{Kind: m.ErrSandboxAlreadyExists}, []error{fs.ErrExist}},
		{&m.Error{Kind: m.ErrExecTimeout}, []error{os.ErrDeadlineExceeded}},
		{&m.Error{Kind: m.ErrTimedOut}, []error{os.ErrDeadlineExceeded}},
		{&m.Error{Kind: m.ErrStreamLost, Message: "it failed"}, nil},
	}
	for _, row := range table {
		wrapped := fmt.Errorf("mine: %w", row.err)
		var found *m.Error
		if !errors.As(wrapped, &found) || found != row.err || !m.IsKind(wrapped, row.err.Kind) {
			t.Errorf("%v is not found", row.err)
		}
		for _, wanted := range row.is {
			if !errors.Is(wrapped, wanted) {
				t.Errorf("%v is not %v", row.err, wanted)
			}
		}
		if errors.Is(wrapped, fs.ErrInvalid) {
			t.Errorf("%v is everything", row.err)
		}
		if text := wrapped.Error(); strings.Count(text, "it failed") > 1 {
			t.Errorf("said twice: %s", text)
		}
	}
}
