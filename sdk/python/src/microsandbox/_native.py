"""The loaded library and calls into it."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref
from pathlib import Path
from typing import Any

from . import _abi
from ._errors import MicrosandboxError, UnsupportedError, error_of

_FOLDER = Path(__file__).resolve().parent / "_native"


def _load() -> Any:
    """Load the library of MSB_LIBRARY, else of this package, else of the system."""
    packaged = _FOLDER / "libmicrosandbox.so.0"
    name = os.environ.get("MSB_LIBRARY")
    if not name:
        name = str(packaged) if packaged.exists() else "libmicrosandbox.so.0"
    try:
        lib = ctypes.CDLL(name)
    except OSError as error:
        raise ImportError(
            f"cannot load libmicrosandbox: {error}; install the package's wheel, or set "
            "MSB_LIBRARY to the path of the library"
        ) from error
    for function, (result, arguments) in _abi.FUNCTIONS.items():
        try:
            entry = getattr(lib, function)
        except AttributeError:
            raise ImportError(f"cannot use {name}: no {function}; it is too old") from None
        entry.restype, entry.argtypes = result, arguments
    if lib.msb_abi_version() != _abi.MSB_ABI_VERSION:
        found, wanted = lib.msb_abi_version(), _abi.MSB_ABI_VERSION
        raise ImportError(f"cannot use {name}: ABI version {found}, expected {wanted}")
    return lib


# CDLL, not PyDLL: every call may block, so it must release the interpreter's lock.
lib = _load()


def call(function: Any, *arguments: Any) -> int:
    """Call a function whose last parameter is the error; return its status or raise."""
    error = _abi.msb_error()
    status: int = function(*arguments, byref(error))
    if status < 0:
        raise failure(status, error)
    return status


def failure(status: int, error: Any) -> MicrosandboxError:
    """Return the exception for a failed call."""
    text = error.message.decode("utf-8", "replace")
    if status == _abi.MSB_E_UNSUPPORTED and _forked:
        text = f"{text}; start processes with the spawn or forkserver method, or import after fork"
        return UnsupportedError(text)
    return error_of(status, text, error.os_error, error.origin)


_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)


def version() -> str:
    """Return the version of the library, such as ``"0.1.0"``."""
    text: bytes = lib.msb_version_string()
    return text.decode()
