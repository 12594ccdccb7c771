"""What can go wrong, as a tree below `MicrosandboxError`.

Where Python has an exception for the same thing, ours is that as well: `FileNotFoundError`,
`PermissionError`, `TimeoutError`, `BrokenPipeError`, `ProcessLookupError`, `ValueError`.
"""

from __future__ import annotations

import enum
import errno as number
from typing import TYPE_CHECKING, Any, Optional

from . import _abi

if TYPE_CHECKING:
    from ._values import ExecOutput

_ORIGINS = {
    _abi.MSB_ORIGIN_CALLER: "caller",
    _abi.MSB_ORIGIN_HOST: "host",
    _abi.MSB_ORIGIN_DRIVER: "driver",
    _abi.MSB_ORIGIN_TRANSPORT: "transport",
    _abi.MSB_ORIGIN_AGENT: "agent",
}


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


class MicrosandboxError(Exception):
    """Anything that went wrong. What a command itself returned is never an error."""

    code: str = "internal"
    """The error's name, the same in every language."""
    message: str
    """What happened, in one line."""
    os_error: Optional[int]
    """The ``errno`` where it went wrong, on the host or in the sandbox; None if there was none."""
    origin: Optional[str]
    """Who noticed: ``"caller"``, ``"host"``, ``"driver"``, ``"transport"`` or ``"agent"``."""

    def __init__(self, message: str, os_error: int = 0, origin: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.os_error = os_error or None
        self.origin = _ORIGINS.get(origin)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions travel between processes, and their constructors take other arguments.
        return _restored, (type(self), self.message), self.__dict__


def _restored(cls: type[MicrosandboxError], message: str) -> MicrosandboxError:
    error = cls.__new__(cls, message)
    MicrosandboxError.__init__(error, message)
    return error


class InvalidArgumentError(MicrosandboxError, ValueError):
    """An argument makes no sense."""

    code = "invalid_argument"


class InvalidConfigError(MicrosandboxError, ValueError):
    """The sandbox cannot be what it was asked to be."""

    code = "invalid_config"


class SandboxNotFoundError(MicrosandboxError, LookupError):
    """No sandbox has this name."""

    code = "sandbox_not_found"


class SandboxAlreadyExistsError(MicrosandboxError):
    """A sandbox has this name already."""

    code = "sandbox_already_exists"


class SandboxNotRunningError(MicrosandboxError):
    """The sandbox is not running."""

    code = "sandbox_not_running"


class SandboxRunningError(MicrosandboxError):
    """The sandbox is running, and the call needs one that is not."""

    code = "sandbox_running"


class SandboxCrashedError(MicrosandboxError):
    """The sandbox ended by itself."""

    code = "sandbox_crashed"


class NoDriverError(MicrosandboxError):
    """No driver is usable here; the message says what would help."""

    code = "no_driver"


class BootFailedError(MicrosandboxError):
    """The sandbox did not come up."""

    code = "boot_failed"


class ImageNotFoundError(MicrosandboxError, LookupError):
    """There is no such image, neither in the store nor in the registry."""

    code = "image_not_found"


class ImageUnauthorizedError(MicrosandboxError):
    """The registry wants other credentials, or there is no such image and it does not say so."""

    code = "image_unauthorized"


class RegistryUnreachableError(MicrosandboxError, ConnectionError):
    """The registry cannot be reached, is not trusted, or is in trouble."""

    code = "registry_unreachable"


class ImageInvalidError(MicrosandboxError):
    """The image is broken, hostile, or not for this machine."""

    code = "image_invalid"


class ImageInUseError(MicrosandboxError):
    """A sandbox uses the image."""

    code = "image_in_use"


class ImageFailedError(MicrosandboxError):
    """The process that works on images died."""

    code = "image_failed"


class NoCommandError(MicrosandboxError):
    """The image names no command of its own."""

    code = "no_command"


class StreamLostError(MicrosandboxError, ConnectionError):
    """The sandbox, or the connection to it, went before the command's end was known."""

    code = "stream_lost"
    output: Optional[ExecOutput] = None
    """Of a collected call, what came until then. Its status is not that of the command."""


class BrokenInputError(MicrosandboxError, BrokenPipeError):
    """The command no longer reads its input."""

    code = "broken_pipe"


class BusyError(MicrosandboxError):
    """Somebody else uses this handle for the same thing now."""

    code = "busy"


class ClosedError(MicrosandboxError):
    """The handle was closed."""

    code = "closed"


class NoSuchProcessError(MicrosandboxError, ProcessLookupError):
    """The process is gone."""

    code = "no_such_process"


class NoSuchSessionError(MicrosandboxError, LookupError):
    """No such session is known in this sandbox, or it ended too long ago."""

    code = "no_such_session"


class NotATerminalError(MicrosandboxError):
    """The session has no terminal, or this program has none."""

    code = "not_a_terminal"


class LimitReachedError(MicrosandboxError):
    """A bound is reached."""

    code = "limit_reached"


class AnswerTimeoutError(MicrosandboxError, TimeoutError):
    """An answer did not come in time."""

    code = "timed_out"


class WaitTimeoutError(MicrosandboxError, TimeoutError):
    """The time given to a waiting call of `microsandbox.sync` is over. Nothing is lost."""

    code = "timed_out"


class UnsupportedError(MicrosandboxError):
    """This is not possible here, or not in a process that was forked."""

    code = "unsupported"


class ProtocolError(MicrosandboxError):
    """The other side broke the protocol."""

    code = "protocol"


class SystemFailureError(MicrosandboxError, OSError):
    """The system refused something."""

    code = "io"

    def __init__(self, message: str, os_error: int = 0, origin: int = 0) -> None:
        super().__init__(message, os_error, origin)
        self.errno = os_error or None
        self.strerror = message


class NoSpaceError(MicrosandboxError, OSError):
    """The disk is too full for the image."""

    code = "no_space"

    def __init__(self, message: str, os_error: int = 0, origin: int = 0) -> None:
        super().__init__(message, os_error, origin)
        self.errno = number.ENOSPC
        self.strerror = message


class InternalError(MicrosandboxError):
    """A broken promise of the library to itself. Please report it."""

    code = "internal"


class ExecFailedError(MicrosandboxError):
    """The command never started.

    `ExecNotFoundError`, also a `FileNotFoundError`, is raised where the system said ENOENT, and
    `ExecPermissionError`, also a `PermissionError`, where it said EACCES or EPERM.
    """

    code = "exec_failed"
    kind: ExecFailureKind
    """What kind of failure it was."""
    stage: str
    """The step that failed: ``"execve"``, ``"chdir"``, ..."""
    errno: Optional[int]
    """The sandbox's errno; None when no system call failed."""
    errno_name: str
    """Its name, such as ``"ENOENT"``; empty when there is none."""
    path: str
    """The program, directory or name that the step was about."""


class ExecNotFoundError(ExecFailedError, FileNotFoundError):
    """The command, or something that it needs to start, does not exist."""


class ExecPermissionError(ExecFailedError, PermissionError):
    """The command may not be started."""


class ExecTimeoutError(MicrosandboxError, TimeoutError):
    """The command's time ran out, and it was killed with all that it had started."""

    code = "exec_timeout"
    output: ExecOutput
    """What the command had put out until then, and how it ended."""


_BY_STATUS: dict[int, type[MicrosandboxError]] = {
    _abi.MSB_E_INVALID: InvalidArgumentError,
    _abi.MSB_E_HANDLE: ClosedError,
    _abi.MSB_E_CLOSED: ClosedError,
    _abi.MSB_E_BUSY: BusyError,
    _abi.MSB_E_UNSUPPORTED: UnsupportedError,
    _abi.MSB_E_LIMIT: LimitReachedError,
    _abi.MSB_E_IO: SystemFailureError,
    _abi.MSB_E_INTERNAL: InternalError,
    _abi.MSB_E_PROTOCOL: ProtocolError,
    _abi.MSB_E_TIMED_OUT: AnswerTimeoutError,
    _abi.MSB_E_CONFIG: InvalidConfigError,
    _abi.MSB_E_NOT_FOUND: SandboxNotFoundError,
    _abi.MSB_E_EXISTS: SandboxAlreadyExistsError,
    _abi.MSB_E_NOT_RUNNING: SandboxNotRunningError,
    _abi.MSB_E_RUNNING: SandboxRunningError,
    _abi.MSB_E_NO_DRIVER: NoDriverError,
    _abi.MSB_E_BOOT: BootFailedError,
    _abi.MSB_E_CRASHED: SandboxCrashedError,
    _abi.MSB_E_LOST: StreamLostError,
    _abi.MSB_E_PIPE: BrokenInputError,
    _abi.MSB_E_NO_PROCESS: NoSuchProcessError,
    _abi.MSB_E_NO_SESSION: NoSuchSessionError,
    _abi.MSB_E_NOT_A_TERMINAL: NotATerminalError,
    _abi.MSB_E_NO_IMAGE: ImageNotFoundError,
    _abi.MSB_E_IMAGE_DENIED: ImageUnauthorizedError,
    _abi.MSB_E_REGISTRY: RegistryUnreachableError,
    _abi.MSB_E_BAD_IMAGE: ImageInvalidError,
    _abi.MSB_E_IMAGE_IN_USE: ImageInUseError,
    _abi.MSB_E_IMAGE_FAILED: ImageFailedError,
    _abi.MSB_E_NO_SPACE: NoSpaceError,
    _abi.MSB_E_NO_COMMAND: NoCommandError,
}


def error_of(status: int, message: str, os_error: int, origin: int) -> MicrosandboxError:
    """The exception for a status; one that is not known yet is a plain `MicrosandboxError`."""
    if status in (_abi.MSB_E_HANDLE, _abi.MSB_E_CLOSED):
        message = "the handle is closed"
    if status == _abi.MSB_E_EXEC_FAILED:
        return exec_failed("other", message, "", os_error, "", "")
    return _BY_STATUS.get(status, MicrosandboxError)(message, os_error, origin)


def failure_kind(name: str) -> ExecFailureKind:
    """The kind with this name; one that is not known yet is `OTHER`."""
    try:
        return ExecFailureKind(name)
    except ValueError:
        return ExecFailureKind.OTHER


def exec_failed(
    kind: str, message: str, stage: str, errno: int, errno_name: str, path: str
) -> ExecFailedError:
    """The exception for a command that never started."""
    classes: dict[int, type[ExecFailedError]] = {
        number.ENOENT: ExecNotFoundError,
        number.EPERM: ExecPermissionError,
        number.EACCES: ExecPermissionError,
    }
    error = classes.get(errno, ExecFailedError)(message, errno, _abi.MSB_ORIGIN_AGENT)
    error.kind, error.stage = failure_kind(kind), stage
    error.errno, error.errno_name, error.path = errno or None, errno_name, path
    for name, value in (("strerror", message), ("filename", path)):
        if isinstance(error, OSError):
            setattr(error, name, value)
    return error
