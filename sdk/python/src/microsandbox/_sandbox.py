"""Sandboxes: making, finding, ending them, and what runs in them.

Written once for all ways of waiting.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref
from typing import Any, Callable, Optional

from . import _abi
from ._backends import Backend, give_up
from ._errors import (
    ExecFailedError,
    ExecTimeoutError,
    InvalidArgumentError,
    MicrosandboxError,
    StreamLostError,
)
from ._exec import ExecCore, exit_status
from ._handle import Handle
from ._image_values import OnProgress, progress
from ._native import call, lib
from ._options import Command, attached_to, encoded, units
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


def text(data: Optional[bytes]) -> str:
    """A text, of which what is no UTF-8 becomes surrogates."""
    return (data or b"").decode("utf-8", "surrogateescape")


def optional(data: Optional[bytes]) -> Optional[str]:
    """A text that may be missing."""
    return None if data is None else text(data)


def texts_of(array: Any, length: int) -> list[str]:
    """The texts of an array."""
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
        # A state that is not known yet is some way of not running.
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


def listed(entries: Any, release: Any, copy: Callable[[Any], Any], *function: Any) -> list[Any]:
    """What a call lists, copied."""
    call(*function, byref(entries))
    try:
        return _copies(entries, copy)
    finally:
        release(byref(entries))


def list_sandboxes() -> list[SandboxInfo]:
    """All sandboxes; blocks."""
    release = lib.msb_sandbox_entries_release
    return listed(_abi.msb_sandbox_entries(), release, _info, lib.msb_sandbox_list)


def doctor() -> HostInfo:
    """What this host offers; blocks, as each driver is tried."""
    drivers, walls = _abi.msb_driver_entries(), _abi.msb_wall_entries()
    call(lib.msb_doctor, byref(drivers), byref(walls))
    try:
        return HostInfo(_copies(drivers, _driver), _copies(walls, _wall))
    finally:
        lib.msb_driver_entries_release(byref(drivers))
        lib.msb_wall_entries_release(byref(walls))


def remove(name: Any, force: bool) -> None:
    """Removes a sandbox; blocks."""
    flags = _abi.MSB_REMOVE_FORCE if force else 0
    call(lib.msb_sandbox_remove, encoded("the name", name), flags)


def _opened(name: bytes, flags: int) -> Handle:
    out = ctypes.c_void_p()
    call(lib.msb_sandbox_open, name, flags, byref(out))
    return Handle(out.value or 0)


def tell(function: Any, handle: Handle, told: Optional[OnProgress]) -> None:
    """Tells of the progress, as long as there is something new and somebody to tell."""
    raw = _abi.msb_progress()
    # Who never asks is not woken by it either.
    while told is not None and call(function, handle.use(), 0, byref(raw)) == _abi.MSB_OK:
        news = progress(raw)
        if news is not None:
            told(news)


class SandboxCore:
    """A sandbox by its handle."""

    def __init__(self, name: str, handle: Handle, connected: bool) -> None:
        self.name, self.handle = name, handle
        # The first command of a sandbox that was only found connects to it, and that blocks.
        self._connected = connected

    @classmethod
    async def create(
        cls, io: Backend, name: str, options: Any, told: Optional[OnProgress]
    ) -> SandboxCore:
        """Makes a sandbox that runs. When that is given up, none is left."""
        out = ctypes.c_void_p()
        call(lib.msb_sandbox_create, byref(options), byref(out))
        core = cls(name, Handle(out.value or 0), connected=True)
        try:
            await core._ready(io, told)
        except BaseException as error:
            # Whoever is told of the progress may raise what they like.
            await give_up(io, error, core._undo_create)
            raise
        return core

    def _undo_create(self) -> None:
        """Ends what nobody can reach: also the getting of its image."""
        try:
            call(lib.msb_sandbox_kill, self.handle.use())
            remove(self.name, force=False)
        except MicrosandboxError:
            pass  # it did not come up, or somebody else was faster
        self.handle.close()

    @classmethod
    async def open(cls, io: Backend, name: str, start: bool) -> SandboxCore:
        """Finds a sandbox, and starts it if asked to."""
        flags = _abi.MSB_OPEN_START if start else 0
        core = cls(name, _opened(encoded("the name", name), flags), connected=start)
        try:
            await core._ready(io)
        except BaseException:
            core.handle.close()
            raise
        return core

    async def _ready(self, io: Backend, told: Optional[OnProgress] = None) -> None:
        while True:
            tell(lib.msb_sandbox_progress, self.handle, told)
            if call(lib.msb_sandbox_wait_ready, self.handle.use(), 0) != _abi.MSB_AGAIN:
                break
            await io.readable(self.handle)
        tell(lib.msb_sandbox_progress, self.handle, told)

    async def wait(self, io: Backend) -> None:
        """Until it has ended."""
        while call(lib.msb_sandbox_wait, self.handle.use(), 0) == _abi.MSB_AGAIN:
            await io.readable(self.handle)

    async def stop(self, io: Backend, timeout: Any) -> None:
        """Asks its commands to end, and then ends it."""
        grace = min(units("the timeout", timeout, 1000, zero=True), 2**32 - 1)
        await io.run(lambda: call(lib.msb_sandbox_stop, self.handle.use(), grace))

    async def kill(self, io: Backend) -> None:
        """Ends it at once."""
        await io.run(lambda: call(lib.msb_sandbox_kill, self.handle.use()))

    async def info(self, io: Backend) -> SandboxInfo:
        """What is known about it now."""

        def work() -> SandboxInfo:
            entries, release = _abi.msb_sandbox_entries(), lib.msb_sandbox_entries_release
            found = listed(entries, release, _info, lib.msb_sandbox_info, self.handle.use())
            info: SandboxInfo = found[0]
            return info

        return await io.run(work)

    async def sessions(self, io: Backend) -> list[SessionInfo]:
        """What runs in it, and what ended a short while ago."""

        def work() -> list[SessionInfo]:
            entries, release = _abi.msb_exec_entries(), lib.msb_exec_entries_release
            return listed(entries, release, _session, lib.msb_exec_list, self.handle.use())

        return await io.run(work)

    async def stream(self, io: Backend, command: Command) -> ExecCore:
        """Starts a command."""
        if self._connected:
            return self._start(command)
        # Given up while it starts, it is killed: its handle reached nobody.
        core = await io.run(lambda: self._start(command), ExecCore.end)
        self._connected = True
        return core

    def _start(self, command: Command) -> ExecCore:
        out, sink = ctypes.c_void_p(), ctypes.c_void_p()
        options = byref(command.options)
        place = (byref(out), byref(sink) if command.pipe else None)
        call(lib.msb_exec_stream, self.handle.use(), options, *place)
        return ExecCore(
            Handle(out.value or 0), Handle(sink.value) if sink.value else None, command.max_output
        )

    async def collect(self, io: Backend, command: Command) -> ExecOutput:
        """Runs a command to its end. Giving this up kills it, as nobody else can."""
        if command.pipe:
            raise InvalidArgumentError(
                "a collected command has no pipe: give Stdin.bytes, or stream"
            )
        core = await self.stream(io, command)
        try:
            output = await core.collect(io)
        except (ExecFailedError, ExecTimeoutError, StreamLostError):
            core.handle.close()  # it has ended, and so has all that it started
            raise
        except BaseException as error:
            await give_up(io, error, core.end)
            raise
        core.handle.close()
        return output

    async def reattach(
        self, io: Backend, session: Any, position: Optional[int], stdin: bool
    ) -> ExecCore:
        """Follows a session."""
        name = encoded("the session id", session)
        if position is None:
            position = _abi.MSB_FROM_NOW
        elif position < 0:
            raise InvalidArgumentError(f"a position of {position} is before the output")
        start = min(position, 2**63 - 1)

        def work() -> ExecCore:
            out, sink = ctypes.c_void_p(), ctypes.c_void_p()
            place = (byref(out), byref(sink) if stdin else None)
            call(lib.msb_exec_reattach, self.handle.use(), name, start, *place)
            return ExecCore(
                Handle(out.value or 0), Handle(sink.value) if sink.value else None, None
            )

        core = await io.run(work, ExecCore.let_go)
        self._connected = True
        return core

    async def attach(
        self, io: Backend, command: Optional[Command], session: Optional[str], keys: Optional[str]
    ) -> int:
        """Ties the terminal to a command or a session."""
        options = attached_to(command, session, keys)
        # A handle of its own, so that closing it ends this call and no other.
        own = _opened(encoded("the name", self.name), 0)

        ended = threading.Event()

        def work() -> int:
            code = ctypes.c_int32()
            try:
                call(lib.msb_sandbox_wait_ready, own.use(), -1)
                call(lib.msb_attach, own.use(), byref(options), byref(code), None)
            finally:
                ended.set()
            return code.value

        # Given up, its handle is closed, which ends it. That is waited for: the terminal is to have
        # its settings back before the program goes on.
        try:
            return await io.run(work)
        except MicrosandboxError:
            raise
        except BaseException as error:
            own.close()
            await give_up(io, error, lambda: _wait(ended))
            raise
        finally:
            own.close()

    def end(self, removes: bool) -> None:
        """Leaves the scope of this object: blocks, and never fails."""
        try:
            if removes:
                call(lib.msb_sandbox_kill, self.handle.use())
        except MicrosandboxError:
            pass  # it had ended
        try:
            if removes:
                remove(self.name, force=False)
        except MicrosandboxError:
            pass  # it was removed
        self.handle.close()


def _wait(ended: threading.Event) -> None:
    ended.wait()
