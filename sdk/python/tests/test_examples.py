"""The examples and the programs in the README, run unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import IMAGE, SCALE

PACKAGE = Path(__file__).resolve().parent.parent
README = re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)


def output_of(*command: str, cwd: Path = PACKAGE) -> str:
    return subprocess.run(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=cwd,
        timeout=60 * SCALE,
    ).stdout


def test_agent_example_bounds_what_it_reports() -> None:
    output = output_of("examples/agent.py", IMAGE)
    assert "100000\n" in output
    assert "[killed after 2 seconds]" in output
    assert "no-such-tool: not found" in output and "[exit code 127]" in output
    assert len(output) < 2000


def test_grade_example_grades_all_programs() -> None:
    output = output_of("examples/grade.py", IMAGE)
    counts = {line[5:]: int(line[:4]) for line in output.splitlines()}
    assert sum(counts.values()) == 100
    # On a slow machine any program may run out of time; no other verdict is allowed.
    assert counts.keys() <= {"right", "wrong", "exit code 2", "out of time"}
    assert counts["out of time"] >= 40


@pytest.mark.parametrize("number", range(len(README)))
def test_readme_programs_run(number: int, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "rootfs").symlink_to(IMAGE)
    output = output_of("-c", README[number], cwd=tmp_path)
    assert output.startswith(("hello\n 0\nstarted b''\nstdout b'1\\n'", "42\n"))


def test_readme_has_two_programs() -> None:
    assert len(README) == 2
