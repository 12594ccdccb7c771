package ffi

// #include "abi.h"
import "C"

import "fmt"

// Status is a negative result of a call.
type Status int32

// The failures that the SDK tells apart, as the header numbers them.
const (
	Invalid      Status = C.MSB_E_INVALID
	Handle       Status = C.MSB_E_HANDLE
	Closed       Status = C.MSB_E_CLOSED
	Busy         Status = C.MSB_E_BUSY
	Unsupported  Status = C.MSB_E_UNSUPPORTED
	Limit        Status = C.MSB_E_LIMIT
	IO           Status = C.MSB_E_IO
	Internal     Status = C.MSB_E_INTERNAL
	Protocol     Status = C.MSB_E_PROTOCOL
	TimedOut     Status = C.MSB_E_TIMED_OUT
	Config       Status = C.MSB_E_CONFIG
	NotFound     Status = C.MSB_E_NOT_FOUND
	Exists       Status = C.MSB_E_EXISTS
	NotRunning   Status = C.MSB_E_NOT_RUNNING
	Running      Status = C.MSB_E_RUNNING
	NoDriver     Status = C.MSB_E_NO_DRIVER
	Boot         Status = C.MSB_E_BOOT
	Crashed      Status = C.MSB_E_CRASHED
	ExecFailed   Status = C.MSB_E_EXEC_FAILED
	ExecTimeout  Status = C.MSB_E_EXEC_TIMEOUT
	Lost         Status = C.MSB_E_LOST
	Pipe         Status = C.MSB_E_PIPE
	NoProcess    Status = C.MSB_E_NO_PROCESS
	NoSession    Status = C.MSB_E_NO_SESSION
	NotATerminal Status = C.MSB_E_NOT_A_TERMINAL
	NoImage      Status = C.MSB_E_NO_IMAGE
	ImageDenied  Status = C.MSB_E_IMAGE_DENIED
	Registry     Status = C.MSB_E_REGISTRY
	BadImage     Status = C.MSB_E_BAD_IMAGE
	ImageInUse   Status = C.MSB_E_IMAGE_IN_USE
	ImageFailed  Status = C.MSB_E_IMAGE_FAILED
	NoSpace      Status = C.MSB_E_NO_SPACE
	NoCommand    Status = C.MSB_E_NO_COMMAND
)

// Error is a call that failed.
type Error struct {
	Status  Status
	Errno   int
	Origin  uint32
	Message string
}

func (e *Error) Error() string { return e.Message }

func failed(err *C.msb_error) *Error {
	return &Error{
		Status:  Status(err.status),
		Errno:   int(err.os_error),
		Origin:  uint32(err.origin),
		Message: C.GoString(&err.message[0]),
	}
}

// check makes an error of a negative status.
func check(status C.msb_status, err *C.msb_error) error {
	if status >= 0 {
		return nil
	}
	return failed(err)
}

var errClosed = &Error{Status: Closed, Origin: C.MSB_ORIGIN_CALLER, Message: "the handle is closed"}

// systemError is a failure of this process's own system calls.
func systemError(doing string, err error) *Error {
	return &Error{Status: IO, Origin: C.MSB_ORIGIN_HOST, Message: fmt.Sprintf("%s: %v", doing, err)}
}

// Versions that the header and the loaded library have, and where the library is.
func Versions() (header, library uint32, version, path string) {
	if name := C.go_library_path(); name != nil {
		path = C.GoString(name)
	}
	return C.MSB_ABI_VERSION, uint32(C.msb_abi_version()), C.GoString(C.msb_version_string()), path
}
