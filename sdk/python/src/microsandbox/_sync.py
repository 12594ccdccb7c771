"""Generated from _async.py by generate_sync.py: do not edit."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import (
    TYPE_CHECKING,
    List,  # `list` is a method below
    Optional,
    Union,
)

from . import _abi
from ._exec import ExecCore, SinkCore, signal_number
from ._image_values import ImageInfo, OnProgress, check_callback
from ._images import import_image, list_images, prune_images, pull_image, remove_image
from ._logs import LogCore
from ._mounts import Mount, VolumeInfo, mount
from ._options import Command, attach_options, integer, sandbox_options
from ._sandbox import SandboxCore, host_info, list_sandboxes, remove_sandbox
from ._sync_fs import SandboxFsOps
from ._sync_io import offload, run, wait
from ._values import (
    ExecEvent,
    ExecOutput,
    ExecView,
    ExitStatus,
    HostInfo,
    LogRecord,
    SandboxInfo,
    SandboxStatus,
    SessionInfo,
)
from ._volumes import create_volume, get_volume, list_volumes, remove_volume

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from ._options import (
        Args,
        AttachOptions,
        Data,
        ExecOptions,
        Path,
        SandboxOptions,
        Seconds,
        Text,
    )

    if sys.version_info >= (3, 12):
        from typing import Unpack
    else:
        from typing_extensions import Unpack
    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self


class ExecSink:
    """The write end of a command's stdin, returned by `ExecHandle.take_stdin`."""

    def __init__(self, core: SinkCore) -> None:
        self._core = core

    def write(self, data: Data, timeout: Optional[float] = None) -> None:
        """Write all of ``data``, waiting while the command does not read.

        Text is sent as UTF-8; an empty write is a no-op. A timeout leaves what was
        already written in place. Raises `BrokenInputError` once the command no longer reads.
        """
        wait(lambda io: self._core.write(io, data), timeout)

    def close(self) -> None:
        """Close stdin: the command reads end-of-file. Idempotent."""
        self._core.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ExecHandle:
    """A started command: its events and the means to control it.

    ``for event in handle`` yields the events. ``with handle`` kills the command and all
    its processes at the end of the scope. Closing or dropping a handle never does.

    One thread receives (`recv`, `wait`, `collect`, iteration) at a time; a second gets `BusyError`.
    Everything else may be called at any time. A timeout loses no event.
    """

    def __init__(self, core: ExecCore) -> None:
        self._core = core

    @property
    def id(self) -> str:
        """The session's id: 32 hexadecimal digits, never reused, the same in every process."""
        return self._core.id()

    @property
    def position(self) -> int:
        """The offset in the output that was received so far, for `Sandbox.reattach`."""
        return self._core.positions()[0]

    @property
    def missed(self) -> int:
        """Number of bytes requested from `Sandbox.reattach` that are no longer buffered."""
        return self._core.positions()[1]

    @property
    def writer_left(self) -> bool:
        """At the end of the stream: whether another process still had the output open."""
        return self._core.writer_left

    def recv(self, timeout: Optional[float] = None) -> Optional[ExecEvent]:
        """Return the next event, or None at the end of the stream and on every later call."""
        event = self._core.ready()
        return event if event is not None else wait(self._core.next, timeout)

    def recv_view(self, timeout: Optional[float] = None) -> Optional[ExecView]:
        """Receive as `recv` does, without copying the bytes. For small events a copy is cheaper.

        The bytes stay valid while anything refers to them: the view, a slice of it, an array made
        of it. Until then they count as not received, and a command stops once about a mebibyte is
        not received.
        """
        return wait(self._core.view, timeout)

    def views(self) -> Iterator[ExecView]:
        """Yield all events as `recv_view` returns them."""
        while (view := run(self._core.view)) is not None:
            yield view

    def __iter__(self) -> Iterator[ExecEvent]:
        return self

    def __next__(self) -> ExecEvent:
        event = self.recv()
        if event is None:
            raise StopIteration
        return event

    def take_stdin(self) -> Optional[ExecSink]:
        """Return the write end of stdin, once; None without `Stdin.pipe()`.

        It stays open when this handle is closed.
        """
        sink = self._core.take_stdin()
        return None if sink is None else ExecSink(sink)

    def wait(self, timeout: Optional[float] = None) -> ExitStatus:
        """Wait until the command has exited, discarding its output.

        Raises `ExecFailedError` if it failed to start, `StreamLostError` if its sandbox ended.
        """
        return wait(self._core.wait, timeout)

    def collect(self, timeout: Optional[float] = None) -> ExecOutput:
        """Wait for the end of the output and return what was not received before.

        A timeout keeps the collected output for the next call. Raises `ExecFailedError`,
        `ExecTimeoutError` (which carries the output) or `StreamLostError`.
        """
        return wait(self._core.collect, timeout)

    def signal(self, signal: Union[int, str]) -> None:
        """Send a signal, by number or name, to the command's process group."""
        number = signal_number(signal)
        offload(lambda: self._core.signal(number, _abi.MSB_SIGNAL_GROUP))

    def kill(self) -> None:
        """Kill the command and every process that it started."""
        offload(self._core.kill)

    def resize(self, rows: int, cols: int) -> None:
        """Resize the command's terminal."""
        integer("the number of rows", rows, 65535)
        integer("the number of columns", cols, 65535)
        offload(lambda: self._core.resize(rows, cols))

    def close(self) -> None:
        """Close the handle: pending calls on it raise `ClosedError`. The command keeps running."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        run(lambda io: io.run_shielded(self._core.end))

    def __repr__(self) -> str:
        return f"<ExecHandle {'closed' if self._core.handle.closed else self._core.id()}>"


class LogStream:
    """The records of a sandbox's log, in the order in which they were logged.

    ``for record in sandbox.logs()`` reads them. Reading stops at the end or on `close`.
    """

    def __init__(self, core: LogCore) -> None:
        self._core = core

    @property
    def warning(self) -> Optional[str]:
        """At the end: what is missing from the log, in one line; None if nothing is."""
        return self._core.warning

    def recv(self, timeout: Optional[float] = None) -> Optional[LogRecord]:
        """Return the next record, or None at the end and on every later call.

        A timeout loses no record.
        """
        return wait(self._core.next, timeout)

    def __iter__(self) -> Iterator[LogRecord]:
        return self

    def __next__(self) -> LogRecord:
        record = self.recv()
        if record is None:
            raise StopIteration
        return record

    def close(self) -> None:
        """Stop reading."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sandbox:
    """A sandbox: `Sandbox.create` makes one, `Sandbox.get` finds one.

    It ends with the process that created it unless it is ``detached``. ``with`` on a created
    sandbox kills and removes it at the end of the scope. On a detached sandbox, or one that was
    found, it only closes this object.
    """

    def __init__(self, core: SandboxCore, removes: bool = False) -> None:
        self._core, self._removes = core, removes

    @classmethod
    def create(
        cls,
        name: str,
        options: Optional[SandboxOptions] = None,
        *,
        on_progress: Optional[OnProgress] = None,
        **more: Unpack[SandboxOptions],
    ) -> Sandbox:
        """Create a sandbox and start it.

        Options, as keywords or as one dict: ``image`` (required), ``driver``, ``cpus``, ``memory``
        (MiB), ``shm_size`` (bytes), ``pids_limit``, ``disk`` (MiB), ``require_jail``, ``security``,
        ``pull_policy``, ``platform``, ``env``, ``workdir``, ``shell``, ``user``, ``hostname``, ``entrypoint``,
        ``stop_signal``, ``init``, ``labels``, ``replace``, ``detached``, ``network``, ``max_duration``, ``idle_timeout``,
        ``boot_timeout`` (seconds), ``log``, ``log_max_bytes``, ``log_files``. `SandboxOptions` describes each.

        ``on_progress`` is called in this thread with a `Progress` while the image is pulled or
        unpacked. An exception from it cancels creation and leaves no sandbox. An image that is a
        directory reports no progress.
        """
        callback = check_callback(on_progress)
        raw = sandbox_options(name, options, more)
        core = run(lambda io: SandboxCore.create(io, name, raw, callback))
        return cls(core, removes=not raw.flags & _abi.MSB_SANDBOX_DETACHED)

    @classmethod
    def get(cls, name: str) -> Sandbox:
        """Find a sandbox by its name, running or not, created by any process."""
        return cls(run(lambda io: SandboxCore.open(io, name, start=False)))

    @classmethod
    def start(cls, name: str) -> Sandbox:
        """Start a stopped sandbox with the files of its last run."""
        return cls(run(lambda io: SandboxCore.open(io, name, start=True)))

    @staticmethod
    def list() -> List[SandboxInfo]:
        """Return all sandboxes by name, running or not."""
        return offload(list_sandboxes)

    @staticmethod
    def remove(name: str, *, force: bool = False) -> None:
        """Remove a sandbox and its files. ``force`` kills it first if it is running."""
        offload(lambda: remove_sandbox(name, force))

    @property
    def name(self) -> str:
        """Its name."""
        return self._core.name

    @property
    def fs(self) -> SandboxFsOps:
        """The operations on its files."""
        return SandboxFsOps(self._core)

    def info(self) -> SandboxInfo:
        """Return its current state and configuration."""
        return run(self._core.info)

    def status(self) -> SandboxStatus:
        """Return whether it is running, or how it ended."""
        return (run(self._core.info)).status

    def exec(
        self,
        cmd: Text,
        args: Args = None,
        options: Optional[ExecOptions] = None,
        **more: Unpack[ExecOptions],
    ) -> ExecOutput:
        """Run a command to completion. A non-zero exit code is a result, not an error.

        Options, as keywords or as one dict: ``cwd``, ``env``, ``user``, ``timeout`` (seconds),
        ``stdin``, ``tty``, ``tty_size``, ``rlimits``, ``drain``, ``wait_for_eof``, ``max_output``.
        `ExecOptions` describes each.

        Raises `ExecFailedError` if it cannot be started, `ExecTimeoutError`, with the output so
        far, if it times out, `StreamLostError` if its sandbox ends first. Ctrl-C
        kills the command.
        """
        command = Command(cmd, args, options, more)
        return run(lambda io: self._core.collect(io, command))

    def shell(
        self,
        script: Text,
        args: Args = None,
        options: Optional[ExecOptions] = None,
        **more: Unpack[ExecOptions],
    ) -> ExecOutput:
        """Run a script in the sandbox's shell, as `exec`. ``args`` are its ``$0``, ``$1``, ..."""
        command = Command(script, args, options, more, _abi.MSB_EXEC_SHELL)
        return run(lambda io: self._core.collect(io, command))

    def exec_stream(
        self,
        cmd: Text,
        args: Args = None,
        options: Optional[ExecOptions] = None,
        **more: Unpack[ExecOptions],
    ) -> ExecHandle:
        """Start a command with the options of `exec`.

        The handle reports its events, including a failure to start.
        """
        command = Command(cmd, args, options, more)
        return ExecHandle(run(lambda io: self._core.stream(io, command)))

    def shell_stream(
        self,
        script: Text,
        args: Args = None,
        options: Optional[ExecOptions] = None,
        **more: Unpack[ExecOptions],
    ) -> ExecHandle:
        """Start a script in the sandbox's shell, as `exec_stream`."""
        command = Command(script, args, options, more, _abi.MSB_EXEC_SHELL)
        return ExecHandle(run(lambda io: self._core.stream(io, command)))

    def sessions(self) -> List[SessionInfo]:
        """Return the sessions that are running and those that ended recently."""
        return run(self._core.sessions)

    def reattach(
        self, session_id: str, position: Optional[int] = 0, *, stdin: bool = False
    ) -> ExecHandle:
        """Follow a session that is running or ended recently, started by any process.

        ``position`` is an offset in its output, as `ExecHandle.position` returns it: 0 is the first
        byte, None is the current end. About the last mebibyte is buffered;
        `ExecHandle.missed` is how much of the request is not. With ``stdin``,
        `ExecHandle.take_stdin` returns the session's stdin if it is open; closing it closes it for
        all peers.
        """
        core = run(lambda io: self._core.reattach(io, session_id, position, stdin))
        return ExecHandle(core)

    def logs(
        self,
        session_id: Optional[str] = None,
        *,
        since: Union[float, datetime, None] = None,
        follow: bool = False,
    ) -> LogStream:
        """Read the output of its sessions, byte for byte, and how each session ended.

        A log exists only if the sandbox was created with ``log``; else the first record raises
        `InvalidConfigError`. It is kept until the sandbox is removed. ``since`` is a `datetime` or
        a time as `time.time` returns it; ``follow`` waits for new records until the sandbox ends.
        """
        return LogStream(LogCore(self._core, session_id, since, follow))

    def attach(
        self,
        cmd: Text,
        args: Args = None,
        options: Optional[AttachOptions] = None,
        **more: Unpack[AttachOptions],
    ) -> int:
        """Attach this program's terminal to a command; return its exit code, 128 + n for signal n.

        Options: ``cwd``, ``env``, ``user``, ``rlimits``, ``detach_keys``. Returns -1 when the
        detach keys (default ``ctrl-]``) were typed: the command keeps running, and `attach_session`
        reattaches to it.
        """
        command, keys = attach_options(cmd, args, options, more)
        return run(lambda io: self._core.attach(io, command, None, keys))

    def attach_shell(self, *, detach_keys: Optional[str] = None) -> int:
        """Attach to the sandbox's shell, as `attach`."""
        return run(lambda io: self._core.attach(io, None, None, detach_keys))

    def attach_session(self, session_id: str, *, detach_keys: Optional[str] = None) -> int:
        """Attach to a session that has a terminal, as `attach`."""
        return run(lambda io: self._core.attach(io, None, session_id, detach_keys))

    def stop(self, timeout: Seconds = 10.0) -> None:
        """Terminate its commands, kill those left after ``timeout`` seconds, and stop it."""
        run(lambda io: self._core.stop(io, timeout))

    def kill(self) -> None:
        """Kill it at once."""
        run(self._core.kill)

    def wait(self, timeout: Optional[float] = None) -> None:
        """Wait until it has ended. Raises `SandboxCrashedError` if it crashed."""
        wait(self._core.wait, timeout)

    def close(self) -> None:
        """Close this object. The sandbox and its commands keep running."""
        self._core.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        run(lambda io: io.run_shielded(lambda: self._core.end(self._removes)))

    def __repr__(self) -> str:
        return f"<Sandbox {self.name!r}>"


