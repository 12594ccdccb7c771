"""Every example of the commands guide, run unchanged."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import select
import subprocess
import sys
import textwrap
import time
from contextlib import redirect_stdout
from typing import Any

import pytest

import microsandbox as m
from conftest import SCALE
from microsandbox import Sandbox

EXECUTE = """\
output = await sb.exec("python", ["-c", "print('hello')"])
print(output.stdout_text)     # "hello\\n"
print(output.success)         # True
print(output.exit_code)       # 0
"""
OPTIONS = """\
from microsandbox import Rlimit

output = await sb.exec(
    "python",
    ["compute.py"],
    cwd="/app",
    env={"PYTHONPATH": "/app/lib"},
    timeout=30.0,
    rlimits=[Rlimit.nofile(1024)],
)
"""
SHELL = """\
output = await sb.shell("ls -la /app && echo done")
"""
STREAM = """\
handle = await sb.exec_stream("tail", ["-f", "/var/log/app.log"])

async for event in handle:
    match event.event_type:
        case "stdout": print(event.data.decode(), end="")
        case "stderr": print(event.data.decode(), end="", file=sys.stderr)
        case "exited": print(f"Exited: {event.code}")
"""
ATTACH = """\
# Attach to the default shell
exit_code = await sb.attach_shell()

# Attach to a specific command with custom detach keys
exit_code = await sb.attach(
    "python",
    env={"DEBUG": "1"},
    cwd="/app",
    detach_keys="ctrl-q",
)
"""
STDIN = """\
from microsandbox import Stdin

handle = await sb.exec_stream("python", stdin=Stdin.pipe(), tty=True)
stdin = handle.take_stdin()
await stdin.write(b"print('hello')\\n")
await stdin.write(b"exit()\\n")
await stdin.close()
await handle.wait()
"""
SESSION = """\
handle = await sb.exec_stream("python", ["server.py"])
session_id = handle.id
"""


def function_of(example: str, then: str = "return locals()") -> str:
    body = textwrap.indent(example + then, "    ")
    return f"import sys\n\n\nasync def main(sb):\n{body}\n"


async def run_example(example: str, sandbox: Sandbox) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(function_of(example), "guide", "exec"), names)
    result: dict[str, Any] = await names["main"](sandbox)
    return result


def test_guide_exec(run: Any, sandbox: Sandbox) -> None:
    printed = io.StringIO()
    with redirect_stdout(printed):
        run(lambda: run_example(EXECUTE, sandbox))
    assert printed.getvalue() == "hello\n\nTrue\n0\n"


def test_guide_options(run: Any, sandbox: Sandbox) -> None:
    output = run(lambda: run_example(OPTIONS, sandbox))["output"]
    assert output.stdout_text == "compute in /app with /app/lib and 1024 files\n"


def test_guide_shell(run: Any, sandbox: Sandbox) -> None:
    output = run(lambda: run_example(SHELL, sandbox))["output"]
    assert "compute.py" in output.stdout_text and output.stdout_text.endswith("done\n")


@pytest.mark.skipif(sys.version_info < (3, 10), reason="the example's match came with Python 3.10")
def test_guide_stream(sandbox: Sandbox) -> None:
    async def main() -> None:
        example = asyncio.ensure_future(run_example(STREAM, sandbox))
        while "started" not in printed.getvalue():
            await asyncio.sleep(0.01)
        await sandbox.shell("echo more >> /var/log/app.log")
        while "more" not in printed.getvalue():
            await asyncio.sleep(0.01)
        (tail,) = [s for s in await sandbox.sessions() if s.command[0] == b"tail" and s.running]
        await (await sandbox.reattach(tail.id)).kill()
        await example

    printed = io.StringIO()
    with redirect_stdout(printed):
        asyncio.run(asyncio.wait_for(main(), 30 * SCALE))
    assert printed.getvalue() == "started\nmore\nExited: -1\n"


def test_guide_stdin(run: Any, sandbox: Sandbox) -> None:
    handle = run(lambda: run_example(STDIN, sandbox))["handle"]
    assert run(lambda: handle.wait()) == run(lambda: handle.wait())
    assert run(handle.wait).code == 0


def test_guide_session_ids(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        found = await run_example(SESSION, sandbox)
        assert found["session_id"] in [session.id for session in await sandbox.sessions()]
        await found["handle"].kill()

    run(main)


def on_terminal(program: str, *answers: tuple[bytes, bytes]) -> str:
    """Run a program on a terminal; type each answer once its question has appeared."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen, looked, deadline = b"", 0, time.monotonic() + 30 * SCALE
    waiting = list(answers)
    try:
        while True:
            assert select.select([ours], [], [], deadline - time.monotonic())[0], seen
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the program closed its terminal
                break
            if waiting and seen.find(waiting[0][0], looked) >= 0:
                looked = seen.find(waiting[0][0], looked) + len(waiting[0][0])
                os.write(ours, waiting.pop(0)[1])
        assert process.wait(30 * SCALE) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return seen.decode()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_guide_attach(loop: str, sandbox: Sandbox) -> None:
    program = function_of(ATTACH, "print('code', exit_code)") + textwrap.dedent(
        f"""
        import {loop}
        from microsandbox import Sandbox
        async def begin():
            await main(await Sandbox.get({sandbox.name!r}))
        {"asyncio.run(begin())" if loop == "asyncio" else "trio.run(begin)"}
        """
    )
    seen = on_terminal(program, (b"# ", b"exit 5\n"), (b"DEBUG=1 in /app", b"\x11"))
    assert "code -1" in seen


def test_cancelled_attach_restores_the_terminal(sandbox: Sandbox) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, termios
        from microsandbox import Sandbox
        async def main():
            sb = await Sandbox.get({sandbox.name!r})
            before = termios.tcgetattr(0)
            task = asyncio.ensure_future(sb.attach("sleep", ["619"]))
            while termios.tcgetattr(0) == before:
                await asyncio.sleep(0.01)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                print("cancelled", termios.tcgetattr(0) == before)
            for session in await sb.sessions():
                if session.running and session.command == [b"sleep", b"619"]:
                    print("runs on")
                    await (await sb.reattach(session.id)).kill()
        asyncio.run(main())
        """
    )
    seen = on_terminal(program)
    assert "cancelled True" in seen and "runs on" in seen


def test_attach_without_terminal_is_an_error(sandbox: Sandbox) -> None:
    program = (
        "import microsandbox as m\nfrom microsandbox import sync\n"
        f"sb = sync.Sandbox.get({sandbox.name!r})\n"
        "try:\n    sb.attach('true')\nexcept m.NotATerminalError as error:\n    print(error.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("not_a_terminal\n", "")
    assert m.NotATerminalError.code == "not_a_terminal"
