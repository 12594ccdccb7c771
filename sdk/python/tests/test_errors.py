"""Errors keep what they know when they are copied, pickled and raised in another process."""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
import pickle
from typing import Any

import pytest

import microsandbox as m
from microsandbox import _errors
from microsandbox._values import ExecOutput, ExitStatus

OF_SYSTEM = ("errno", "strerror", "filename", "filename2")


def classes(cls: type[m.MicrosandboxError] = m.MicrosandboxError) -> list[type[Any]]:
    # Other tests have classes of their own.
    own = (below for below in cls.__subclasses__() if below.__module__ == cls.__module__)
    return [cls, *(deeper for below in own for deeper in classes(below))]


def filled(cls: type[Any]) -> m.MicrosandboxError:
    """Return an error of the class with a value for each of its attributes."""
    if issubclass(cls, m.ExecFailedError):
        number = {m.ExecNotFoundError: 2, m.ExecPermissionError: 13}.get(cls, 7)
        return _errors.exec_failed("not_found", "is missing", "execve", number, "ENAME", "prog")
    error: m.MicrosandboxError = cls("it failed", 5, 3)
    if hasattr(cls, "output") or "output" in cls.__annotations__:
        error.output = ExecOutput(ExitStatus(-1, 9), b"out", b"err", 3, 4)  # type: ignore[attr-defined]
    error.extra = ["of the caller"]  # type: ignore[attr-defined]
    return error


def known(error: BaseException) -> dict[str, Any]:
    """Return everything that an error knows."""
    attributes = dict(vars(error))
    if "output" in attributes:
        output = attributes["output"]
        attributes["output"] = {name: getattr(output, name) for name in output.__slots__}
        attributes["output"]["status"] = repr(output.status)
    if isinstance(error, OSError):
        attributes.update({name: getattr(error, name) for name in OF_SYSTEM})
    return {"type": type(error), "text": str(error), "args": error.args, **attributes}


def fail(name: str) -> None:
    raise filled(next(cls for cls in classes() if cls.__name__ == name))


@pytest.mark.parametrize("cls", classes())
def test_errors_survive_pickle_and_copy(cls: type[Any]) -> None:
    error = filled(cls)
    assert type(error) is cls
    copies = [copy.copy(error), copy.deepcopy(error)]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copies.append(pickle.loads(pickle.dumps(error, protocol)))
    for copied in copies:
        assert known(copied) == known(error)


def test_errors_of_the_system_have_their_errno() -> None:
    numbers: dict[type, int] = {
        m.BrokenInputError: 32,
        m.NoSpaceError: 28,
        m.NoSuchProcessError: 3,
        m.PathNotFoundError: 2,
        m.PermissionDeniedError: 13,
    }
    for cls in classes():
        if issubclass(cls, OSError) and not issubclass(cls, m.ExecFailedError):
            assert (cls("x").errno, cls("x", 5).errno) == (numbers.get(cls), 5)
            assert cls("x").strerror == "x"


def test_errors_of_exec_keep_errno_and_filename() -> None:
    error = pickle.loads(pickle.dumps(filled(m.ExecNotFoundError)))
    assert (error.errno, error.strerror, error.filename) == (2, "is missing", "prog")


def test_errors_survive_another_process() -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        for cls in classes():
            error = pool.submit(fail, cls.__name__).exception(60)
            assert error is not None
            # The executor adds notes or a cause, which are not the error's own.
            error.__dict__.pop("__notes__", None)
            assert known(error) == known(filled(cls))
