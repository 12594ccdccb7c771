package main

/*
#cgo CFLAGS: -I${SRCDIR}/../../include
#cgo LDFLAGS: -L${SRCDIR}/../../target/debug -lmicrosandbox -Wl,-rpath,${SRCDIR}/../../target/debug
#include <microsandbox.h>
#include <stdlib.h>

static msb_error new_error(void) { msb_error e = MSB_ERROR_INIT; return e; }
static msb_event new_event(void) { msb_event e = MSB_EVENT_INIT; return e; }
static msb_output new_output(void) { msb_output o = MSB_OUTPUT_INIT; return o; }
static msb_exec_entries new_entries(void) { msb_exec_entries e = MSB_EXEC_ENTRIES_INIT; return e; }
static msb_sandbox_options new_sandbox(void) { msb_sandbox_options o = MSB_SANDBOX_OPTIONS_INIT; return o; }
static msb_exec_options new_exec(void) { msb_exec_options o = MSB_EXEC_OPTIONS_INIT; return o; }
*/
import "C"

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// failure is a call that failed.
type failure struct {
	kind    string // as the cases name it, else the status
	message string
}

func (f *failure) Error() string { return f.kind + ": " + f.message }

var kinds = map[C.msb_status]string{
	C.MSB_E_INVALID:        "invalid_argument",
	C.MSB_E_PIPE:           "broken_pipe",
	C.MSB_E_CLOSED:         "closed",
	C.MSB_E_HANDLE:         "closed", // a closed handle is no handle in C
	C.MSB_E_NO_PROCESS:     "no_such_process",
	C.MSB_E_NO_SESSION:     "no_such_session",
	C.MSB_E_NOT_A_TERMINAL: "not_a_terminal",
}

func check(status C.msb_status, err *C.msb_error) error {
	if status >= 0 {
		return nil
	}
	kind := kinds[status]
	if kind == "" {
		kind = C.GoString(C.msb_status_name(status))
	}
	return &failure{kind, C.GoString(&err.message[0])}
}

// lent is C memory for the length of a call.
type lent []unsafe.Pointer

func (l *lent) free() {
	for _, memory := range *l {
		C.free(memory)
	}
}

func (l *lent) bytes(data []byte) unsafe.Pointer {
	memory := C.CBytes(append(append(make([]byte, 0, len(data)+1), data...), 0))
	*l = append(*l, memory)
	return memory
}

func (l *lent) text(data []byte) *C.char { return (*C.char)(l.bytes(data)) }

func (l *lent) texts(all [][]byte) (**C.char, C.size_t) {
	if len(all) == 0 {
		return nil, 0
	}
	memory := C.malloc(C.size_t(len(all)) * C.size_t(unsafe.Sizeof((*C.char)(nil))))
	*l = append(*l, memory)
	list := unsafe.Slice((**C.char)(memory), len(all))
	for i, data := range all {
		list[i] = l.text(data)
	}
	return (**C.char)(memory), C.size_t(len(all))
}

// waiter parks goroutines on a handle's descriptor: of its own, since a file closes what it has.
type waiter struct {
	file *os.File
	conn syscall.RawConn
}

func newWaiter(handle unsafe.Pointer) (*waiter, error) {
	var fd C.int32_t
	err := C.new_error()
	if failed := check(C.msb_handle_fd(handle, &fd, &err), &err); failed != nil {
		return nil, failed
	}
	syscall.ForkLock.RLock()
	own, failed := syscall.Dup(int(fd))
	if failed == nil {
		syscall.CloseOnExec(own)
	}
	syscall.ForkLock.RUnlock()
	if failed != nil {
		return nil, failed
	}
	// Before there is a file of it, or it would not be polled.
	if failed := syscall.SetNonblock(own, true); failed != nil {
		return nil, failed
	}
	file := os.NewFile(uintptr(own), "msb")
	conn, failed := file.SyscallConn()
	return &waiter{file, conn}, failed
}

// until looks until there is something or something failed, or it is too late.
func until[T any](w *waiter, deadline time.Time, look func() (T, bool, error)) (T, error) {
	var result T
	var failed error
	if err := w.file.SetReadDeadline(deadline); err != nil {
		return result, err
	}
	err := w.conn.Read(func(uintptr) bool {
		var there bool
		result, there, failed = look()
		return there || failed != nil
	})
	if err != nil {
		return result, fmt.Errorf("hung: %w", err)
	}
	return result, failed
}

type sandbox struct{ raw *C.msb_sandbox }

type sandboxOptions struct {
	name, image, workdir, shell, user string
	env                               [][]byte
}

