"""The command `msb`, which came with the package."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Becomes the program."""
    program = Path(__file__).resolve().parent / "_native" / "msb"
    try:
        os.execv(program, ["msb", *sys.argv[1:]])
    except OSError as error:
        print(f"msb: {program}: {error.strerror}", file=sys.stderr)
        sys.exit(125)  # as msb itself says that it failed
