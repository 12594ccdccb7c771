"""Shared sandboxes, and event loops of every kind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, Callable, Coroutine, Iterator

import pytest

from microsandbox import Sandbox
from microsandbox import sync as blocking

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGE = os.environ["MSB_TEST_ROOTFS"]
SCALE = float(os.environ.get("MSB_TEST_TIME_SCALE", "1"))
LONG = bool(os.environ.get("MSB_TEST_LONG"))
Main = Callable[[], Coroutine[Any, Any, Any]]

# A parent such as `nohup` may have left SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)


def run_asyncio(main: Main) -> Any:
    return asyncio.run(asyncio.wait_for(main(), 60 * SCALE))


def run_uvloop(main: Main) -> Any:
    import uvloop

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(main(), 60 * SCALE))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def run_trio(main: Main) -> Any:
    import trio

    async def limited() -> Any:
        with trio.fail_after(60 * SCALE):
            return await main()

    return trio.run(limited)


LOOPS = {"asyncio": run_asyncio, "uvloop": run_uvloop, "trio": run_trio}


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Main], Any]:
    """Run a coroutine function in an event loop of each kind."""
    return LOOPS[request.param]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Return a shared sandbox, used from the event loop of each test."""
    sb = asyncio.run(Sandbox.create("py-tests", image=IMAGE))
    yield sb
    asyncio.run(sb.kill())
    asyncio.run(Sandbox.remove("py-tests"))


@pytest.fixture(scope="session")
def box() -> Iterator[blocking.Sandbox]:
    """Return a shared sandbox of the synchronous twin."""
    with blocking.Sandbox.create("py-blocking", image=IMAGE) as sb:
        yield sb
