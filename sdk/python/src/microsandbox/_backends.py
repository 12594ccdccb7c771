"""How a call waits: in asyncio's loop, in trio's, or by blocking this thread.

The logic of the package is written once, as coroutines that wait through one of these. What the
blocking one waits for never suspends, so `run_blocking` takes a coroutine to its end in one step.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any, Callable, Optional, Protocol, TypeVar

from ._errors import BusyError, WaitTimeoutError
from ._handle import Handle
from ._pool import CLEANUP_SECONDS, Job, clean_up, submit

T = TypeVar("T")


class Backend(Protocol):
    """A way to wait."""

    async def readable(self, handle: Handle) -> None:
        """Until a call on the handle may say something else than "not yet", or it is closed.

        A wait that ends without a reason is fine."""

    async def checkpoint(self) -> None:
        """Lets others have a turn."""

    async def run(self, function: Callable[[], T], undo: Optional[Callable[[T], None]] = None) -> T:
        """A call that blocks, on a thread. When it is given up, its result is undone."""
        ...

    async def settle(self, function: Callable[[], None]) -> None:
        """Cleans up although this task is being cancelled, and waits for that for a while."""


class _Asyncio:
    async def readable(self, handle: Handle) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiting: Optional[_Waiting] = handle.loops.get(loop)
        if waiting is None:
            waiting = handle.loops[loop] = _Waiting(loop, handle)
        waiting.futures.add(future)
        try:
            await future
        finally:
            waiting.leave(future)

    async def checkpoint(self) -> None:
        await asyncio.sleep(0)

    async def run(self, function: Callable[[], T], undo: Optional[Callable[[T], None]] = None) -> T:
        future = asyncio.get_running_loop().create_future()
        job = Job(function, _setter(future), undo)
        submit(job.run)
        try:
            await future
        except BaseException:
            job.abandon()
            raise
        return job.result()

    async def settle(self, function: Callable[[], None]) -> None:
        future = asyncio.get_running_loop().create_future()
        clean_up(Job(function, _setter(future)).run)
        await asyncio.wait([future], timeout=CLEANUP_SECONDS)


class _Waiting:
    """Those who wait for one handle in one loop of asyncio, which calls one function per file."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Handle) -> None:
        self.futures: set[asyncio.Future[None]] = set()
        self._loop, self._handle = loop, handle
        self._fd = handle.watch(self, self._wake)
        try:
            loop.add_reader(self._fd, self.fire)
        except BaseException:
            handle.unwatch(self)
            raise

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self.fire)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits in it

    def fire(self) -> None:
        """Ends the waits of all of them."""
        for future in self.futures:
            if not future.done():
                future.set_result(None)

    def leave(self, future: asyncio.Future[None]) -> None:
        self.futures.discard(future)
        if not self.futures:
            self._handle.loops.pop(self._loop, None)
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            self._handle.unwatch(self)


def _setter(future: asyncio.Future[None]) -> Callable[[], None]:
    """A function that settles a future from any thread."""
    loop = future.get_loop()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def done() -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits in it

    return done


class _Trio:
    async def readable(self, handle: Handle) -> None:
        import trio

        token, trio_token = object(), trio.lowlevel.current_trio_token()

        def close() -> None:
            if handle.watched(token):  # else the number may be another file's by now
                trio.lowlevel.notify_closing(fd)

        def wake() -> None:
            try:
                trio_token.run_sync_soon(close)
            except trio.RunFinishedError:
                pass

        fd = handle.watch(token, wake)
        try:
            await trio.lowlevel.wait_readable(fd)
        except trio.ClosedResourceError:
            pass  # whoever waits looks again, and is told
        except trio.BusyResourceError:
            raise BusyError("another task waits for this") from None
        finally:
            handle.unwatch(token)

    async def checkpoint(self) -> None:
        import trio

        await trio.lowlevel.checkpoint()

    async def run(self, function: Callable[[], T], undo: Optional[Callable[[T], None]] = None) -> T:
        done, event = self._event()
        job = Job(function, done, undo)
        submit(job.run)
        try:
            await event.wait()
        except BaseException:
            job.abandon()
            raise
        return job.result()

    async def settle(self, function: Callable[[], None]) -> None:
        import trio

        done, event = self._event()
        clean_up(Job(function, done).run)
        scope: Any = trio.CancelScope()
        scope.shield, scope.deadline = True, trio.current_time() + CLEANUP_SECONDS
        with scope:
            await event.wait()

    @staticmethod
    def _event() -> tuple[Callable[[], None], Any]:
        import trio

        event, token = trio.Event(), trio.lowlevel.current_trio_token()

        def done() -> None:
            try:
                token.run_sync_soon(event.set)
            except trio.RunFinishedError:
                pass

        return done, event


class _Pipe:
    """A pipe of one thread, through which another one ends its poll. It goes with the thread."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.pid = os.getpid()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.reader)
        close(self.writer)


class _Blocking:
    """Blocks this thread; Ctrl-C still ends it, which it would not in a call that waits in C."""

    def __init__(self, timeout: Optional[float] = None) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def _left(self) -> Optional[float]:
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError("the time given to the call is over")
        return left

    async def readable(self, handle: Handle) -> None:
        token, pipe, left = object(), _pipe(), self._left()
        fd = handle.watch(token, lambda: _poke(pipe.writer))
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.register(pipe.reader, select.POLLIN)
            for ready, _ in poll.poll(None if left is None else left * 1000):
                if ready == pipe.reader:
                    os.read(pipe.reader, 4096)
        finally:
            handle.unwatch(token)

    async def checkpoint(self) -> None:
        self._left()

    async def run(self, function: Callable[[], T], undo: Optional[Callable[[T], None]] = None) -> T:
        event = threading.Event()
        job = Job(function, event.set, undo)
        submit(job.run)
        try:
            if not event.wait(self._left()):
                self._left()
        except BaseException:
            job.abandon()
            raise
        return job.result()

    async def settle(self, function: Callable[[], None]) -> None:
        event = threading.Event()
        clean_up(Job(function, event.set).run)
        event.wait(CLEANUP_SECONDS)


def _poke(writer: int) -> None:
    try:
        os.write(writer, b"x")
    except BlockingIOError:
        pass  # it is full of pokes


_local = threading.local()


def _pipe() -> _Pipe:
    pipe: Optional[_Pipe] = getattr(_local, "pipe", None)
    # A forked child must not share the parent's.
    if pipe is None or pipe.pid != os.getpid():
        pipe = _local.pipe = _Pipe()
    return pipe


_ASYNCIO, _TRIO = _Asyncio(), _Trio()


def current() -> Backend:
    """The way to wait of the running event loop. anyio runs on one of these."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return _TRIO
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "no event loop of asyncio or trio is running; microsandbox.sync needs none"
        ) from None
    return _ASYNCIO


async def give_up(io: Backend, error: BaseException, function: Callable[[], None]) -> None:
    """Cleans up after `error`, which ends the calling coroutine."""
    if isinstance(error, GeneratorExit):
        clean_up(function)  # nothing may be awaited any more
    else:
        await io.settle(function)


def run_blocking(
    work: Callable[[Backend], Coroutine[Any, Any, T]], timeout: Optional[float] = None
) -> T:
    """Does the work on this thread, in at most so many seconds."""
    coroutine = work(_Blocking(timeout))
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("a blocking wait suspended")
