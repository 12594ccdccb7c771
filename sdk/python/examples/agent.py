"""An agent's tool loop: a model asks for tools, and each runs in a sandbox.

    python agent.py ROOTFS

The model here is a script, so that the example runs anywhere; call your client in `model`. Whatever
a command does, the model receives bounded output in bounded time, and each failure as text.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Optional

from microsandbox import ExecFailedError, ExecOutput, ExecTimeoutError, Rlimit, Sandbox

Call = dict[str, Any]
LIMITS = [Rlimit.nproc(256), Rlimit.fsize(64 << 20)]


def shown(output: ExecOutput, note: str = "") -> str:
    """Format output for the model. It may be truncated within a character."""
    parts = [output.stdout_bytes.decode(errors="replace")]
    if output.stderr_bytes:
        parts.append("[stderr]\n" + output.stderr_bytes.decode(errors="replace"))
    if output.truncated:
        total = output.stdout_total + output.stderr_total
        parts.append(f"[cut: {total} bytes in all]")
    how = f"signal {output.signal}" if output.signal else f"exit code {output.exit_code}"
    return "\n".join([*parts, f"[{note or how}]"])


async def shell_tool(sandbox: Sandbox, script: str) -> str:
    """Run a script; return bounded text in bounded time."""
    try:
        output = await sandbox.shell(
            script, cwd="/tmp", timeout=2.0, max_output=4096, rlimits=LIMITS
        )
    except ExecTimeoutError as error:
        return shown(error.output, "killed after 2 seconds")
    except ExecFailedError as error:
        return f"[could not be started: {error.kind}: {error}]"
    return shown(output)


async def write_tool(sandbox: Sandbox, path: str, text: str) -> str:
    """Write a file through stdin, which needs no quoting."""
    output = await sandbox.exec("tee", [path], stdin=text.encode(), max_output=0)
    return "[written]" if output.success else shown(output)


async def model(turn: int, last: Optional[str]) -> Optional[Call]:
    """Return the next call of a scripted model, or None when it is done."""
    plan: list[Call] = [
        {"tool": "write", "path": "/tmp/count.sh", "text": "seq 1 100000 | tail -n 1\n"},
        {"tool": "shell", "script": "sh count.sh && ls -l"},
        {"tool": "shell", "script": "yes"},
        {"tool": "shell", "script": "no-such-tool --help"},
    ]
    return plan[turn] if turn < len(plan) else None


async def main(image: str) -> None:
    async with await Sandbox.create("agent", image=image, replace=True) as sandbox:
        turn, last = 0, None
        while (call := await model(turn, last)) is not None:
            if call["tool"] == "write":
                last = await write_tool(sandbox, call["path"], call["text"])
            else:
                last = await shell_tool(sandbox, call["script"])
            brief = last if len(last) < 200 else f"{last[:20]!r} ... {last[-55:].lstrip()}"
            print(f"> {call}\n{brief}")
            turn += 1


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
