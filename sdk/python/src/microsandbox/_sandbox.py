"""Sandboxes: creating, finding and ending them, and running commands in them."""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref
from typing import Any, Callable, Optional

from . import _abi
from ._backend import Backend, clean_up_after
from ._errors import (
    ExecFailedError,
    ExecTimeoutError,
    InvalidArgumentError,
    MicrosandboxError,
    StreamLostError,
)
from ._exec import ExecCore, exit_status, text
from ._handle import Handle
from ._image_values import OnProgress, progress
from ._native import call, lib
from ._options import Command, attach_struct, duration, encode
from ._values import (
    ISOLATIONS,
    REASONS,
    STATUSES,
    Bounds,
    DriverInfo,
    ExecOutput,
    HostInfo,
    SandboxInfo,
    SandboxStatus,
    SessionInfo,
    WallInfo,
)


def optional(data: Optional[bytes]) -> Optional[str]:
    """Decode text that may be NULL."""
    return None if data is None else text(data)


def texts_of(array: Any, length: int) -> list[str]:
    """Decode an array of texts."""
    return [text(array[at]) for at in range(length)]


def _bounds(raw: Any) -> Bounds:
    return Bounds(
        pids=raw.pids or None,
        memory_bytes=raw.memory_bytes or None,
        disk_bytes=raw.disk_bytes or None,
        cpus=raw.cpus or None,
    )


_JAILED = {_abi.MSB_JAILED_YES: True, _abi.MSB_JAILED_NO: False}


def _info(raw: Any) -> SandboxInfo:
    labels = (label.partition("=") for label in texts_of(raw.labels, raw.labels_len))
    return SandboxInfo(
        name=text(raw.name),
        # A state of a later version is a way of not running.
        status=STATUSES.get(raw.state, SandboxStatus.STOPPED),
        image=text(raw.image),
        driver=optional(raw.driver),
        isolation=ISOLATIONS.get(raw.isolation),
        jailed=_JAILED.get(raw.jailed),
        missing_walls=texts_of(raw.missing_walls, raw.missing_walls_len),
        bounds=_bounds(raw.bounds.contents) if raw.bounds else None,
        cpus=raw.cpus or None,
        memory=raw.memory_mib or None,
        detached=bool(raw.flags & _abi.MSB_SANDBOX_DETACHED),
        labels={key: value for key, _, value in labels},
        created_at=raw.created_ms / 1000,
        started_at=raw.started_ms / 1000 if raw.started_ms else None,
        end_reason=REASONS.get(raw.reason),
        end_detail=optional(raw.detail),
        command=texts_of(raw.command, raw.command_len),
    )


def _session(raw: Any) -> SessionInfo:
    return SessionInfo(
        id=text(raw.id),
        pid=raw.pid,
        command=[raw.argv[at] for at in range(raw.argv_len)],
        tty=bool(raw.flags & _abi.MSB_SESSION_TTY),
        status=exit_status(raw.exit.contents) if raw.exit else None,
        age=raw.age_ns / 1e9,
        output_total=raw.output_total,
        followers=raw.followers,
    )


def _driver(raw: Any) -> DriverInfo:
    return DriverInfo(
        name=text(raw.name),
        isolation=ISOLATIONS.get(raw.isolation),
        usable=bool(raw.usable),
        why=text(raw.why),
        hint=optional(raw.hint),
        unbounded=texts_of(raw.unbounded, raw.unbounded_len),
    )


def _wall(raw: Any) -> WallInfo:
    return WallInfo(name=text(raw.name), missing=optional(raw.missing), hint=optional(raw.hint))


def _copies(entries: Any, copy: Callable[[Any], Any]) -> list[Any]:
    return [copy(entries.entries[at].contents) for at in range(entries.len)]


def copy_list(entries: Any, release: Any, copy: Callable[[Any], Any], *function: Any) -> list[Any]:
    """Call a function that lists something, and copy its entries."""
    call(*function, byref(entries))
    try:
        return _copies(entries, copy)
    finally:
        release(byref(entries))


