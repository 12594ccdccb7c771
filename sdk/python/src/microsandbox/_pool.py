"""A thread pool for the few blocking calls that have no descriptor to poll.

Its threads are daemons: a call that does not return must not keep the interpreter from exiting. The
exit waits a bounded time for cleanups, such as killing the command of a cancelled call.
"""

from __future__ import annotations

import atexit
import collections
import os
import threading
import time
from typing import Callable, Generic, Optional, TypeVar

T = TypeVar("T")

_MAX_THREADS = 32
_IDLE_SECONDS = 5.0
CLEANUP_SECONDS = 5.0
"""How long a cancelled call waits for its cleanup, and the exit for all cleanups."""


class _Pool:
    def __init__(self) -> None:
        self._change = threading.Condition(threading.Lock())
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._threads = self._idle = self._cleanups = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job, which must not raise, on a thread."""
        with self._change:
            self._jobs.append(job)
            if len(self._jobs) <= self._idle or self._threads >= _MAX_THREADS:
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
            job()  # the interpreter is exiting, or no thread can be started

    def clean_up(self, job: Callable[[], None]) -> None:
        """Run a job as `submit` does, and wait for it at exit."""
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
        """Wait a bounded time for pending cleanups."""
        deadline = time.monotonic() + CLEANUP_SECONDS
        with self._change:
            while self._cleanups and time.monotonic() < deadline:
                self._change.wait(deadline - time.monotonic())

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._jobs:
                    self._idle += 1
                    notified = self._change.wait(_IDLE_SECONDS)
                    self._idle -= 1
                    if not notified and not self._jobs:
                        self._threads -= 1
                        return
                job = self._jobs.popleft()
            job()
            del job  # an idle thread must not keep references


_pool = _Pool()


def _after_fork() -> None:
    global _pool
    _pool = _Pool()  # the threads exist only in the parent


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _pool.finish())


def submit(job: Callable[[], None]) -> None:
    """Run a job, which must not raise, on a thread."""
    _pool.submit(job)


def clean_up(job: Callable[[], None]) -> None:
    """Run a job as `submit` does, and wait for it at exit."""
    _pool.clean_up(job)


class Job(Generic[T]):
    """A call on a thread. If its caller abandons it, its result is undone."""

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
        """Run the call; on the thread."""
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        with self._lock:
            self._ended = True
            abandoned = self._abandoned
        if abandoned:
            self._run_undo()
        else:
            self._done()

    def result(self) -> T:
        """Return or raise the outcome of the call."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # breaks the cycle with the traceback
        return self._result  # type: ignore[return-value]  # set unless there is an error

    def abandon(self) -> None:
        """Undo the result, now or when there is one."""
        with self._lock:
            self._abandoned = True
            ended = self._ended
        if ended:
            clean_up(self._run_undo)

    def _run_undo(self) -> None:
        if self._undo is not None and self._error is None:
            self._undo(self._result)  # type: ignore[arg-type]  # set unless there is an error