func createSandbox(o sandboxOptions) (*sandbox, error) {
	var l lent
	defer l.free()
	options, err := C.new_sandbox(), C.new_error()
	for _, field := range []struct {
		to   **C.char
		from string
	}{{&options.name, o.name}, {&options.image, o.image}, {&options.workdir, o.workdir},
		{&options.shell, o.shell}, {&options.user, o.user}} {
		if field.from != "" {
			*field.to = l.text([]byte(field.from))
		}
	}
	options.env, options.env_len = l.texts(o.env)
	sb := &sandbox{}
	if failed := check(C.msb_sandbox_create(&options, &sb.raw, &err), &err); failed != nil {
		return nil, failed
	}
	w, failed := newWaiter(unsafe.Pointer(sb.raw))
	if failed != nil {
		return nil, failed
	}
	defer w.file.Close()
	_, failed = until(w, time.Now().Add(time.Minute), func() (struct{}, bool, error) {
		status := C.msb_sandbox_wait_ready(sb.raw, 0, &err)
		return struct{}{}, status != C.MSB_AGAIN, check(status, &err)
	})
	return sb, failed
}

// end stops the sandbox and removes it.
func (sb *sandbox) end(name string) error {
	var l lent
	defer l.free()
	err := C.new_error()
	if failed := check(C.msb_sandbox_stop(sb.raw, 0, &err), &err); failed != nil {
		return failed
	}
	C.msb_handle_close(unsafe.Pointer(sb.raw))
	return check(C.msb_sandbox_remove(l.text([]byte(name)), 0, &err), &err)
}

// listed tells whether a session is known, and whether it has ended.
func (sb *sandbox) listed(id string) (state string, failed error) {
	entries, err := C.new_entries(), C.new_error()
	if failed := check(C.msb_exec_list(sb.raw, &entries, &err), &err); failed != nil {
		return "", failed
	}
	defer C.msb_exec_entries_release(&entries)
	state = "unknown"
	for _, entry := range unsafe.Slice(entries.entries, int(entries.len)) {
		if C.GoString(entry.id) == id {
			state = "running"
			if entry.exit != nil {
				state = "ended"
			}
		}
	}
	return state, nil
}

type rlimit struct {
	resource   uint32
	soft, hard uint64
}

type execOptions struct {
	cmd                  []byte
	args                 [][]byte
	env                  [][2][]byte
	cwd, user, stdin     []byte // nil: not set
	script, tty, waitEOF bool
	pipe                 bool
	rlimits              []rlimit
	size                 *[2]uint16     // nil: not set
	timeout, drain       *time.Duration // as above
	maxOutput            *uint64        // as above
}

// exec is one command. One goroutine at a time may wait for it.
type exec struct {
	raw *C.msb_exec
	*waiter
}

type sink struct {
	raw *C.msb_sink
	*waiter
}

func (sb *sandbox) stream(o execOptions) (*exec, *sink, error) {
	var l lent
	defer l.free()
	options, err := C.new_exec(), C.new_error()
	options.cmd = l.text(o.cmd)
	options.args, options.args_len = l.texts(o.args)
	env := make([][]byte, len(o.env))
	for i, pair := range o.env {
		env[i] = bytes.Join(pair[:], []byte("="))
	}
	options.env, options.env_len = l.texts(env)
	for _, field := range []struct {
		to   **C.char
		from []byte
	}{{&options.cwd, o.cwd}, {&options.user, o.user}} {
		if field.from != nil {
			*field.to = l.text(field.from)
		}
	}
	if o.stdin != nil {
		options.stdin_data, options.stdin_len = (*C.uint8_t)(l.bytes(o.stdin)), C.size_t(len(o.stdin))
	}
	if len(o.rlimits) > 0 {
		memory := C.calloc(C.size_t(len(o.rlimits)), C.size_t(unsafe.Sizeof(C.msb_rlimit{})))
		l = append(l, memory)
		options.rlimits, options.rlimits_len = (*C.msb_rlimit)(memory), C.size_t(len(o.rlimits))
		for i, limit := range o.rlimits {
			unsafe.Slice(options.rlimits, len(o.rlimits))[i] = C.msb_rlimit{
				resource: C.uint32_t(limit.resource),
				soft:     C.uint64_t(limit.soft),
				hard:     C.uint64_t(limit.hard),
			}
		}
	}
	for flag, set := range map[C.uint32_t]bool{
		C.MSB_EXEC_SHELL: o.script, C.MSB_EXEC_TTY: o.tty, C.MSB_EXEC_WAIT_FOR_EOF: o.waitEOF,
	} {
		if set {
			options.flags |= flag
		}
	}
	if o.size != nil {
		options.rows, options.cols = C.uint16_t(o.size[0]), C.uint16_t(o.size[1])
	}
	if o.timeout != nil {
		options.timeout_ns = C.uint64_t(*o.timeout)
	}
	if o.drain != nil {
		options.drain_ns = C.uint64_t(*o.drain)
		if *o.drain == 0 {
			options.drain_ns = 1 // zero would be the default; this is as good as none
		}
	}
	if o.maxOutput != nil {
		options.max_output = C.uint64_t(*o.maxOutput)
	}
	var raw *C.msb_exec
	var input *C.msb_sink
	out := &input
	if !o.pipe {
		out = nil
	}
	if failed := check(C.msb_exec_stream(sb.raw, &options, &raw, out, &err), &err); failed != nil {
		return nil, nil, failed
	}
	return handles(raw, input)
}

