"""Builds the wheel (PEP 517) with nothing but Python: the package and the programs it needs.

The library, msb, msb-runner and msb-agent are those in $MSB_BUILD_DIR, else those that came with a
source distribution, else those of the repository around this folder, which `make build` builds
first if they are not there. The wheel's tag names the oldest glibc that all of them run with.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = ROOT.parent.parent
PACKAGE = ROOT / "src" / "microsandbox"
INIT = (PACKAGE / "__init__.py").read_text()
NAME, VERSION = "microsandbox", re.findall(r'^__version__ = "(.*)"$', INIT, re.MULTILINE)[0]
# Within the wheel, and where `make build` puts it.
NATIVE = {
    "libmicrosandbox.so.0": "release/libmicrosandbox.so",
    "msb": "release/msb",
    "msb-runner": "release/msb-runner",
    "msb-agent": "static/msb-agent",
}
METADATA = f"""Metadata-Version: 2.1
Name: {NAME}
Version: {VERSION}
Summary: Run commands in isolated sandboxes, and get every byte, every exit and every failure once
License: Apache-2.0
Requires-Python: >=3.9
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: 3
Classifier: Framework :: AsyncIO
Classifier: Framework :: Trio
Classifier: Framework :: AnyIO
Classifier: Typing :: Typed
Description-Content-Type: text/markdown

"""
ENTRY_POINTS = "[console_scripts]\nmsb = microsandbox._msb:main\n"
TIME = (1980, 1, 1, 0, 0, 0)  # the same files give the same wheel


def native_files() -> dict[str, Path]:
    """The library and programs by their names in the wheel."""
    given = os.environ.get("MSB_BUILD_DIR")
    if given or (ROOT / "native").is_dir():
        folder = Path(given or ROOT / "native").resolve()
        files = {}
        for name, place in NATIVE.items():
            # A folder of all of them, that of one profile, or the one that has several.
            places = (name, Path(place).name, place, f"../{place}")
            candidates = [folder / candidate for candidate in places]
            found = [path for path in candidates if path.exists()]
            if not found:
                raise SystemExit(f"{name} is not in {folder}")
            files[name] = found[0]
        return files
    files = {name: REPOSITORY / "target" / place for name, place in NATIVE.items()}
    if not all(path.exists() for path in files.values()):
        if not (REPOSITORY / "Makefile").exists():
            raise SystemExit("set MSB_BUILD_DIR: there is no repository around this folder")
        subprocess.run(["make", "-C", str(REPOSITORY), "build"], check=True)
    return files


def stripped(path: Path, folder: Path) -> bytes:
    """A program without what only debuggers read, if that can be had."""
    copy = folder / "stripped"
    shutil.copyfile(path, copy)
    if shutil.which("strip"):
        subprocess.run(["strip", "--strip-unneeded", str(copy)], check=True)
    return copy.read_bytes()


def glibc_of(program: bytes) -> tuple[int, int]:
    """The newest version of glibc that an ELF program of 64 bits asks for; (0, 0) for none."""
    start, size, count, names = struct.unpack_from("<QxxxxxxxxxxHHH", program, 40)
    entries = [struct.unpack_from("<IIQQQQ", program, start + at * size) for at in range(count)]
    table = entries[names][4]
    for name, _, _, _, offset, length in entries:
        end = program.index(b"\0", table + name)
        if program[table + name : end] == b".dynstr":
            found = re.findall(rb"GLIBC_(\d+)\.(\d+)", program[offset : offset + length])
            return max(((int(a), int(b)) for a, b in found), default=(0, 0))
    return 0, 0


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    return []


get_requires_for_build_sdist = get_requires_for_build_wheel


def sources() -> list[Path]:
    """The files of the package itself."""
    return sorted([*PACKAGE.glob("*.py"), PACKAGE / "py.typed"])


def build_wheel(
    wheel_directory: str, config_settings: object = None, metadata_directory: object = None
) -> str:
    contents: list[tuple[str, bytes, int]] = []
    for path in sources():
        contents.append((f"{NAME}/{path.name}", path.read_bytes(), 0o644))
    glibc = (2, 17)
    with tempfile.TemporaryDirectory() as folder:
        for name, path in native_files().items():
            program = stripped(path, Path(folder))
            glibc = max(glibc, glibc_of(program))
            contents.append((f"{NAME}/_native/{name}", program, 0o755))
    tag = f"py3-none-manylinux_{glibc[0]}_{glibc[1]}_{platform.machine()}"
    info = f"{NAME}-{VERSION}.dist-info"
    metadata = METADATA + (ROOT / "README.md").read_text()
    wheel = f"Wheel-Version: 1.0\nGenerator: {NAME}\nRoot-Is-Purelib: false\nTag: {tag}\n"
    for name, text in (
        ("METADATA", metadata),
        ("WHEEL", wheel),
        ("entry_points.txt", ENTRY_POINTS),
    ):
        contents.append((f"{info}/{name}", text.encode(), 0o644))
    record = ""
    for name, data, _ in contents:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    contents.append((f"{info}/RECORD", (record + f"{info}/RECORD,,\n").encode(), 0o644))
    filename = f"{NAME}-{VERSION}-{tag}.whl"
    with zipfile.ZipFile(Path(wheel_directory) / filename, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in contents:
            entry = zipfile.ZipInfo(name, TIME)
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return filename


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """The package's sources with the built programs, since those of Rust are not below here."""
    base = f"{NAME}-{VERSION}"
    with tarfile.open(Path(sdist_directory) / f"{base}.tar.gz", "w:gz") as archive:

        def add(name: str, data: bytes, mode: int = 0o644) -> None:
            entry = tarfile.TarInfo(f"{base}/{name}")
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))

        add("PKG-INFO", METADATA.encode())
        for path in [ROOT / "pyproject.toml", ROOT / "README.md", Path(__file__), *sources()]:
            add(str(path.resolve().relative_to(ROOT)), path.read_bytes())
        with tempfile.TemporaryDirectory() as folder:
            for name, path in native_files().items():
                add(f"native/{name}", stripped(path, Path(folder)), 0o755)
    return f"{base}.tar.gz"
