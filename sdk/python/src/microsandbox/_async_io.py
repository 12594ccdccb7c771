"""Waiting in the running event loop: asyncio's or trio's. anyio runs on one of these.

`_async` uses `run`, `wait` and `offload`; `_sync_io` has the same names for the generated `_sync`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, Callable, Optional, TypeVar

from ._backend import Backend
from ._errors import BusyError
from ._handle import Handle
from ._pool import CLEANUP_SECONDS, Job, clean_up, submit

T = TypeVar("T")


class _Asyncio:
    async def readable(self, handle: Handle) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiters: Optional[_Waiters] = handle.loops.get(loop)
        if waiters is None:
            waiters = handle.loops[loop] = _Waiters(loop, handle)
        waiters.futures.add(future)
        try:
            await future
        finally:
            waiters.discard(future)

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

    async def run_shielded(self, function: Callable[[], None]) -> None:
        future = asyncio.get_running_loop().create_future()
        clean_up(Job(function, _setter(future)).run)
        await asyncio.wait([future], timeout=CLEANUP_SECONDS)


class _Waiters:
    """The tasks of one loop that wait for one handle: asyncio takes one reader per descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Handle) -> None:
        self.futures: set[asyncio.Future[None]] = set()
        self._loop, self._handle = loop, handle
        self._fd = handle.watch(self, self._wake)
        try:
            loop.add_reader(self._fd, self.notify)
        except BaseException:
            handle.unwatch(self)
            raise

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self.notify)
        except RuntimeError:
            pass  # the loop is closed, so no task waits in it

    def notify(self) -> None:
        """Wake all waiters."""
        for future in self.futures:
            if not future.done():
                future.set_result(None)

    def discard(self, future: asyncio.Future[None]) -> None:
        """Remove a waiter; the last one stops watching the descriptor."""
        self.futures.discard(future)
        if not self.futures:
            self._handle.loops.pop(self._loop, None)
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            self._handle.unwatch(self)


def _setter(future: asyncio.Future[None]) -> Callable[[], None]:
    """Return a function that completes a future from any thread."""
    loop = future.get_loop()

    def complete() -> None:
        if not future.done():
            future.set_result(None)

    def done() -> None:
        try:
            loop.call_soon_threadsafe(complete)
        except RuntimeError:
            pass  # the loop is closed, so no task waits in it

    return done


class _Trio:
    async def readable(self, handle: Handle) -> None:
        import trio

        token, trio_token = object(), trio.lowlevel.current_trio_token()

        def close() -> None:
            if handle.watched(token):  # else the descriptor's number may be reused by now
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
            pass  # the caller retries and gets ClosedError
        except trio.BusyResourceError:
            raise BusyError("another task waits for this handle") from None
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

    async def run_shielded(self, function: Callable[[], None]) -> None:
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


_ASYNCIO, _TRIO = _Asyncio(), _Trio()


def _current() -> Backend:
    """Return the backend of the running event loop."""
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


def run(work: Callable[[Backend], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]:
    """Return the coroutine that does the work in the running event loop."""
    return work(_current())


wait = run
"""As `run`, for a wait without a bound: in the synchronous twin it takes a timeout."""


def offload(function: Callable[[], T]) -> Coroutine[Any, Any, T]:
    """Return a coroutine that runs a blocking call on a thread."""
    return _current().run(function)
