"""Values of the API: events, outputs, limits, lists."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Optional, Union

from . import _abi


class ExecFailureKind(str, enum.Enum):
    """Why a command could not be started. Each member equals its string."""

    NOT_FOUND = "not_found"
    PERMISSION_DENIED = "permission_denied"
    NOT_EXECUTABLE = "not_executable"
    BAD_CWD = "bad_cwd"
    BAD_ARGS = "bad_args"
    RESOURCE_LIMIT = "resource_limit"
    USER_SETUP_FAILED = "user_setup_failed"
    OUT_OF_MEMORY = "out_of_memory"
    PTY_SETUP_FAILED = "pty_setup_failed"
    OTHER = "other"

    __str__ = str.__str__


class StringEnum(str, enum.Enum):
    """An enum whose members equal their strings, also when printed."""

    __str__ = str.__str__

    def __format__(self, format_spec: str) -> str:
        return str.__format__(self, format_spec)


class ExecEventType(StringEnum):
    """The type of an event. Each member equals its string, so ``case "stdout":`` matches."""

    STARTED = "started"
    STDOUT = "stdout"
    STDERR = "stderr"
    STDIN_ERROR = "stdin_error"
    EXITED = "exited"
    FAILED = "failed"
    LOST = "lost"


class LogKind(StringEnum):
    """The kind of a log record. Each member equals its string."""

    STDOUT = "stdout"
    STDERR = "stderr"
    STARTED = "started"
    EXITED = "exited"
    FAILED = "failed"
    LOST = "lost"
    OTHER = "other"


class SandboxStatus(StringEnum):
    """The state of a sandbox."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    CRASHED = "crashed"


class Isolation(StringEnum):
    """What isolates a sandbox from the host."""

    HARDWARE = "hardware"
    EMULATED = "emulated"
    CONTAINER = "container"
    UNCHECKED = "unchecked"
    """A virtual machine on a host that skips the check for hardware isolation."""
    GVISOR = "gvisor"
    """gVisor: a kernel in user space."""


class EndReason(StringEnum):
    """Why a sandbox ended."""

    STOPPED = "stopped"
    KILLED = "killed"
    CREATOR_GONE = "creator_gone"
    MAX_DURATION = "max_duration"
    IDLE = "idle"
    CRASHED = "crashed"
    BOOT_FAILED = "boot_failed"


@dataclass(frozen=True)
class ResourceUsage:
    """Resource usage of a command and the children that it waited for. Times are in seconds."""

    user_time: float
    """CPU time in user mode."""
    system_time: float
    """CPU time in kernel mode."""
    wall_time: float
    """Time from start to exit."""
    max_rss: int
    """Maximum resident set size in bytes."""


@dataclass(frozen=True)
class ExitStatus:
    """How a command ended."""

    code: int
    """Exit code; -1 if a signal killed it."""
    signal: Optional[int] = None
    """The number of the signal that killed it, as in `signal.Signals`."""
    core_dumped: bool = False
    """Whether it dumped core."""
    timed_out: bool = False
    """Whether it was killed because its timeout expired."""
    usage: Optional[ResourceUsage] = None
    """Resource usage."""

    @property
    def success(self) -> bool:
        """Whether it exited with code 0."""
        return self.code == 0 and self.signal is None


@dataclass(frozen=True)
class ExecFailure:
    """Why a command failed to start."""

    kind: ExecFailureKind
    stage: str
    """The step that failed, such as ``"execve"`` or ``"chdir"``."""
    errno: Optional[int]
    errno_name: str
    message: str
    """The failure, in one line."""
    path: str
    """The program, directory or name that the step used."""


class ExecEvent:
    """One event of a command; ``event_type`` determines which fields are set."""

    __slots__ = ("code", "data", "errno", "event_type", "failure", "pid", "reason", "status")

    def __init__(
        self,
        event_type: ExecEventType,
        data: bytes = b"",
        *,
        pid: Optional[int] = None,
        status: Optional[ExitStatus] = None,
        failure: Optional[ExecFailure] = None,
        errno: Optional[int] = None,
        reason: Optional[str] = None,
    ) -> None:
        self.event_type: ExecEventType = event_type
        self.data: bytes = data
        """Of ``stdout`` and ``stderr``: the bytes."""
        self.pid: Optional[int] = pid
        """Of ``started``: the process id in the sandbox."""
        self.code: Optional[int] = None if status is None else status.code
        """Of ``exited``: the exit code, -1 if a signal killed it."""
        self.status: Optional[ExitStatus] = status
        """Of ``exited``: the exit status, with signal and resource usage."""
        self.failure: Optional[ExecFailure] = failure
        """Of ``failed``: why it failed to start."""
        self.errno: Optional[int] = errno
        """Of ``stdin_error``: why it no longer reads stdin."""
        self.reason: Optional[str] = reason
        """Of ``lost``: why the exit status is unknown, in one line."""

    def __repr__(self) -> str:
        names = ("pid", "status", "failure", "errno", "reason")
        parts = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name)]
        if self.data:
            more = f"... ({len(self.data)} bytes)" if len(self.data) > 60 else ""
            parts.insert(0, f"{self.data[:60]!r}{more}")
        return f"ExecEvent({', '.join([self.event_type, *parts])})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExecEvent):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable, and compared by value


