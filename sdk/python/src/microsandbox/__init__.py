"""Run commands in isolated sandboxes, and get every byte, every exit and every failure once.

    from microsandbox import Sandbox

    async with await Sandbox.create("hello", image="./rootfs", driver="container") as sb:
        output = await sb.exec("uname", ["-a"])
        print(output.stdout_text, output.exit_code)

Everything here is for asyncio (also uvloop), trio and anyio; `microsandbox.sync` has the same
names for scripts and notebooks. Errors are a tree below `MicrosandboxError`.
"""

from ._async import ExecHandle, ExecSink, Sandbox, drivers
from ._errors import (
    AnswerTimeoutError,
    BootFailedError,
    BrokenInputError,
    BusyError,
    ClosedError,
    ExecFailedError,
    ExecFailureKind,
    ExecNotFoundError,
    ExecPermissionError,
    ExecTimeoutError,
    InternalError,
    InvalidArgumentError,
    InvalidConfigError,
    LimitReachedError,
    MicrosandboxError,
    NoDriverError,
    NoSuchProcessError,
    NoSuchSessionError,
    NotATerminalError,
    ProtocolError,
    SandboxAlreadyExistsError,
    SandboxCrashedError,
    SandboxNotFoundError,
    SandboxNotRunningError,
    SandboxRunningError,
    StreamLostError,
    SystemFailureError,
    UnsupportedError,
    WaitTimeoutError,
)
from ._native import version
from ._options import AttachOptions, ExecOptions, SandboxOptions
from ._values import (
    DriverInfo,
    EndReason,
    ExecEvent,
    ExecEventType,
    ExecFailure,
    ExecOutput,
    ExecView,
    ExitStatus,
    Isolation,
    ResourceUsage,
    Rlimit,
    SandboxInfo,
    SandboxStatus,
    SessionInfo,
    Stdin,
)

__version__ = "0.1.0"

__all__ = [
    "AnswerTimeoutError",
    "AttachOptions",
    "BootFailedError",
    "BrokenInputError",
    "BusyError",
    "ClosedError",
    "DriverInfo",
    "EndReason",
    "ExecEvent",
    "ExecEventType",
    "ExecFailedError",
    "ExecFailure",
    "ExecFailureKind",
    "ExecHandle",
    "ExecNotFoundError",
    "ExecOptions",
    "ExecOutput",
    "ExecPermissionError",
    "ExecSink",
    "ExecTimeoutError",
    "ExecView",
    "ExitStatus",
    "InternalError",
    "InvalidArgumentError",
    "InvalidConfigError",
    "Isolation",
    "LimitReachedError",
    "MicrosandboxError",
    "NoDriverError",
    "NoSuchProcessError",
    "NoSuchSessionError",
    "NotATerminalError",
    "ProtocolError",
    "ResourceUsage",
    "Rlimit",
    "Sandbox",
    "SandboxAlreadyExistsError",
    "SandboxCrashedError",
    "SandboxInfo",
    "SandboxNotFoundError",
    "SandboxNotRunningError",
    "SandboxOptions",
    "SandboxRunningError",
    "SandboxStatus",
    "SessionInfo",
    "Stdin",
    "StreamLostError",
    "SystemFailureError",
    "UnsupportedError",
    "WaitTimeoutError",
    "drivers",
    "version",
]
