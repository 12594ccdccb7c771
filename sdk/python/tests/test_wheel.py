"""What `pip install` gives: a package that needs nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import microsandbox
from conftest import IMAGE, SCALE
from test_examples import PACKAGE, README


def ran(*command: object, **environment: str) -> str:
    """What a program says that has nothing of this one's surroundings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "MSB_HOME") if name in os.environ}
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        timeout=240 * SCALE,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_source_distribution_installs_offline_and_works(tmp_path: Path) -> None:
    """`python -m build` goes this way: a source distribution, and the wheel out of that."""
    builds = str(Path(os.environ["MSB_LIBRARY"]).parent)
    make = "import wheel_backend as w; print(w.build_sdist('.'))"
    backend = PACKAGE / "build_backend"
    sdist = ran(
        "/bin/sh",
        "-c",
        f'cd {tmp_path} && {sys.executable} -c "{make}"',
        MSB_BUILD_DIR=builds,
        PYTHONPATH=str(backend),
    ).strip()
    clean = tmp_path / "clean"
    ran(sys.executable, "-m", "venv", "--without-pip", clean)
    pip = (sys.executable, "-m", "pip", "--python", clean / "bin" / "python")
    ran(*pip, "install", "--no-index", "--no-cache-dir", tmp_path / sdist)
    folder = clean / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    wheel = (folder / f"microsandbox-{microsandbox.__version__}.dist-info" / "WHEEL").read_text()
    assert re.search(r"^Tag: py3-none-manylinux_2_\d+_\w+$", wheel, re.MULTILINE)
    (tmp_path / "rootfs").symlink_to(IMAGE)
    program = README[0].replace("target/rootfs", str(tmp_path / "rootfs"))
    python = clean / "bin" / "python"
    assert ran(python, "-W", "error", "-c", program).startswith("hello\n 0\n")
    origin = "import microsandbox._native as n; print(n.lib._name)"
    assert ran(python, "-c", origin).startswith(str(clean))
    assert microsandbox.__version__ in ran(clean / "bin" / "msb", "--version")
    assert "container" in ran(clean / "bin" / "msb", "doctor")


def test_a_missing_library_is_an_import_error_that_says_what_to_do() -> None:
    source = PACKAGE / "src"
    with pytest.raises(AssertionError, match="MSB_LIBRARY") as raised:
        ran(
            sys.executable,
            "-c",
            "import microsandbox",
            PYTHONPATH=str(source),
            MSB_LIBRARY="/nonexistent.so",
        )
    assert "ImportError" in str(raised.value)
