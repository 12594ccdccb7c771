"""Benchmarks the Python package as ratios against the same work in C in the same run.

    bench.py ROOTFS BASELINE [TURNS]

BASELINE is the program of baseline.c. The variants of a comparison alternate, as machines are
noisy; the result is the median of the ratios of each turn.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable
from typing import Any, Callable, Optional

import microsandbox as m
from microsandbox import sync as blocking

BULK = 256 << 20
MANY = 256
Job = Callable[[], Optional[float]]


class Baseline:
    """The C program."""

    def __init__(self, program: str, sandbox: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([program, sandbox], stdin=pipe, stdout=pipe, text=True)

    def do(self, job: str) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(job + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate(timeout=60)


class Bench:
    """The jobs, each asynchronous and synchronous."""

    def __init__(self, box: blocking.Sandbox, loop: asyncio.AbstractEventLoop) -> None:
        self.box, self.loop = box, loop
        self.sandbox: m.Sandbox = self.run(m.Sandbox.get(box.name))
        self.run(self.sandbox.exec("true"))

    def run(self, awaited: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(awaited)

    def one(self) -> None:
        self.run(self.sandbox.exec("true"))

    def one_sync(self) -> None:
        self.box.exec("true")

    def many(self) -> None:
        async def all_of_them() -> None:
            await asyncio.gather(*(self.sandbox.exec("true") for _ in range(MANY)))

        self.run(all_of_them())

    BULK_ARGS = ("if=/dev/zero", "bs=65536", "count=4096")

    def output(self) -> None:
        async def read() -> int:
            handle = await self.sandbox.exec_stream("dd", self.BULK_ARGS)
            return sum([len(e.data) async for e in handle if e.event_type == "stdout"])

        assert self.run(read()) == BULK

    def output_views(self) -> None:
        async def read() -> int:
            total, handle = 0, await self.sandbox.exec_stream("dd", self.BULK_ARGS)
            async for view in handle.views():
                if view.event.event_type == "stdout":
                    total += len(view.data)
            return total

        assert self.run(read()) == BULK

    def output_sync(self) -> None:
        handle = self.box.exec_stream("dd", self.BULK_ARGS)
        assert sum(len(e.data) for e in handle if e.event_type == "stdout") == BULK

    def collect(self) -> None:
        output = self.run(self.sandbox.exec("dd", self.BULK_ARGS))
        assert len(output.stdout_bytes) == BULK

    def collect_sync(self) -> None:
        assert len(self.box.exec("dd", self.BULK_ARGS).stdout_bytes) == BULK

    SCRIPT = "i=0; while [ $i -lt 1500 ]; do echo x; echo y >&2; i=$((i+1)); done"

    def small(self) -> float:
        """Return events per second from a full queue."""

        async def drain() -> float:
            async with await self.sandbox.shell_stream(self.SCRIPT) as handle:
                await asyncio.sleep(0.2)
                begun, count = time.perf_counter(), 0
                async for _ in handle:
                    count += 1
                return count / (time.perf_counter() - begun)

        return float(self.run(drain()))

    def small_sync(self) -> float:
        """Return the same for the synchronous API."""
        with self.box.shell_stream(self.SCRIPT) as handle:
            time.sleep(0.2)
            begun, count = time.perf_counter(), 0
            for _ in handle:
                count += 1
            return count / (time.perf_counter() - begun)


def compare(title: str, unit: str, turns: int, amount: float, jobs: dict[str, Job]) -> None:
    """Print a table of all jobs relative to the first.

    `amount` is the work of a job, to compute a rate; 0 reports times, or rates that jobs return.
    """
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(-1, turns):  # the first warms caches
        for name, job in jobs.items():
            begun = time.perf_counter()
            rate = job()
            if turn >= 0:
                taken[name].append(rate or time.perf_counter() - begun)
    print(f"\n{title} ({turns} turns)\n\n| | {unit} | ratio |\n| --- | ---: | ---: |")
    first = next(iter(taken.values()))
    for name, times in taken.items():
        middle, ratio = statistics.median(times), statistics.median(map(over, times, first))
        shown = amount / middle if amount else middle * (1e6 if unit == "us" else 1)
        print(f"| {name} | {shown:.0f} | {1 / ratio if amount else ratio:.2f} |", flush=True)


def over(one: float, other: float) -> float:
    """Return a ratio."""
    return one / other


def main() -> None:
    image, program = sys.argv[1:3]
    turns = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    name, loop = f"bench-{os.getpid()}", asyncio.new_event_loop()
    with blocking.Sandbox.create(name, image=image, driver="container") as box:
        c, py = Baseline(program, name), Bench(box, loop)
        for job in ("one", "many"):  # connects
            c.do(job)
        compare(
            "One command, start to end",
            "us",
            turns * 30,
            0,
            {"C": lambda: c.do("one"), "asyncio": py.one, "synchronous": py.one_sync},
        )
        compare(
            f"{MANY} commands at once, start to end",
            "us",
            turns * 2,
            0,
            {"C, one thread": lambda: c.do("many"), "asyncio": py.many},
        )
        compare(
            "256 MiB of output, streamed",
            "MiB/s",
            turns,
            BULK >> 20,
            {
                "C, msb_exec_recv_many": lambda: c.do("output"),
                "asyncio, bytes": py.output,
                "asyncio, views": py.output_views,
                "synchronous, bytes": py.output_sync,
            },
        )
        compare(
            "256 MiB of output, collected",
            "MiB/s",
            turns,
            BULK >> 20,
            {
                "C, msb_exec_collect": lambda: c.do("collect"),
                "asyncio": py.collect,
                "synchronous": py.collect_sync,
            },
        )
        compare(
            "Small events from a full queue",
            "events/s",
            turns * 10,
            0,
            {
                "C, msb_exec_recv_many": lambda: c.do("small"),
                "asyncio": py.small,
                "synchronous": py.small_sync,
            },
        )
        c.end()
    loop.close()


if __name__ == "__main__":
    main()
