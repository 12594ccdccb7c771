// Many commands at once in Go: a goroutine for each, and no thread that waits.
//
//	export CGO_CFLAGS=-I../../include CGO_LDFLAGS="-L../../target/release -lmicrosandbox"
//	MSB_DRIVER=container go run loop.go ROOTFS
package main

/*
#include <microsandbox.h>
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// check makes an error of a failure. The caller's msb_error is its own, so that goroutines may
// change threads as they like.
func check(status C.msb_status, err *C.msb_error) error {
	if status >= 0 {
		return nil
	}
	name := C.GoString(C.msb_status_name(status))
	return fmt.Errorf("%s (%s)", C.GoString(&err.message[0]), name)
}

func newError() *C.msb_error {
	return &C.msb_error{struct_size: C.sizeof_msb_error}
}

// run starts a script and hands its events to f, in this goroutine, until there are no more.
func run(sandbox *C.msb_sandbox, script string, f func(*C.msb_event)) error {
	var exec *C.msb_exec
	var fd C.int32_t
	err := newError()
	// What C is given to read must not hold pointers to Go's memory: so it is C's.
	options := (*C.msb_exec_options)(C.calloc(1, C.sizeof_msb_exec_options))
	defer C.free(unsafe.Pointer(options))
	options.struct_size = C.sizeof_msb_exec_options
	options.flags = C.MSB_EXEC_SHELL
	options.cmd = C.CString(script)
	defer C.free(unsafe.Pointer(options.cmd))
	if e := check(C.msb_exec_stream(sandbox, options, &exec, nil, err), err); e != nil {
		return e
	}
	defer C.msb_handle_close(unsafe.Pointer(exec))
	if e := check(C.msb_handle_fd(unsafe.Pointer(exec), &fd, err), err); e != nil {
		return e
	}
	// A copy, because Go closes what it polls. It is not blocking, so Go's poller takes it.
	copied, e := syscall.Dup(int(fd))
	if e != nil {
		return e
	}
	file := os.NewFile(uintptr(copied), "exec")
	defer file.Close()
	conn, e := file.SyscallConn()
	if e != nil {
		return e
	}
	var failure error
	// Until the function says true, Go calls it whenever the descriptor turned readable; so it has
	// to take all that is there.
	e = conn.Read(func(uintptr) bool {
		for {
			event := C.msb_event{struct_size: C.sizeof_msb_event}
			switch status := C.msb_exec_recv(exec, 0, &event, err); status {
			case C.MSB_OK:
				f(&event)
				C.msb_event_release(&event)
			case C.MSB_AGAIN:
				return false
			case C.MSB_EOF:
				return true
			default:
				failure = check(status, err)
				return true
			}
		}
	})
	return errors.Join(e, failure)
}

func main() {
	name, image := C.CString(fmt.Sprintf("go-%d", os.Getpid())), C.CString(os.Args[1])
	options := (*C.msb_sandbox_options)(C.calloc(1, C.sizeof_msb_sandbox_options))
	options.struct_size = C.sizeof_msb_sandbox_options
	options.name, options.image = name, image
	var sandbox *C.msb_sandbox
	err := newError()
	must(check(C.msb_sandbox_create(options, &sandbox, err), err))
	// The one call here that waits; it has a thread for itself meanwhile.
	must(check(C.msb_sandbox_wait_ready(sandbox, -1, err), err))
	var group sync.WaitGroup
	var bytes, codes atomic.Int64
	for i := 0; i < 50; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			script := fmt.Sprintf("sleep 0.%d; head -c %d /dev/zero; exit %d", i%5, i*1000, i%3)
			must(run(sandbox, script, func(event *C.msb_event) {
				switch event.kind {
				case C.MSB_EVENT_STDOUT:
					data := unsafe.Slice((*byte)(event.data), event.len) // until the release
					bytes.Add(int64(len(data)))
				case C.MSB_EVENT_EXITED:
					codes.Add(int64(event.exit.code))
				}
			}))
		}()
	}
	group.Wait()
	fmt.Println(bytes.Load(), "bytes, sum of the exit codes", codes.Load())
	C.msb_handle_close(unsafe.Pointer(sandbox))
	must(check(C.msb_sandbox_remove(name, C.MSB_REMOVE_FORCE, err), err))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "loop:", err)
		os.Exit(1)
	}
}
