"""One command: its events, its stdin, its exit.

Cancellation loses no event: nothing is awaited between taking an event from the library and storing
it where the next call finds it.
"""

from __future__ import annotations

import collections
import ctypes
import signal as signals
import threading
import weakref
from ctypes import byref
from typing import Any, Optional

from . import _abi
from ._backend import Backend
from ._errors import (
    BusyError,
    ClosedError,
    ExecTimeoutError,
    InvalidArgumentError,
    MicrosandboxError,
    StreamLostError,
    exec_failed,
    failure_kind,
)
from ._handle import Handle
from ._native import call, lib
from ._values import (
    ExecEvent,
    ExecEventType,
    ExecFailure,
    ExecOutput,
    ExecView,
    ExitStatus,
    ResourceUsage,
)

_BATCH = 64
_END_MS = 5000
_TYPES = {
    _abi.MSB_EVENT_STARTED: ExecEventType.STARTED,
    _abi.MSB_EVENT_STDOUT: ExecEventType.STDOUT,
    _abi.MSB_EVENT_STDERR: ExecEventType.STDERR,
    _abi.MSB_EVENT_STDIN_ERROR: ExecEventType.STDIN_ERROR,
    _abi.MSB_EVENT_EXITED: ExecEventType.EXITED,
    _abi.MSB_EVENT_FAILED: ExecEventType.FAILED,
    _abi.MSB_EVENT_LOST: ExecEventType.LOST,
}
_OUTPUTS = (_abi.MSB_EVENT_STDOUT, _abi.MSB_EVENT_STDERR)
_ENDINGS = (ExecEventType.EXITED, ExecEventType.FAILED, ExecEventType.LOST)


class _Local(threading.local):
    """A thread's buffer for a batch: filled, copied and released without an await."""

    def __init__(self) -> None:
        self.events = (_abi.msb_event * _BATCH)()
        for event in self.events:
            event.struct_size = ctypes.sizeof(_abi.msb_event)
        self.length = ctypes.c_size_t()


_local = _Local()


def text(data: Optional[bytes]) -> str:
    """Decode UTF-8; invalid bytes become surrogates."""
    return (data or b"").decode("utf-8", "surrogateescape")


def exit_status(raw: Any, with_usage: bool = True) -> ExitStatus:
    """Copy an `msb_exec_exit`. A log keeps no resource usage."""
    usage = None
    if with_usage:
        times = raw.user_ns / 1e9, raw.system_ns / 1e9, raw.wall_ns / 1e9
        usage = ResourceUsage(*times, raw.max_rss)
    return ExitStatus(
        raw.code,
        raw.signal or None,
        bool(raw.flags & _abi.MSB_EXIT_CORE_DUMPED),
        bool(raw.flags & _abi.MSB_EXIT_TIMED_OUT),
        usage,
    )


def exec_failure(raw: Any) -> ExecFailure:
    """Copy an `msb_exec_failure`."""
    return ExecFailure(
        failure_kind(text(raw.kind_name)),
        text(raw.stage),
        raw.os_error or None,
        text(raw.os_error_name),
        text(raw.message),
        text(raw.path),
    )


def _event(raw: Any, with_data: bool = True) -> Optional[ExecEvent]:
    """Copy an event; return None for a kind that this version does not know."""
    kind = raw.kind
    if kind in _OUTPUTS:
        data = ctypes.string_at(raw.data, raw.len) if with_data and raw.len else b""
        return ExecEvent(_TYPES[kind], data)
    event_type = _TYPES.get(kind)
    if event_type is None:
        return None
    if event_type is ExecEventType.STARTED:
        return ExecEvent(event_type, pid=raw.value)
    if event_type is ExecEventType.EXITED:
        return ExecEvent(event_type, status=exit_status(raw.exit.contents))
    if event_type is ExecEventType.FAILED:
        return ExecEvent(event_type, failure=exec_failure(raw.failure.contents))
    if event_type is ExecEventType.LOST:
        reason = ctypes.string_at(raw.data, raw.len) if raw.len else b""
        return ExecEvent(event_type, reason=reason.decode("utf-8", "replace"))
    return ExecEvent(event_type, errno=raw.value)


