"""The loaded library, and how its functions are called."""

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
    """The library that MSB_LIBRARY names, else the one of this package, else the system's."""
    packaged = _FOLDER / "libmicrosandbox.so.0"
    name = os.environ.get("MSB_LIBRARY")
    if not name:
        name = str(packaged) if packaged.exists() else "libmicrosandbox.so.0"
    try:
        lib = ctypes.CDLL(name)
    except OSError as error:
        raise ImportError(
            f"libmicrosandbox cannot be loaded: {error}; install the package's wheel, or name the "
            "library in MSB_LIBRARY"
        ) from error
    for function, (result, arguments) in _abi.FUNCTIONS.items():
        try:
            entry = getattr(lib, function)
        except AttributeError:
            raise ImportError(f"{name} has no {function}: it is older than this package") from None
        entry.restype, entry.argtypes = result, arguments
    if lib.msb_abi_version() != _abi.MSB_ABI_VERSION:
        found, wanted = lib.msb_abi_version(), _abi.MSB_ABI_VERSION
        raise ImportError(f"{name} has version {found} of the ABI, and not {wanted}")
    return lib


# Loaded with CDLL and never PyDLL: every call lets go of the interpreter's lock, as each may wait.
lib = _load()


def call(function: Any, *arguments: Any) -> int:
    """Calls a function whose last parameter is the error: its status, unless it failed."""
    error = _abi.msb_error()
    status: int = function(*arguments, byref(error))
    if status < 0:
        raise failure(status, error)
    return status


def failure(status: int, error: Any) -> MicrosandboxError:
    """The exception for what a call reported."""
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
    """The version of the library, such as ``"0.1.0"``."""
    text: bytes = lib.msb_version_string()
    return text.decode()
