"""Build hook of hatchling: adds the library and the programs of `make build`, and sets the tag.

They come from $MSB_BUILD_DIR, else from the source distribution, else from the repository around
this folder, where `make build` makes missing ones. The tag names the glibc that they require.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
REPOSITORY = ROOT.parent.parent
# By name in the wheel: the path below target.
NATIVE = {
    "libmicrosandbox.so.0": "release/libmicrosandbox.so",
    "msb": "release/msb",
    "msb-runner": "release/msb-runner",
    "msb-agent": "static/msb-agent",
}


def native_files() -> dict[str, Path]:
    """Return the library and programs by their names in the wheel."""
    given = os.environ.get("MSB_BUILD_DIR")
    if given or (ROOT / "native").is_dir():
        folder = Path(given or ROOT / "native").resolve()
        files = {}
        for name, path in NATIVE.items():
            # In one folder, in that of a profile, or in target.
            candidates = [folder / place for place in (name, Path(path).name, path, f"../{path}")]
            found = [candidate for candidate in candidates if candidate.exists()]
            if not found:
                raise SystemExit(f"cannot build the wheel: no {name} in {folder}")
            files[name] = found[0]
        return files
    files = {name: REPOSITORY / "target" / path for name, path in NATIVE.items()}
    if not all(path.exists() for path in files.values()):
        if not (REPOSITORY / "Makefile").exists():
            raise SystemExit("cannot build the wheel: no repository here; set MSB_BUILD_DIR")
        subprocess.run(["make", "-C", str(REPOSITORY), "build"], check=True)
    return files


def required_glibc(program: Path) -> tuple[int, int]:
    """Return the newest glibc version that an ELF file requires; (0, 0) if it is static."""
    with program.open("rb") as file:
        section: Any = ELFFile(file).get_section_by_name(".gnu.version_r")
        needs = section.iter_versions() if section else ()
        names = [version.name for _, versions in needs for version in versions]
    found = (re.fullmatch(r"GLIBC_(\d+)\.(\d+).*", name) for name in names)
    return max(((int(match[1]), int(match[2])) for match in found if match), default=(0, 0))


class NativeFiles(BuildHookInterface[Any]):
    """Adds stripped copies of the native files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files and set the wheel's tag."""
        self._folder = tempfile.TemporaryDirectory()
        target = "native" if self.target_name == "sdist" else "microsandbox/_native"
        glibc = (2, 17)
        for name, path in native_files().items():
            copy = Path(self._folder.name, name)
            shutil.copyfile(path, copy)
            copy.chmod(0o755)
            if shutil.which("strip"):
                subprocess.run(["strip", "--strip-unneeded", str(copy)], check=True)
            glibc = max(glibc, required_glibc(copy))
            build_data["force_include"][str(copy)] = f"{target}/{name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_{glibc[0]}_{glibc[1]}_{platform.machine()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        self._folder.cleanup()