class Image:
    """The image store, shared by all sandboxes and processes of this user."""

    @staticmethod
    def pull(
        name: str, *, platform: Optional[str] = None, on_progress: Optional[OnProgress] = None
    ) -> ImageInfo:
        """Pull an image such as ``"python:3.12"`` from its registry, even if it is in the store.

        Unchanged layers are not downloaded again. ``on_progress`` is called in this thread with a
        `Progress`. An exception from it cancels the pull. Ctrl-C does, too. Downloaded
        data is kept for the next pull. ``platform`` is one such as ``"linux/arm64"`` or
        ``"linux/arm/v7"``, default this host's.

        Raises `ImageNotFoundError`, `ImageUnauthorizedError` or `RegistryUnreachableError`.
        """
        return run(lambda io: pull_image(io, name, platform, on_progress))

    @staticmethod
    def import_(
        path: Path,
        name: Optional[str] = None,
        *,
        platform: Optional[str] = None,
        on_progress: Optional[OnProgress] = None,
    ) -> ImageInfo:
        """Import an image from an archive of a root filesystem, from the output of ``docker save``,
        or from an OCI layout; archives may be compressed with gzip or zstd.

        ``name`` defaults to the name in the archive, if it has one. Otherwise as `pull`; raises
        `InvalidConfigError` if ``path`` does not exist.
        """
        return run(lambda io: import_image(io, path, name, platform, on_progress))

    @staticmethod
    def list() -> List[ImageInfo]:
        """Return all images in the store, newest first."""
        return offload(list_images)

    @staticmethod
    def remove(name: str, *, force: bool = False) -> None:
        """Remove a name from an image, and the image with its last name.

        An id removes all names. Raises `ImageInUseError` while a sandbox uses the image; with
        ``force`` only the names are removed, and `prune` removes the image once it is unused.
        """
        offload(lambda: remove_image(name, force))

    @staticmethod
    def prune(*, all: bool = False) -> int:
        """Remove images that have no name and no sandbox, and leftovers of downloads.

        With ``all``, also images that have a name. Waits for in-progress pulls and imports. Returns
        the approximate number of bytes freed.
        """
        return offload(lambda: prune_images(all))


