"""A binding of libmicrosandbox in plain Python, and a program that uses it.

    MSB_DRIVER=container python3 binding.py ROOTFS

Sandboxes, commands, input, events in batches, errors, signals, and a loop of asyncio. It needs
nothing but the library: MSB_LIBRARY names it where the linker does not find it.
"""
import asyncio
import ctypes as c
import os
import signal
import sys
import weakref

lib = c.CDLL(os.environ.get("MSB_LIBRARY", "libmicrosandbox.so.0"))
OK, AGAIN, EOF = 0, 1, 2
STARTED, STDOUT, STDERR, STDIN_ERROR, EXITED, FAILED, LOST = range(1, 8)
SHELL = 4  # MSB_EXEC_SHELL
TREE = FORCE = 1  # MSB_SIGNAL_TREE, MSB_REMOVE_FORCE
u32, u64, size, text, ptr = c.c_uint32, c.c_uint64, c.c_size_t, c.c_char_p, c.c_void_p


class Struct(c.Structure):
    """As in the header, field by field; starts with its size, as MSB_*_INIT has it."""

    def __init__(self):
        super().__init__(c.sizeof(self))


class ErrorStruct(Struct):
    _fields_ = [("struct_size", u32), ("status", c.c_int32), ("os_error", c.c_int32),
                ("origin", u32), ("message", c.c_char * 496)]


class Exit(Struct):
    _fields_ = [("struct_size", u32), ("code", c.c_int32), ("signal", c.c_int32), ("flags", u32),
                ("user_ns", u64), ("system_ns", u64), ("wall_ns", u64), ("max_rss", u64)]


class Failure(Struct):
    _fields_ = [("struct_size", u32), ("kind", u32), ("os_error", c.c_int32), ("reserved", u32),
                ("kind_name", text), ("stage", text), ("os_error_name", text), ("message", text),
                ("path", text)]


class Event(Struct):
    _fields_ = [("struct_size", u32), ("kind", u32), ("value", c.c_int64), ("data", ptr),
                ("len", size), ("exit", c.POINTER(Exit)), ("failure", c.POINTER(Failure)),
                ("flags", u32), ("reserved", u32), ("owner", ptr)]


class SandboxOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("name", text), ("image", text),
                ("driver", text), ("workdir", text), ("shell", text), ("user", text),
                ("hostname", text), ("env", ptr), ("env_len", size), ("labels", ptr),
                ("labels_len", size), ("cpus", c.c_double), ("memory_mib", u32), ("pids_limit", u32),
                ("max_duration_ms", u64), ("idle_timeout_ms", u64), ("boot_timeout_ms", u64),
                ("log_max_bytes", u64), ("log_files", u32), ("reserved", u32)]


class ExecOptions(Struct):
    _fields_ = [("struct_size", u32), ("flags", u32), ("cmd", text), ("args", c.POINTER(text)),
                ("args_len", size), ("env", c.POINTER(text)), ("env_len", size), ("cwd", text),
                ("user", text), ("stdin_data", ptr), ("stdin_len", size), ("rlimits", ptr),
                ("rlimits_len", size), ("timeout_ns", u64), ("drain_ns", u64),
                ("rows", c.c_uint16), ("cols", c.c_uint16), ("reserved", u32),
                ("max_output", u64)]


class MsbError(Exception):
    """A failure: its status by number and name, and one line of text."""

    def __init__(self, err):
        self.status, self.os_error = err.status, err.os_error
        self.name = lib.msb_status_name(err.status).decode()
        super().__init__(f"{err.message.decode()} ({self.name})")


lib.msb_status_name.restype = text
lib.msb_handle_close.argtypes = [ptr]  # without it, ctypes would cut a handle to 32 bits


def call(name, *args):
    """Calls a function whose last argument is `err`. ctypes releases the GIL meanwhile, so that a
    call which waits stops no other thread."""
    err = ErrorStruct()
    status = getattr(lib, name)(*args, c.byref(err))
    if status < 0:
        raise MsbError(err)
    return status


class Handle:
    """Closed once: by its user, else with the object, else with the program."""

    def __init__(self, handle):
        self.handle = ptr(handle.value)
        self.close = weakref.finalize(self, lib.msb_handle_close, self.handle)

    def fd(self):
        fd = c.c_int32()
        call("msb_handle_fd", self.handle, c.byref(fd))
        return fd.value


