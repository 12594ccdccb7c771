"""Generated from _async_fs.py by generate_sync.py: do not edit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import (
    TYPE_CHECKING,
    List,  # `list` is a method below
    Optional,
)

from . import _abi
from ._files import FileCore, FilesCore, attribute_fields, mode_fields, write_fields
from ._fs_values import FsEntry, FsMetadata
from ._sync_io import wait

if TYPE_CHECKING:
    from types import TracebackType

    from ._options import Data, Path
    from ._sandbox import SandboxCore

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self


class FsReadStream:
    """The content of a file, piece by piece: ``for data in stream``.

    One thread receives at a time; a second gets `BusyError`. A timeout loses nothing.
    """

    def __init__(self, core: FileCore) -> None:
        self._core = core

    def recv(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """Return the next piece, or None at the end and on every later call."""
        return wait(self._core.recv, timeout)

    def collect(self, timeout: Optional[float] = None) -> bytes:
        """Return everything that was not received, and close the stream."""
        content = wait(self._core.collect, timeout)
        self._core.handle.close()
        return content

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = self.recv()
        if data is None:
            raise StopIteration
        return data

    def close(self) -> None:
        """Give the rest up. Idempotent."""
        self._core.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FsWriteSink:
    """Writes a file, piece by piece. The file has its new content once `close` has returned.

    ``with`` closes it at the end of the scope; after an exception it gives the file up, and
    the old content stays.
    """

    def __init__(self, core: FileCore) -> None:
        self._core = core

    def write(self, data: Data, timeout: Optional[float] = None) -> None:
        """Write all of ``data``, waiting while the sandbox is behind. Text is sent as UTF-8."""
        wait(lambda io: self._core.send(io, data), timeout)

    def close(self, timeout: Optional[float] = None) -> None:
        """Complete the file: the sandbox has closed it without error. Closing twice is fine."""
        if not self._core.handle.closed:
            wait(self._core.finish, timeout)

    def abort(self) -> None:
        """Give the file up: the old content stays, or no file. Idempotent."""
        self._core.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        (self.close() if kind is None else self.abort())


class SandboxFsOps:
    """The operations on the files of a sandbox, which need no program in it: `Sandbox.fs`.

    Paths are absolute; a `str` is sent as UTF-8 with ``surrogateescape``, `bytes` unchanged. A
    symbolic link at the end of a path is followed, unless a method says otherwise. Errors are
    `PathNotFoundError`, `PermissionDeniedError` and `FilesystemError`, with ``errno`` and ``path``.
    """

    def __init__(self, sandbox: SandboxCore, user: Optional[str] = None) -> None:
        self._sandbox, self._core = sandbox, FilesCore(sandbox, user)

    def as_user(self, user: str) -> SandboxFsOps:
        """Return these operations as another user: ``name``, ``uid`` or ``uid:gid``."""
        return SandboxFsOps(self._sandbox, user)

    def read(self, path: Path, timeout: Optional[float] = None) -> bytes:
        """Return the content of a file."""
        return wait(lambda io: self._core.read(io, path), timeout)

    def read_text(self, path: Path, timeout: Optional[float] = None) -> str:
        """Return the content of a file that is UTF-8."""
        return (wait(lambda io: self._core.read(io, path), timeout)).decode()

    def read_stream(
        self, path: Path, timeout: Optional[float] = None, *, offset: int = 0, length: int = 0
    ) -> FsReadStream:
        """Open a file to read it piece by piece: at most ``length`` bytes, 0 for all of them."""
        return FsReadStream(
            wait(lambda io: self._core.read_stream(io, path, offset, length), timeout)
        )

    def write(
        self,
        path: Path,
        data: Data,
        timeout: Optional[float] = None,
        *,
        mode: Optional[int] = None,
        parents: bool = False,
        append: bool = False,
        create_new: bool = False,
        sync: bool = False,
    ) -> None:
        """Write a file: the data becomes the whole content, at once. Cancelled, the old one stays.

        ``mode`` defaults to that of the old file, 0644 for a new one. ``parents`` makes missing
        directories, ``append`` appends in place, ``create_new`` fails if the file exists, ``sync``
        waits for the disk.
        """
        fields = write_fields(mode, parents, append, create_new, sync)
        wait(lambda io: self._core.write(io, path, data, fields), timeout)

    def write_stream(
        self,
        path: Path,
        *,
        mode: Optional[int] = None,
        parents: bool = False,
        append: bool = False,
        create_new: bool = False,
        sync: bool = False,
    ) -> FsWriteSink:
        """Write a file piece by piece, with the options of `write`."""
        fields = write_fields(mode, parents, append, create_new, sync)
        return FsWriteSink(self._core.start(_abi.MSB_FS_OP_WRITE, path, **fields))

    def list(self, path: Path, timeout: Optional[float] = None) -> List[FsEntry]:
        """Return the entries of a directory, sorted by name."""
        return wait(lambda io: self._core.list(io, path), timeout)

    def mkdir(
        self,
        path: Path,
        timeout: Optional[float] = None,
        *,
        parents: bool = True,
        mode: Optional[int] = None,
    ) -> None:
        """Make a directory and its missing parents; without ``parents`` an existing one fails."""
        flags = _abi.MSB_FS_PARENTS if parents else 0
        fields = {"flags": flags, **mode_fields(mode)}
        wait(lambda io: self._core.perform(io, _abi.MSB_FS_OP_MKDIR, path, **fields), timeout)

    def remove(self, path: Path, timeout: Optional[float] = None) -> None:
        """Remove a file or link, which is not followed."""
        wait(lambda io: self._core.perform(io, _abi.MSB_FS_OP_REMOVE, path), timeout)

    def remove_dir(
        self, path: Path, timeout: Optional[float] = None, *, recursive: bool = True
    ) -> None:
        """Remove a directory and everything in it; without ``recursive``, an empty one."""
        flags = _abi.MSB_FS_RECURSIVE if recursive else 0
        op = _abi.MSB_FS_OP_REMOVE_DIR
        wait(lambda io: self._core.perform(io, op, path, flags=flags), timeout)

    def copy(self, src: Path, dst: Path, timeout: Optional[float] = None) -> None:
        """Copy a file or tree inside the sandbox; ``dst`` is the copy itself."""
        wait(lambda io: self._core.perform(io, _abi.MSB_FS_OP_COPY, src, dst), timeout)

    def copy_from_host(
        self, host_path: Path, guest_path: Path, timeout: Optional[float] = None
    ) -> None:
        """Copy a file or tree of the host into the sandbox; ``guest_path`` is the copy itself."""
        op = _abi.MSB_FS_OP_COPY_FROM_HOST
        wait(lambda io: self._core.perform(io, op, host_path, guest_path), timeout)

    def copy_to_host(
        self, guest_path: Path, host_path: Path, timeout: Optional[float] = None
    ) -> None:
        """Copy a file or tree of the sandbox to the host; ``host_path`` is the copy itself.

        Nothing that the sandbox says makes it write elsewhere.
        """
        op = _abi.MSB_FS_OP_COPY_TO_HOST
        wait(lambda io: self._core.perform(io, op, guest_path, host_path), timeout)

    def rename(
        self, src: Path, dst: Path, timeout: Optional[float] = None, *, replace: bool = True
    ) -> None:
        """Rename a file or directory; without ``replace`` an existing file fails."""
        flags = 0 if replace else _abi.MSB_FS_NO_REPLACE
        op = _abi.MSB_FS_OP_RENAME
        wait(lambda io: self._core.perform(io, op, src, dst, flags=flags), timeout)

    def symlink(self, target: Path, link_path: Path, timeout: Optional[float] = None) -> None:
        """Make a symbolic link at ``link_path``; ``target`` is any text."""
        wait(lambda io: self._core.perform(io, _abi.MSB_FS_OP_SYMLINK, link_path, target), timeout)

    def read_link(self, path: Path, timeout: Optional[float] = None) -> str:
        """Return the target of a symbolic link."""
        return wait(lambda io: self._core.path(io, _abi.MSB_FS_OP_READ_LINK, path), timeout)

    def real_path(self, path: Path, timeout: Optional[float] = None) -> str:
        """Return the absolute path without links, ``.`` and ``..``."""
        return wait(lambda io: self._core.path(io, _abi.MSB_FS_OP_REAL_PATH, path), timeout)

    def stat(
        self, path: Path, timeout: Optional[float] = None, *, follow_symlink: bool = True
    ) -> FsMetadata:
        """Return the attributes of a file, or of a link itself."""
        return wait(lambda io: self._core.stat(io, path, follow_symlink), timeout)

    def set_stat(
        self,
        path: Path,
        timeout: Optional[float] = None,
        *,
        mode: Optional[int] = None,
        uid: Optional[int] = None,
        gid: Optional[int] = None,
        size: Optional[int] = None,
        accessed: Optional[float] = None,
        modified: Optional[float] = None,
        follow_symlink: bool = True,
    ) -> None:
        """Change attributes; times are in seconds since 1970. Those that are None stay."""
        fields = attribute_fields(mode, uid, gid, size, accessed, modified)
        fields["flags"] = 0 if follow_symlink else _abi.MSB_FS_NO_FOLLOW
        wait(lambda io: self._core.perform(io, _abi.MSB_FS_OP_SET_STAT, path, **fields), timeout)

    def exists(self, path: Path, timeout: Optional[float] = None) -> bool:
        """Return whether a path exists. A dangling link does not."""
        return wait(lambda io: self._core.exists(io, path), timeout)


__all__ = ["FsReadStream", "FsWriteSink", "SandboxFsOps"]
