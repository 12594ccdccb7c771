"""Waiting by blocking the calling thread, with the names of `_async_io`."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Coroutine
from typing import Any, Callable, Optional, TypeVar

from ._backend import Backend
from ._errors import WaitTimeoutError
from ._handle import Handle
from ._pool import CLEANUP_SECONDS, Job, clean_up, submit

T = TypeVar("T")


class _Pipe:
    """A pipe of one thread that other threads use to end its poll. Closed with the thread."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.pid = os.getpid()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.reader)
        close(self.writer)


class _Blocking:
    """Blocks in Python code, where Ctrl-C ends a wait; a wait in C would ignore it."""

    def __init__(self, timeout: Optional[float] = None) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def _remaining(self) -> Optional[float]:
        if self._deadline is None:
            return None
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise WaitTimeoutError("the timeout of the call expired")
        return remaining

    async def readable(self, handle: Handle) -> None:
        token, pipe, remaining = object(), _pipe(), self._remaining()
        fd = handle.watch(token, lambda: _wake(pipe.writer))
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.register(pipe.reader, select.POLLIN)
            for ready, _ in poll.poll(None if remaining is None else remaining * 1000):
                if ready == pipe.reader:
                    os.read(pipe.reader, 4096)
        finally:
            handle.unwatch(token)

    async def checkpoint(self) -> None:
        self._remaining()

    async def run(self, function: Callable[[], T], undo: Optional[Callable[[T], None]] = None) -> T:
        event = threading.Event()
        job = Job(function, event.set, undo)
        submit(job.run)
        try:
            if not event.wait(self._remaining()):
                self._remaining()
        except BaseException:
            job.abandon()
            raise
        return job.result()

    async def run_shielded(self, function: Callable[[], None]) -> None:
        event = threading.Event()
        clean_up(Job(function, event.set).run)
        event.wait(CLEANUP_SECONDS)


def _wake(writer: int) -> None:
    try:
        os.write(writer, b"x")
    except BlockingIOError:
        pass  # the pipe is full, so the poll ends anyway


_local = threading.local()


def _pipe() -> _Pipe:
    pipe: Optional[_Pipe] = getattr(_local, "pipe", None)
    # A forked child must not share its parent's pipe.
    if pipe is None or pipe.pid != os.getpid():
        pipe = _local.pipe = _Pipe()
    return pipe


def run(work: Callable[[Backend], Coroutine[Any, Any, T]], timeout: Optional[float] = None) -> T:
    """Do the work on this thread. Raises `WaitTimeoutError` after ``timeout`` seconds.

    No wait of `_Blocking` suspends, so one step takes the coroutine to its end.
    """
    coroutine = work(_Blocking(timeout))
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("a blocking wait suspended")


wait = run


def offload(function: Callable[[], T]) -> T:
    """Run a blocking call on a thread, so that Ctrl-C ends the wait for it."""
    return run(lambda io: io.run(function))
