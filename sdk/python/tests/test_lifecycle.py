"""Event loops that end, interpreters that exit, processes that fork."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

import microsandbox as m
from conftest import IMAGE, SCALE
from microsandbox import Sandbox
from microsandbox import sync as blocking

PRELUDE = """
import asyncio, multiprocessing, os, signal, sys, threading, time
import microsandbox as m
from microsandbox import sync as blocking
IMAGE = os.environ["MSB_TEST_ROOTFS"]
"""


def program(text: str, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter; it must neither hang nor crash nor warn."""
    source = PRELUDE + textwrap.dedent(text)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", source],
        capture_output=True,
        check=False,
        text=True,
        timeout=timeout * SCALE,
        **options,
    )
    return done


def test_sandbox_survives_two_event_loops(sandbox: Sandbox) -> None:
    async def start() -> m.ExecHandle:
        handle = await sandbox.shell_stream("echo 1; sleep 0.2; echo 2")
        await handle.recv()
        return handle

    async def rest(handle: m.ExecHandle) -> bytes:
        return (await handle.collect()).stdout_bytes

    handle = asyncio.run(start())
    assert asyncio.run(rest(handle)) == b"1\n2\n"


def test_loop_closed_with_a_pending_recv(sandbox: Sandbox) -> None:
    loop = asyncio.new_event_loop()
    handle = loop.run_until_complete(sandbox.exec_stream("sleep", ["600"]))
    loop.run_until_complete(handle.recv())
    waiting = handle.recv()
    task = loop.create_task(waiting)
    loop.run_until_complete(asyncio.sleep(0.01))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # left pending on purpose
    loop.close()
    del task
    waiting.close()

    async def other() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(handle.recv(), 0.01)
        await handle.kill()
        assert (await handle.wait()).signal == 9

    asyncio.run(other())


def test_program_exits_with_pending_calls() -> None:
    done = program(
        """
        async def main():
            sb = await m.Sandbox.create("py-exits", image=IMAGE)
            handle = await sb.exec_stream("yes")
            views = handle.views()
            view = await views.__anext__()
            other = await sb.exec_stream("sleep", ["600"])
            kept.extend([sb, handle, other, view, views.__anext__])
            tasks = [asyncio.ensure_future(sb.exec("sleep", ["600"])) for _ in range(20)]
            tasks.append(asyncio.ensure_future(other.recv()))
            await asyncio.sleep(0.1)
            threading.Thread(target=lambda: blocking.Sandbox.get("py-exits").wait(),
                             daemon=True).start()
            print("ready")

        kept = []
        asyncio.run(main())
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


def test_cancelled_commands_are_killed_before_exit(sandbox: Sandbox) -> None:
    done = program(
        """
        async def main():
            sb = await m.Sandbox.get("py-tests")
            tasks = [asyncio.ensure_future(sb.exec("sleep", ["617"])) for _ in range(20)]
            while sum(s.command == [b"sleep", b"617"] for s in await sb.sessions()) < 20:
                pass
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")

    async def left() -> int:
        found = await sandbox.sessions()
        return sum(one.running and one.command == [b"sleep", b"617"] for one in found)

    assert asyncio.run(left()) == 0


def test_ctrl_c_ends_a_sync_exec_and_kills_its_command(box: blocking.Sandbox) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PRELUDE + "blocking.Sandbox.get('py-blocking').exec('sleep', ['618'])\n",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )

    def mine() -> list[Any]:
        return [one for one in box.sessions() if one.command == [b"sleep", b"618"]]

    deadline = time.monotonic() + 20 * SCALE
    while not mine():
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=20 * SCALE)
    assert output.strip().endswith("KeyboardInterrupt")
    assert [one.running for one in mine()] == [False]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, tmp_path: Any) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        PRELUDE
        + textwrap.dedent(
            f"""
            def work(number):
                try:
                    sb = blocking.Sandbox.get("py-blocking")
                    return sb.exec("echo", [str(number)]).stdout_text
                except m.UnsupportedError as error:
                    return str(error)

            if __name__ == "__main__":
                sb = blocking.Sandbox.get("py-blocking")
                assert sb.exec("true").success
                handle = sb.exec_stream("sleep", ["600"])
                with multiprocessing.get_context("{method}").Pool(2) as pool:
                    print(pool.map(work, range(2)))
                handle.kill()
                print(handle.wait().signal)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=60 * SCALE
    )
    assert done.stderr == "" and done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[1] == "9"
    if method == "fork":
        assert lines[0].count("forkserver") == 2
    else:
        assert lines[0] == repr(["0\n", "1\n"])


@pytest.mark.usefixtures("box")
def test_forked_child_is_refused_and_parent_unaffected(box: blocking.Sandbox) -> None:
    handle = box.exec_stream("cat", stdin=m.Stdin.pipe())
    sink = handle.take_stdin()
    assert sink is not None
    child = os.fork()
    if child == 0:
        try:
            for call in (handle.recv, handle.kill, handle.collect, box.info, handle.wait):
                with pytest.raises(m.UnsupportedError):
                    call()
            with pytest.raises(m.UnsupportedError):
                sink.write(b"x")
            handle.close()
            sink.close()
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sink.write(b"parent")
    sink.close()
    assert handle.collect().stdout_bytes == b"parent"


def test_b7_killed_sandbox_loses_its_streams() -> None:
    async def main() -> None:
        async with await Sandbox.create("py-dies", image=IMAGE) as sb:
            handle = await sb.shell_stream("echo before; exec sleep 600")
            while (await handle.recv()).event_type != "stdout":  # type: ignore[union-attr]
                pass
            call = asyncio.ensure_future(sb.shell("echo out; exec sleep 600"))
            while len(await sb.sessions()) < 2:
                await asyncio.sleep(0.01)
            ended = asyncio.ensure_future(sb.wait())
            await asyncio.sleep(0.01)
            await sb.kill()
            await ended
            events = [event async for event in handle]
            assert [event.event_type for event in events] == ["lost"]
            assert events[0].reason and "\n" not in events[0].reason
            with pytest.raises(m.StreamLostError) as lost:
                await call
            assert lost.value.output is not None
            assert lost.value.output.stdout_bytes == b"out\n"
            with pytest.raises(m.SandboxNotRunningError):
                await sb.exec("true")

    asyncio.run(main())
