"""How a call waits.

The core (`_exec`, `_sandbox`, `_images`, `_logs`) is written once, as coroutines that wait through
a `Backend`: `_async_io` has those of asyncio and trio, `_sync_io` the one that blocks the thread.
"""

from __future__ import annotations

from typing import Callable, Optional, Protocol, TypeVar

from ._handle import Handle
from ._pool import clean_up

T = TypeVar("T")


class Backend(Protocol):
    """A way to wait."""

    async def readable(self, handle: Handle) -> None:
        """Wait until the handle may be ready, or is closed. Spurious wake-ups are fine."""

    async def checkpoint(self) -> None:
        """Yield to other tasks."""

    async def run(self, function: Callable[[], T], undo: Optional[Callable[[T], None]] = None) -> T:
        """Run a blocking call on a thread. On cancellation, pass its result to ``undo``."""
        ...

    async def run_shielded(self, function: Callable[[], None]) -> None:
        """Run a cleanup on a thread, shielded from cancellation, and wait a bounded time for it."""


async def clean_up_after(io: Backend, error: BaseException, function: Callable[[], None]) -> None:
    """Run a cleanup before ``error`` leaves the calling coroutine."""
    if isinstance(error, GeneratorExit):
        clean_up(function)  # a coroutine that is being closed must not await
    else:
        await io.run_shielded(function)
