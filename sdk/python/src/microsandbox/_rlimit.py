"""Resource limits of a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ._errors import InvalidArgumentError

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
    """A resource limit: ``Rlimit.nofile(1024)``, or ``Rlimit.nofile(soft, hard)``.

    `Rlimit.INFINITY` means no limit.
    """

    resource: str
    """The resource in lower case, such as ``"nofile"``."""
    soft: int
    """The enforced limit, which the command may raise up to ``hard``."""
    hard: int
    """The upper bound of ``soft``."""

    INFINITY = _INFINITY

    def __post_init__(self) -> None:
        if self.resource not in RESOURCES:
            raise InvalidArgumentError(f"unknown resource {self.resource!r}")
        for value in (self.soft, self.hard):
            if not isinstance(value, int) or not 0 <= value <= _INFINITY:
                raise InvalidArgumentError(f"the limit is {value!r}; it must be 0 to 2**64 - 1")
        if self.soft > self.hard:
            raise InvalidArgumentError(
                f"the soft limit of {self.resource} is {self.soft}; it must be at most the hard "
                f"limit {self.hard}"
            )

    @classmethod
    def _of(cls, resource: str, soft: int, hard: Optional[int]) -> Rlimit:
        return cls(resource, soft, soft if hard is None else hard)

    @classmethod
    def cpu(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the CPU time in seconds."""
        return cls._of("cpu", soft, hard)

    @classmethod
    def fsize(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the size of a file in bytes."""
        return cls._of("fsize", soft, hard)

    @classmethod
    def data(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the size of the data segment in bytes."""
        return cls._of("data", soft, hard)

    @classmethod
    def stack(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the size of the stack in bytes."""
        return cls._of("stack", soft, hard)

    @classmethod
    def core(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the size of a core file in bytes."""
        return cls._of("core", soft, hard)

    @classmethod
    def rss(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the resident memory in bytes; Linux does not enforce it."""
        return cls._of("rss", soft, hard)

    @classmethod
    def nproc(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the number of the user's processes."""
        return cls._of("nproc", soft, hard)

    @classmethod
    def nofile(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the number of open descriptors."""
        return cls._of("nofile", soft, hard)

    @classmethod
    def memlock(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the locked memory in bytes."""
        return cls._of("memlock", soft, hard)

    @classmethod
    def as_(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the address space in bytes (RLIMIT_AS)."""
        return cls._of("as", soft, hard)

    @classmethod
    def locks(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the number of file locks."""
        return cls._of("locks", soft, hard)

    @classmethod
    def sigpending(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the number of queued signals."""
        return cls._of("sigpending", soft, hard)

    @classmethod
    def msgqueue(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the bytes in POSIX message queues."""
        return cls._of("msgqueue", soft, hard)

    @classmethod
    def nice(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the nice value, as 20 - nice."""
        return cls._of("nice", soft, hard)

    @classmethod
    def rtprio(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the real-time priority."""
        return cls._of("rtprio", soft, hard)

    @classmethod
    def rttime(cls, soft: int, hard: Optional[int] = None) -> Rlimit:
        """Limit the CPU time of a real-time process between blocking calls, in microseconds."""
        return cls._of("rttime", soft, hard)