func handles(raw *C.msb_exec, input *C.msb_sink) (*exec, *sink, error) {
	w, failed := newWaiter(unsafe.Pointer(raw))
	if failed != nil || input == nil {
		return &exec{raw, w}, nil, failed
	}
	own, failed := newWaiter(unsafe.Pointer(input))
	return &exec{raw, w}, &sink{raw: input, waiter: own}, failed
}

// reattach follows a session from now on.
func (sb *sandbox) reattach(id string) (*exec, error) {
	var l lent
	defer l.free()
	var raw *C.msb_exec
	err := C.new_error()
	status := C.msb_exec_reattach(sb.raw, l.text([]byte(id)), C.MSB_FROM_NOW, &raw, nil, &err)
	if failed := check(status, &err); failed != nil {
		return nil, failed
	}
	e, _, failed := handles(raw, nil)
	return e, failed
}

func (e *exec) close() error {
	e.file.Close()
	return check(C.msb_handle_close(unsafe.Pointer(e.raw)), &C.msb_error{})
}

func (e *exec) id() (string, error) {
	var id [C.MSB_SESSION_ID_LEN]C.char
	err := C.new_error()
	failed := check(C.msb_exec_id(e.raw, &id[0], &err), &err)
	return C.GoString(&id[0]), failed
}

func (e *exec) signal(number int, tree bool) error {
	flags, err := C.uint32_t(C.MSB_SIGNAL_GROUP), C.new_error()
	if tree {
		flags = C.MSB_SIGNAL_TREE
	}
	return check(C.msb_exec_signal(e.raw, C.int32_t(number), flags, &err), &err)
}

func (e *exec) resize(rows, cols uint16) error {
	err := C.new_error()
	return check(C.msb_exec_resize(e.raw, C.uint16_t(rows), C.uint16_t(cols), &err), &err)
}

// exitStatus, execFailure and ending are copies of what is borrowed.
type exitStatus struct {
	code, signal   int
	core, timedOut bool
	cpu, wall      time.Duration
	maxRSS         uint64
}

type execFailure struct {
	kind, stage, errnoName, message, path string
	errno                                 int
}

type ending struct {
	exit    *exitStatus
	failure *execFailure
	lost    string
}

func (e ending) String() string {
	switch {
	case e.exit != nil:
		return fmt.Sprintf("%+v", *e.exit)
	case e.failure != nil:
		return fmt.Sprintf("%+v", *e.failure)
	}
	return "lost: " + e.lost
}

func newEnding(exit *C.msb_exec_exit, failed *C.msb_exec_failure) (e ending) {
	if exit != nil {
		e.exit = &exitStatus{
			code: int(exit.code), signal: int(exit.signal),
			core:     exit.flags&C.MSB_EXIT_CORE_DUMPED != 0,
			timedOut: exit.flags&C.MSB_EXIT_TIMED_OUT != 0,
			cpu:      time.Duration(exit.user_ns + exit.system_ns),
			wall:     time.Duration(exit.wall_ns),
			maxRSS:   uint64(exit.max_rss),
		}
	}
	if failed != nil {
		e.failure = &execFailure{
			kind: C.GoString(failed.kind_name), stage: C.GoString(failed.stage),
			errnoName: C.GoString(failed.os_error_name), message: C.GoString(failed.message),
			path: C.GoString(failed.path), errno: int(failed.os_error),
		}
	}
	return e
}

type event struct {
	kind string
	data []byte
	ending
}

var eventKinds = map[C.uint32_t]string{
	0:                       "end",
	C.MSB_EVENT_STARTED:     "started",
	C.MSB_EVENT_STDOUT:      "stdout",
	C.MSB_EVENT_STDERR:      "stderr",
	C.MSB_EVENT_STDIN_ERROR: "stdin_error",
	C.MSB_EVENT_EXITED:      "exited",
	C.MSB_EVENT_FAILED:      "failed",
	C.MSB_EVENT_LOST:        "lost",
}