def _failure_error(failure: ExecFailure) -> MicrosandboxError:
    """Return the exception for a command that failed to start."""
    errno, names = failure.errno or 0, (failure.errno_name, failure.path)
    return exec_failed(failure.kind, failure.message, failure.stage, errno, *names)


def _status_of(event: ExecEvent) -> ExitStatus:
    """Return the exit status in a last event; raise unless the command exited."""
    if event.status is not None:
        return event.status
    if event.failure is not None:
        raise _failure_error(event.failure)
    raise StreamLostError(event.reason or "the exit status of the command is unknown")


def _borrow(raw: Any) -> memoryview:
    """Return the bytes of an event without a copy; release it when the last view is gone.

    Slices and arrays made of a memoryview keep a reference to the object that exports the memory,
    so no view is left when that object is finalized.
    """
    exporter = (ctypes.c_ubyte * raw.len).from_address(raw.data)
    # Not at interpreter exit, when views may still be in use.
    weakref.finalize(exporter, lib.msb_event_release, raw).atexit = False
    return memoryview(exporter).cast("B").toreadonly()


class SinkCore:
    """The write end of a command's stdin."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self._writer = threading.Lock()

    async def write(self, io: Backend, data: Any) -> None:
        """Write all of it, waiting while the command does not read."""
        if isinstance(data, str):
            data = data.encode()
        elif not isinstance(data, bytes):
            if not isinstance(data, (bytearray, memoryview)):
                raise TypeError(f"data must be bytes or text, not {type(data).__name__}")
            data = bytes(data)
        if not self._writer.acquire(blocking=False):
            raise BusyError("another write to this stdin is in progress")
        try:
            start = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
            done, size, written = 0, len(data), ctypes.c_size_t()
            while True:
                rest = (start + done, size - done, 0, byref(written))
                status = call(lib.msb_sink_write, self.handle.use(), *rest)
                if status == _abi.MSB_AGAIN:
                    await io.readable(self.handle)
                    continue
                done += written.value
                if done >= size:
                    return
        finally:
            self._writer.release()


class ExecCore:
    """A command, and events that were received but not returned yet: at most one batch."""

    def __init__(self, handle: Handle, sink: Optional[Handle], max_output: Optional[int]) -> None:
        self.handle = handle
        self.sink = None if sink is None else SinkCore(sink)
        self.events: collections.deque[ExecEvent] = collections.deque()
        self.writer_left = self.cut = False
        self._max_output = max_output
        self._reader = threading.Lock()
        self._ended = False
        self._busy_turns = 0
        self._gathered = (bytearray(), bytearray())
        self._id: Optional[str] = None

    def id(self) -> str:
        """Return the session's id, also after the handle was closed."""
        found = self._id
        if found is None:
            buffer = ctypes.create_string_buffer(_abi.MSB_SESSION_ID_LEN)
            call(lib.msb_exec_id, self.handle.use(), buffer)
            found = self._id = buffer.value.decode()
        return found

    def positions(self) -> tuple[int, int]:
        """Return the offset after the last byte returned, and how many bytes were missed."""
        position, missed = ctypes.c_uint64(), ctypes.c_uint64()
        call(lib.msb_exec_position, self.handle.use(), byref(position), byref(missed))
        return position.value - sum(len(event.data) for event in self.events), missed.value

    def take_stdin(self) -> Optional[SinkCore]:
        """Return the sink, once."""
        sink, self.sink = self.sink, None
        return sink

    async def _yield_if_busy(self, io: Backend, turns: int = 1) -> None:
        """Yield now and then, so that a fast command does not starve the loop's other tasks."""
        self._busy_turns += 1
        if self._busy_turns > turns:
            self._busy_turns = 1
            await io.checkpoint()

    async def _wait(self, io: Backend) -> None:
        self._busy_turns = 0
        await io.readable(self.handle)

    def _enter(self) -> None:
        if not self._reader.acquire(blocking=False):
            raise BusyError("another call receives from this handle")

    def ready(self) -> Optional[ExecEvent]:
        """Return the next event if it was received already, without waiting."""
        if not self.events or not self._reader.acquire(False):
            return None
        try:
            return self.events.popleft() if self.events and not self.handle.closed else None
        finally:
            self._reader.release()

    async def next(self, io: Backend) -> Optional[ExecEvent]:
        """Return the next event; None at the end and on every later call."""
        self._enter()
        try:
            while not self.events and not self._ended:
                await self._yield_if_busy(io)
                if not self._take(self.handle.use()):
                    await self._wait(io)
            if self.handle.closed:
                raise ClosedError("the handle is closed")
            return self.events.popleft() if self.events else None
        finally:
            self._reader.release()

    def _take(self, handle: int) -> bool:
        """Receive available events; return False if there are none yet."""
        events, length = _local.events, _local.length
        status = call(lib.msb_exec_recv_many, handle, 0, events, _BATCH, byref(length))
        if status == _abi.MSB_AGAIN:
            return False
        if status == _abi.MSB_EOF:
            self._end(events[0].flags)
            return True
        try:
            for raw in events[: length.value]:
                event = _event(raw)
                if event is not None:
                    self.events.append(event)
        finally:
            lib.msb_event_release_many(events, length)
        return True

    def _end(self, flags: int) -> None:
        self._ended = True
        self.writer_left = bool(flags & _abi.MSB_EVENT_WRITER_LEFT)
        self.cut = bool(flags & _abi.MSB_EVENT_CUT)

    async def view(self, io: Backend) -> Optional[ExecView]:
        """Return the next event without copying its bytes."""
        self._enter()
        try:
            while not self.events and not self._ended:
                await self._yield_if_busy(io, _BATCH)
                raw = _abi.msb_event()
                status = call(lib.msb_exec_recv, self.handle.use(), 0, byref(raw))
                if status == _abi.MSB_AGAIN:
                    await self._wait(io)
                elif status == _abi.MSB_EOF:
                    self._end(raw.flags)
                else:
                    view = self._view(raw)
                    if view is not None:
                        return view
            if not self.events:
                return None
            event = self.events.popleft()
            return ExecView(event, memoryview(event.data))
        finally:
            self._reader.release()

    @staticmethod
    def _view(raw: Any) -> Optional[ExecView]:
        event = _event(raw, with_data=False)
        if event is not None and raw.kind in _OUTPUTS and raw.len:
            return ExecView(event, _borrow(raw))
        lib.msb_event_release(byref(raw))
        return None if event is None else ExecView(event, memoryview(b""))

    async def wait(self, io: Backend) -> ExitStatus:
        """Wait for its exit and discard its output."""
        self._enter()
        try:
            self._skip()
            while True:
                raw = _abi.msb_event()
                if call(lib.msb_exec_wait, self.handle.use(), 0, byref(raw)) == _abi.MSB_OK:
                    break
                await io.readable(self.handle)
            try:
                event = _event(raw)
            finally:
                lib.msb_event_release(byref(raw))
        finally:
            self._reader.release()
        if event is None:
            raise MicrosandboxError("cannot read the exit of the command: unknown kind of event")
        return _status_of(event)

    def _skip(self) -> None:
        """Discard received events, up to the last one of the command."""
        while self.events:
            if self.events.popleft().event_type in _ENDINGS:
                return

    async def collect(self, io: Backend) -> ExecOutput:
        """Wait for the end of the output and return what was not returned before."""
        self._enter()
        try:
            self._gather()
            raw = _abi.msb_output()
            while True:
                handle = self.handle.use()
                if call(lib.msb_exec_collect, handle, 0, byref(raw)) == _abi.MSB_OK:
                    break
                await io.readable(self.handle)
            try:
                self._end(raw.flags)
                return self._collected(raw)
            finally:
                lib.msb_output_release(byref(raw))
        finally:
            self._reader.release()

    def _gather(self) -> None:
        """Move the output in received events to what is collected."""
        while self.events:
            event = self.events.popleft()
            if event.event_type is ExecEventType.STDOUT:
                self._gathered[0].extend(event.data)
            elif event.event_type is ExecEventType.STDERR:
                self._gathered[1].extend(event.data)

    def _collected(self, raw: Any) -> ExecOutput:
        parts, totals = [], []
        for before, data, length, total in (
            (self._gathered[0], raw.stdout_data, raw.stdout_len, raw.stdout_total),
            (self._gathered[1], raw.stderr_data, raw.stderr_len, raw.stderr_total),
        ):
            rest = ctypes.string_at(data, length) if length else b""
            whole = bytes(before) + rest if before else rest
            parts.append(whole if self._max_output is None else whole[: self._max_output])
            totals.append(total + len(before))
            before.clear()
        flags = raw.flags
        exited = raw.kind == _abi.MSB_EVENT_EXITED
        output = ExecOutput(
            exit_status(raw.exit.contents) if exited else ExitStatus(-1),
            parts[0],
            parts[1],
            totals[0],
            totals[1],
            bool(flags & _abi.MSB_EVENT_WRITER_LEFT),
            bool(flags & _abi.MSB_EVENT_CUT),
        )
        if exited and not output.timed_out:
            return output
        raise _collect_error(raw, output)

    def signal(self, number: int, scope: int) -> None:
        """Send a signal; blocks until it is delivered."""
        call(lib.msb_exec_signal, self.handle.use(), number, scope)

    def kill(self) -> None:
        """Kill the command's process tree; blocks until that is done."""
        self.signal(signals.SIGKILL, _abi.MSB_SIGNAL_TREE)

    def resize(self, rows: int, cols: int) -> None:
        """Resize the terminal; blocks until that is done."""
        call(lib.msb_exec_resize, self.handle.use(), rows, cols)

    def end(self) -> None:
        """Kill it unless it has ended, and wait a bounded time; blocks, and never fails."""
        try:
            if not self._ended:
                self.kill()
                raw = _abi.msb_event()
                call(lib.msb_exec_wait, self.handle.use(), _END_MS, byref(raw))
                lib.msb_event_release(byref(raw))
        except MicrosandboxError:
            pass  # the command or its sandbox has ended, or a reader is still receiving
        self.close()

    def discard(self) -> None:
        """Drop a reattached handle without closing the session's stdin."""
        self.handle.close()
        if self.sink is not None:
            self.sink.handle.leak()  # closing it would close stdin for all peers

    def close(self) -> None:
        """Close the handle, and the write end unless it was taken. The command keeps running."""
        if self._id is None and not self.handle.closed:
            try:
                self.id()
            except MicrosandboxError:
                pass  # in a forked child
        self.handle.close()
        sink = self.take_stdin()
        if sink is not None:
            sink.handle.close()


def _collect_error(raw: Any, output: ExecOutput) -> MicrosandboxError:
    """Return the exception for a collected command that has no result."""
    if raw.kind == _abi.MSB_EVENT_EXITED:
        timeout = ExecTimeoutError("the timeout of the command expired")
        timeout.output = output
        return timeout
    if raw.kind == _abi.MSB_EVENT_FAILED:
        return _failure_error(exec_failure(raw.failure.contents))
    reason = ctypes.string_at(raw.lost, raw.lost_len) if raw.lost_len else b""
    lost = StreamLostError(reason.decode("utf-8", "replace"), 0, _abi.MSB_ORIGIN_TRANSPORT)
    lost.output = output
    return lost


def signal_number(number: Any) -> int:
    """Return the number of a signal, given by number or by a name such as ``"TERM"``."""
    if isinstance(number, str):
        name = number if number.startswith("SIG") else f"SIG{number}"
        try:
            return int(signals.Signals[name])
        except KeyError:
            raise InvalidArgumentError(f"unknown signal {number!r}") from None
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"a signal must be a number or a name, not {type(number).__name__}")
    return number
