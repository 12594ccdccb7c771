"""Options of the API, validated and converted to the library's structs.

Zero means "default" in a struct, so an explicit zero is rejected here or converted.
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
from ._image_values import PullPolicy, pull_policy
from ._mounts import Mount
from ._rlimit import RESOURCES, Rlimit
from ._values import Stdin, bytes_of

Text = Union[str, bytes]
"""Text for the sandbox: a `str` is sent as UTF-8, `bytes` unchanged."""
Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
Env = Union[Mapping[str, str], Mapping[bytes, bytes], Iterable[tuple[Text, Text]]]
"""Environment variables: a mapping, or pairs of which the last with a name wins."""
Seconds = Union[float, timedelta]
Data = Union[bytes, bytearray, memoryview, str]

_MAX = 2**64 - 1


class ExecOptions(TypedDict, total=False):
    """Options of one command."""

    cwd: Path
    """Working directory; defaults to the sandbox's."""
    env: Env
    """Environment variables, which override the sandbox's."""
    user: str
    """``name``, ``uid``, ``name:group`` or ``uid:gid``; defaults to the sandbox's."""
    timeout: Seconds
    """Kill it and everything it started after this time, in seconds."""
    stdin: Union[Stdin, bytes]
    """`Stdin.null()` (the default), `Stdin.pipe()` or `Stdin.bytes(data)`."""
    tty: bool
    """Run it on a terminal. Its stderr is then part of stdout."""
    tty_size: tuple[int, int]
    """Rows and columns of the terminal; default 24 and 80."""
    rlimits: Iterable[Rlimit]
    """Resource limits: ``[Rlimit.nofile(1024)]``."""
    drain: Seconds
    """How long to forward the output of its background processes after its exit; default 0.25 s."""
    wait_for_eof: bool
    """Forward output until the last writer has closed it."""
    max_output: int
    """Collect at most this many bytes of each output; the totals count all bytes."""


class AttachOptions(TypedDict, total=False):
    """Options of a command to attach to."""

    cwd: Path
    env: Env
    user: str
    timeout: Seconds
    rlimits: Iterable[Rlimit]
    detach_keys: str
    """Keys that detach: ``"ctrl-]"`` (the default), ``"ctrl-p,ctrl-q"``, ``"q"``."""


class SandboxOptions(TypedDict, total=False):
    """Options of a new sandbox."""

    image: Path
    """The name of an image, ``"python:3.12"``, or the path of an archive or of a directory that
    becomes the read-only root filesystem. A path begins with ``/``, ``./`` or ``../``. Required."""
    pull_policy: Union[PullPolicy, Literal["missing", "always", "never"]]
    """When to pull the image; default ``"missing"``."""
    platform: str
    """Platform of the image, such as ``"linux/arm64"`` or ``"linux/arm/v7"``; default this host's.
    An image whose programs this host cannot run is refused."""
    driver: str
    """For example ``"container"``; default $MSB_DRIVER, else the first with strong isolation."""
    cpus: float
    """Number of CPUs: 2, or a fraction such as 0.5; more than 0, at most 4096."""
    memory: int
    """Memory in MiB, 16 to 16,777,216; default 2 GiB or half of the host's, whichever is less."""
    shm_size: int
    """Size of ``/dev/shm`` in bytes, at least 65,536 and at most the memory, of which it is a part;
    default 64 MiB."""
    pids_limit: int
    """Maximum number of processes and threads, at least 8; default 4096."""
    disk: int
    """Maximum size of its upper layer in MiB, 16 to 16,777,216; default 32 GiB."""
    require_jail: bool
    """Fail the start if a wall of the jail is missing; ``MSB_REQUIRE_JAIL=1`` requires all
    walls for every sandbox."""
    security: Literal["default", "restricted"]
    """Privileges of commands in a virtual machine: full root in its own kernel, or those of a
    container."""
    env: Env
    """Environment variables of every command, which override the image's."""
    workdir: str
    """Default working directory of commands; defaults to the image's, or ``/``."""
    shell: str
    """Shell for scripts; defaults to the image's, or ``/bin/sh``."""
    user: str
    """Default user of commands; defaults to the image's, or root."""
    hostname: str
    entrypoint: Union[str, Iterable[str]]
    """A program, or a list of a program and its arguments, instead of the image's entrypoint and
    default command; empty for none. ``SandboxInfo.command`` begins with it."""
    stop_signal: Union[str, int]
    """The signal that asks the process of each session to end when it is stopped: ``"SIGINT"``,
    ``"INT"``, ``signal.SIGINT``; defaults to the image's, or SIGTERM for every process."""
    init: bool
    """Have an init that reaps orphans and forwards signals, as docker's ``--init`` does; every
    sandbox has one."""
    volumes: Mapping[str, Mount]
    """Mounts by their absolute paths in the sandbox: ``{"/data": Volume.bind("./data")}``."""
    labels: Mapping[str, str]
    """Labels, which the library only stores."""
    replace: bool
    """Kill and remove an existing sandbox with this name first."""
    detached: bool
    """Keep it running when the process that created it exits."""
    network: bool
    """Allow network access; off by default."""
    max_duration: Seconds
    """Kill it after this time."""
    idle_timeout: Seconds
    """Stop it when no command has run for this time."""
    boot_timeout: Seconds
    """Maximum time to start; default 30 s."""
    log: bool
    """Log the output of its sessions, for `Sandbox.logs`."""
    log_max_bytes: int
    """Maximum size of one log file in bytes."""
    log_files: int
    """Maximum number of log files; a new one replaces the oldest."""


