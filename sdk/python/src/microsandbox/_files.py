"""Files: operations on them, and the streams of their content.

The handle of an operation lives as long as the call or stream that uses it, and closing it gives
the operation up.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref
from typing import Any, Callable, Optional, TypeVar

from . import _abi
from ._backend import Backend
from ._errors import BusyError, MicrosandboxError
from ._exec import text
from ._fs_values import KINDS, FsEntry, FsEntryKind, FsMetadata
from ._handle import Handle
from ._native import call, lib
from ._options import encode, encode_nonempty, integer
from ._sandbox import SandboxCore

T = TypeVar("T")

_PIECE = 128 << 10
_MAX_MODE = 0o7777
_MAX_ID = 2**32 - 2


class FileCore:
    """One operation on files."""

    def __init__(self, sandbox: SandboxCore, request: Any) -> None:
        out = ctypes.c_void_p()
        call(lib.msb_fs_start, sandbox.handle.use(), byref(request), byref(out))
        self.handle = Handle(out.value or 0)
        self._user = threading.Lock()
        self._buffer: Optional[Any] = None
        self._collected = bytearray()  # a call that is repeated after a timeout goes on

    def _call(self, function: Any, *arguments: Any) -> int:
        try:
            return call(function, self.handle.use(), *arguments)
        except MicrosandboxError as error:
            if not self.handle.closed:
                self._describe(error)
            raise

    def _describe(self, error: MicrosandboxError) -> None:
        """Add the path to the error."""
        raw = _abi.msb_fs_failure()
        if call(lib.msb_fs_failed, self.handle.use(), byref(raw)) == _abi.MSB_OK:
            error.path = text(raw.path)
            if isinstance(error, OSError):
                error.filename = error.path
            lib.msb_fs_failure_release(byref(raw))

    async def result(self, io: Backend, copy: Callable[[Any], T]) -> T:
        """Wait for the result, and copy it."""
        while True:
            raw = _abi.msb_fs_result()
            if self._call(lib.msb_fs_wait, 0, byref(raw)) == _abi.MSB_AGAIN:
                await io.readable(self.handle)
                continue
            try:
                return copy(raw)
            finally:
                lib.msb_fs_result_release(byref(raw))

    async def opened(self, io: Backend) -> None:
        """Wait until a read has content, its end or a failure; raise the failure."""
        raw = _abi.msb_fs_result()
        if self._call(lib.msb_fs_wait, 0, byref(raw)) == _abi.MSB_AGAIN:
            await io.readable(self.handle)
            self._call(lib.msb_fs_wait, 0, byref(raw))
        lib.msb_fs_result_release(byref(raw))

    async def recv(self, io: Backend) -> Optional[bytes]:
        """Return the next content; None at the end."""
        if not self._user.acquire(blocking=False):
            raise BusyError("another call receives from this file")
        try:
            if self._buffer is None:
                self._buffer = ctypes.create_string_buffer(_PIECE)
            buffer, received = self._buffer, ctypes.c_size_t()
            while True:
                status = self._call(lib.msb_fs_recv, 0, buffer, _PIECE, byref(received))
                if status == _abi.MSB_OK:
                    return ctypes.string_at(buffer, received.value)
                if status == _abi.MSB_EOF:
                    return None
                await io.readable(self.handle)
        finally:
            self._user.release()

    async def collect(self, io: Backend) -> bytes:
        """Return all content that was not received."""
        while (piece := await self.recv(io)) is not None:
            self._collected += piece
        return bytes(self._collected)

    async def send(self, io: Backend, data: Any) -> None:
        """Send all of it, waiting while the sandbox is behind."""
        if isinstance(data, str):
            data = data.encode()
        elif not isinstance(data, bytes):
            if not isinstance(data, (bytearray, memoryview)):
                raise TypeError(f"data must be bytes or text, not {type(data).__name__}")
            data = bytes(data)
        if not self._user.acquire(blocking=False):
            raise BusyError("another write to this file is in progress")
        try:
            start = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
            done, size, sent = 0, len(data), ctypes.c_size_t()
            while done < size:
                rest = (start + done, size - done, 0, byref(sent))
                if self._call(lib.msb_fs_send, *rest) == _abi.MSB_AGAIN:
                    await io.readable(self.handle)
                else:
                    done += sent.value
        finally:
            self._user.release()

    async def finish(self, io: Backend) -> None:
        """Complete the file, and close the handle."""
        try:
            self._call(lib.msb_fs_finish)
            await self.result(io, _nothing)
        finally:
            self.handle.close()


def _nothing(_: Any) -> None:
    return None


class FilesCore:
    """The operations on the files of a sandbox, as one user."""

    def __init__(self, sandbox: SandboxCore, user: Optional[str]) -> None:
        self._sandbox = sandbox
        self._user = None if user is None else encode_nonempty("the user", user)

    def start(self, op: int, path: Any, to: Any = None, **fields: Any) -> FileCore:
        """Start an operation."""
        request = _abi.msb_fs_request(op=op, user=self._user, **fields)
        request.path = encode("the path", path)
        if to is not None:
            request.to = encode("the path", to)
        return FileCore(self._sandbox, request)

    async def perform(self, io: Backend, op: int, path: Any, to: Any = None, **fields: Any) -> None:
        """Perform an operation that returns nothing."""
        await self._get(io, _nothing, op, path, to, **fields)

    async def _get(
        self, io: Backend, copy: Callable[[Any], T], op: int, path: Any, to: Any = None, **more: Any
    ) -> T:
        core = self.start(op, path, to, **more)
        try:
            return await core.result(io, copy)
        finally:
            core.handle.close()

    async def path(self, io: Backend, op: int, path: Any) -> str:
        """Perform an operation that returns a path."""
        return await self._get(io, lambda raw: text(raw.path), op, path)

    async def exists(self, io: Backend, path: Any) -> bool:
        """Return whether it exists."""
        return await self._get(io, lambda raw: bool(raw.exists), _abi.MSB_FS_OP_EXISTS, path)

    async def stat(self, io: Backend, path: Any, follow: bool) -> FsMetadata:
        """Return its attributes."""
        flags = 0 if follow else _abi.MSB_FS_NO_FOLLOW
        return await self._get(
            io,
            lambda raw: _metadata(raw.entries[0].contents),
            _abi.MSB_FS_OP_STAT,
            path,
            flags=flags,
        )

    async def list(self, io: Backend, path: Any) -> list[FsEntry]:
        """Return the entries of a directory."""
        folder = text(encode("the path", path))
        folder = folder if folder.endswith("/") else folder + "/"

        def entries(raw: Any) -> list[FsEntry]:
            return [_entry(folder, raw.entries[at].contents) for at in range(raw.len)]

        return await self._get(io, entries, _abi.MSB_FS_OP_LIST, path)

    async def read(self, io: Backend, path: Any) -> bytes:
        """Return the content of a file."""
        core = self.start(_abi.MSB_FS_OP_READ, path)
        try:
            return await core.collect(io)
        finally:
            core.handle.close()

    async def read_stream(self, io: Backend, path: Any, offset: int, length: int) -> FileCore:
        """Open a file to read."""
        integer("the offset", offset, 2**63 - 1, 0)
        integer("the length", length, 2**63 - 1, 0)
        core = self.start(_abi.MSB_FS_OP_READ, path, offset=offset, length=length)
        try:
            await core.opened(io)
        except BaseException:
            core.handle.close()
            raise
        return core

    async def write(self, io: Backend, path: Any, data: Any, fields: dict[str, Any]) -> None:
        """Write a file."""
        core = self.start(_abi.MSB_FS_OP_WRITE, path, **fields)
        try:
            await core.send(io, data)
            await core.finish(io)
        finally:
            core.handle.close()


def write_fields(
    mode: Optional[int], parents: bool, append: bool, create_new: bool, sync: bool
) -> dict[str, Any]:
    """Return the fields of a request to write."""
    flags = _abi.MSB_FS_PARENTS if parents else 0
    flags |= _abi.MSB_FS_APPEND if append else 0
    flags |= _abi.MSB_FS_NO_REPLACE if create_new else 0
    flags |= _abi.MSB_FS_SYNC if sync else 0
    return {"flags": flags, **mode_fields(mode)}


def mode_fields(mode: Optional[int]) -> dict[str, Any]:
    """Return the fields of a request with a mode."""
    if mode is None:
        return {}
    return {"set": _abi.MSB_FS_SET_MODE, "mode": integer("the mode", mode, _MAX_MODE, 0)}


def attribute_fields(
    mode: Optional[int],
    uid: Optional[int],
    gid: Optional[int],
    size: Optional[int],
    accessed: Optional[float],
    modified: Optional[float],
) -> dict[str, Any]:
    """Return the fields of a request to change attributes."""
    fields = mode_fields(mode)
    chosen = fields.get("set", 0)
    for name, value, bit, most in (
        ("uid", uid, _abi.MSB_FS_SET_UID, _MAX_ID),
        ("gid", gid, _abi.MSB_FS_SET_GID, _MAX_ID),
        ("size", size, _abi.MSB_FS_SET_SIZE, 2**63 - 1),
    ):
        if value is not None:
            fields[name] = integer(f"the {name}", value, most, 0)
            chosen |= bit
    for name, time, bit in (
        ("accessed", accessed, _abi.MSB_FS_SET_ACCESSED),
        ("modified", modified, _abi.MSB_FS_SET_MODIFIED),
    ):
        if time is not None:
            seconds = int(time // 1)
            fields[f"{name}_s"] = integer(f"the time {name}", seconds, 2**40, -(2**40))
            fields[f"{name}_ns"] = min(int((time - seconds) * 1e9), 10**9 - 1)
            chosen |= bit
    return {**fields, "set": chosen}


def _metadata(raw: Any) -> FsMetadata:
    created = raw.created_s * 10**9 + raw.created_ns
    return FsMetadata(
        kind=KINDS.get(raw.kind, FsEntryKind.OTHER),
        size=raw.size,
        mode=raw.mode,
        uid=raw.uid,
        gid=raw.gid,
        accessed_ns=raw.accessed_s * 10**9 + raw.accessed_ns,
        modified_ns=raw.modified_s * 10**9 + raw.modified_ns,
        changed_ns=raw.changed_s * 10**9 + raw.changed_ns,
        created_ns=created or None,
        links=raw.links,
        inode=raw.inode,
        device=raw.device,
        allocated=raw.allocated,
    )


def _entry(folder: str, raw: Any) -> FsEntry:
    name = text(raw.name)
    return FsEntry(path=folder + name, name=name, metadata=_metadata(raw))
