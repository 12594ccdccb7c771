"""Commands that run to completion: options, results, failures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import pickle
import threading
from datetime import timedelta
from typing import Any

import pytest

import microsandbox as m
from conftest import IMAGE
from microsandbox import Rlimit, Sandbox, Stdin
from microsandbox import sync as blocking


def test_a1_exit_code_is_a_result(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        output = await sandbox.shell("echo out; echo err >&2; exit 3")
        assert (output.stdout_text, output.stderr_text) == ("out\n", "err\n")
        assert (output.exit_code, output.success, output.signal) == (3, False, None)
        assert "exit_code=3" in repr(output)
        killed = await sandbox.shell("kill -9 $$")
        assert (killed.exit_code, killed.signal, killed.success) == (-1, 9, False)

    run(main)


def test_a1_failures_are_builtin_exceptions_too(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError) as raised:
            await sandbox.exec("no-such-program")
        error = raised.value
        assert isinstance(error, m.ExecNotFoundError)
        assert (error.kind, error.errno, error.errno_name) == ("not_found", 2, "ENOENT")
        assert (error.stage, error.path, error.code) == ("execve", "no-such-program", "exec_failed")
        with pytest.raises(PermissionError) as denied:
            await sandbox.exec("/bin/not-permitted")
        assert isinstance(denied.value, m.ExecFailedError)
        assert denied.value.kind is m.ExecFailureKind.PERMISSION_DENIED
        with pytest.raises(m.ExecFailedError) as refused:
            await sandbox.exec("/bin/no-shebang")
        assert not isinstance(refused.value, OSError)

    run(main)


def test_d3_timeout_carries_the_output_so_far(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError) as raised:
            await sandbox.shell("echo so far; exec sleep 600", timeout=0.2)
        error = raised.value
        assert isinstance(error, m.ExecTimeoutError)
        assert error.output.stdout_bytes == b"so far\n"
        assert (error.output.timed_out, error.output.signal) == (True, 9)

    run(main)


def test_invalid_utf8_raises_for_text_only(box: blocking.Sandbox) -> None:
    output = box.shell("printf '\\377'")
    assert output.stdout_bytes == b"\xff"
    with pytest.raises(UnicodeDecodeError):
        _ = output.stdout_text


def test_options_are_keywords_or_a_dict(box: blocking.Sandbox) -> None:
    script = 'echo "$A $PWD $0"; cat; ulimit -n'
    options: m.ExecOptions = {
        "cwd": "/work",
        "env": {"A": "1"},
        "stdin": Stdin.bytes("in\n"),
        "rlimits": [Rlimit.nofile(100, 200)],
        "timeout": timedelta(seconds=20),
    }
    wanted = "1 /work zero\nin\n100\n"
    assert box.shell(script, ["zero"], options).stdout_text == wanted
    assert box.shell(script, ["zero"], **options).stdout_text == wanted
    assert box.exec("/bin/sh", ["-c", script, "zero"], **options).stdout_text == wanted
    assert box.exec("pwd", {"cwd": "/work"}).stdout_text == "/work\n"
    unknown: Any = {"workdir": "/"}
    for call in (box.exec, box.shell, box.exec_stream, box.shell_stream, box.attach):
        with pytest.raises(TypeError, match="no option 'workdir'"):
            call("true", [], unknown)
        with pytest.raises(TypeError, match="no option 'workdir'"):
            call("true", **unknown)
    with pytest.raises(TypeError, match="no option 'size'"):
        blocking.Sandbox.create("never", image=IMAGE, size=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="given twice"):
        box.exec("true", [], {"cwd": "/"}, cwd="/")
    with pytest.raises(TypeError, match="needs an image"):
        blocking.Sandbox.create("never")


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": math.nan},
        {"timeout": math.inf},
        {"timeout": 1e30},
        {"drain": -1},
        {"max_output": -1},
        {"max_output": 2**64},
        {"tty": True, "tty_size": (0, 80)},
        {"tty": True, "tty_size": (24, 65536)},
        {"tty_size": (24, 80)},
        {"cwd": ""},
        {"cwd": "/a\0b"},
        {"user": ""},
        {"env": {"A=B": "1"}},
        {"env": {"": "1"}},
        {"env": {"A": "1\x002"}},
        {"env": {"A\0": "1"}},
        {"args": ["a\0b"]},
    ],
    ids=repr,
)
def test_invalid_options_are_rejected(box: blocking.Sandbox, options: Any) -> None:
    with pytest.raises(m.InvalidArgumentError) as raised:
        box.exec("true", **options)
    assert isinstance(raised.value, ValueError)
    assert "\n" not in str(raised.value)


def test_attach_rejects_a_zero_timeout(box: blocking.Sandbox) -> None:
    with pytest.raises(m.InvalidArgumentError):
        box.attach("true", timeout=0)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": "1"},
        {"timeout": True},
        {"rlimits": ["nofile"]},
        {"env": {"A": 1}},
        {"cwd": 1},
        {"stdin": 5},
        {"args": "one text"},
    ],
    ids=repr,
)
def test_wrong_types_are_type_errors(box: blocking.Sandbox, options: Any) -> None:
    with pytest.raises(TypeError):
        box.exec("true", **options)


def test_a9_rlimits_have_names_bounds_and_infinity(box: blocking.Sandbox) -> None:
    assert Rlimit.as_(5) == Rlimit("as", 5, 5)
    for name in m._rlimit.RESOURCES:
        made = getattr(Rlimit, {"as": "as_"}.get(name, name))(1, Rlimit.INFINITY)
        assert (made.resource, made.soft, made.hard) == (name, 1, 2**64 - 1)
    for resource, soft, hard in [("nofile", 2, 1), ("nofile", -1, 1), ("files", 1, 1)]:
        with pytest.raises(m.InvalidArgumentError):
            Rlimit(resource, soft, hard)
    limits = [Rlimit.core(0), Rlimit.stack(Rlimit.INFINITY)]
    assert box.shell("ulimit -c; ulimit -s", rlimits=limits).stdout_text == "0\nunlimited\n"


def test_a4_max_output_truncates_and_counts_all(box: blocking.Sandbox) -> None:
    for most in (0, 1, 5):
        output = box.shell("echo 123456789; echo x >&2", max_output=most)
        assert output.stdout_bytes == b"123456789\n"[:most]
        assert output.stderr_bytes == b"x\n"[:most]
        assert (output.stdout_total, output.stderr_total, output.truncated) == (10, 2, True)
    assert not box.shell("echo 123456789", max_output=10).truncated


def test_errors_can_be_pickled(box: blocking.Sandbox) -> None:
    def error_of(call: Any) -> Any:
        try:
            call()
        except m.MicrosandboxError as error:
            return pickle.loads(pickle.dumps(error))
        raise AssertionError("no error")

    failed = error_of(lambda: box.exec("no-such-program"))
    assert (type(failed), failed.errno_name, failed.path) == (
        m.ExecNotFoundError,
        "ENOENT",
        "no-such-program",
    )
    late = error_of(lambda: box.shell("echo x; exec sleep 9", timeout=0.1))
    assert (type(late), late.output.stdout_bytes) == (m.ExecTimeoutError, b"x\n")
    gone = error_of(lambda: blocking.Sandbox.get("nobody"))
    assert (type(gone), gone.code) == (m.SandboxNotFoundError, "sandbox_not_found")


def test_threads_share_a_sandbox(box: blocking.Sandbox) -> None:
    def work(number: int) -> bool:
        return all(box.exec("echo", [f"{number}"]).stdout_text == f"{number}\n" for _ in range(10))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_sync_exec_works_in_a_running_loop(box: blocking.Sandbox) -> None:
    async def main() -> str:  # as a notebook cell does
        return box.exec("echo", ["cell"]).stdout_text

    assert asyncio.run(main()) == "cell\n"


def test_async_without_a_loop_names_the_remedy(sandbox: Sandbox) -> None:
    coroutine = sandbox.exec("true")
    with pytest.raises(RuntimeError, match=r"microsandbox\.sync"):
        coroutine.send(None)


def test_threads_share_a_handle(box: blocking.Sandbox) -> None:
    handle = box.shell_stream("echo a; exec sleep 600")
    seen: list[Any] = []

    def read() -> None:
        try:
            for event in handle:
                seen.append(event.event_type)
        except m.ClosedError as error:
            seen.append(error.code)

    reader = threading.Thread(target=read)
    reader.start()
    while seen != ["started", "stdout"]:
        with pytest.raises((m.BusyError, m.WaitTimeoutError)):
            handle.recv(timeout=0.01)
    handle.kill()
    reader.join(20)
    assert seen == ["started", "stdout", "exited"]
    handle.close()