if TYPE_CHECKING:
    Args = Union[Iterable[Union[Text, "os.PathLike[str]"]], ExecOptions, None]

_EXEC_KEYS = frozenset(ExecOptions.__annotations__)
_ATTACH_KEYS = frozenset(AttachOptions.__annotations__)
_SANDBOX_KEYS = frozenset(SandboxOptions.__annotations__)


def encode(what: str, value: Any) -> bytes:
    """Encode text for the sandbox, which cannot contain a NUL byte."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(value, str):
        # The system returns file names that are not UTF-8 with surrogates.
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        raise TypeError(f"{what} must be text or bytes, not {type(value).__name__}")
    at = value.find(b"\0")
    if at >= 0:
        raise InvalidArgumentError(f"{what} contains a NUL byte at position {at}")
    return value


def encode_nonempty(what: str, value: Any) -> bytes:
    """Encode text as `encode` does, and reject an empty one."""
    data = encode(what, value)
    if not data:
        raise InvalidArgumentError(f"{what} is empty")
    return data


def duration(what: str, value: Any, per_second: int, zero: bool = False) -> int:
    """Convert a duration to integer units, rounding up so that it never becomes "default"."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InvalidArgumentError(f"{what} is {value}; it must be a positive number of seconds")
    ticks = math.ceil(value * per_second)
    if ticks > _MAX:
        raise InvalidArgumentError(f"{what} is {value} seconds; that is too long")
    return ticks


def integer(what: str, value: Any, maximum: int, minimum: int = 1) -> int:
    """Check an integer and its range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an integer, not {type(value).__name__}")
    if not minimum <= value <= maximum:
        raise InvalidArgumentError(f"{what} is {value}; it must be {minimum} to {maximum}")
    return value


def cpu_count(value: Any) -> float:
    """Check a number of CPUs, possibly fractional."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"cpus must be a number, not {type(value).__name__}")
    if not 0 < value <= 4096:
        raise InvalidArgumentError(f"cpus is {value}; it must be more than 0 and at most 4096")
    return float(value)


