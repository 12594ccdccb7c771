"""What users get and give: events, outputs, limits, lists."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Optional, Union

from . import _abi
from ._errors import ExecFailureKind, InvalidArgumentError


class Words(str, enum.Enum):
    """Members equal their strings, also when printed."""

    __str__ = str.__str__

    def __format__(self, format_spec: str) -> str:
        return str.__format__(self, format_spec)


class ExecEventType(Words):
    """What an event tells. Each member equals its string, so ``case "stdout":`` matches."""

    STARTED = "started"
    STDOUT = "stdout"
    STDERR = "stderr"
    STDIN_ERROR = "stdin_error"
    EXITED = "exited"
    FAILED = "failed"
    LOST = "lost"


class LogKind(Words):
    """What a record of a log tells. Each member equals its string."""

    STDOUT = "stdout"
    STDERR = "stderr"
    STARTED = "started"
    EXITED = "exited"
    FAILED = "failed"
    LOST = "lost"
    OTHER = "other"


class SandboxStatus(Words):
    """Where a sandbox is in its life."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    CRASHED = "crashed"


class Isolation(Words):
    """What keeps a sandbox apart from the host."""

    HARDWARE = "hardware"
    EMULATED = "emulated"
    CONTAINER = "container"
    UNCHECKED = "unchecked"
    """A virtual machine on a host that was told to skip the check for hardware isolation."""


class EndReason(Words):
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
    """What a command used, the children that it waited for included. Times are in seconds."""

    user_time: float
    """CPU time in user mode."""
    system_time: float
    """CPU time in the kernel."""
    wall_time: float
    """Time from start to exit."""
    max_rss: int
    """Largest resident size, in bytes."""


@dataclass(frozen=True)
class ExitStatus:
    """How a command ended."""

    code: int
    """Exit code; -1 when a signal killed it."""
    signal: Optional[int] = None
    """The number of the signal that killed it, as in `signal.Signals`."""
    core_dumped: bool = False
    """Whether it left a core dump."""
    timed_out: bool = False
    """Whether it was killed because its time had run out."""
    usage: Optional[ResourceUsage] = None
    """What it used."""

    @property
    def success(self) -> bool:
        """Whether it exited with code 0."""
        return self.code == 0 and self.signal is None


@dataclass(frozen=True)
class ExecFailure:
    """Why a command never started."""

    kind: ExecFailureKind
    stage: str
    """The step that failed: ``"execve"``, ``"chdir"``, ..."""
    errno: Optional[int]
    errno_name: str
    message: str
    """One line for people."""
    path: str
    """The program, directory or name that the step was about."""


class ExecEvent:
    """One event of a command; ``event_type`` says what it tells, and which fields are set."""

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
        """Of ``exited``: the exit code, -1 for a death by signal."""
        self.status: Optional[ExitStatus] = status
        """Of ``exited``: how it ended, with the signal and what it used."""
        self.failure: Optional[ExecFailure] = failure
        """Of ``failed``: why it never started."""
        self.errno: Optional[int] = errno
        """Of ``stdin_error``: why it no longer reads its input."""
        self.reason: Optional[str] = reason
        """Of ``lost``: why the end is not known, in one line."""

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

    __hash__ = None  # type: ignore[assignment]  # as of other values that compare by content


@dataclass(frozen=True)
class ExecView:
    """An event whose ``data`` was not copied; see `ExecHandle.recv_view`."""

    event: ExecEvent
    """The event, with no data of its own."""
    data: memoryview
    """The bytes, read-only. The command may stand still until this and all its slices are gone."""