@dataclass(frozen=True)
class ExecView:
    """An event with borrowed ``data``; see `ExecHandle.recv_view`."""

    event: ExecEvent
    """The event, without data."""
    data: memoryview
    """The bytes, read-only. The command may be stopped until this and its slices are gone."""


class ExecOutput:
    """The exit status and output of a command."""

    __slots__ = (
        "cut",
        "status",
        "stderr_bytes",
        "stderr_total",
        "stdout_bytes",
        "stdout_total",
        "writer_left",
    )

    def __init__(
        self,
        status: ExitStatus,
        stdout_bytes: bytes,
        stderr_bytes: bytes,
        stdout_total: int,
        stderr_total: int,
        writer_left: bool = False,
        cut: bool = False,
    ) -> None:
        self.status: ExitStatus = status
        self.stdout_bytes: bytes = stdout_bytes
        """The bytes of stdout; with a terminal, all output."""
        self.stderr_bytes: bytes = stderr_bytes
        """The bytes of stderr."""
        self.stdout_total: int = stdout_total
        """Total bytes of stdout, also beyond ``max_output``."""
        self.stderr_total: int = stderr_total
        """Total bytes of stderr, also beyond ``max_output``."""
        self.writer_left: bool = writer_left
        """Whether another process still had the output open when it was collected."""
        self.cut: bool = cut
        """Whether the connection was lost after the exit."""

    @property
    def stdout_text(self) -> str:
        """Stdout as text. Raises `UnicodeDecodeError` if it is not UTF-8."""
        return self.stdout_bytes.decode()

    @property
    def stderr_text(self) -> str:
        """Stderr as text. Raises `UnicodeDecodeError` if it is not UTF-8."""
        return self.stderr_bytes.decode()

    @property
    def exit_code(self) -> int:
        """The exit code; -1 if a signal killed it."""
        return self.status.code

    @property
    def success(self) -> bool:
        """Whether it exited with code 0."""
        return self.status.success

    @property
    def signal(self) -> Optional[int]:
        """The number of the signal that killed it, if one did."""
        return self.status.signal

    @property
    def timed_out(self) -> bool:
        """Whether it was killed because its timeout expired."""
        return self.status.timed_out

    @property
    def truncated(self) -> bool:
        """Whether ``max_output`` truncated the output."""
        kept = (len(self.stdout_bytes), len(self.stderr_bytes))
        return (self.stdout_total, self.stderr_total) != kept

    def __repr__(self) -> str:
        def brief(data: bytes) -> str:
            return repr(data) if len(data) <= 80 else f"{data[:80]!r}... ({len(data)} bytes)"

        status = f"exit_code={self.exit_code}"
        if self.signal is not None:
            status = f"signal={self.signal}"
        parts = [status, f"stdout={brief(self.stdout_bytes)}", f"stderr={brief(self.stderr_bytes)}"]
        return f"ExecOutput({', '.join(parts)})"


# Within `Stdin`, `bytes` is a method.
_Bytes = bytes


@dataclass(frozen=True)
class Stdin:
    """The stdin of a command."""

    kind: str
    data: _Bytes = field(default=b"", repr=False)

    @classmethod
    def null(cls) -> Stdin:
        """Read from ``/dev/null``. The default."""
        return cls("null")

    @classmethod
    def pipe(cls) -> Stdin:
        """Read what is written to the sink of `ExecHandle.take_stdin`."""
        return cls("pipe")

    @classmethod
    def bytes(cls, data: Union[_Bytes, bytearray, memoryview, str]) -> Stdin:
        """Read these bytes, then end-of-file. Text is sent as UTF-8."""
        return cls("bytes", data.encode() if isinstance(data, str) else bytes_of(data))