def boolean(what: str, value: Any) -> bool:
    """Check a bool. Other truthy values are rejected."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be True or False, not {type(value).__name__}")
    return value


def string_array(values: list[bytes]) -> tuple[Any, int]:
    """Return an array of NUL-terminated strings, which keeps them alive, and its length."""
    return (ctypes.c_char_p * len(values))(*values), len(values)


def env_entries(env: Any) -> list[bytes]:
    """Return ``NAME=value`` for a mapping or for pairs, in order."""
    pairs = env.items() if isinstance(env, Mapping) else env
    result = []
    for name, value in pairs:
        key = encode_nonempty("the name of a variable", name)
        if b"=" in key:
            raise InvalidArgumentError(f"the name of the variable {name!r} contains '='")
        result.append(key + b"=" + encode(f"the value of {name!r}", value))
    return result


def merge_options(
    keys: frozenset[str], options: Optional[Mapping[str, Any]], more: Any
) -> dict[str, Any]:
    """Merge options of a dict and of keywords. None means the default."""
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
    """A validated command, which can be started repeatedly."""

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
            raise TypeError("the arguments must be a list, not one string")
        given = merge_options(_EXEC_KEYS, options, more)
        raw = _abi.msb_exec_options(cmd=encode("the command", cmd), flags=flags)
        arguments = [encode("an argument", argument) for argument in args or ()]
        raw.args, raw.args_len = string_array(arguments)
        self.options = raw
        self._process(given)
        self._limits(given)
        self.pipe = self._input(given.get("stdin"))
        self.tty = self._terminal(bool(given.get("tty")), given.get("tty_size"))

    def _process(self, given: dict[str, Any]) -> None:
        raw = self.options
        raw.env, raw.env_len = string_array(env_entries(given.get("env", ())))
        if "cwd" in given:
            raw.cwd = encode_nonempty("the working directory", given["cwd"])
        if "user" in given:
            raw.user = encode_nonempty("the user", given["user"])

    def _limits(self, given: dict[str, Any]) -> None:
        raw = self.options
        limits = list(given.get("rlimits", ()))
        for limit in limits:
            if not isinstance(limit, Rlimit):
                raise TypeError(f"a limit must be an Rlimit, not {type(limit).__name__}")
        raw.rlimits = (_abi.msb_rlimit * len(limits))(
            *[
                _abi.msb_rlimit(RESOURCES.index(limit.resource), 0, limit.soft, limit.hard)
                for limit in limits
            ]
        )
        raw.rlimits_len = len(limits)
        if "timeout" in given:
            raw.timeout_ns = duration("the timeout", given["timeout"], 10**9)
        if "drain" in given:
            # Zero is passed as the shortest drain.
            raw.drain_ns = max(1, duration("the drain time", given["drain"], 10**9, zero=True))
        if given.get("wait_for_eof"):
            raw.flags |= _abi.MSB_EXEC_WAIT_FOR_EOF
        self.max_output: Optional[int] = None
        if "max_output" in given:
            self.max_output = integer("max_output", given["max_output"], _MAX, minimum=0)
            # Zero would mean no limit; request one byte and drop it.
            raw.max_output = max(1, self.max_output)

    def _input(self, stdin: Any) -> bool:
        if stdin is None:
            return False
        if not isinstance(stdin, Stdin):
            stdin = Stdin("bytes", bytes_of(stdin))
        if stdin.kind == "bytes":
            # Empty input is a pointer with length 0; NULL would be the null device.
            self.options.stdin_data, self.options.stdin_len = stdin.data, len(stdin.data)
        elif stdin.kind not in ("null", "pipe"):
            raise InvalidArgumentError(f"unknown kind of stdin: {stdin.kind!r}")
        return cast(bool, stdin.kind == "pipe")

    def _terminal(self, tty: bool, size: Any) -> bool:
        if size is not None:
            if not tty:
                raise InvalidArgumentError("tty_size requires tty")
            rows, cols = size
            self.options.rows = integer("the number of rows", rows, 65535)
            self.options.cols = integer("the number of columns", cols, 65535)
        if tty:
            self.options.flags |= _abi.MSB_EXEC_TTY
        return tty


def attach_options(
    cmd: Any, args: Any, options: Optional[Mapping[str, Any]], more: Any
) -> tuple[Command, Optional[str]]:
    """Return a command to attach to, and the detach keys."""
    if isinstance(args, Mapping) and options is None:
        args, options = None, args
    given = merge_options(_ATTACH_KEYS, options, more)
    keys = given.pop("detach_keys", None)
    return Command(cmd, args, given, {}), keys


def attach_struct(
    command: Optional[Command], session: Optional[str], keys: Optional[str]
) -> _abi.msb_attach_options:
    """Return the struct for `msb_attach`."""
    raw = _abi.msb_attach_options()
    if command is not None:
        raw.exec = ctypes.pointer(command.options)
    if session is not None:
        raw.session = encode_nonempty("the session id", session)
    if keys is not None:
        raw.detach_keys = encode_nonempty("detach_keys", keys)
    return raw


_FLAGS = {
    "detached": _abi.MSB_SANDBOX_DETACHED,
    "replace": _abi.MSB_SANDBOX_REPLACE,
    "network": _abi.MSB_SANDBOX_NETWORK,
    "log": _abi.MSB_SANDBOX_LOG,
    "require_jail": _abi.MSB_SANDBOX_REQUIRE_JAIL,
    "init": _abi.MSB_SANDBOX_INIT,
}
_SECURITY = {
    "default": _abi.MSB_SECURITY_DEFAULT,
    "restricted": _abi.MSB_SECURITY_RESTRICTED,
}
_MAX_MIB = 16 * 1024 * 1024


def sandbox_options(name: Any, options: Optional[Mapping[str, Any]], more: Any) -> Any:
    """Return the struct for a new sandbox."""
    given = merge_options(_SANDBOX_KEYS, options, more)
    if "image" not in given:
        raise TypeError("a sandbox needs an image: a name, or the path of a root filesystem")
    image = encode_nonempty("the image", given["image"])
    raw = _abi.msb_sandbox_options(name=encode("the name", name), image=image)
    for key in ("platform", "driver", "workdir", "shell", "user", "hostname"):
        if key in given:
            setattr(raw, key, encode_nonempty(f"the {key}", given[key]))
    if "stop_signal" in given:
        signal = given["stop_signal"]
        if isinstance(signal, int) and not isinstance(signal, bool):
            signal = str(int(signal))
        raw.stop_signal = encode_nonempty("the stop_signal", signal)
    raw.env, raw.env_len = string_array(env_entries(given.get("env", ())))
    raw.labels, raw.labels_len = string_array(env_entries(given.get("labels", {})))
    raw.mounts, raw.mounts_len = _mounts(given.get("volumes", {}))
    if "entrypoint" in given:
        words = given["entrypoint"]
        words = [words] if isinstance(words, (str, bytes)) else list(words)
        entries = [encode("the entrypoint", word) for word in words]
        raw.entrypoint, raw.entrypoint_len = string_array(entries or [b""])
    if "cpus" in given:
        raw.cpus = cpu_count(given["cpus"])
    if "memory" in given:
        raw.memory_mib = integer("memory (in MiB)", given["memory"], _MAX_MIB, minimum=16)
    if "shm_size" in given:
        size = given["shm_size"]
        raw.shm_size = integer("shm_size (in bytes)", size, _MAX_MIB << 20, minimum=65_536)
    if "pids_limit" in given:
        raw.pids_limit = integer("pids_limit", given["pids_limit"], 2**32 - 1, minimum=8)
    if "disk" in given:
        raw.disk_mib = integer("disk (in MiB)", given["disk"], _MAX_MIB, minimum=16)
    if "security" in given:
        raw.security = _security(given["security"])
    for key in ("max_duration", "idle_timeout", "boot_timeout"):
        if key in given:
            setattr(raw, f"{key}_ms", duration(key, given[key], 1000))
    if "log_max_bytes" in given:
        raw.log_max_bytes = integer("log_max_bytes", given["log_max_bytes"], _MAX)
    if "log_files" in given:
        raw.log_files = integer("log_files", given["log_files"], 10_000)
    if "pull_policy" in given:
        raw.pull_policy = pull_policy(given["pull_policy"])
    raw.flags = sum(flag for key, flag in _FLAGS.items() if boolean(key, given.get(key, False)))
    return raw


def _mounts(volumes: Any) -> tuple[Any, int]:
    """Return an array of mounts, which keeps their texts alive, and its length."""
    if not isinstance(volumes, Mapping):
        raise TypeError("volumes must be a mapping of paths in the sandbox to mounts")
    mounts = []
    for target, mount in volumes.items():
        if not isinstance(mount, Mount):
            kind = type(mount).__name__
            raise TypeError(f"the volume at {target!r} must be of Volume.bind or such, not {kind}")
        raw = _abi.msb_mount(kind=mount.kind, flags=mount.flags, target=encode("a path", target))
        if mount.source is not None:
            raw.source = encode("the source of a mount", mount.source)
        raw.size = integer("size_mib", mount.size_mib, _MAX_MIB, minimum=0) << 20
        raw.uid = integer("uid", mount.uid, 2**32 - 1, minimum=0)
        raw.gid = integer("gid", mount.gid, 2**32 - 1, minimum=0)
        mounts.append(raw)
    return (_abi.msb_mount * len(mounts))(*mounts), len(mounts)


def _security(value: Any) -> int:
    if not isinstance(value, str) or value not in _SECURITY:
        raise InvalidArgumentError(f"security is {value!r}; it must be 'default' or 'restricted'")
    return _SECURITY[value]
