"""The form of the conformance cases: the schema, bytes, and what is said of bytes."""

import hashlib
import json
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "conformance"


class Wrong(Exception):
    """Something is not as the case says."""


def fits(value, schema, root):
    """Whether a value has the form of a schema, of which only what ours uses is known."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    number = isinstance(value, int) and not isinstance(value, bool)
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    if "type" in schema:
        if not isinstance(value, types[schema["type"]]):
            return False
        if schema["type"] == "integer" and not number:
            return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "anyOf" in schema and not any(fits(value, form, root) for form in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(value, form, root) for form in schema["oneOf"]) != 1:
        return False
    if number and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return False
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return False
        forms = schema.get("prefixItems", [])
        forms = forms + [schema.get("items", {})] * (len(value) - len(forms))
        return all(fits(item, form, root) for item, form in zip(value, forms))
    if isinstance(value, dict):
        known = schema.get("properties", {})
        needed = [
            name
            for field, names in schema.get("dependentRequired", {}).items()
            if field in value
            for name in names
        ]
        if not all(name in value for name in schema.get("required", []) + needed):
            return False
        if schema.get("additionalProperties") is False and not known.keys() >= value.keys():
            return False
        return all(fits(value[name], known[name], root) for name in known if name in value)
    return True


def load():
    """All cases with the names of their files, terminal variants included."""
    schema = json.loads((FOLDER / "schema.json").read_text())
    cases = []
    for path in sorted((FOLDER / "cases").glob("*.json")):
        content = json.loads(path.read_text())
        if not fits(
            content, {**schema, "properties": {**schema["properties"], "cases": {}}}, schema
        ):
            raise Wrong(f"{path.name} is out of form")
        for case in content["cases"]:
            if not fits(case, schema["$defs"]["case"], schema):
                raise Wrong(f"{path.name}: {case.get('name')!r} is out of form")
            cases.append((path.stem, case))
            if case.get("also_tty"):
                twin = {**case, "name": case["name"] + ", on a terminal", "tty": {}}
                cases.append((path.stem, twin))
    return cases


def load_wrong(path):
    """Cases that must not pass. Those out of form are held against the schema at once."""
    schema = json.loads((FOLDER / "schema.json").read_text())
    content = json.loads(pathlib.Path(path).read_text())
    base = {"promises": ["A1"]}
    for case in content["out_of_form"]:
        if fits({"name": "", **base, **case}, schema["$defs"]["case"], schema):
            raise Wrong(f"{case} is in form")
    wrong = [{"name": json.dumps(case), **base, **case} for case in content["wrong"]]
    for case in wrong:
        if not fits(case, schema["$defs"]["case"], schema):
            raise Wrong(f"{case['name']} is out of form")
    return wrong


def value(form, own):
    """The bytes that a form means, with the run's own path in them."""
    if isinstance(form, str):
        return form.replace("@T@", own).encode()
    ((name, content),) = form.items()
    if name == "text":
        return value(content, own)
    if name == "hex":
        return bytes.fromhex(content)
    if name == "repeat":
        return value(content["of"], own) * content["count"]
    if name == "cycle":
        return (bytes(range(251)) * (content // 251 + 1))[:content]
    return b"".join(value(part, own) for part in content)


def show(data):
    return f"{bytes(data[:300])!r}" + (f"... ({len(data)} bytes)" if len(data) > 300 else "")


def mismatch(said, got, own):
    """What is wrong with bytes; None if nothing is."""
    if isinstance(said, str) or said.keys() & {"text", "hex", "repeat", "cycle", "concat"}:
        said = {"exact": said}
    wanted = {name: value(said[name], own) for name in ["exact"] if name in said}
    if got != wanted.get("exact", got):
        return f"expected {show(wanted['exact'])}, got {show(got)}"
    if len(got) != said.get("len", len(got)):
        return f"expected {said['len']} bytes, got {show(got)}"
    if "sha256" in said and hashlib.sha256(got).hexdigest() != said["sha256"]:
        return f"expected another sum, got {show(got)}"
    for part in said.get("contains", []):
        if value(part, own) not in got:
            return f"expected {show(value(part, own))} in {show(got)}"
    for part in said.get("absent", []):
        if value(part, own) in got:
            return f"expected no {show(value(part, own))} in {show(got)}"
    if "matches" in said and not re.fullmatch(value(said["matches"], own), got):
        return f"expected a match of {said['matches']!r}, got {show(got)}"
    if "lines" in said:
        lines = sorted(value(line, own) + b"\n" for line in said["lines"])
        if lines != sorted(got.splitlines(keepends=True)):
            return f"expected these lines in any order {lines!r}, got {show(got)}"
    return None
