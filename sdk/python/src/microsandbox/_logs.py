"""The log of a sandbox: the output of its sessions."""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref
from datetime import datetime
from typing import Any, Optional, Union

from . import _abi
from ._backend import Backend
from ._errors import BusyError, ClosedError, InvalidArgumentError
from ._exec import exec_failure, exit_status
from ._handle import Handle
from ._native import call, lib
from ._options import encode_nonempty
from ._sandbox import SandboxCore
from ._values import LogKind, LogRecord

_KINDS = {
    _abi.MSB_LOG_STDOUT: LogKind.STDOUT,
    _abi.MSB_LOG_STDERR: LogKind.STDERR,
    _abi.MSB_LOG_STARTED: LogKind.STARTED,
    _abi.MSB_LOG_EXITED: LogKind.EXITED,
    _abi.MSB_LOG_FAILED: LogKind.FAILED,
    _abi.MSB_LOG_LOST: LogKind.LOST,
}

_TURNS = 64


def _nanoseconds(since: Union[float, datetime, None]) -> int:
    if since is None:
        return 0
    seconds = since.timestamp() if isinstance(since, datetime) else since
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"since must be a time, not {type(since).__name__}")
    if not 0 <= seconds < 2**33:
        raise InvalidArgumentError(f"since is {since}; it must be a time in seconds since 1970")
    return int(seconds * 10**9)


def _record(raw: Any) -> LogRecord:
    """Copy a record."""
    kind = _KINDS.get(raw.kind, LogKind.OTHER)
    argv = [raw.argv[at].decode("utf-8", "replace") for at in range(raw.argv_len)]
    return LogRecord(
        kind=kind,
        session=(raw.session or b"").decode(),
        time_ns=raw.time_ns,
        data=ctypes.string_at(raw.data, raw.len) if raw.len else b"",
        pid=raw.value if kind is LogKind.STARTED else None,
        command=argv if kind in (LogKind.STARTED, LogKind.FAILED) else None,
        tty=bool(raw.flags & _abi.MSB_SESSION_TTY),
        status=exit_status(raw.exit.contents, with_usage=False) if raw.exit else None,
        failure=exec_failure(raw.failure.contents) if raw.failure else None,
    )


class LogCore:
    """A reader of a log, which the first `next` opens."""

    def __init__(
        self,
        sandbox: SandboxCore,
        session: Optional[str],
        since: Union[float, datetime, None],
        follow: bool,
    ) -> None:
        options = _abi.msb_log_options(since_ns=_nanoseconds(since))
        options.flags = _abi.MSB_LOG_FOLLOW if follow else 0
        if session is not None:
            options.session = encode_nonempty("the session id", session)
        self.warning: Optional[str] = None
        self._options, self._sandbox = options, sandbox
        self._handle: Optional[Handle] = None
        self._closed = False
        self._turns = 0
        self._reader = threading.Lock()

    def _open(self) -> Handle:
        out = ctypes.c_void_p()
        call(lib.msb_log_open, self._sandbox.handle.use(), byref(self._options), byref(out))
        return Handle(out.value or 0)

    async def next(self, io: Backend) -> Optional[LogRecord]:
        """Return the next record; None at the end."""
        if not self._reader.acquire(blocking=False):
            raise BusyError("another call receives from this log")
        try:
            if self._closed:
                raise ClosedError("the handle is closed")
            if self._handle is None:
                self._handle = await io.run(self._open, Handle.close)
            while True:
                self._turns += 1
                if self._turns % _TURNS == 0:
                    await io.checkpoint()  # a long log must not starve the loop's other tasks
                raw = _abi.msb_log_record()
                status = call(lib.msb_log_recv, self._handle.use(), 0, byref(raw))
                if status == _abi.MSB_AGAIN:
                    await io.readable(self._handle)
                    continue
                if status == _abi.MSB_EOF:
                    return None
                try:
                    if raw.kind != _abi.MSB_LOG_INCOMPLETE:
                        return _record(raw)
                    self.warning = ctypes.string_at(raw.data, raw.len).decode("utf-8", "replace")
                finally:
                    lib.msb_log_record_release(byref(raw))
        finally:
            self._reader.release()

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        if self._handle is not None:
            self._handle.close()
