package main

/*
#cgo pkg-config: microsandbox
#include <microsandbox.h>
#include <stdlib.h>
#include <string.h>

// The baseline, entirely in C.

static msb_sandbox *sandbox;
static msb_error err = MSB_ERROR_INIT;

static int c_open(const char *name) {
    return msb_sandbox_open(name, 0, &sandbox, &err) == MSB_OK &&
           msb_sandbox_wait_ready(sandbox, -1, &err) == MSB_OK;
}

static void c_close(void) { msb_handle_close(sandbox); }

static msb_exec *c_start(const char *script, msb_sink **sink) {
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    msb_exec *exec = NULL;
    options.cmd = script;
    options.flags = MSB_EXEC_SHELL;
    return msb_exec_stream(sandbox, &options, &exec, sink, &err) == MSB_OK ? exec : NULL;
}

// Returns how many bytes a script writes.
static size_t c_recv(const char *script) {
    msb_exec *exec = c_start(script, NULL);
    msb_event event = MSB_EVENT_INIT;
    size_t total = 0;
    while (msb_exec_recv(exec, -1, &event, &err) == MSB_OK) {
        if (event.kind == MSB_EVENT_STDOUT)
            total += event.len;
        msb_event_release(&event);
    }
    msb_handle_close(exec);
    return total;
}

static size_t c_collect(const char *script) {
    msb_exec *exec = c_start(script, NULL);
    msb_output output = MSB_OUTPUT_INIT;
    size_t total = 0;
    if (msb_exec_collect(exec, -1, &output, &err) == MSB_OK)
        total = output.stdout_len;
    msb_output_release(&output);
    msb_handle_close(exec);
    return total;
}

// Drains a full queue.
static size_t c_drain(msb_exec *exec, size_t most) {
    msb_event event = MSB_EVENT_INIT;
    size_t total = 0;
    while (total < most && msb_exec_recv(exec, 0, &event, &err) == MSB_OK) {
        msb_event_release(&event);
        total++;
    }
    return total;
}

// Writes a byte and waits for its echo, `times` times.
static size_t c_echo(msb_exec *exec, msb_sink *sink, size_t times) {
    size_t came = 0;
    for (size_t i = 0; i < times; i++) {
        msb_event event = MSB_EVENT_INIT;
        size_t written;
        if (msb_sink_write(sink, (const uint8_t *)"x", 1, -1, &written, &err) != MSB_OK)
            break;
        while (msb_exec_recv(exec, -1, &event, &err) == MSB_OK) {
            size_t len = event.kind == MSB_EVENT_STDOUT ? event.len : 0;
            msb_event_release(&event);
            came += len;
            if (len > 0)
                break;
        }
    }
    return came;
}

static void c_end(msb_exec *exec) {
    (void)!msb_exec_signal(exec, 9, MSB_SIGNAL_TREE, &err);
    msb_handle_close(exec);
}
*/
import "C"

import "unsafe"

func cOpen(name string) bool {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return C.c_open(text) != 0
}

func cClose() { C.c_close() }

func cRecv(script string) int {
	text := C.CString(script)
	defer C.free(unsafe.Pointer(text))
	return int(C.c_recv(text))
}

func cCollect(script string) int {
	text := C.CString(script)
	defer C.free(unsafe.Pointer(text))
	return int(C.c_collect(text))
}

// cExec is a command whose events C receives.
type cExec struct {
	raw  *C.msb_exec
	sink *C.msb_sink
}

func cStart(script string) *cExec {
	text := C.CString(script)
	defer C.free(unsafe.Pointer(text))
	e := &cExec{}
	e.raw = C.c_start(text, &e.sink)
	return e
}

func (e *cExec) drain(most int) int { return int(C.c_drain(e.raw, C.size_t(most))) }

func (e *cExec) echo(times int) int { return int(C.c_echo(e.raw, e.sink, C.size_t(times))) }

func (e *cExec) end() {
	C.c_end(e.raw)
	C.msb_handle_close(unsafe.Pointer(e.sink))
}
