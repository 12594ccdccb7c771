"""The C ABI from Python, without the package: the header as the package writes it out for ctypes, and
a few words around it.

Handles are integers: nothing is freed because a Python object dies.
"""

import ctypes
import os
import sys
from ctypes import byref, c_char_p, c_void_p

# The one module of the package that needs no other.
sys.path.append(os.path.join(os.path.dirname(__file__), "../../sdk/python/src/microsandbox"))
from _abi import *

lib = ctypes.CDLL(os.environ.get("MSB_LIBRARY", "libmicrosandbox.so.0"))
for _name, (_result, _arguments) in FUNCTIONS.items():
    _function = getattr(lib, _name)
    _function.restype, _function.argtypes = _result, _arguments


class Failure(Exception):
    """A call failed."""

    def __init__(self, status, error):
        self.status, self.name = status, lib.msb_status_name(status).decode()
        self.os_error, self.origin = error.os_error, error.origin
        self.message = error.message.decode()
        super().__init__(f"{self.name}: {self.message}")


def call(function, *arguments):
    """Calls a function whose last parameter is the error: its status, unless it failed."""
    error = msb_error()
    status = function(*arguments, byref(error))
    if status < 0:
        assert error.status == status, (function, status, error.status)
        raise Failure(status, error)
    return status


def texts(values):
    """An array of NUL-terminated texts and its length."""
    return (c_char_p * len(values))(*values), len(values)


def command(cmd, *args, env=(), rlimits=(), stdin=None, **fields):
    """Options of a command; all texts are bytes."""
    options = msb_exec_options(cmd=cmd, **fields)
    options.args, options.args_len = texts(args)
    options.env, options.env_len = texts(env)
    options.rlimits, options.rlimits_len = (msb_rlimit * len(rlimits))(*rlimits), len(rlimits)
    if stdin is not None:
        options.stdin_data, options.stdin_len = stdin, len(stdin)
    return options


def start(sandbox, options, pipe=False):
    """Starts a command: the exec, and the sink if there is to be one."""
    exec_, sink = c_void_p(), c_void_p()
    call(lib.msb_exec_stream, sandbox, options, byref(exec_), byref(sink) if pipe else None)
    return exec_.value, sink.value


def reattach(sandbox, session, position=0):
    exec_, sink = c_void_p(), c_void_p()
    call(lib.msb_exec_reattach, sandbox, session, position, byref(exec_), byref(sink))
    return exec_.value, sink.value


def session_id(exec_):
    buffer = ctypes.create_string_buffer(MSB_SESSION_ID_LEN)
    call(lib.msb_exec_id, exec_, buffer)
    return buffer.value


def descriptor(handle):
    out = c_int32(-1)
    call(lib.msb_handle_fd, handle, byref(out))
    return out.value


def close(handle):
    return lib.msb_handle_close(handle)


class Ending:
    """How a command ended, copied out of what is borrowed."""

    def __init__(self, kind, exit_, failure, lost):
        self.kind, self.exit, self.failure, self.lost = kind, None, None, lost
        if exit_:
            self.exit = msb_exec_exit.from_buffer_copy(exit_.contents)
        if failure:
            self.failure = {
                name: getattr(failure.contents, name)
                for name, _ in msb_exec_failure._fields_
                if name not in ("struct_size", "reserved")
            }

    def __repr__(self):
        exit_ = self.exit and {name: getattr(self.exit, name) for name, _ in self.exit._fields_}
        return f"Ending({self.kind}, {exit_}, {self.failure}, {self.lost})"


class Event(Ending):
    """One event, copied. At the end of the stream its kind is 0."""

    def __init__(self, raw):
        self.data = ctypes.string_at(raw.data, raw.len) if raw.data else b""
        super().__init__(raw.kind, raw.exit, raw.failure, self.data)
        self.value, self.flags = raw.value, raw.flags


class Output(Ending):
    """What was collected, copied."""

    def __init__(self, raw):
        lost = ctypes.string_at(raw.lost, raw.lost_len) if raw.lost else b""
        super().__init__(raw.kind, raw.exit, raw.failure, lost)
        self.stdout = ctypes.string_at(raw.stdout_data, raw.stdout_len) if raw.stdout_len else b""
        self.stderr = ctypes.string_at(raw.stderr_data, raw.stderr_len) if raw.stderr_len else b""
        self.totals, self.flags = (raw.stdout_total, raw.stderr_total), raw.flags


def _one_event(function, exec_, timeout_ms):
    raw = msb_event()
    if call(function, exec_, timeout_ms, byref(raw)) == MSB_AGAIN:
        return None
    try:
        return Event(raw)
    finally:
        lib.msb_event_release(byref(raw))


def recv(exec_, timeout_ms=-1):
    """The next event; None when there is none yet."""
    return _one_event(lib.msb_exec_recv, exec_, timeout_ms)


def wait(exec_, timeout_ms=-1):
    """The event that ended the command; None when it has not."""
    return _one_event(lib.msb_exec_wait, exec_, timeout_ms)


def recv_many(exec_, timeout_ms=-1, capacity=64):
    """The events that are there: an empty list when there is none yet."""
    raw, length = (msb_event * capacity)(), c_size_t()
    for event in raw:
        event.struct_size = ctypes.sizeof(msb_event)
    status = call(lib.msb_exec_recv_many, exec_, timeout_ms, raw, capacity, byref(length))
    if status == MSB_AGAIN:
        return []
    if status == MSB_EOF:
        return [Event(raw[0])]
    try:
        return [Event(raw[at]) for at in range(length.value)]
    finally:
        lib.msb_event_release_many(raw, length.value)


def collect(exec_, timeout_ms=-1):
    """What the command had put out; None when it goes on."""
    raw = msb_output()
    if call(lib.msb_exec_collect, exec_, timeout_ms, byref(raw)) == MSB_AGAIN:
        return None
    try:
        return Output(raw)
    finally:
        lib.msb_output_release(byref(raw))


def write(sink, data, timeout_ms=-1):
    """How many bytes were taken; 0 when there is no room."""
    written = c_size_t()
    call(lib.msb_sink_write, sink, data, len(data), timeout_ms, byref(written))
    return written.value


def create(name, image, env=(), **fields):
    """A sandbox that runs."""
    options = msb_sandbox_options(name=name, image=image, **fields)
    options.env, options.env_len = texts(env)
    sandbox = c_void_p()
    call(lib.msb_sandbox_create, options, byref(sandbox))
    assert call(lib.msb_sandbox_wait_ready, sandbox, -1) == MSB_OK
    return sandbox.value


def end(sandbox, name):
    """Stops, closes and removes a sandbox."""
    call(lib.msb_sandbox_stop, sandbox, 0)
    assert close(sandbox) == MSB_OK
    call(lib.msb_sandbox_remove, name, 0)