def bytes_of(data: Union[bytes, bytearray, memoryview]) -> bytes:
    """Copy bytes-like data. A number, which `bytes` accepts, is rejected."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be bytes, not {type(data).__name__}")
    return bytes(data)


# In the order of Linux's RLIMIT_* constants.


@dataclass(frozen=True)
class Bounds:
    """The resource bounds of a sandbox; None where there is none."""

    pids: Optional[int]
    """Maximum number of processes and threads."""
    memory_bytes: Optional[int]
    disk_bytes: Optional[int]
    """Maximum size of the upper layer."""
    cpus: Optional[float]


@dataclass(frozen=True)
class SandboxInfo:
    """The state and configuration of a sandbox."""

    name: str
    status: SandboxStatus
    image: str
    """The name or path of its image."""
    driver: Optional[str]
    """The driver of its current or last run."""
    isolation: Optional[Isolation]
    jailed: Optional[bool]
    """Whether all its host processes, except the supervisor, are in a jail with all walls; None if
    it never started."""
    missing_walls: list[str]
    """The missing walls of the jail, each with the reason."""
    bounds: Optional[Bounds]
    """The enforced bounds; None if it never started."""
    cpus: Optional[float]
    """The requested number of CPUs."""
    memory: Optional[int]
    """The requested memory in MiB."""
    detached: bool
    """Whether it keeps running when the process that created it exits."""
    labels: dict[str, str]
    created_at: float
    """When it was created, as `time.time` returns it."""
    started_at: Optional[float]
    """When it was last started."""
    end_reason: Optional[EndReason]
    """Why it ended, if it did."""
    end_detail: Optional[str]
    """Details of its end, for users."""
    command: list[str]
    """The default command of its image, which `Sandbox.exec` ignores."""


@dataclass(frozen=True)
class SessionInfo:
    """One run of a command in a sandbox."""

    id: str
    pid: int
    """Its process id in the sandbox."""
    command: list[bytes]
    """Program and arguments, truncated if very long."""
    tty: bool
    """Whether it has a terminal."""
    status: Optional[ExitStatus]
    """Exit status; None while it is running."""
    age: float
    """Time since its start, in seconds."""
    output_total: int
    """Total bytes of output."""
    followers: int
    """Number of attached readers."""

    @property
    def running(self) -> bool:
        """Whether it is running."""
        return self.status is None


@dataclass(frozen=True)
class LogRecord:
    """One record of a sandbox's log."""

    kind: LogKind
    session: str
    """The id of its session."""
    time_ns: int
    """When it was logged, as `time.time_ns` returns it."""
    data: bytes = b""
    """Of ``stdout`` and ``stderr``: the bytes."""
    pid: Optional[int] = None
    """Of ``started``: the process id in the sandbox."""
    command: Optional[list[str]] = None
    """Of ``started`` and ``failed``: program and arguments."""
    tty: bool = False
    """Of ``started``: whether it has a terminal."""
    status: Optional[ExitStatus] = None
    """Of ``exited``: the exit status, without resource usage."""
    failure: Optional[ExecFailure] = None
    """Of ``failed``: why it failed to start, without the path."""

    @property
    def time(self) -> float:
        """When it was logged, as `time.time` returns it."""
        return self.time_ns / 1e9


@dataclass(frozen=True)
class DriverInfo:
    """A driver on this host."""

    name: str
    isolation: Optional[Isolation]
    usable: bool
    why: str
    """Backend details if usable, else the reason."""
    hint: Optional[str]
    """A remedy, if known."""
    unbounded: list[str]
    """The resources that it cannot bound, each with the reason."""


@dataclass(frozen=True)
class WallInfo:
    """A wall of the jail on this host."""

    name: str
    missing: Optional[str]
    """Why it is unavailable on this host; None if it is available."""
    hint: Optional[str]
    """A remedy, if known."""


@dataclass(frozen=True)
class HostInfo:
    """The drivers and walls of this host."""

    drivers: list[DriverInfo]
    """In order of preference."""
    walls: list[WallInfo]
    """The walls of the jail."""


STATUSES = {
    _abi.MSB_STATE_CREATED: SandboxStatus.CREATED,
    _abi.MSB_STATE_RUNNING: SandboxStatus.RUNNING,
    _abi.MSB_STATE_STOPPED: SandboxStatus.STOPPED,
    _abi.MSB_STATE_CRASHED: SandboxStatus.CRASHED,
}
ISOLATIONS = {
    _abi.MSB_ISOLATION_HARDWARE: Isolation.HARDWARE,
    _abi.MSB_ISOLATION_EMULATED: Isolation.EMULATED,
    _abi.MSB_ISOLATION_CONTAINER: Isolation.CONTAINER,
    _abi.MSB_ISOLATION_UNCHECKED: Isolation.UNCHECKED,
    _abi.MSB_ISOLATION_GVISOR: Isolation.GVISOR,
}
REASONS = {
    _abi.MSB_REASON_STOPPED: EndReason.STOPPED,
    _abi.MSB_REASON_KILLED: EndReason.KILLED,
    _abi.MSB_REASON_CREATOR_GONE: EndReason.CREATOR_GONE,
    _abi.MSB_REASON_MAX_DURATION: EndReason.MAX_DURATION,
    _abi.MSB_REASON_IDLE: EndReason.IDLE,
    _abi.MSB_REASON_CRASHED: EndReason.CRASHED,
    _abi.MSB_REASON_BOOT_FAILED: EndReason.BOOT_FAILED,
}