class Volume:
    """Named volumes, shared by all sandboxes of this user, and the mounts of a new sandbox."""

    @staticmethod
    def bind(
        path: Path,
        *,
        readonly: bool = False,
        noexec: bool = False,
        nosuid: bool = True,
        nodev: bool = True,
        uid: Optional[int] = None,
        gid: Optional[int] = None,
    ) -> Mount:
        """Mount a directory or a file of the host.

        What belongs to the caller belongs to root inside, or to ``uid`` and ``gid``. Set-user-ID
        bits and device files never work in a mount.
        """
        return mount(_abi.MSB_MOUNT_BIND, path, readonly, noexec, uid, gid)

    @staticmethod
    def named(
        name: str,
        *,
        mode: str = "existing",
        readonly: bool = False,
        noexec: bool = False,
        nosuid: bool = True,
        nodev: bool = True,
        uid: Optional[int] = None,
        gid: Optional[int] = None,
    ) -> Mount:
        """Mount a volume; with ``mode`` ``"create"`` or ``"ensure-exists"`` a new directory."""
        return mount(_abi.MSB_MOUNT_VOLUME, name, readonly, noexec, uid, gid, mode=mode)

    @staticmethod
    def tmpfs(
        *,
        size_mib: Optional[int] = None,
        readonly: bool = False,
        noexec: bool = False,
        nosuid: bool = True,
        nodev: bool = True,
    ) -> Mount:
        """Mount an empty filesystem in memory, by default of half of the sandbox's memory."""
        return mount(_abi.MSB_MOUNT_TMPFS, None, readonly, noexec, size_mib=size_mib)

    @staticmethod
    def disk(
        path: Optional[Path] = None,
        *,
        size_mib: Optional[int] = None,
        readonly: bool = False,
        noexec: bool = False,
        nosuid: bool = True,
        nodev: bool = True,
    ) -> Mount:
        """Mount the filesystem in a file, or without a path an empty one of the sandbox's own."""
        return mount(_abi.MSB_MOUNT_DISK, path, readonly, noexec, size_mib=size_mib)

    @staticmethod
    def create(
        name: str,
        *,
        kind: str = "directory",
        size_mib: Optional[int] = None,
        quota_mib: Optional[int] = None,
        labels: Optional[Mapping[str, str]] = None,
    ) -> VolumeInfo:
        """Create a volume: a directory, or with ``kind="disk"`` a disk of ``size_mib``.

        Raises `VolumeAlreadyExistsError`.
        """
        return offload(lambda: create_volume(name, kind, size_mib, quota_mib, labels))

    @staticmethod
    def get(name: str) -> VolumeInfo:
        """Find a volume. Raises `VolumeNotFoundError`."""
        return offload(lambda: get_volume(name))

    @staticmethod
    def list() -> List[VolumeInfo]:
        """Return all volumes, by name."""
        return offload(list_volumes)

    @staticmethod
    def remove(name: str) -> None:
        """Remove a volume with its files.

        Raises `VolumeNotFoundError`, and `VolumeInUseError` while a sandbox uses it.
        """
        offload(lambda: remove_volume(name))


def doctor() -> HostInfo:
    """Probe this host: return which drivers and which walls of the jail it supports."""
    return offload(host_info)


__all__ = ["ExecHandle", "ExecSink", "Image", "LogStream", "Sandbox", "Volume", "doctor"]
