"""Generates _sync.py and _sync_fs.py in src/microsandbox from _async.py and _async_fs.py:
generate_sync.py [--check]

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
MODULES = {"_async.py": "_sync.py", "_async_fs.py": "_sync_fs.py"}
HEADER = '"""Generated from {} by generate_sync.py: do not edit."""\n'
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


def generated(name: str) -> str:
    """Return the contents of the twin of a module."""
    twin = MODULES[name]
    source = add_timeouts((PACKAGE / name).read_text())
    source = re.sub(r'\A""".*?"""\n', HEADER.format(name), source, flags=re.DOTALL)
    for phrase, replacement in PHRASES.items():
        if name == "_async.py" and phrase not in source:
            raise SystemExit(f"cannot replace {phrase!r}: not found in {name}")
        source = source.replace(phrase, replacement)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(source)
        modules = {"_async_io": "_sync_io", "_async_fs": "_sync_fs"}
        unasync.unasync_files([str(path)], [unasync.Rule(name, twin, modules)])
        source = path.with_name(twin).read_text()
    for command in (["check", "--fix", "--select", "I"], ["format"]):
        ruff = [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--no-cache",
            "--quiet",
            "--stdin-filename",
            str(PACKAGE / twin),
            "-",
        ]
        source = subprocess.run(
            ruff, input=source, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    return source


def main() -> None:
    """Write the twins, or check that they are current."""
    for name, twin in MODULES.items():
        target = PACKAGE / twin
        if sys.argv[1:] != ["--check"]:
            target.write_text(generated(name))
        elif target.read_text() != generated(name):
            raise SystemExit(f"{target} is out of date; run: {sys.executable} {Path(__file__)}")


if __name__ == "__main__":
    main()
