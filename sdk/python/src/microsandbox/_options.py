"""Options as users give them, checked and turned into the library's structs.

Zero means "default" to the library, so a zero that a user wrote is refused here, or said otherwise.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Optional, TypedDict, Union, cast

from . import _abi
from ._errors import InvalidArgumentError
from ._image_values import PullPolicy, policy
from ._values import RESOURCES, Rlimit, Stdin, bytes_of

Text = Union[str, bytes]
"""Text for the sandbox: a `str` is sent as UTF-8, `bytes` as they are."""
Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
Env = Union[Mapping[str, str], Mapping[bytes, bytes], Iterable[tuple[Text, Text]]]
"""Variables: a mapping, or pairs of which the last of a name counts."""
Seconds = Union[float, timedelta]
Data = Union[bytes, bytearray, memoryview, str]

_MAX = 2**64 - 1


class ExecOptions(TypedDict, total=False):
    """Options of one command. They change nothing else in the sandbox."""

    cwd: Path
    """Working directory; the sandbox's if left out."""
    env: Env
    """Variables on top of the sandbox's."""
    user: str
    """``name``, ``uid``, ``name:group`` or ``uid:gid``; the sandbox's if left out."""
    timeout: Seconds
    """Kill it, and all that it started, after so many seconds."""
    stdin: Union[Stdin, bytes]
    """`Stdin.null()` (the default), `Stdin.pipe()` or `Stdin.bytes(data)`."""
    tty: bool
    """Give it a terminal. Its standard error then comes as standard output."""
    tty_size: tuple[int, int]
    """Rows and columns of the terminal; 24 and 80 if left out."""
    rlimits: Iterable[Rlimit]
    """Limits on resources: ``[Rlimit.nofile(1024)]``."""
    drain: Seconds
    """How long output of processes that it left behind is still forwarded; 0.25 s if left out."""
    wait_for_eof: bool
    """Forward output until every process that holds it has closed it."""
    max_output: int
    """Collect at most so many bytes of each output, and count on."""


class AttachOptions(TypedDict, total=False):
    """Options of a command that the terminal is tied to."""

    cwd: Path
    env: Env
    user: str
    rlimits: Iterable[Rlimit]
    detach_keys: str
    """What parts them: ``"ctrl-]"`` (the default), ``"ctrl-p,ctrl-q"``, ``"q"``."""


class SandboxOptions(TypedDict, total=False):
    """What a new sandbox is to be."""

    image: Path
    """The name of an image, ``"python:3.12"``, or a path: of a directory, which is the root
    filesystem and is never written to, or of an archive. A path begins with ``/``, ``./`` or
    ``../``. Required."""
    pull_policy: Union[PullPolicy, Literal["missing", "always", "never"]]
    """When the registry is asked for the image; ``"missing"`` if left out."""
    driver: str
    """``"container"`` and such; $MSB_DRIVER, or the first with hardware isolation."""
    cpus: float
    """How many processors it may use: 2, or a fraction such as 0.5; more than 0, at most 4096."""
    memory: int
    """In MiB, 16 to 16,777,216; 2 GiB or half of the host's if left out, whichever is less."""
    pids_limit: int
    """How many processes and threads it may have at once, at least 8; 4096 if left out."""
    disk: int
    """How large its upper layer may grow, in MiB, 16 to 16,777,216; 32 GiB if left out."""
    require_jail: bool
    """Refuse to start where a wall of the jail cannot be had; ``MSB_REQUIRE_JAIL=1`` does so for
    every sandbox."""
    security: Literal["default", "restricted"]
    """What commands in a virtual machine may do: all that root may in a kernel of its own, or what
    a container's may."""
    env: Env
    """For every command, over the variables of the image."""
    workdir: str
    """Of commands that name none; the image's, or ``/``, if left out."""
    shell: str
    """For scripts; the image's, or ``/bin/sh``, if left out."""
    user: str
    """Of commands that name none; the image's, or root, if left out."""
    hostname: str
    labels: Mapping[str, str]
    """Notes of the caller's own."""
    replace: bool
    """A sandbox that has the name already is ended and removed first."""
    detached: bool
    """It outlives the process that creates it."""
    network: bool
    """It may reach the network; off unless asked for."""
    max_duration: Seconds
    """It is ended after this time."""
    idle_timeout: Seconds
    """It is ended when nothing ran in it for this time."""
    boot_timeout: Seconds
    """How long the start may take; 30 s if left out."""
    log: bool
    """Keep the output of its sessions in a log, which `Sandbox.logs` reads."""
    log_max_bytes: int
    """Most bytes of one file of the log."""
    log_files: int
    """Most files of the log, of which the oldest goes for a new one."""


if TYPE_CHECKING:
    Args = Union[Iterable[Union[Text, "os.PathLike[str]"]], ExecOptions, None]

_EXEC_KEYS = frozenset(ExecOptions.__annotations__)
_ATTACH_KEYS = frozenset(AttachOptions.__annotations__)
_SANDBOX_KEYS = frozenset(SandboxOptions.__annotations__)


