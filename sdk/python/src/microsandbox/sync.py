"""The same as `microsandbox`, for programs without an event loop: scripts, notebooks, threads.

    from microsandbox.sync import Sandbox

    with Sandbox.create("hello", image="./rootfs", driver="container") as sb:
        print(sb.exec("uname", ["-a"]).stdout_text)

A call blocks its thread only, and Ctrl-C ends it; objects may be shared by threads. What waits for
a command takes a ``timeout`` in seconds, after which it raises `WaitTimeoutError` and has lost
nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import (
    TYPE_CHECKING,
    List,  # `list` is a method below
    Optional,
    Union,
)

from ._backends import run_blocking
from ._exec import ExecCore, SinkCore, checked_signal
from ._image_values import ImageInfo, OnProgress, checked_callback
from ._images import list_images, prune, remove_image, take
from ._images import pull as pull_image
from ._logs import LogCore
from ._options import Command, attach_options, number, sandbox_options
from ._sandbox import SandboxCore, list_sandboxes, remove
from ._sandbox import doctor as host_info
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

from . import _abi


class ExecSink:
    """The writing end of a command's input, had from `ExecHandle.take_stdin`."""

    def __init__(self, core: SinkCore) -> None:
        self._core = core

    def write(self, data: Data, timeout: Optional[float] = None) -> None:
        """Writes all of ``data``, and waits while the command does not read.

        Text becomes UTF-8; an empty write does nothing. When the time is over, what was written
        until then stays written. Raises `BrokenInputError` once the command no longer reads.
        """
        run_blocking(lambda io: self._core.write(io, data), timeout)

    def close(self) -> None:
        """Ends the input: the command reads end-of-file. Again is fine."""
        self._core.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ExecHandle:
    """A command that was started: its events, and the means to act on it.

    ``for event in handle`` gives the events. ``with handle`` kills the command, and all
    that it has started, at the end of the scope. Closing or forgetting a handle never does.

    One thread receives (`recv`, `wait`, `collect`, iteration) at a time; a second gets `BusyError`.
    Everything else may be called at any time. A call that is given up loses no event.
    """

    def __init__(self, core: ExecCore) -> None:
        self._core = core

    @property
    def id(self) -> str:
        """The session's id: 32 hexadecimal digits, never used again, the same everywhere."""
        return self._core.id()

    @property
    def position(self) -> int:
        """Where in the output this handle is, as `Sandbox.reattach` takes it."""
        return self._core.positions()[0]

    @property
    def missed(self) -> int:
        """How many bytes `Sandbox.reattach` was asked for that are no longer kept."""
        return self._core.positions()[1]

    @property
    def writer_left(self) -> bool:
        """At the end of the stream: whether some other process still had the output open."""
        return self._core.writer_left

    def recv(self, timeout: Optional[float] = None) -> Optional[ExecEvent]:
        """The next event; None when there is nothing more, and for ever after."""
        return run_blocking(self._core.next, timeout)

    def recv_view(self, timeout: Optional[float] = None) -> Optional[ExecView]:
        """As `recv`, without a copy of the bytes. Of small pieces the view costs more than the copy.

        The bytes stay valid as long as anything refers to them: the view, a slice of it, an array
        made of it. Until then they count as not received, and a command of which about a mebibyte
        is not received stands still.
        """
        return run_blocking(self._core.view, timeout)

    def views(self) -> Iterator[ExecView]:
        """All events as `recv_view` gives them."""
        while (view := run_blocking(self._core.view)) is not None:
            yield view

    def __iter__(self) -> Iterator[ExecEvent]:
        return self

    def __next__(self) -> ExecEvent:
        event = self.recv()
        if event is None:
            raise StopIteration
        return event

    def take_stdin(self) -> Optional[ExecSink]:
        """The writing end of its input, once; None without `Stdin.pipe()`. It lives on its own."""
        sink = self._core.take_stdin()
        return None if sink is None else ExecSink(sink)

    def wait(self, timeout: Optional[float] = None) -> ExitStatus:
        """Waits until the command has exited, and throws away what it puts out until then.

        Raises `ExecFailedError` if it never started, `StreamLostError` if its sandbox went first.
        """
        return run_blocking(self._core.wait, timeout)

    def collect(self, timeout: Optional[float] = None) -> ExecOutput:
        """Waits for the end of the output, and gives what was not received before.

        When the time is over, what was gathered stays here for the next call. Raises
        `ExecFailedError`, `ExecTimeoutError` (which carries the output) or `StreamLostError`.
        """
        return run_blocking(self._core.collect, timeout)

    def signal(self, signal: Union[int, str]) -> None:
        """Sends a signal, by number or name, to the command's process group."""
        value = checked_signal(signal)
        run_blocking(lambda io: io.run(lambda: self._core.signal(value, _abi.MSB_SIGNAL_GROUP)))

    def kill(self) -> None:
        """Kills the command and everything that it has started."""
        run_blocking(lambda io: io.run(self._core.kill))

    def resize(self, rows: int, cols: int) -> None:
        """Changes the size of the command's terminal."""
        number("the number of rows", rows, 65535)
        number("the number of columns", cols, 65535)
        run_blocking(lambda io: io.run(lambda: self._core.resize(rows, cols)))

    def close(self) -> None:
        """Closes the handle: whoever waits on it gets `ClosedError`. The command runs on."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        run_blocking(lambda io: io.settle(self._core.end))

    def __repr__(self) -> str:
        return f"<ExecHandle {'closed' if self._core.handle.closed else self._core.id()}>"


class LogStream:
    """The records of a sandbox's log, in the order in which they reached it.

    ``for record in sandbox.logs()`` reads them. Closing it, or its end, ends the reading.
    """

    def __init__(self, core: LogCore) -> None:
        self._core = core

    @property
    def warning(self) -> Optional[str]:
        """At the end: what is missing from what was read, in one line; None if nothing is."""
        return self._core.warning

    def recv(self, timeout: Optional[float] = None) -> Optional[LogRecord]:
        """The next record; None at the end, for ever. A time that is over loses none."""
        return run_blocking(self._core.next, timeout)

    def __iter__(self) -> Iterator[LogRecord]:
        return self

    def __next__(self) -> LogRecord:
        record = self.recv()
        if record is None:
            raise StopIteration
        return record

    def close(self) -> None:
        """Ends the reading."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sandbox:
    """A sandbox: `Sandbox.create` makes one, `Sandbox.get` finds one.

    It ends with the process that created it unless it is ``detached``. ``with`` on a created
    sandbox kills and removes it at the end of the scope; on one that was found, or is detached, it
    closes this object only.
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
        """Makes a sandbox and starts it.

        Options, as keywords or as one dict: ``image`` (required), ``driver``, ``cpus``, ``memory``
        (MiB), ``pids_limit``, ``disk`` (MiB), ``require_jail``, ``security``,
        ``pull_policy``, ``env``, ``workdir``, ``shell``, ``user``, ``hostname``, ``labels``, ``replace``,
        ``detached``, ``network``, ``max_duration``, ``idle_timeout``, ``boot_timeout`` (seconds),
        ``log``, ``log_max_bytes``, ``log_files``. `SandboxOptions` tells about each.

        ``on_progress`` is called with a `Progress`, in this thread, while the image is got; what it
        raises ends the call, and no sandbox is left. An image that is a directory has none.
        """
        told = checked_callback(on_progress)
        raw = sandbox_options(name, options, more)
        core = run_blocking(lambda io: SandboxCore.create(io, name, raw, told))
        return cls(core, removes=not raw.flags & _abi.MSB_SANDBOX_DETACHED)

    @classmethod
    def get(cls, name: str) -> Sandbox:
        """Finds a sandbox by its name, running or not, whoever created it."""
        return cls(run_blocking(lambda io: SandboxCore.open(io, name, start=False)))

    @classmethod
    def start(cls, name: str) -> Sandbox:
        """Starts a sandbox that is not running, with the files it was left with."""
        return cls(run_blocking(lambda io: SandboxCore.open(io, name, start=True)))

    @staticmethod
    def list() -> List[SandboxInfo]:
        """All sandboxes by name, running or not."""
        return run_blocking(lambda io: io.run(list_sandboxes))

    @staticmethod
    def remove(name: str, *, force: bool = False) -> None:
        """Removes a sandbox and its files; one that runs only with ``force``, which kills it."""
        run_blocking(lambda io: io.run(lambda: remove(name, force)))

    @property
    def name(self) -> str:
        """Its name."""
        return self._core.name

    def info(self) -> SandboxInfo:
        """What is known about it now."""
        return run_blocking(self._core.info)

    def status(self) -> SandboxStatus:
        """Whether it runs now, or how it ended."""
        return run_blocking(self._core.info).status

    def exec(
        self,
        cmd: Text,
        args: Args = None,
        options: Optional[ExecOptions] = None,
        **more: Unpack[ExecOptions],
    ) -> ExecOutput:
        """Runs a command and waits for its end; an exit code other than 0 is a result.

        Options, as keywords or as one dict: ``cwd``, ``env``, ``user``, ``timeout`` (seconds),
        ``stdin``, ``tty``, ``tty_size``, ``rlimits``, ``drain``, ``wait_for_eof``, ``max_output``.
        `ExecOptions` tells about each.

        Raises `ExecFailedError` if it cannot be started, `ExecTimeoutError`, with the output so
        far, if its time runs out, `StreamLostError` if its sandbox goes first. Ctrl-C kills the
        command.
        """
        command = Command(cmd, args, options, more)
        return run_blocking(lambda io: self._core.collect(io, command))

    def shell(
        self,
        script: Text,
        args: Args = None,
        options: Optional[ExecOptions] = None,
        **more: Unpack[ExecOptions],
    ) -> ExecOutput:
        """As `exec`, for a script of the sandbox's shell. ``args`` are its ``$0``, ``$1``, ..."""
        command = Command(script, args, options, more, _abi.MSB_EXEC_SHELL)
        return run_blocking(lambda io: self._core.collect(io, command))

    def exec_stream(
        self,
        cmd: Text,
        args: Args = None,
        options: Optional[ExecOptions] = None,
        **more: Unpack[ExecOptions],
    ) -> ExecHandle:
        """Starts a command; options as those of `exec`.

        What happens to it, also that it cannot be started, is told by the handle.
        """
        command = Command(cmd, args, options, more)
        return ExecHandle(run_blocking(lambda io: self._core.stream(io, command)))

    def shell_stream(
        self,
        script: Text,
        args: Args = None,
        options: Optional[ExecOptions] = None,
        **more: Unpack[ExecOptions],
    ) -> ExecHandle:
        """As `exec_stream`, for a script of the sandbox's shell."""
        command = Command(script, args, options, more, _abi.MSB_EXEC_SHELL)
        return ExecHandle(run_blocking(lambda io: self._core.stream(io, command)))

    def sessions(self) -> List[SessionInfo]:
        """The commands that run in it, and those that ended a short while ago."""
        return run_blocking(self._core.sessions)

    def reattach(
        self, session_id: str, position: Optional[int] = 0, *, stdin: bool = False
    ) -> ExecHandle:
        """Follows a session that runs, or that ended a short while ago, whoever started it.

        ``position`` is a byte of its output as `ExecHandle.position` tells it: 0 for the first,
        None for only what is still to come. About the last mebibyte is kept; `ExecHandle.missed`
        tells how much of what was asked for is not. With ``stdin``, `ExecHandle.take_stdin` gives
        the session's input if it is open; whoever closes it ends it for all.
        """
        core = run_blocking(lambda io: self._core.reattach(io, session_id, position, stdin))
        return ExecHandle(core)

    def logs(
        self,
        session_id: Optional[str] = None,
        *,
        since: Union[float, datetime, None] = None,
        follow: bool = False,
    ) -> LogStream:
        """Reads what its sessions have put out, byte for byte, and what became of them.

        There is a log only if the sandbox was created with ``log``, else this raises
        `InvalidConfigError` at the first record. It can be read until the sandbox is removed.
        ``since`` is a time as `time.time` counts, or a `datetime`; with ``follow`` it goes on with
        what is still to come, until the sandbox ends.
        """
        return LogStream(LogCore(self._core, session_id, since, follow))

    def attach(
        self,
        cmd: Text,
        args: Args = None,
        options: Optional[AttachOptions] = None,
        **more: Unpack[AttachOptions],
    ) -> int:
        """Ties this program's terminal to a command: its exit code, 128 + n for signal n.

        Options: ``cwd``, ``env``, ``user``, ``rlimits``, ``detach_keys``. -1 says that the keys
        (``ctrl-]`` unless set) were typed: the command runs on, and `attach_session` takes it up.
        """
        command, keys = attach_options(cmd, args, options, more)
        return run_blocking(lambda io: self._core.attach(io, command, None, keys))

    def attach_shell(self, *, detach_keys: Optional[str] = None) -> int:
        """As `attach`, with the sandbox's shell."""
        return run_blocking(lambda io: self._core.attach(io, None, None, detach_keys))

    def attach_session(self, session_id: str, *, detach_keys: Optional[str] = None) -> int:
        """As `attach`, with a session that has a terminal."""
        return run_blocking(lambda io: self._core.attach(io, None, session_id, detach_keys))

    def stop(self, timeout: Seconds = 10.0) -> None:
        """Asks its commands to end, kills them after ``timeout`` seconds, and ends it."""
        run_blocking(lambda io: self._core.stop(io, timeout))

    def kill(self) -> None:
        """Ends it at once."""
        run_blocking(self._core.kill)

    def wait(self, timeout: Optional[float] = None) -> None:
        """Waits until it has ended. Raises `SandboxCrashedError` if it ended by itself."""
        run_blocking(self._core.wait, timeout)

    def close(self) -> None:
        """Closes this object. The sandbox and what runs in it go on."""
        self._core.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        run_blocking(lambda io: io.settle(lambda: self._core.end(self._removes)))

    def __repr__(self) -> str:
        return f"<Sandbox {self.name!r}>"


