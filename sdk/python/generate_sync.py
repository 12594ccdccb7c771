"""Generates src/microsandbox/_sync.py from _async.py: generate_sync.py [--check]

`unasync` replaces the tokens. What differs beyond those is here: the phrases of docstrings, and the
`timeout` of the methods that wait.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

PACKAGE = Path(__file__).resolve().parent / "src" / "microsandbox"
TARGET = PACKAGE / "_sync.py"
HEADER = '"""Generated from _async.py by generate_sync.py: do not edit."""\n'
PHRASES = {
    "async for": "for",
    "async with": "with",
    "One task": "One thread",
    "Cancelling the call": "Ctrl-C",
    "Cancelling a wait": "A timeout",
}


def add_timeouts(source: str) -> str:
    """Give the methods that `await wait(...)` a timeout, and pass it on."""
    insertions = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            call = node.value if isinstance(node, ast.Await) else None
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "wait":
                last = function.args.args[-1]
                parameter = ", timeout: Optional[float] = None"
                insertions.append((last.end_lineno, last.end_col_offset, parameter))
                insertions.append((call.end_lineno, (call.end_col_offset or 0) - 1, ", timeout"))
    lines = source.splitlines(keepends=True)
    for line, column, text in sorted(insertions, reverse=True):
        before = lines[(line or 0) - 1]
        lines[(line or 0) - 1] = before[:column] + text + before[column:]
    return "".join(lines)


def generated() -> str:
    """Return the contents of _sync.py."""
    source = add_timeouts((PACKAGE / "_async.py").read_text())
    source = re.sub(r'\A""".*?"""\n', HEADER, source, flags=re.DOTALL)
    for phrase, replacement in PHRASES.items():
        if phrase not in source:
            raise SystemExit(f"cannot replace {phrase!r}: not found in _async.py")
        source = source.replace(phrase, replacement)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "_async.py")
        path.write_text(source)
        rule = unasync.Rule("_async.py", "_sync.py", {"_async_io": "_sync_io"})
        unasync.unasync_files([str(path)], [rule])
        source = path.with_name("_sync.py").read_text()
    for command in (["check", "--fix", "--select", "I"], ["format"]):
        ruff = [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--no-cache",
            "--quiet",
            "--stdin-filename",
            str(TARGET),
            "-",
        ]
        source = subprocess.run(
            ruff, input=source, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    return source


def main() -> None:
    """Write _sync.py, or check that it is current."""
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(generated())
    elif TARGET.read_text() != generated():
        raise SystemExit(f"{TARGET} is out of date; run: {sys.executable} {Path(__file__)}")


if __name__ == "__main__":
    main()
