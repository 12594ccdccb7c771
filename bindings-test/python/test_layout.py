"""That msb.py is what the header says: sizes, offsets, constants, functions."""

import ctypes
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import msb

INCLUDE = pathlib.Path(__file__).resolve().parents[2] / "include"
HEADER = (INCLUDE / "microsandbox.h").read_text()
STRUCTS = [
    name
    for name, kind in vars(msb).items()
    if name.startswith("msb_") and isinstance(kind, type) and issubclass(kind, ctypes.Structure)
]
CONSTANTS = re.findall(r"^#define (MSB_\w+) \(?-?\d+\)?$", HEADER, re.MULTILINE)


def from_c():
    """What a C compiler makes of the header, one fact per line."""
    lines = []
    for name in STRUCTS:
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, *_ in getattr(msb, name)._fields_:
            size = f"sizeof((({name} *)0)->{field})"
            lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), {size});')
    lines += [f'printf("{name} %d\\n", (int){name});' for name in CONSTANTS]
    source = "#include <microsandbox.h>\n#include <stdio.h>\nint main(void)\n{\n"
    source += "\n".join(lines) + "\nreturn 0;\n}\n"
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "layout")
        compiler = [os.environ.get("CC", "cc"), "-x", "c", "-", "-I", str(INCLUDE), "-o", program]
        subprocess.run(compiler, input=source, text=True, check=True)
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout


def from_python():
    lines = []
    for name in STRUCTS:
        struct = getattr(msb, name)
        lines.append(f"{name} {ctypes.sizeof(struct)}")
        for field, *_ in struct._fields_:
            place = getattr(struct, field)
            lines.append(f"{name}.{field} {place.offset} {place.size}")
    lines += [f"{name} {getattr(msb, name, 'missing')}" for name in CONSTANTS]
    return "\n".join(lines) + "\n"


class Layout(unittest.TestCase):
    maxDiff = None

    def test_sizes_offsets_and_constants_are_those_of_the_header(self):
        self.assertEqual(from_c(), from_python())

    def test_every_struct_and_field_of_the_header_is_written_out(self):
        structs = re.findall(
            r"^typedef struct (msb_\w+) \{(.*?)^\} \1;", HEADER, re.MULTILINE | re.DOTALL
        )
        self.assertEqual(sorted(name for name, _ in structs), sorted(STRUCTS))
        for name, body in structs:
            fields = re.findall(r"^    [^/].*?(\w+)(?:\[\w+\])?;$", body, re.MULTILINE)
            self.assertEqual(fields, [field for field, *_ in getattr(msb, name)._fields_])

    def test_every_function_of_the_header_is_written_out(self):
        plain = re.sub(r"//.*", "", HEADER)
        declared = re.findall(r"\b(msb_\w+)\(([^;{]*)\);", plain)
        self.assertEqual(sorted(name for name, _ in declared), sorted(msb.FUNCTIONS))
        for name, parameters in declared:
            count = 0 if parameters == "void" else parameters.count(",") + 1
            self.assertEqual(len(msb.FUNCTIONS[name][1]), count, name)


if __name__ == "__main__":
    unittest.main()
