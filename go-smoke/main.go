// The smallest cgo program on the C ABI: one command, and one loop that waits for its events.
//
//	MSB_DRIVER=container go run . ROOTFS
//
// Its goroutine waits in Go's poller, on a duplicate of the exec's descriptor; no thread blocks.
package main

/*
#cgo CFLAGS: -I${SRCDIR}/../include
#cgo LDFLAGS: -L${SRCDIR}/../target/debug -lmicrosandbox -Wl,-rpath,${SRCDIR}/../target/debug
#include <microsandbox.h>
#include <stdlib.h>

static msb_error new_error(void) { msb_error e = MSB_ERROR_INIT; return e; }
static msb_event new_event(void) { msb_event e = MSB_EVENT_INIT; return e; }
static msb_sandbox_options new_sandbox(void) { msb_sandbox_options o = MSB_SANDBOX_OPTIONS_INIT; return o; }
static msb_exec_options new_exec(void) { msb_exec_options o = MSB_EXEC_OPTIONS_INIT; return o; }
*/
import "C"

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// check exits if a call failed. The sandbox, which is not detached, ends with the process.
func check(status C.msb_status, err *C.msb_error) C.msb_status {
	if status < 0 {
		fmt.Fprintln(os.Stderr, C.GoString(C.msb_status_name(status)), C.GoString(&err.message[0]))
		os.Exit(1)
	}
	return status
}

// pollable returns a file for a handle's descriptor. It duplicates it, because a file closes its own.
func pollable(handle unsafe.Pointer) *os.File {
	var fd C.int32_t
	err := C.new_error()
	check(C.msb_handle_fd(handle, &fd, &err), &err)
	syscall.ForkLock.RLock()
	own, failed := syscall.Dup(int(fd))
	if failed == nil {
		syscall.CloseOnExec(own)
	}
	syscall.ForkLock.RUnlock()
	if failed == nil {
		failed = syscall.SetNonblock(own, true) // os.File polls only non-blocking descriptors
	}
	if failed != nil {
		fmt.Fprintln(os.Stderr, failed)
		os.Exit(1)
	}
	return os.NewFile(uintptr(own), "exec")
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gosmoke ROOTFS")
		os.Exit(2)
	}
	var texts []unsafe.Pointer
	text := func(s string) *C.char {
		c := C.CString(s)
		texts = append(texts, unsafe.Pointer(c))
		return c
	}
	defer func() {
		for _, c := range texts {
			C.free(c)
		}
	}()

	var sandbox *C.msb_sandbox
	var exec *C.msb_exec
	err := C.new_error()
	options := C.new_sandbox()
	options.name, options.image = text("go-smoke"), text(os.Args[1])
	options.flags = C.MSB_SANDBOX_REPLACE
	check(C.msb_sandbox_create(&options, &sandbox, &err), &err)
	check(C.msb_sandbox_wait_ready(sandbox, -1, &err), &err)
	command := C.new_exec()
	command.cmd = text("for i in 1 2 3; do echo $i; sleep 0.1; done; exit 7")
	command.flags = C.MSB_EXEC_SHELL
	check(C.msb_exec_stream(sandbox, &command, &exec, nil, &err), &err)

	file := pollable(unsafe.Pointer(exec))
	conn, failed := file.SyscallConn()
	for status := C.msb_status(C.MSB_OK); failed == nil && status != C.MSB_EOF; {
		event := C.new_event()
		// Parks this goroutine while no event is available.
		failed = conn.Read(func(uintptr) bool {
			status = check(C.msb_exec_recv(exec, 0, &event, &err), &err)
			return status != C.MSB_AGAIN
		})
		switch event.kind {
		case C.MSB_EVENT_STDOUT:
			os.Stdout.Write(C.GoBytes(unsafe.Pointer(event.data), C.int(event.len)))
		case C.MSB_EVENT_EXITED:
			fmt.Println("exited", event.value)
		}
		C.msb_event_release(&event)
	}
	if failed != nil {
		fmt.Fprintln(os.Stderr, failed)
	}
	file.Close()
	C.msb_handle_close(unsafe.Pointer(exec))
	check(C.msb_sandbox_stop(sandbox, 0, &err), &err)
	C.msb_handle_close(unsafe.Pointer(sandbox))
	check(C.msb_sandbox_remove(text("go-smoke"), 0, &err), &err)
}
