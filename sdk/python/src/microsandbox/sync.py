"""The API of `microsandbox` for programs without an event loop: scripts, notebooks, threads.

    from microsandbox.sync import Sandbox

    with Sandbox.create("hello", image="./rootfs", driver="container") as sb:
        print(sb.exec("uname", ["-a"]).stdout_text)

A call blocks only its thread, and Ctrl-C ends it; threads may share objects. Calls that wait for a
command take a ``timeout`` in seconds, and raise `WaitTimeoutError` when it expires. Nothing is lost
then.
"""

from ._sync import ExecHandle, ExecSink, Image, LogStream, Sandbox, doctor
from ._sync_fs import FsReadStream, FsWriteSink, SandboxFsOps

__all__ = [
    "ExecHandle",
    "ExecSink",
    "FsReadStream",
    "FsWriteSink",
    "Image",
    "LogStream",
    "Sandbox",
    "SandboxFsOps",
    "doctor",
]