class ExecOutput:
    """How a command ended, and what it put out."""

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
        """Standard output as it is; with a terminal, everything."""
        self.stderr_bytes: bytes = stderr_bytes
        """Standard error as it is."""
        self.stdout_total: int = stdout_total
        """How many bytes came from standard output, also beyond ``max_output``."""
        self.stderr_total: int = stderr_total
        """How many bytes came from standard error, also beyond ``max_output``."""
        self.writer_left: bool = writer_left
        """Whether some other process still had the output open when it was collected."""
        self.cut: bool = cut
        """Whether the connection was lost after the exit."""

    @property
    def stdout_text(self) -> str:
        """Standard output as text. Raises `UnicodeDecodeError` if it is not UTF-8."""
        return self.stdout_bytes.decode()

    @property
    def stderr_text(self) -> str:
        """Standard error as text. Raises `UnicodeDecodeError` if it is not UTF-8."""
        return self.stderr_bytes.decode()

    @property
    def exit_code(self) -> int:
        """The exit code; -1 when a signal killed it."""
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
        """Whether it was killed because its time had run out."""
        return self.status.timed_out

    @property
    def truncated(self) -> bool:
        """Whether ``max_output`` cut something off."""
        kept = (len(self.stdout_bytes), len(self.stderr_bytes))
        return (self.stdout_total, self.stderr_total) != kept

    def __repr__(self) -> str:
        def brief(data: bytes) -> str:
            return repr(data) if len(data) <= 80 else f"{data[:80]!r}... ({len(data)} bytes)"

        how = f"exit_code={self.exit_code}"
        if self.signal is not None:
            how = f"signal={self.signal}"
        parts = [how, f"stdout={brief(self.stdout_bytes)}", f"stderr={brief(self.stderr_bytes)}"]
        return f"ExecOutput({', '.join(parts)})"


# Within `Stdin`, `bytes` is a method.
_Bytes = bytes


@dataclass(frozen=True)
class Stdin:
    """What a command reads as its standard input."""

    kind: str
    data: _Bytes = field(default=b"", repr=False)

    @classmethod
    def null(cls) -> Stdin:
        """Nothing: ``/dev/null``. The default."""
        return cls("null")

    @classmethod
    def pipe(cls) -> Stdin:
        """What is written to the sink that `ExecHandle.take_stdin` gives."""
        return cls("pipe")

    @classmethod
    def bytes(cls, data: Union[_Bytes, bytearray, memoryview, str]) -> Stdin:
        """These bytes, and then the end. Text becomes UTF-8."""
        return cls("bytes", data.encode() if isinstance(data, str) else bytes_of(data))