class Image:
    """The store of images, which all sandboxes and processes of this user share."""

    @staticmethod
    def pull(name: str, *, on_progress: Optional[OnProgress] = None) -> ImageInfo:
        """Gets an image from its registry, ``"python:3.12"``, also when it is here already.

        What has not changed is not fetched again. ``on_progress`` is called with a `Progress`,
        in this thread; what it raises ends the call, and so does Ctrl-C: what was
        downloaded is kept for the next time.

        Raises `ImageNotFoundError`, `ImageUnauthorizedError` or `RegistryUnreachableError`.
        """
        return run_blocking(lambda io: pull_image(io, name, on_progress))

    @staticmethod
    def import_(
        path: Path, name: Optional[str] = None, *, on_progress: Optional[OnProgress] = None
    ) -> ImageInfo:
        """Takes an image from an archive of a root filesystem, from what ``docker save`` writes, or
        from OCI's layout; archives may be compressed with gzip or zstd.

        Without a ``name`` it is called as it says itself, if it does. Otherwise as `pull`; raises
        `InvalidConfigError` when there is nothing at ``path``.
        """
        return run_blocking(lambda io: take(io, path, name, on_progress))

    @staticmethod
    def list() -> List[ImageInfo]:
        """All images in the store, the newest first."""
        return run_blocking(lambda io: io.run(list_images))

    @staticmethod
    def remove(name: str, *, force: bool = False) -> None:
        """Takes a name from an image, and removes the image with its last name.

        Called by its id it loses all its names. Raises `ImageInUseError` while a sandbox uses it;
        with ``force`` it loses its names, and goes with the last sandbox and the next `prune`.
        """
        run_blocking(lambda io: io.run(lambda: remove_image(name, force)))

    @staticmethod
    def prune(*, all: bool = False) -> int:
        """Removes what has no name and no sandbox uses, and what downloads have left.

        With ``all`` also images that have a name. Waits for images that are being got. Returns
        about how many bytes are free again.
        """
        return run_blocking(lambda io: io.run(lambda: prune(all)))


def doctor() -> HostInfo:
    """Return which drivers and which walls of the jail can be had on this host; tries each."""
    return run_blocking(lambda io: io.run(host_info))


__all__ = ["ExecHandle", "ExecSink", "Image", "LogStream", "Sandbox", "doctor"]