def encoded(what: str, value: Any) -> bytes:
    """The bytes of a text for the sandbox, which cannot contain a NUL."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(value, str):
        # Names of files that are no UTF-8 come from the system as surrogates.
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        raise TypeError(f"{what} is text or bytes, not {type(value).__name__}")
    at = value.find(b"\0")
    if at >= 0:
        raise InvalidArgumentError(f"{what} contains a NUL byte at position {at}")
    return value


def filled(what: str, value: Any) -> bytes:
    """As `encoded`, and not empty."""
    data = encoded(what, value)
    if not data:
        raise InvalidArgumentError(f"{what} is empty")
    return data


def units(what: str, value: Any, per_second: int, zero: bool = False) -> int:
    """A time in nanoseconds or milliseconds, rounded up so that it never becomes "default"."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InvalidArgumentError(f"{what} is {value}; leave it out or give it a time")
    ticks = math.ceil(value * per_second)
    if ticks > _MAX:
        raise InvalidArgumentError(f"{what} of {value} seconds is longer than can be said")
    return ticks


def number(what: str, value: Any, most: int, least: int = 1) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a whole number, not {type(value).__name__}")
    if not least <= value <= most:
        raise InvalidArgumentError(f"{what} is {value}; it takes {least} to {most}")
    return value


def processors(value: Any) -> float:
    """A number of processors, whole or not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"cpus is a number, not {type(value).__name__}")
    if not 0 < value <= 4096:
        raise InvalidArgumentError(f"cpus is {value}; it must be more than 0 and at most 4096")
    return float(value)


def truth(what: str, value: Any) -> bool:
    """A bool, and nothing that could be taken for one."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} is True or False, not {type(value).__name__}")
    return value


def texts(values: list[bytes]) -> tuple[Any, int]:
    """An array of NUL-terminated texts, which keeps them alive, and its length."""
    return (ctypes.c_char_p * len(values))(*values), len(values)


def variables(env: Any) -> list[bytes]:
    """``NAME=value`` of a mapping or of pairs, in order."""
    pairs = env.items() if isinstance(env, Mapping) else env
    result = []
    for name, value in pairs:
        key = filled("the name of a variable", name)
        if b"=" in key:
            raise InvalidArgumentError(f"the name of the variable {name!r} contains '='")
        result.append(key + b"=" + encoded(f"the value of {name!r}", value))
    return result


def merged(keys: frozenset[str], options: Optional[Mapping[str, Any]], more: Any) -> dict[str, Any]:
    """Options of a dict and of keywords together. One that is None counts as left out."""
    result = dict(options or {})
    for name in more:
        if name in result:
            raise TypeError(f"the option {name!r} is given twice")
    result.update(more)
    for name in result:
        if name not in keys:
            known = ", ".join(sorted(keys))
            raise TypeError(f"there is no option {name!r}; there are {known}")
    return {name: value for name, value in result.items() if value is not None}


class Command:
    """A command, ready to be started as often as wanted."""

    __slots__ = ("max_output", "options", "pipe", "tty")

    def __init__(
        self, cmd: Any, args: Any, options: Optional[Mapping[str, Any]], more: Any, flags: int = 0
    ) -> None:
        if isinstance(args, Mapping):
            if options is not None:
                raise TypeError("the options are given twice")
            options = args
            args = None
        if isinstance(args, (str, bytes)):
            raise TypeError("the arguments are a list of texts, not one text")
        given = merged(_EXEC_KEYS, options, more)
        raw = _abi.msb_exec_options(cmd=encoded("the command", cmd), flags=flags)
        arguments = [encoded("an argument", argument) for argument in args or ()]
        raw.args, raw.args_len = texts(arguments)
        self.options = raw
        self._place(given)
        self._limits(given)
        self.pipe = self._input(given.get("stdin"))
        self.tty = self._terminal(bool(given.get("tty")), given.get("tty_size"))

    def _place(self, given: dict[str, Any]) -> None:
        raw = self.options
        raw.env, raw.env_len = texts(variables(given.get("env", ())))
        if "cwd" in given:
            raw.cwd = filled("the working directory", given["cwd"])
        if "user" in given:
            raw.user = filled("the user", given["user"])

    def _limits(self, given: dict[str, Any]) -> None:
        raw = self.options
        limits = list(given.get("rlimits", ()))
        for limit in limits:
            if not isinstance(limit, Rlimit):
                raise TypeError(f"a limit is an Rlimit, not {type(limit).__name__}")
        raw.rlimits = (_abi.msb_rlimit * len(limits))(
            *[
                _abi.msb_rlimit(RESOURCES.index(limit.resource), 0, limit.soft, limit.hard)
                for limit in limits
            ]
        )
        raw.rlimits_len = len(limits)
        if "timeout" in given:
            raw.timeout_ns = units("the timeout", given["timeout"], 10**9)
        if "drain" in given:
            # None at all is said as the shortest there is.
            raw.drain_ns = max(1, units("the drain time", given["drain"], 10**9, zero=True))
        if given.get("wait_for_eof"):
            raw.flags |= _abi.MSB_EXEC_WAIT_FOR_EOF
        self.max_output: Optional[int] = None
        if "max_output" in given:
            self.max_output = number("max_output", given["max_output"], _MAX, least=0)
            # Nothing at all cannot be said; the last byte is dropped when it is here.
            raw.max_output = max(1, self.max_output)

    def _input(self, stdin: Any) -> bool:
        if stdin is None:
            return False
        if not isinstance(stdin, Stdin):
            stdin = Stdin("bytes", bytes_of(stdin))
        if stdin.kind == "bytes":
            # Without bytes the pointer is there all the same: an empty input, not the null device.
            self.options.stdin_data, self.options.stdin_len = stdin.data, len(stdin.data)
        elif stdin.kind not in ("null", "pipe"):
            raise InvalidArgumentError(f"there is no standard input of kind {stdin.kind!r}")
        return cast(bool, stdin.kind == "pipe")

    def _terminal(self, tty: bool, size: Any) -> bool:
        if size is not None:
            if not tty:
                raise InvalidArgumentError("tty_size is given without tty")
            rows, cols = size
            self.options.rows = number("the number of rows", rows, 65535)
            self.options.cols = number("the number of columns", cols, 65535)
        if tty:
            self.options.flags |= _abi.MSB_EXEC_TTY
        return tty


