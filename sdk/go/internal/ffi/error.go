package ffi

// #include "abi.h"
import "C"

import "fmt"

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
