"""_abi.py matches the header: sizes, offsets, constants, functions."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path

from conftest import REPOSITORY
from microsandbox import _abi

INCLUDE = REPOSITORY / "include"
HEADER = (INCLUDE / "microsandbox.h").read_text()
STRUCTS = {
    name: kind
    for name, kind in vars(_abi).items()
    if name.startswith("msb_") and isinstance(kind, type) and issubclass(kind, ctypes.Structure)
}
CONSTANTS = re.findall(r"^#define (MSB_\w+) \(?-?\d+\)?$", HEADER, re.MULTILINE)


def test_layout_and_constants_match_the_header(tmp_path: Path) -> None:
    lines, ours = [], []
    for name, kind in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        ours.append(f"{name} {ctypes.sizeof(kind)}")
        for field, *_ in kind._fields_:
            place = getattr(kind, field)
            size = f"sizeof((({name} *)0)->{field})"
            lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), {size});')
            ours.append(f"{name}.{field} {place.offset} {place.size}")
    lines += [f'printf("{name} %d\\n", (int){name});' for name in CONSTANTS]
    ours += [f"{name} {getattr(_abi, name, 'missing')}" for name in CONSTANTS]
    source = "#include <microsandbox.h>\n#include <stdio.h>\nint main(void)\n{\n"
    source += "\n".join(lines) + "\nreturn 0;\n}\n"
    program = tmp_path / "layout"
    compiler = [os.environ.get("CC", "cc"), "-x", "c", "-", "-I", str(INCLUDE), "-o", str(program)]
    subprocess.run(compiler, input=source, text=True, check=True)
    theirs = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert theirs.splitlines() == ours


def test_every_struct_and_function_is_declared() -> None:
    structs = re.findall(
        r"^typedef struct (msb_\w+) \{(.*?)^\} \1;", HEADER, re.MULTILINE | re.DOTALL
    )
    assert sorted(name for name, _ in structs) == sorted(STRUCTS)
    for name, body in structs:
        fields = re.findall(r"^    [^/].*?(\w+)(?:\[\w+\])?;$", body, re.MULTILINE)
        assert fields == [field for field, *_ in STRUCTS[name]._fields_]
    plain = re.sub(r"/\*[\s\S]*?\*/|//.*", "", HEADER)
    declared = dict(re.findall(r"\b(msb_\w+)\(([^;{]*)\);", plain))
    assert sorted(declared) == sorted(_abi.FUNCTIONS)
    for name, parameters in declared.items():
        count = 0 if parameters == "void" else parameters.count(",") + 1
        assert len(_abi.FUNCTIONS[name][1]) == count, name