def list_sandboxes() -> list[SandboxInfo]:
    """Return all sandboxes; blocks."""
    release = lib.msb_sandbox_entries_release
    return copy_list(_abi.msb_sandbox_entries(), release, _info, lib.msb_sandbox_list)


def host_info() -> HostInfo:
    """Probe the drivers and walls of this host; blocks."""
    drivers, walls = _abi.msb_driver_entries(), _abi.msb_wall_entries()
    call(lib.msb_doctor, byref(drivers), byref(walls))
    try:
        return HostInfo(_copies(drivers, _driver), _copies(walls, _wall))
    finally:
        lib.msb_driver_entries_release(byref(drivers))
        lib.msb_wall_entries_release(byref(walls))


def remove_sandbox(name: Any, force: bool) -> None:
    """Remove a sandbox; blocks."""
    flags = _abi.MSB_REMOVE_FORCE if force else 0
    call(lib.msb_sandbox_remove, encode("the name", name), flags)


def _open(name: bytes, flags: int) -> Handle:
    out = ctypes.c_void_p()
    call(lib.msb_sandbox_open, name, flags, byref(out))
    return Handle(out.value or 0)


def report_progress(function: Any, handle: Handle, callback: Optional[OnProgress]) -> None:
    """Pass pending progress to the callback."""
    raw = _abi.msb_progress()
    # Progress wakes only a handle that was asked for it.
    while callback is not None and call(function, handle.use(), 0, byref(raw)) == _abi.MSB_OK:
        update = progress(raw)
        if update is not None:
            callback(update)