def bytes_of(data: Union[bytes, bytearray, memoryview]) -> bytes:
    """A copy of anything that has bytes. A number is none, though `bytes` would take it."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"expected bytes, not {type(data).__name__}")
    return bytes(data)


# Linux's numbers are the positions.
RESOURCES = (
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
)
_INFINITY = 2**64 - 1


@dataclass(frozen=True)
class Rlimit:
    """A limit on a resource: ``Rlimit.nofile(1024)``, or ``Rlimit.nofile(soft, hard)``.

    `Rlimit.INFINITY` is no limit.
    """

    resource: str
    """The resource in lower case, such as ``"nofile"``."""
    soft: int
    """The limit in force; the command may raise it up to ``hard``."""
    hard: int
    """The ceiling."""

    INFINITY = _INFINITY

    def __post_init__(self) -> None:
        if self.resource not in RESOURCES:
            raise InvalidArgumentError(f"there is no resource {self.resource!r} to limit")
        for value in (self.soft, self.hard):
            if not isinstance(value, int) or not 0 <= value <= _INFINITY:
                raise InvalidArgumentError(f"{value!r} is no limit: it takes 0 to 2**64 - 1")
        if self.soft > self.hard:
            raise InvalidArgumentError(
                f"the soft limit of {self.resource} is {self.soft}, above its hard limit "
                f"{self.hard}"
            )

    @classmethod
    def _of(cls, resource: str, soft: int, hard: Optional[int]) -> Rlimit:
        return cls(resource, soft, soft if hard is None else hard)

    @classmethod
    def cpu(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """CPU time in seconds."""
        return cls._of("cpu", soft, hard)

    @classmethod
    def fsize(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Size of a file in bytes."""
        return cls._of("fsize", soft, hard)

    @classmethod
    def data(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Size of the data segment in bytes."""
        return cls._of("data", soft, hard)

    @classmethod
    def stack(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Size of the stack in bytes."""
        return cls._of("stack", soft, hard)

    @classmethod
    def core(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Size of a core file in bytes."""
        return cls._of("core", soft, hard)

    @classmethod
    def rss(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Resident memory in bytes; Linux does not enforce it."""
        return cls._of("rss", soft, hard)

    @classmethod
    def nproc(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Number of the user's processes."""
        return cls._of("nproc", soft, hard)

    @classmethod
    def nofile(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Number of open descriptors."""
        return cls._of("nofile", soft, hard)

    @classmethod
    def memlock(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Locked memory in bytes."""
        return cls._of("memlock", soft, hard)

    @classmethod
    def as_(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Address space in bytes (RLIMIT_AS)."""
        return cls._of("as", soft, hard)

    @classmethod
    def locks(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Number of file locks."""
        return cls._of("locks", soft, hard)

    @classmethod
    def sigpending(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Number of queued signals."""
        return cls._of("sigpending", soft, hard)

    @classmethod
    def msgqueue(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Bytes in POSIX message queues."""
        return cls._of("msgqueue", soft, hard)

    @classmethod
    def nice(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Ceiling of the nice value, as 20 - nice."""
        return cls._of("nice", soft, hard)

    @classmethod
    def rtprio(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Ceiling of the real-time priority."""
        return cls._of("rtprio", soft, hard)

    @classmethod
    def rttime(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """CPU time of a real-time process without a pause, in microseconds."""
        return cls._of("rttime", soft, hard)


@dataclass(frozen=True)
class Bounds:
    """What a sandbox can take at most; None where nothing bounds it."""

    pids: Optional[int]
    """Processes and threads at once."""
    memory_bytes: Optional[int]
    disk_bytes: Optional[int]
    """Of its upper layer."""
    cpus: Optional[float]


@dataclass(frozen=True)
class SandboxInfo:
    """What is known about a sandbox."""

    name: str
    status: SandboxStatus
    image: str
    """What it was made from: the name of an image, or a path."""
    driver: Optional[str]
    """The driver that runs it, or ran it last."""
    isolation: Optional[Isolation]
    jailed: Optional[bool]
    """Whether every process of it on the host, but its supervisor, is in a jail with all of its
    walls; None when it never came up."""
    missing_walls: list[str]
    """The walls of the jail that are missing, each with the reason."""
    bounds: Optional[Bounds]
    """The bounds in force; None when it never came up."""
    cpus: Optional[float]
    """How many processors were asked for."""
    memory: Optional[int]
    """How much memory was asked for, in MiB."""
    detached: bool
    """Whether it outlives the process that created it."""
    labels: dict[str, str]
    created_at: float
    """When it was created, as `time.time` counts."""
    started_at: Optional[float]
    """When it was last started."""
    end_reason: Optional[EndReason]
    """Why it ended, when it did."""
    end_detail: Optional[str]
    """More about its end, for people."""
    command: list[str]
    """What its image runs when nobody names a command; `Sandbox.exec` knows nothing of it."""


@dataclass(frozen=True)
class SessionInfo:
    """One run of a command in a sandbox."""

    id: str
    pid: int
    """Its process id in the sandbox."""
    command: list[bytes]
    """Program and arguments, cut when they are very long."""
    tty: bool
    """Whether it has a terminal."""
    status: Optional[ExitStatus]
    """How it ended; None while it runs."""
    age: float
    """How long ago it started, in seconds."""
    output_total: int
    """How many bytes it has put out."""
    followers: int
    """How many readers follow it."""

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.status is None


@dataclass(frozen=True)
class LogRecord:
    """One record of a sandbox's log."""

    kind: LogKind
    session: str
    """The id of the session that it belongs to."""
    time_ns: int
    """When it reached the log, as `time.time_ns` counts."""
    data: bytes = b""
    """Of ``stdout`` and ``stderr``: the bytes."""
    pid: Optional[int] = None
    """Of ``started``: the process id in the sandbox."""
    command: Optional[list[str]] = None
    """Of ``started`` and ``failed``: program and arguments."""
    tty: bool = False
    """Of ``started``: whether it has a terminal."""
    status: Optional[ExitStatus] = None
    """Of ``exited``: how it ended. What it used is not kept."""
    failure: Optional[ExecFailure] = None
    """Of ``failed``: why it never started. The path is not kept."""

    @property
    def time(self) -> float:
        """When it reached the log, as `time.time` counts."""
        return self.time_ns / 1e9


@dataclass(frozen=True)
class DriverInfo:
    """What is known about a driver on this host."""

    name: str
    isolation: Optional[Isolation]
    usable: bool
    why: str
    """On what it stands when it can be used, else why it cannot."""
    hint: Optional[str]
    """What would make it usable, if that is known."""
    unbounded: list[str]
    """What it cannot bound, each with the reason."""


@dataclass(frozen=True)
class WallInfo:
    """What is known about a wall of the jail on this host."""

    name: str
    missing: Optional[str]
    """Why this host does not have it; None when it does."""
    hint: Optional[str]
    """What would help, if that is known."""


@dataclass(frozen=True)
class HostInfo:
    """What this host offers."""

    drivers: list[DriverInfo]
    """In the order in which they are chosen."""
    walls: list[WallInfo]
    """Of the jail."""


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
