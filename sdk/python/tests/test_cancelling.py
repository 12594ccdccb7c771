"""Cancelling every call at every step leaks no command, descriptor or thread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from typing import Any

import microsandbox as m
from conftest import LONG, SCALE
from microsandbox import Sandbox, Stdin
from test_streaming import descriptors, threads

COUNT = 3000 if LONG else 400


async def collected(sandbox: Sandbox) -> None:
    await sandbox.exec("sleep", ["620"])


async def found(sandbox: Sandbox) -> None:
    async with await Sandbox.get(sandbox.name) as other:
        await other.exec("sleep", ["620"])  # the first command connects, on a thread


async def scoped(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("sleep", ["620"], stdin=Stdin.pipe()) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        async with sink:
            await handle.recv()
            await handle.signal("CONT")
            await sink.write(b"x" * 3_000_000)  # more than fits without a reader


async def queried(sandbox: Sandbox) -> None:
    while True:
        await sandbox.sessions()
        await sandbox.info()
        await Sandbox.list()


async def followed(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("sleep", ["620"]) as handle:
        other = await sandbox.reattach(handle.id)
        await other.collect()


CALLS = (collected, found, scoped, queried, followed)


def left(sessions: list[m.SessionInfo]) -> list[Any]:
    return [one for one in sessions if one.running and one.command == [b"sleep", b"620"]]


def test_d4_cancel_at_any_step_leaks_nothing(sandbox: Sandbox) -> None:
    async def cancelled(number: int) -> None:
        task = asyncio.ensure_future(CALLS[number % len(CALLS)](sandbox))
        for _ in range(random.randrange(12)):
            await asyncio.sleep(random.choice([0, 0, 0.001, 0.01]))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def main() -> None:
        turn = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            async with turn:
                await cancelled(number)

        await asyncio.gather(*map(one, range(COUNT)))
        deadline = time.monotonic() + 20 * SCALE
        while left(await sandbox.sessions()):
            assert time.monotonic() < deadline, left(await sandbox.sessions())
            await asyncio.sleep(0.02)

    before = descriptors(), threads()
    asyncio.run(main())
    deadline = time.monotonic() + 20 * SCALE
    while True:
        gc.collect()
        # The pool has up to 32 threads, which exit when idle. The library's own exit sooner.
        if descriptors() <= before[0] + 2 and threads() <= before[1] + 34:
            break
        assert time.monotonic() < deadline, (before, descriptors(), threads())
        time.sleep(0.02)
