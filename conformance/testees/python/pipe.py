"""Shared by both testees in Python: the protocol, and the names of values on the pipe.

The protocol is in conformance/README.md.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, Optional

import microsandbox as m

# The result of a request: a word, and values.
Done = list[Any]
OK: Done = ["ok"]
HELLO: Done = ["hello"]
_lock = threading.Lock()


class Request:
    """An id, an action, and then names and values."""

    def __init__(self, fields: list[bytes]) -> None:
        self.id, self.action = int(fields[0]), fields[1].decode()
        self.values: dict[str, list[bytes]] = {}
        for name, value in zip(fields[2::2], fields[3::2]):
            self.values.setdefault(name.decode(), []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def value(self, name: str) -> bytes:
        """Return a value."""
        return self.values[name][0]

    def text(self, name: str) -> str:
        """Return a value as text; the empty one if there is none."""
        return self.values.get(name, [b""])[0].decode()

    def number(self, name: str) -> int:
        """Return a value as a number; 0 if there is none."""
        return int(self.text(name) or 0)

    def groups(self, name: str, count: int) -> list[tuple[bytes, ...]]:
        """Return a list of values in groups."""
        values = self.values.get(name, [])
        return list(zip(*[values[at::count] for at in range(count)]))

    def sandbox(self) -> dict[str, Any]:
        """Return the options of a sandbox."""
        fields = ("image", "workdir", "shell", "user")
        options = {field: self.text(field) for field in fields if field in self}
        env = [(name.decode(), value.decode()) for name, value in self.groups("env", 2)]
        return {**options, "env": env}

    def command(self) -> tuple[str, bytes, dict[str, Any]]:
        """Return whether it is `exec` or `shell`, its first argument and its options."""
        options: dict[str, Any] = {
            "args": self.values.get("arg", []),
            "env": self.groups("env", 2),
            "rlimits": [_rlimit(*limit) for limit in self.groups("rlimit", 4)],
            "stdin": m.Stdin.pipe() if "stdin_pipe" in self else m.Stdin.null(),
        }
        for field in ("tty", "wait_for_eof"):
            if field in self:
                options[field] = True
        for field in ("timeout", "drain"):
            if f"{field}_ms" in self:
                options[field] = self.number(f"{field}_ms") / 1000
        if "max_output" in self:
            options["max_output"] = self.number("max_output")
        if "rows" in self:
            options["tty_size"] = (self.number("rows"), self.number("cols"))
        if "cwd" in self:
            options["cwd"] = self.value("cwd")
        if "user" in self:
            options["user"] = self.text("user")
        if "stdin" in self:
            options["stdin"] = m.Stdin.bytes(self.value("stdin"))
        kind = "shell" if "script" in self else "exec"
        return kind, self.value("script" if kind == "shell" else "cmd"), options

    def reply(self, *values: Any) -> None:
        """Write one reply, uninterrupted."""
        fields = [_field(value) for value in (self.id, *values)]
        with _lock:
            sys.stdout.buffer.write(b"%s\n" % b" ".join(b"%d" % len(field) for field in fields))
            sys.stdout.buffer.writelines(fields)
            sys.stdout.buffer.flush()

    def report(self, event: Optional[m.ExecEvent]) -> bool:
        """Report an event; return whether it is the one that the judge waits for."""
        kind = "end" if event is None else str(event.event_type)
        has_data = event is not None and kind in ("stdout", "stderr")
        self.reply("event", kind, *([event.data] if event is not None and has_data else []))
        return kind == "end" or self.text("until") in ("any", kind)


def read() -> Optional[Request]:
    """Read a request; None at the end."""
    line = sys.stdin.buffer.readline()
    return Request([sys.stdin.buffer.read(int(size)) for size in line.split()]) if line else None


def _field(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _rlimit(name: bytes, _: bytes, *bounds: bytes) -> m.Rlimit:
    make = getattr(m.Rlimit, {"as": "as_"}.get(name.decode(), name.decode()))
    numbers = [m.Rlimit.INFINITY if bound == b"-1" else int(bound) for bound in bounds]
    made: m.Rlimit = make(*numbers)
    return made


def exited(word: str, status: m.ExitStatus) -> Done:
    """Return the exit status."""
    usage = status.usage
    assert usage is not None
    end = [status.code, status.signal or 0, status.core_dumped, status.timed_out, status.success]
    times = [usage.user_time + usage.system_time, usage.wall_time]
    return [word, *end, *[int(time * 1e6) for time in times], usage.max_rss]


def collected(output: m.ExecOutput, raised: bool = False) -> Done:
    """Return the collected output."""
    data = [output.stdout_bytes, output.stderr_bytes, output.stdout_total, output.stderr_total]
    end = exited("collected", output.status)
    return [*end, raised, *data, output.truncated, output.writer_left]


def failed(error: BaseException) -> Done:
    """Return an error; some are endings of a command."""
    if isinstance(error, m.ExecTimeoutError):
        return collected(error.output, raised=True)
    if isinstance(error, m.ExecFailedError):
        number, name = error.errno or 0, error.errno_name
        return ["failed", error.kind, error.stage, number, name, error.message, error.path]
    kind = error.code if isinstance(error, m.MicrosandboxError) else "testee"
    return ["error", kind, str(error) or repr(error)]


def state_of(sessions: list[m.SessionInfo], session: str) -> Done:
    """Return the state of a session in the list."""
    found = [it for it in sessions if it.id == session]
    return ["state", ("running" if found[0].running else "ended") if found else "unknown"]
