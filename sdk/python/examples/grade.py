"""Grades a hundred programs at once, with a progress bar.

    python grade.py ROOTFS

Each program gets a second and files of 1 MiB, and its output is compared with the expected output.
One that loops, crashes or floods its output does not affect the others.
"""

from __future__ import annotations

import asyncio
import collections
import sys

from microsandbox import ExecTimeoutError, Rlimit, Sandbox

LIMITS = [Rlimit.cpu(1), Rlimit.fsize(1 << 20)]
AT_ONCE = 16


def submissions() -> list[tuple[str, str]]:
    """Return programs with their expected output."""
    kinds = [
        ("expr {n} '*' {n}", "right"),
        ("echo about {n}", "wrong"),
        ("while :; do :; done", "loops"),
        ("echo $(({n} / 0))", "crashes"),
        ("yes {n}", "floods"),
    ]
    return [(kinds[n % 5][0].format(n=n), f"{n * n}\n") for n in range(1, 101)]


async def grade(sandbox: Sandbox, program: str, wanted: str) -> str:
    """Return the verdict on one program."""
    try:
        output = await sandbox.shell(
            program, timeout=1.0, max_output=1 << 16, rlimits=LIMITS, user="65534:65534"
        )
    except ExecTimeoutError:
        return "out of time"
    if output.signal:
        return f"killed by signal {output.signal}"
    if not output.success:
        return f"exit code {output.exit_code}"
    return "right" if output.stdout_bytes == wanted.encode() else "wrong"


def bar(done: int, count: int) -> None:
    filled = 40 * done // count
    line = f"\r[{'#' * filled}{'.' * (40 - filled)}] {done} of {count}"
    print(line, end="" if done < count else "\n", file=sys.stderr, flush=True)


async def main(image: str) -> None:
    work = submissions()
    results: collections.Counter[str] = collections.Counter()
    turn = asyncio.Semaphore(AT_ONCE)
    async with await Sandbox.create("grader", image=image, replace=True) as sandbox:

        async def one(program: str, wanted: str) -> str:
            async with turn:
                return await grade(sandbox, program, wanted)

        for graded in asyncio.as_completed([one(*submission) for submission in work]):
            results[await graded] += 1
            bar(sum(results.values()), len(work))
    for verdict, count in results.most_common():
        print(f"{count:4} {verdict}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