func newEvent(raw *C.msb_event) event {
	data := C.GoBytes(unsafe.Pointer(raw.data), C.int(raw.len))
	e := event{eventKinds[raw.kind], data, newEnding(raw.exit, raw.failure)}
	e.lost = string(data)
	return e
}

// recv looks for the next event.
func (e *exec) recv() (event, bool, error) {
	raw, err := C.new_event(), C.new_error()
	status := C.msb_exec_recv(e.raw, 0, &raw, &err)
	defer C.msb_event_release(&raw)
	return newEvent(&raw), status != C.MSB_AGAIN, check(status, &err)
}

// recvMany looks for the events that are there.
func (e *exec) recvMany() ([]event, bool, error) {
	var raw [64]C.msb_event
	for i := range raw {
		raw[i] = C.new_event()
	}
	var length C.size_t
	err := C.new_error()
	status := C.msb_exec_recv_many(e.raw, 0, &raw[0], C.size_t(len(raw)), &length, &err)
	if status == C.MSB_EOF {
		return []event{newEvent(&raw[0])}, true, nil
	}
	events := make([]event, 0, int(length))
	for i := range raw[:length] {
		events = append(events, newEvent(&raw[i]))
	}
	C.msb_event_release_many(&raw[0], length)
	return events, status != C.MSB_AGAIN, check(status, &err)
}

// wait looks whether the command has ended.
func (e *exec) wait() (ending, bool, error) {
	raw, err := C.new_event(), C.new_error()
	status := C.msb_exec_wait(e.raw, 0, &raw, &err)
	defer C.msb_event_release(&raw)
	return newEvent(&raw).ending, status != C.MSB_AGAIN, check(status, &err)
}

type output struct {
	ending
	stdout, stderr           []byte
	stdoutTotal, stderrTotal uint64
	truncated, writerLeft    bool
}

// collect looks whether the command and its output have ended.
func (e *exec) collect() (output, bool, error) {
	raw, err := C.new_output(), C.new_error()
	status := C.msb_exec_collect(e.raw, 0, &raw, &err)
	defer C.msb_output_release(&raw)
	o := output{
		ending:      newEnding(raw.exit, raw.failure),
		stdout:      C.GoBytes(unsafe.Pointer(raw.stdout_data), C.int(raw.stdout_len)),
		stderr:      C.GoBytes(unsafe.Pointer(raw.stderr_data), C.int(raw.stderr_len)),
		stdoutTotal: uint64(raw.stdout_total),
		stderrTotal: uint64(raw.stderr_total),
		truncated:   raw.flags&C.MSB_OUTPUT_TRUNCATED != 0,
		writerLeft:  raw.flags&C.MSB_EVENT_WRITER_LEFT != 0,
	}
	o.lost = string(C.GoBytes(unsafe.Pointer(raw.lost), C.int(raw.lost_len)))
	return o, status != C.MSB_AGAIN, check(status, &err)
}

// write takes part of the data, at least a byte.
func (s *sink) write(data []byte) (int, bool, error) {
	var written C.size_t
	var first *C.uint8_t
	if len(data) > 0 {
		first = (*C.uint8_t)(unsafe.Pointer(&data[0]))
	}
	err := C.new_error()
	status := C.msb_sink_write(s.raw, first, C.size_t(len(data)), 0, &written, &err)
	return int(written), status != C.MSB_AGAIN, check(status, &err)
}

func (s *sink) close() error {
	return check(C.msb_handle_close(unsafe.Pointer(s.raw)), &C.msb_error{})
}

// closedAgain is what a second closing says: it is harmless, and the handle is none any more.
func closedAgain(err error) error { return fails(err, "closed") }

// free gives back what closing leaves, in case that somebody waits.
func (s *sink) free() { s.file.Close() }

// inexpressible tells why the C ABI cannot say what a case asks for, if so.
func inexpressible(c *testCase) string {
	texts := append([]any{c.Cmd, c.Script, c.Cwd}, c.Args...)
	named := false
	for _, pair := range c.Env {
		texts = append(texts, pair...)
		named = named || bytes.ContainsRune(value(pair[0], ""), '=')
	}
	for _, text := range texts {
		if text != nil && bytes.IndexByte(value(text, ""), 0) >= 0 {
			return "a NUL in a text that a NUL ends"
		}
	}
	if named {
		return "'=' in a variable's name, which '=' ends"
	}
	zero := c.TimeoutMs != nil && *c.TimeoutMs == 0 || c.MaxOutput != nil && *c.MaxOutput == 0
	if c.TTY != nil && c.TTY.Rows != nil {
		zero = zero || *c.TTY.Rows == 0 || *c.TTY.Cols == 0
	}
	if zero {
		return "a zero that means the default"
	}
	return ""
}