def attach_options(
    cmd: Any, args: Any, options: Optional[Mapping[str, Any]], more: Any
) -> tuple[Command, Optional[str]]:
    """A command for a terminal, and the keys that part them."""
    if isinstance(args, Mapping) and options is None:
        args, options = None, args
    given = merged(_ATTACH_KEYS, options, more)
    keys = given.pop("detach_keys", None)
    return Command(cmd, args, given, {}), keys


def attached_to(
    command: Optional[Command], session: Optional[str], keys: Optional[str]
) -> _abi.msb_attach_options:
    """The struct of an attach."""
    raw = _abi.msb_attach_options()
    if command is not None:
        raw.exec = ctypes.pointer(command.options)
    if session is not None:
        raw.session = filled("the session id", session)
    if keys is not None:
        raw.detach_keys = filled("detach_keys", keys)
    return raw


_FLAGS = {
    "detached": _abi.MSB_SANDBOX_DETACHED,
    "replace": _abi.MSB_SANDBOX_REPLACE,
    "network": _abi.MSB_SANDBOX_NETWORK,
    "log": _abi.MSB_SANDBOX_LOG,
    "require_jail": _abi.MSB_SANDBOX_REQUIRE_JAIL,
}
_SECURITY = {
    "default": _abi.MSB_SECURITY_DEFAULT,
    "restricted": _abi.MSB_SECURITY_RESTRICTED,
}
_MAX_MIB = 16 * 1024 * 1024


def sandbox_options(name: Any, options: Optional[Mapping[str, Any]], more: Any) -> Any:
    """The struct of a new sandbox."""
    given = merged(_SANDBOX_KEYS, options, more)
    if "image" not in given:
        raise TypeError("a sandbox needs an image: a name, or the path of a root filesystem")
    image = filled("the image", given["image"])
    raw = _abi.msb_sandbox_options(name=encoded("the name", name), image=image)
    for key in ("driver", "workdir", "shell", "user", "hostname"):
        if key in given:
            setattr(raw, key, filled(f"the {key}", given[key]))
    raw.env, raw.env_len = texts(variables(given.get("env", ())))
    raw.labels, raw.labels_len = texts(variables(given.get("labels", {})))
    if "cpus" in given:
        raw.cpus = processors(given["cpus"])
    if "memory" in given:
        raw.memory_mib = number("memory (in MiB)", given["memory"], _MAX_MIB, least=16)
    if "pids_limit" in given:
        raw.pids_limit = number("pids_limit", given["pids_limit"], 2**32 - 1, least=8)
    if "disk" in given:
        raw.disk_mib = number("disk (in MiB)", given["disk"], _MAX_MIB, least=16)
    if "security" in given:
        raw.security = _security(given["security"])
    for key in ("max_duration", "idle_timeout", "boot_timeout"):
        if key in given:
            setattr(raw, f"{key}_ms", units(key, given[key], 1000))
    if "log_max_bytes" in given:
        raw.log_max_bytes = number("log_max_bytes", given["log_max_bytes"], _MAX)
    if "log_files" in given:
        raw.log_files = number("log_files", given["log_files"], 10_000)
    if "pull_policy" in given:
        raw.pull_policy = policy(given["pull_policy"])
    raw.flags = sum(flag for key, flag in _FLAGS.items() if truth(key, given.get(key, False)))
    return raw


def _security(value: Any) -> int:
    if not isinstance(value, str) or value not in _SECURITY:
        raise InvalidArgumentError(f"security is {value!r}; it must be 'default' or 'restricted'")
    return _SECURITY[value]
