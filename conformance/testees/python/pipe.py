"""Shared by both testees in Python: the protocol, and the names of values on the pipe.

The protocol is in conformance/README.md.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any, Optional

import microsandbox as m

Done = tuple[Any, list[bytes]]
OK: Done = ("ok", [])
HELLO: Done = ({"hello": {}}, [])
_lock = threading.Lock()


class Request:
    """A line of the judge, and the parts behind it."""

    def __init__(self, line: dict[str, Any], parts: list[bytes]) -> None:
        self.line, self.parts = line, parts

    def __getitem__(self, field: str) -> Any:
        return self.line.get(field)

    def part(self, field: str) -> Optional[bytes]:
        """Return the bytes that a field numbers."""
        return self.parts[self.line[field]] if field in self.line else None

    def text(self, field: str) -> Optional[str]:
        """Return the bytes that a field numbers as text."""
        data = self.part(field)
        return None if data is None else data.decode()

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Return the environment variables, in order."""
        return [(self.parts[name], self.parts[value]) for name, value in self["env"] or []]

    def sandbox(self) -> dict[str, Any]:
        """Return the options of a sandbox."""
        fields = ("image", "workdir", "shell", "user")
        options = {field: self.text(field) for field in fields if field in self.line}
        env = [(name.decode(), value.decode()) for name, value in self.pairs()]
        return {**options, "env": env}

    def command(self) -> tuple[str, bytes, dict[str, Any]]:
        """Return whether it is `exec` or `shell`, its first argument and its options."""
        options: dict[str, Any] = {
            "args": [self.parts[arg] for arg in self["args"] or []],
            "env": self.pairs(),
            "rlimits": [_rlimit(*limit) for limit in self["rlimits"] or []],
            "stdin": m.Stdin.pipe() if self["stdin_pipe"] else m.Stdin.null(),
        }
        for field in ("tty", "wait_for_eof", "max_output"):
            if field in self.line:
                options[field] = self[field]
        for field in ("timeout", "drain"):
            if f"{field}_ms" in self.line:
                options[field] = self[f"{field}_ms"] / 1000
        if "rows" in self.line:
            options["tty_size"] = (self["rows"], self["cols"])
        if "cwd" in self.line:
            options["cwd"] = self.part("cwd")
        if "user" in self.line:
            options["user"] = self.text("user")
        if "stdin" in self.line:
            options["stdin"] = m.Stdin.bytes(self.parts[self["stdin"]])
        is_script = "script" in self.line
        program = self.part("script" if is_script else "cmd")
        assert program is not None
        return "shell" if is_script else "exec", program, options

    def reply(self, line: dict[str, Any], *parts: bytes) -> None:
        """Write one reply, uninterrupted."""
        line = {"id": self["id"], **line, "parts": [len(part) for part in parts]}
        with _lock:
            sys.stdout.buffer.write(json.dumps(line).encode() + b"\n")
            sys.stdout.buffer.writelines(parts)
            sys.stdout.buffer.flush()

    def report(self, event: Optional[m.ExecEvent]) -> bool:
        """Report an event; return whether it is the one that the judge waits for."""
        kind = "end" if event is None else str(event.event_type)
        if event is not None and kind in ("stdout", "stderr"):
            self.reply({"event": kind, "data": 0}, event.data)
        else:
            self.reply({"event": kind})
        return kind == "end" or self["until"] in ("any", kind)

    def done(self, done: Done) -> None:
        """Report the result of the request."""
        self.reply({"done": done[0]}, *done[1])


def read() -> Optional[Request]:
    """Read a request; None at the end."""
    line = sys.stdin.buffer.readline()
    if not line:
        return None
    fields = json.loads(line)
    return Request(fields, [sys.stdin.buffer.read(length) for length in fields["parts"]])


def _rlimit(name: str, _: int, *texts: str) -> m.Rlimit:
    make = getattr(m.Rlimit, {"as": "as_"}.get(name, name))
    made: m.Rlimit = make(*[m.Rlimit.INFINITY if text == "-1" else int(text) for text in texts])
    return made


def exited(status: m.ExitStatus) -> dict[str, Any]:
    """Return the exit status."""
    usage = status.usage
    assert usage is not None
    return {
        "code": status.code,
        "signal": status.signal or 0,
        "core": status.core_dumped,
        "timed_out": status.timed_out,
        "success": status.success,
        "cpu_us": int((usage.user_time + usage.system_time) * 1e6),
        "wall_us": int(usage.wall_time * 1e6),
        "max_rss": usage.max_rss,
    }


def collected(output: m.ExecOutput, raised: bool = False) -> Done:
    """Return the collected output."""
    data = {
        "stdout": 0,
        "stderr": 1,
        "stdout_total": output.stdout_total,
        "stderr_total": output.stderr_total,
        "truncated": output.truncated,
        "writer_left": output.writer_left,
    }
    line = {"exited": {**exited(output.status), "raised": raised, "output": data}}
    return line, [output.stdout_bytes, output.stderr_bytes]


def failed(error: BaseException) -> Done:
    """Return an error; some are endings of a command."""
    if isinstance(error, m.ExecTimeoutError):
        return collected(error.output, raised=True)
    if isinstance(error, m.ExecFailedError):
        line = {
            "kind": str(error.kind),
            "stage": error.stage,
            "errno": error.errno or 0,
            "errno_name": error.errno_name,
            "message": 0,
            "path": 1,
        }
        path = error.path.encode("utf-8", "surrogateescape")
        return {"failed": line}, [error.message.encode(), path]
    kind = error.code if isinstance(error, m.MicrosandboxError) else "testee"
    return {"error": {"kind": kind, "message": 0}}, [(str(error) or repr(error)).encode()]


def state_of(sessions: list[m.SessionInfo], session: str) -> Done:
    """Return the state of a session in the list."""
    for found in sessions:
        if found.id == session:
            return {"state": "running" if found.running else "ended"}, []
    return {"state": "unknown"}, []
