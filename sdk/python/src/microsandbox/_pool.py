"""Threads for the few calls that have no descriptor to wait for.

They are daemons: a call that does not return must not keep the interpreter from exiting. What has
to happen before that, killing what nobody can reach any more, is waited for at exit, for a while.
"""

from __future__ import annotations

import atexit
import collections
import os
import threading
import time
from typing import Callable, Generic, Optional, TypeVar

T = TypeVar("T")

_MOST = 32
_IDLE_SECONDS = 5.0
CLEANUP_SECONDS = 5.0
"""How long a cancelled call waits for its command to be killed, and an exit for all of them."""


class _Pool:
    def __init__(self) -> None:
        self._change = threading.Condition(threading.Lock())
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._threads = self._idle = self._cleanups = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Runs a job, which does not raise, on a thread."""
        with self._change:
            self._jobs.append(job)
            if len(self._jobs) <= self._idle or self._threads >= _MOST:
                self._change.notify()
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name="microsandbox", daemon=True).start()
        except RuntimeError:
            with self._change:
                self._threads -= 1
                if self._threads or not self._jobs:
                    return
                job = self._jobs.popleft()
            job()  # the interpreter is ending, or no thread can be had

    def clean_up(self, job: Callable[[], None]) -> None:
        """As `submit`, for what should be done before the program ends."""
        with self._change:
            self._cleanups += 1

        def counted() -> None:
            try:
                job()
            finally:
                with self._change:
                    self._cleanups -= 1
                    self._change.notify_all()

        self.submit(counted)

    def finish(self) -> None:
        """Waits for what has to be done before the program ends."""
        deadline = time.monotonic() + CLEANUP_SECONDS
        with self._change:
            while self._cleanups and time.monotonic() < deadline:
                self._change.wait(deadline - time.monotonic())

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._jobs:
                    self._idle += 1
                    told = self._change.wait(_IDLE_SECONDS)
                    self._idle -= 1
                    if not told and not self._jobs:
                        self._threads -= 1
                        return
                job = self._jobs.popleft()
            job()
            del job  # what it refers to is not kept while this thread is idle


_pool = _Pool()


def _after_fork() -> None:
    global _pool
    _pool = _Pool()  # its threads are the parent's


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _pool.finish())


def submit(job: Callable[[], None]) -> None:
    """Runs a job, which does not raise, on a thread."""
    _pool.submit(job)


def clean_up(job: Callable[[], None]) -> None:
    """As `submit`, for what should be done before the program ends."""
    _pool.clean_up(job)


class Job(Generic[T]):
    """A call on a thread whose caller may give it up; then what it gave is undone."""

    def __init__(
        self,
        function: Callable[[], T],
        done: Callable[[], None],
        undo: Optional[Callable[[T], None]] = None,
    ) -> None:
        self._function, self._done, self._undo = function, done, undo
        self._lock = threading.Lock()
        self._ended = self._abandoned = False
        self._result: Optional[T] = None
        self._error: Optional[BaseException] = None

    def run(self) -> None:
        """On the thread."""
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        with self._lock:
            self._ended = True
            abandoned = self._abandoned
        if abandoned:
            self._undone()
        else:
            self._done()

    def result(self) -> T:
        """What the call gave or raised."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # a cycle with the traceback
        return self._result  # type: ignore[return-value]  # there is one without an error

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._abandoned = True
            ended = self._ended
        if ended:
            clean_up(self._undone)

    def _undone(self) -> None:
        if self._undo is not None and self._error is None:
            self._undo(self._result)  # type: ignore[arg-type]  # there is one without an error
