package ffi

// #include "abi.h"
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// Flags of a new sandbox.
const (
	Detached = C.MSB_SANDBOX_DETACHED
	Replace  = C.MSB_SANDBOX_REPLACE
	Network  = C.MSB_SANDBOX_NETWORK
	Log      = C.MSB_SANDBOX_LOG

	RequireJail = C.MSB_SANDBOX_REQUIRE_JAIL
	Init        = C.MSB_SANDBOX_INIT
)

// Privileges of commands in a virtual machine.
const (
	SecurityDefault    = C.MSB_SECURITY_DEFAULT
	SecurityRestricted = C.MSB_SECURITY_RESTRICTED
)

// Sandbox is a handle of a sandbox.
type Sandbox struct {
	raw   *C.msb_sandbox
	ready *Ready
}

func newSandbox(raw *C.msb_sandbox) *Sandbox {
	s := &Sandbox{raw: raw, ready: newReady(func() (int, error) { return descriptor(unsafe.Pointer(raw)) })}
	runtime.SetFinalizer(s, func(s *Sandbox) { _ = s.Close() })
	return s
}

// CreateSandbox starts the creation of a sandbox.
func CreateSandbox(o *SandboxOptions) (*Sandbox, error) {
	a := newArena(o.size())
	defer a.free()
	options, err := o.lend(a), C.go_error()
	var raw *C.msb_sandbox
	if status := C.msb_sandbox_create(&options, &raw, &err); status < 0 {
		return nil, newError(&err)
	}
	return newSandbox(raw), nil
}

// OpenSandbox starts to find a sandbox, or to start it.
func OpenSandbox(name string, start bool) (*Sandbox, error) {
	a := newArena(textSize(name))
	defer a.free()
	var flags C.uint32_t
	if start {
		flags = C.MSB_OPEN_START
	}
	err := C.go_error()
	var raw *C.msb_sandbox
	if status := C.msb_sandbox_open(a.text(name), flags, &raw, &err); status < 0 {
		return nil, newError(&err)
	}
	return newSandbox(raw), nil
}

// Wait waits until the sandbox has ended.
func (s *Sandbox) Wait(ctx context.Context) error {
	return s.until(ctx, func(err *C.msb_error) C.msb_status {
		return C.msb_sandbox_wait(s.raw, 0, err)
	})
}

func (s *Sandbox) until(ctx context.Context, look func(*C.msb_error) C.msb_status) error {
	defer runtime.KeepAlive(s)
	err := C.go_error()
	status, failed := s.ready.until(ctx, func() C.msb_status { return look(&err) })
	if failed != nil {
		return failed
	}
	return check(status, &err)
}

// Stop stops the sandbox, and waits until it has ended.
func (s *Sandbox) Stop(graceMs uint32) error {
	err := C.go_error()
	status := C.msb_sandbox_stop(s.raw, C.uint32_t(graceMs), &err)
	runtime.KeepAlive(s)
	return check(status, &err)
}

// Kill kills the sandbox, and waits until it has ended.
func (s *Sandbox) Kill() error {
	err := C.go_error()
	status := C.msb_sandbox_kill(s.raw, &err)
	runtime.KeepAlive(s)
	return check(status, &err)
}

// Close closes the handle and wakes blocked calls. The sandbox keeps running.
func (s *Sandbox) Close() error {
	return closeHandle(s, s.ready, unsafe.Pointer(s.raw))
}

// Done is closed when the handle is.
func (s *Sandbox) Done() <-chan struct{} { return s.ready.closed }

// RemoveSandbox removes a sandbox, and kills it first if force is set.
func RemoveSandbox(name string, force bool) error {
	a := newArena(textSize(name))
	defer a.free()
	var flags C.uint32_t
	if force {
		flags = C.MSB_REMOVE_FORCE
	}
	err := C.go_error()
	return check(C.msb_sandbox_remove(a.text(name), flags, &err), &err)
}

// AttachOptions select what to attach the terminal to: a command, or else a session, or else the
// shell.
type AttachOptions struct {
	Exec       *ExecOptions
	Session    string
	DetachKeys string
}

// Attach attaches the terminal and waits until the command ends or is detached.
func (s *Sandbox) Attach(o *AttachOptions) (code int, detached bool, failed error) {
	size := textSize(o.Session) + textSize(o.DetachKeys)
	if o.Exec != nil {
		size += o.Exec.size() + int(C.sizeof_msb_exec_options) + word
	}
	a := newArena(size)
	defer a.free()
	to, err := C.go_attach_options(), C.go_error()
	if o.Exec != nil {
		command := (*C.msb_exec_options)(a.take(int(C.sizeof_msb_exec_options)))
		*command = o.Exec.lend(a)
		to.exec = command
	}
	to.session, to.detach_keys = a.optional(o.Session), a.optional(o.DetachKeys)
	var exitCode C.int32_t
	var flags C.uint32_t
	status := C.msb_attach(s.raw, &to, &exitCode, &flags, &err)
	runtime.KeepAlive(s)
	return int(exitCode), flags&C.MSB_ATTACH_DETACHED != 0, check(status, &err)
}
