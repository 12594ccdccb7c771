package ffi

// #include "abi.h"
import "C"

import "fmt"

// Error is a failed call.
type Error struct {
	Status  Status
	Errno   int
	Origin  uint32
	Message string
}

func (e *Error) Error() string { return e.Message }

func newError(err *C.msb_error) *Error {
	return &Error{
		Status:  Status(err.status),
		Errno:   int(err.os_error),
		Origin:  uint32(err.origin),
		Message: C.GoString(&err.message[0]),
	}
}

// check converts a negative status to an error.
func check(status C.msb_status, err *C.msb_error) error {
	if status >= 0 {
		return nil
	}
	return newError(err)
}

var errClosed = &Error{Status: Closed, Origin: C.MSB_ORIGIN_CALLER, Message: "the handle is closed"}

// systemError returns the error of a failed system call of this process.
func systemError(action string, err error) *Error {
	return &Error{Status: IO, Origin: C.MSB_ORIGIN_HOST, Message: fmt.Sprintf("cannot %s: %v", action, err)}
}

// Versions returns the ABI versions of the header and the loaded library, and the library's version
// and path.
func Versions() (header, library uint32, version, path string) {
	if name := C.go_library_path(); name != nil {
		path = C.GoString(name)
	}
	return C.MSB_ABI_VERSION, uint32(C.msb_abi_version()), C.GoString(C.msb_version_string()), path
}
