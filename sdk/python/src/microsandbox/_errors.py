"""The exceptions, a tree below `MicrosandboxError`.

Where Python has an exception for the same failure, ours inherits from it: `FileNotFoundError`,
`PermissionError`, `TimeoutError`, `BrokenPipeError`, `ProcessLookupError`, `ValueError`.
"""

from __future__ import annotations

import errno as errnos
from typing import Any, Optional

from . import _abi
from ._values import ExecFailureKind, ExecOutput

_ORIGINS = {
    _abi.MSB_ORIGIN_CALLER: "caller",
    _abi.MSB_ORIGIN_HOST: "host",
    _abi.MSB_ORIGIN_DRIVER: "driver",
    _abi.MSB_ORIGIN_TRANSPORT: "transport",
    _abi.MSB_ORIGIN_AGENT: "agent",
}


# What `OSError` knows beside its arguments.
_OF_SYSTEM = ("errno", "strerror", "filename", "filename2")


class MicrosandboxError(Exception):
    """The base of all errors. The exit of a command is never an error."""

    code: str = "internal"
    """The error's name, the same in every language."""
    message: str
    """The failure, in one line."""
    os_error: Optional[int]
    """The ``errno`` of the failure, on the host or in the sandbox; None if there was none."""
    origin: Optional[str]
    """Who detected it: ``"caller"``, ``"host"``, ``"driver"``, ``"transport"`` or ``"agent"``."""
    path: str = ""
    """The file in the sandbox on which an operation failed; empty for other errors."""

    _errno: Optional[int] = None
    """The ``errno`` that every error of an `OSError` class has, unless the failure had another."""

    def __init__(self, message: str, os_error: int = 0, origin: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.os_error = os_error or None
        self.origin = _ORIGINS.get(origin)
        if isinstance(self, OSError):
            _describe(self, os_error or self._errno, message)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling calls the constructor with `args`, which are not its parameters.
        state = dict(self.__dict__)
        if isinstance(self, OSError):
            # These are not in its dictionary.
            state.update({name: getattr(self, name) for name in _OF_SYSTEM})
        return _unpickle, (type(self), self.message), state


def _describe(error: OSError, number: Optional[int], text: str) -> None:
    error.errno = number
    error.strerror = text


def _unpickle(cls: type[MicrosandboxError], message: str) -> MicrosandboxError:
    error = cls.__new__(cls, message)
    MicrosandboxError.__init__(error, message)
    return error


class InvalidArgumentError(MicrosandboxError, ValueError):
    """An argument is invalid."""

    code = "invalid_argument"


class InvalidConfigError(MicrosandboxError, ValueError):
    """The configuration of a sandbox or an image is invalid."""

    code = "invalid_config"


class SandboxNotFoundError(MicrosandboxError, LookupError):
    """No sandbox has this name."""

    code = "sandbox_not_found"


class SandboxAlreadyExistsError(MicrosandboxError):
    """A sandbox with this name already exists."""

    code = "sandbox_already_exists"


class SandboxNotRunningError(MicrosandboxError):
    """The sandbox is not running."""

    code = "sandbox_not_running"


class SandboxRunningError(MicrosandboxError):
    """The sandbox is running, and the call requires a stopped one."""

    code = "sandbox_running"


class SandboxCrashedError(MicrosandboxError):
    """The sandbox crashed."""

    code = "sandbox_crashed"


class NoDriverError(MicrosandboxError):
    """No driver is usable on this host; the message names the remedy."""

    code = "no_driver"


class BootFailedError(MicrosandboxError):
    """The sandbox failed to start."""

    code = "boot_failed"


class ImageNotFoundError(MicrosandboxError, LookupError):
    """The image is neither in the store nor in the registry."""

    code = "image_not_found"


class ImageUnauthorizedError(MicrosandboxError):
    """The registry denied access; some also do for an image that does not exist."""

    code = "image_unauthorized"


class RegistryUnreachableError(MicrosandboxError, ConnectionError):
    """The registry is unreachable, untrusted or failing."""

    code = "registry_unreachable"


class ImageInvalidError(MicrosandboxError):
    """The image is corrupt, malicious, or for another architecture."""

    code = "image_invalid"


class ImageInUseError(MicrosandboxError):
    """A sandbox uses the image."""

    code = "image_in_use"


class ImageFailedError(MicrosandboxError):
    """The process that unpacks images died."""

    code = "image_failed"


class NoCommandError(MicrosandboxError):
    """The image has no default command."""

    code = "no_command"


class VolumeNotFoundError(MicrosandboxError):
    """No volume has this name."""

    code = "volume_not_found"


class VolumeAlreadyExistsError(MicrosandboxError):
    """A volume with this name exists."""

    code = "volume_already_exists"


class VolumeInUseError(MicrosandboxError):
    """A sandbox uses the volume."""

    code = "volume_in_use"


class PathNotFoundError(MicrosandboxError, FileNotFoundError):
    """A path does not exist."""

    code = "path_not_found"
    _errno = errnos.ENOENT


class PermissionDeniedError(MicrosandboxError, PermissionError):
    """The user may not do this with a file."""

    code = "permission_denied"
    _errno = errnos.EACCES


class FilesystemError(MicrosandboxError, OSError):
    """A file system reports an error."""

    code = "filesystem"


class StreamLostError(MicrosandboxError, ConnectionError):
    """The sandbox or the connection to it was lost before the command's exit was known."""

    code = "stream_lost"
    output: Optional[ExecOutput] = None
    """Of a collecting call: the output so far. Its status is not that of the command."""


class BrokenInputError(MicrosandboxError, BrokenPipeError):
    """The command no longer reads its input."""

    code = "broken_pipe"
    _errno = errnos.EPIPE


class BusyError(MicrosandboxError):
    """Another call of the same kind is pending on this handle."""

    code = "busy"


class ClosedError(MicrosandboxError):
    """The handle was closed."""

    code = "closed"


class NoSuchProcessError(MicrosandboxError, ProcessLookupError):
    """The process has ended."""

    code = "no_such_process"
    _errno = errnos.ESRCH


class NoSuchSessionError(MicrosandboxError, LookupError):
    """The sandbox has no such session, or it ended too long ago."""

    code = "no_such_session"


class NotATerminalError(MicrosandboxError):
    """The session has no terminal, or this program has none."""

    code = "not_a_terminal"


class LimitReachedError(MicrosandboxError):
    """A limit is reached."""

    code = "limit_reached"


class AnswerTimeoutError(MicrosandboxError, TimeoutError):
    """A reply timed out."""

    code = "timed_out"


class WaitTimeoutError(MicrosandboxError, TimeoutError):
    """The timeout of a call of `microsandbox.sync` expired. Nothing is lost."""

    code = "timed_out"


class UnsupportedError(MicrosandboxError):
    """Not supported here, or not in a forked process."""

    code = "unsupported"


class ProtocolError(MicrosandboxError):
    """The peer violated the protocol."""

    code = "protocol"


class SystemFailureError(MicrosandboxError, OSError):
    """A system call failed."""

    code = "io"


class NoSpaceError(MicrosandboxError, OSError):
    """The disk has no space left for the image."""

    code = "no_space"
    _errno = errnos.ENOSPC


class InternalError(MicrosandboxError):
    """A bug in the library. Please report it."""

    code = "internal"


class ExecFailedError(MicrosandboxError):
    """The command failed to start.

    ENOENT raises `ExecNotFoundError`, also a `FileNotFoundError`; EACCES and EPERM raise
    `ExecPermissionError`, also a `PermissionError`.
    """

    code = "exec_failed"
    kind: ExecFailureKind
    """The kind of failure."""
    stage: str
    """The step that failed, such as ``"execve"`` or ``"chdir"``."""
    errno: Optional[int]
    """The errno in the sandbox; None if no system call failed."""
    errno_name: str
    """Its name, such as ``"ENOENT"``; empty if there is none."""
    path: str
    """The program, directory or name that the step used."""


class ExecNotFoundError(ExecFailedError, FileNotFoundError):
    """The command, its interpreter or its working directory does not exist."""


class ExecPermissionError(ExecFailedError, PermissionError):
    """Permission to start the command was denied."""


class ExecTimeoutError(MicrosandboxError, TimeoutError):
    """The command's timeout expired, and it was killed with every process that it started."""

    code = "exec_timeout"
    output: ExecOutput
    """The output until then, and how the command ended."""


# The class of each kind; of two with one kind, the one that is defined first.
_BY_KIND: dict[str, type[MicrosandboxError]] = {
    cls.code: cls for cls in reversed(MicrosandboxError.__subclasses__())
}


def error_of(status: int, message: str, os_error: int, origin: int) -> MicrosandboxError:
    """Return the exception for a status; `MicrosandboxError` for an unknown one."""
    if status in (_abi.MSB_E_HANDLE, _abi.MSB_E_CLOSED):
        message = "the handle is closed"
    if status == _abi.MSB_E_EXEC_FAILED:
        return exec_failed("other", message, "", os_error, "", "")
    cls = _BY_KIND.get(_abi.KIND_OF_STATUS.get(status, ""), MicrosandboxError)
    return cls(message, os_error, origin)


def failure_kind(name: str) -> ExecFailureKind:
    """Return the kind with this name; `OTHER` for an unknown one."""
    try:
        return ExecFailureKind(name)
    except ValueError:
        return ExecFailureKind.OTHER


def exec_failed(
    kind: str, message: str, stage: str, errno: int, errno_name: str, path: str
) -> ExecFailedError:
    """Return the exception for a command that failed to start."""
    classes: dict[int, type[ExecFailedError]] = {
        errnos.ENOENT: ExecNotFoundError,
        errnos.EPERM: ExecPermissionError,
        errnos.EACCES: ExecPermissionError,
    }
    error = classes.get(errno, ExecFailedError)(message, errno, _abi.MSB_ORIGIN_AGENT)
    error.kind, error.stage = failure_kind(kind), stage
    error.errno, error.errno_name, error.path = errno or None, errno_name, path
    if isinstance(error, OSError):
        error.filename = path
    return error