class Sink(Handle):
    def write(self, data):
        written = size()
        while data:
            call("msb_sink_write", self.handle, data, size(len(data)), c.c_int64(-1),
                 c.byref(written))
            data = data[written.value:]


class Exec(Handle):
    def take(self, timeout_ms):
        """The events that are there, up to 64; None for "nothing yet", an empty list for the end."""
        events, count = (Event * 64)(), size()
        for event in events:
            event.struct_size = c.sizeof(Event)
        status = call("msb_exec_recv_many", self.handle, c.c_int64(timeout_ms), events, size(64),
                      c.byref(count))
        if status != OK:
            return None if status == AGAIN else []
        try:
            # Copied, since Python's bytes may outlive the event by far.
            return [self.copied(event) for event in events[:count.value]]
        finally:
            lib.msb_event_release_many(events, count)

    @staticmethod
    def copied(event):
        if event.kind == EXITED:
            return EXITED, event.exit.contents.signal or event.exit.contents.code
        if event.kind == FAILED:
            return FAILED, event.failure.contents.message.decode()
        data = c.string_at(event.data, event.len) if event.len else b""
        return event.kind, data or event.value

    def __iter__(self):
        while batch := self.take(-1):
            yield from batch

    async def __aiter__(self):
        """As a loop waits: only in the loop, and only after "nothing yet"."""
        loop, fd = asyncio.get_running_loop(), self.fd()
        while (batch := self.take(0)) != []:
            for event in batch or []:
                yield event
            if batch is None:
                readable = loop.create_future()
                loop.add_reader(fd, lambda: readable.done() or readable.set_result(None))
                try:
                    await readable
                finally:
                    loop.remove_reader(fd)

    def signal(self, number, flags=0):
        call("msb_exec_signal", self.handle, c.c_int32(number), u32(flags))


class Sandbox(Handle):
    def __init__(self, name, image):
        options, handle = SandboxOptions(), ptr()
        options.name, options.image = name.encode(), os.fsencode(image)
        call("msb_sandbox_create", c.byref(options), c.byref(handle))
        super().__init__(handle)
        self.name = name
        call("msb_sandbox_wait_ready", self.handle, c.c_int64(-1))

    def start(self, cmd, *args, flags=0, stdin=False, timeout=0.0):
        """An exec, and its sink if `stdin` is asked for."""
        options, handle, sink = ExecOptions(), ptr(), ptr()
        options.cmd, options.flags = os.fsencode(cmd), flags
        options.args = (text * len(args))(*map(os.fsencode, args))
        options.args_len, options.timeout_ns = len(args), int(timeout * 1e9)
        call("msb_exec_stream", self.handle, c.byref(options), c.byref(handle),
             c.byref(sink) if stdin else None)
        return (Exec(handle), Sink(sink)) if stdin else Exec(handle)

    def remove(self):
        self.close()
        call("msb_sandbox_remove", self.name.encode(), u32(FORCE))


async def length_of_output(sandbox, number):
    script = "sleep 0.$(($1 % 5)); head -c $(($1 * 1000)) /dev/zero"
    execution = sandbox.start(script, "loop", str(number), flags=SHELL)
    return sum([len(data) async for kind, data in execution if kind == STDOUT])


async def many_at_once(sandbox):
    return sum(await asyncio.gather(*(length_of_output(sandbox, i) for i in range(50))))


def main(image):
    sandbox = Sandbox(f"binding-{os.getpid()}", image)
    for kind, value in sandbox.start("echo out; echo err >&2; exit 3", flags=SHELL):
        if kind != STARTED:
            print(kind, value)
    print(list(sandbox.start("no-such-program")))
    execution, sink = sandbox.start("cat", stdin=True)
    sink.write(b"through cat\n")
    sink.close()
    print(b"".join(data for kind, data in execution if kind == STDOUT))
    print(asyncio.run(many_at_once(sandbox)), "bytes of fifty commands on one thread")
    execution = sandbox.start("sleep", "600")
    execution.signal(signal.SIGKILL, TREE)
    print(list(execution)[-1])
    execution.close()
    try:
        execution.take(0)
    except MsbError as error:
        print(error.name)
    sandbox.remove()


if __name__ == "__main__":
    main(sys.argv[1])
