"""The wheel: self-contained, and installable without a registry."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import microsandbox
from conftest import IMAGE, SCALE
from test_examples import PACKAGE, README

NATIVE = ["libmicrosandbox.so.0", "msb", "msb-agent", "msb-runner"]


def run(*command: object, **environment: str) -> str:
    """Run a program in a clean environment and return its output."""
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


def check_record(wheel: zipfile.ZipFile) -> None:
    """Check that RECORD lists every file with its hash and size."""
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
    record = dict(line.split(",", 1) for line in wheel.read(name).decode().splitlines())
    assert record.pop(name) == ","
    assert sorted([*record, name]) == sorted(wheel.namelist())
    for path, entry in record.items():
        data = wheel.read(path)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert entry == f"sha256={digest},{len(data)}"


def test_wheel_from_sdist_installs_offline_and_runs(tmp_path: Path) -> None:
    """Build both as `python -m build` does: the wheel from nothing but the sdist."""
    builds = str(Path(os.environ["MSB_LIBRARY"]).parent)
    build = (sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path)
    run(*build, PACKAGE, MSB_BUILD_DIR=builds)
    (sdist,) = tmp_path.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip")
    run(*pip, "wheel", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path, sdist)
    (wheel,) = tmp_path.glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        assert sorted(Path(name).name for name in names if "/native/" in name) == NATIVE
    with zipfile.ZipFile(wheel) as contents:
        check_record(contents)
        package = [name for name in contents.namelist() if name.startswith("microsandbox/")]
        sources = (PACKAGE / "src" / "microsandbox").iterdir()
        wanted = [path.name for path in sources if path.is_file()]
        wanted += [f"_native/{name}" for name in NATIVE]
        assert sorted(package) == sorted(f"microsandbox/{name}" for name in wanted)
        # Constant times: the same files give the same wheel.
        assert {entry.date_time for entry in contents.infolist()} == {(2020, 2, 2, 0, 0, 0)}
    clean = tmp_path / "clean"
    run(sys.executable, "-m", "venv", "--without-pip", clean)
    run(*pip, "--python", clean / "bin" / "python", "install", "--no-index", wheel)
    folder = clean / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    info = (folder / f"microsandbox-{microsandbox.__version__}.dist-info" / "WHEEL").read_text()
    assert re.search(r"^Tag: py3-none-manylinux_2_\d+_\w+$", info, re.MULTILINE)
    assert "Root-Is-Purelib: false" in info
    (tmp_path / "rootfs").symlink_to(IMAGE)
    program = README[0].replace("target/rootfs", str(tmp_path / "rootfs"))
    python = clean / "bin" / "python"
    assert run(python, "-W", "error", "-c", program).startswith("hello\n 0\n")
    origin = "import microsandbox._native as n; print(n.lib._name)"
    assert run(python, "-c", origin).startswith(str(clean))
    assert microsandbox.__version__ in run(clean / "bin" / "msb", "--version")
    assert "container" in run(clean / "bin" / "msb", "doctor")


def test_missing_library_is_an_import_error_with_a_remedy() -> None:
    source = PACKAGE / "src"
    with pytest.raises(AssertionError, match="MSB_LIBRARY") as raised:
        run(
            sys.executable,
            "-c",
            "import microsandbox",
            PYTHONPATH=str(source),
            MSB_LIBRARY="/nonexistent.so",
        )
    assert "ImportError" in str(raised.value)
