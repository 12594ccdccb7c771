"""The entry point of the packaged `msb` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Replace this process with the packaged program."""
    program = Path(__file__).resolve().parent / "_native" / "msb"
    try:
        os.execv(program, ["msb", *sys.argv[1:]])
    except OSError as error:
        print(f"msb: cannot run {program}: {error.strerror}", file=sys.stderr)
        sys.exit(125)  # msb's own exit code for its failures