class SandboxCore:
    """A sandbox by its handle."""

    def __init__(self, name: str, handle: Handle, connected: bool) -> None:
        self.name, self.handle = name, handle
        # The first command in a sandbox that was found connects to it, and that blocks.
        self._connected = connected

    @classmethod
    async def create(
        cls, io: Backend, name: str, options: Any, callback: Optional[OnProgress]
    ) -> SandboxCore:
        """Create a sandbox and wait until it runs. Cancellation leaves none."""
        out = ctypes.c_void_p()
        call(lib.msb_sandbox_create, byref(options), byref(out))
        core = cls(name, Handle(out.value or 0), connected=True)
        try:
            await core._ready(io, callback)
        except BaseException as error:
            # The progress callback may raise anything.
            await clean_up_after(io, error, core._undo_create)
            raise
        return core

    def _undo_create(self) -> None:
        """Cancel creation, the pull of the image included."""
        try:
            call(lib.msb_sandbox_kill, self.handle.use())
            remove_sandbox(self.name, force=False)
        except MicrosandboxError:
            pass  # it never started, or another process removed it
        self.handle.close()

    @classmethod
    async def open(cls, io: Backend, name: str, start: bool) -> SandboxCore:
        """Find a sandbox, and optionally start it."""
        flags = _abi.MSB_OPEN_START if start else 0
        core = cls(name, _open(encode("the name", name), flags), connected=start)
        try:
            await core._ready(io)
        except BaseException:
            core.handle.close()
            raise
        return core

    async def _ready(self, io: Backend, callback: Optional[OnProgress] = None) -> None:
        while True:
            report_progress(lib.msb_sandbox_progress, self.handle, callback)
            if call(lib.msb_sandbox_wait_ready, self.handle.use(), 0) != _abi.MSB_AGAIN:
                break
            await io.readable(self.handle)
        report_progress(lib.msb_sandbox_progress, self.handle, callback)

    async def wait(self, io: Backend) -> None:
        """Wait until it has ended."""
        while call(lib.msb_sandbox_wait, self.handle.use(), 0) == _abi.MSB_AGAIN:
            await io.readable(self.handle)

    async def stop(self, io: Backend, timeout: Any) -> None:
        """Terminate its commands, then stop it."""
        grace = min(duration("the timeout", timeout, 1000, zero=True), 2**32 - 1)
        await io.run(lambda: call(lib.msb_sandbox_stop, self.handle.use(), grace))

    async def kill(self, io: Backend) -> None:
        """Kill it at once."""
        await io.run(lambda: call(lib.msb_sandbox_kill, self.handle.use()))

    async def info(self, io: Backend) -> SandboxInfo:
        """Return its current state and configuration."""

        def work() -> SandboxInfo:
            entries, release = _abi.msb_sandbox_entries(), lib.msb_sandbox_entries_release
            found = copy_list(entries, release, _info, lib.msb_sandbox_info, self.handle.use())
            info: SandboxInfo = found[0]
            return info

        return await io.run(work)

    async def sessions(self, io: Backend) -> list[SessionInfo]:
        """Return the running and recently ended sessions."""

        def work() -> list[SessionInfo]:
            entries, release = _abi.msb_exec_entries(), lib.msb_exec_entries_release
            return copy_list(entries, release, _session, lib.msb_exec_list, self.handle.use())

        return await io.run(work)

    async def stream(self, io: Backend, command: Command) -> ExecCore:
        """Start a command."""
        if self._connected:
            return self._start(command)
        # A cancelled start kills the command: the caller never gets its handle.
        core = await io.run(lambda: self._start(command), ExecCore.end)
        self._connected = True
        return core

    def _start(self, command: Command) -> ExecCore:
        out, sink = ctypes.c_void_p(), ctypes.c_void_p()
        options = byref(command.options)
        outs = (byref(out), byref(sink) if command.pipe else None)
        call(lib.msb_exec_stream, self.handle.use(), options, *outs)
        return ExecCore(
            Handle(out.value or 0), Handle(sink.value) if sink.value else None, command.max_output
        )

    async def collect(self, io: Backend, command: Command) -> ExecOutput:
        """Run a command to its end. Cancellation kills it."""
        if command.pipe:
            raise InvalidArgumentError(
                "cannot collect a command with a stdin pipe; use Stdin.bytes, or exec_stream"
            )
        core = await self.stream(io, command)
        try:
            output = await core.collect(io)
        except (ExecFailedError, ExecTimeoutError, StreamLostError):
            core.handle.close()  # its processes have ended
            raise
        except BaseException as error:
            await clean_up_after(io, error, core.end)
            raise
        core.handle.close()
        return output

    async def reattach(
        self, io: Backend, session: Any, position: Optional[int], stdin: bool
    ) -> ExecCore:
        """Follow a session."""
        name = encode("the session id", session)
        if position is None:
            position = _abi.MSB_FROM_NOW
        elif position < 0:
            raise InvalidArgumentError(f"position is {position}; it must be at least 0")
        start = min(position, 2**63 - 1)

        def work() -> ExecCore:
            out, sink = ctypes.c_void_p(), ctypes.c_void_p()
            outs = (byref(out), byref(sink) if stdin else None)
            call(lib.msb_exec_reattach, self.handle.use(), name, start, *outs)
            return ExecCore(
                Handle(out.value or 0), Handle(sink.value) if sink.value else None, None
            )

        core = await io.run(work, ExecCore.discard)
        self._connected = True
        return core

    async def attach(
        self, io: Backend, command: Optional[Command], session: Optional[str], keys: Optional[str]
    ) -> int:
        """Attach the terminal to a command or a session."""
        options = attach_struct(command, session, keys)
        # A separate handle, so that closing it cancels only this call.
        own = _open(encode("the name", self.name), 0)
        ended = threading.Event()

        def work() -> int:
            code = ctypes.c_int32()
            try:
                call(lib.msb_sandbox_wait_ready, own.use(), -1)
                call(lib.msb_attach, own.use(), byref(options), byref(code), None)
            finally:
                ended.set()
            return code.value

        # Cancellation closes the handle, and waits until the terminal's settings are restored.
        try:
            return await io.run(work)
        except MicrosandboxError:
            raise
        except BaseException as error:
            own.close()
            await clean_up_after(io, error, lambda: _wait(ended))
            raise
        finally:
            own.close()

    def end(self, removes: bool) -> None:
        """Leave the scope of this object; blocks, and never fails."""
        try:
            if removes:
                call(lib.msb_sandbox_kill, self.handle.use())
        except MicrosandboxError:
            pass  # it has already ended
        try:
            if removes:
                remove_sandbox(self.name, force=False)
        except MicrosandboxError:
            pass  # it was already removed
        self.handle.close()


def _wait(ended: threading.Event) -> None:
    ended.wait()
