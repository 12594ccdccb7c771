"""Creating, finding, listing and ending sandboxes; logs; the synchronous twin."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import signal
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import microsandbox as m
from conftest import IMAGE, SCALE
from microsandbox import Sandbox
from microsandbox import sync as blocking


def test_g_create_applies_all_options(run: Any) -> None:
    async def main() -> None:
        options: m.SandboxOptions = {
            "image": IMAGE,
            "env": {"COLOR": "red"},
            "workdir": "/work",
            "user": "app",
            "hostname": "made",
            "labels": {"job": "7", "empty": ""},
        }
        before = time.time() - 1
        async with await Sandbox.create("py-made", options, driver="container") as sb:
            output = await sb.shell("echo $COLOR $PWD $(id -un) $(hostname)")
            assert output.stdout_text == "red /work app made\n"
            info = await sb.info()
            assert (info.name, info.status, info.driver) == ("py-made", "running", "container")
            assert (info.labels, info.image) == ({"job": "7", "empty": ""}, IMAGE)
            assert (info.isolation, info.detached, info.end_reason) == ("container", False, None)
            assert (info.cpus, info.memory) == (None, None)
            assert before < info.created_at <= (info.started_at or 0) < time.time() + 1
            with pytest.raises(m.SandboxAlreadyExistsError):
                await Sandbox.create("py-made", options)
            assert info in [found for found in await Sandbox.list() if found.name == "py-made"]
            with pytest.raises(m.SandboxRunningError):
                await Sandbox.remove("py-made")
            found = await Sandbox.get("py-made")
            assert (await found.exec("true")).success
            async with found:
                pass
            assert await sb.status() == "running"
        with pytest.raises(m.SandboxNotFoundError):
            await Sandbox.get("py-made")

    run(main)


def test_g_stop_start_and_remove_sandbox(run: Any) -> None:
    async def main() -> None:
        sb = await Sandbox.create("py-life", image=IMAGE, replace=True)
        await sb.shell("echo kept > /tmp/file")
        await sb.stop(timeout=0)
        await sb.wait()
        assert (await sb.status(), (await sb.info()).end_reason) == ("stopped", "stopped")
        with pytest.raises(m.SandboxNotRunningError):
            await sb.stop()
        again = await Sandbox.start("py-life")
        assert (await again.exec("cat", ["/tmp/file"])).stdout_text == "kept\n"
        await again.close()
        with pytest.raises(m.ClosedError):
            await again.exec("true")
        await Sandbox.remove("py-life", force=True)
        with pytest.raises(LookupError):
            await Sandbox.remove("py-life")

    run(main)


def test_g_invalid_sandbox_options_are_rejected() -> None:
    def create(name: str = "py-never", **options: Any) -> None:
        blocking.Sandbox.create(name, **{"image": IMAGE, **options})

    for name in ("", "-x", "a/b", "x" * 129):
        with pytest.raises(m.InvalidConfigError):
            create(name)
    with pytest.raises(m.MicrosandboxError):
        create(image="/nonexistent")
    with pytest.raises(m.MicrosandboxError):
        create(driver="no-such-driver")
    zero: Any
    for zero in ({"cpus": 0}, {"memory": 0}, {"memory": 15}, {"boot_timeout": 0}, {"log_files": 0}):
        with pytest.raises(m.InvalidArgumentError):
            create(**zero)
    wrong: Any
    for wrong, named in (
        ({"cpus": -1}, "cpus is -1;"),
        ({"cpus": float("nan")}, "cpus is nan;"),
        ({"cpus": 4096.5}, "cpus is 4096.5;"),
        ({"memory": 104857600}, "memory (in MiB) is 104857600;"),
        ({"shm_size": 64}, "shm_size (in bytes) is 64;"),
        ({"pids_limit": 7}, "pids_limit is 7;"),
        ({"disk": 15}, "disk (in MiB) is 15;"),
        ({"security": "strict"}, "security is 'strict';"),
        ({"stop_signal": ""}, "the stop_signal is empty"),
    ):
        with pytest.raises(m.InvalidArgumentError, match=re.escape(named)):
            create(**wrong)
    for wrong in (
        {"cpus": True},
        {"cpus": "2"},
        {"memory": 64.0},
        {"pids_limit": True},
        {"stop_signal": True},
        {"disk": 1.5},
        {"require_jail": 1},
        {"init": "auto"},
        {"detached": "no"},
    ):
        with pytest.raises(TypeError):
            create(**wrong)
    with pytest.raises(m.InvalidArgumentError):
        create("py\0never")
    with pytest.raises(m.InvalidArgumentError):
        blocking.Sandbox.get("py\0never")
    assert [info.name for info in blocking.Sandbox.list() if "never" in info.name] == []


def test_j4_bounds_are_applied_and_reported(run: Any) -> None:
    async def main() -> None:
        asked: m.SandboxOptions = {
            "image": IMAGE,
            "cpus": 0.5,
            "memory": 256,
            "shm_size": 32 << 20,
            "pids_limit": 512,
            "stop_signal": signal.SIGINT,
            "disk": 1024,
            "security": "restricted",
            "require_jail": False,
            "init": True,
        }
        async with await Sandbox.create("py-bounded", asked) as sb:
            info = await sb.info()
            assert (info.cpus, info.memory) == (0.5, 256)
            size = await sb.shell("stat -f -c '%b %S' /dev/shm")
            blocks, block = map(int, size.stdout_text.split())
            assert blocks * block == 32 << 20
            stored = Path(os.environ["MSB_HOME"], "sandboxes", "py-bounded", "config.json")
            assert json.loads(stored.read_text())["config"]["stop_signal"] == "SIGINT"
            assert info.jailed is not None and info.bounds is not None
            await sb.kill()
            # The runner's record of the sandbox, with known values.
            path = Path(os.environ["MSB_HOME"], "sandboxes", "py-bounded", "started.json")
            started = json.loads(path.read_text())
            bounds = {"pids": 512, "memory_bytes": 1 << 28, "disk_bytes": None, "cpu_millis": 500}
            started["protection"] = {"jailed": False, "missing": ["quota: x"], "bounds": bounds}
            path.write_text(json.dumps(started))
            info = await sb.info()
            assert (info.jailed, info.missing_walls) == (False, ["quota: x"])
            assert info.bounds == m.Bounds(512, 1 << 28, None, 0.5)
            started["protection"] = None
            path.write_text(json.dumps(started))
            info = await sb.info()
            assert (info.jailed, info.missing_walls, info.bounds) == (None, [], None)

    run(main)


def test_cancelled_create_leaves_nothing() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(Sandbox.create("py-cancelled", image=IMAGE))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        deadline = time.monotonic() + 30 * SCALE
        while any(info.name == "py-cancelled" for info in await Sandbox.list()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    asyncio.run(main())


def test_close_wakes_all_waiters_of_a_sandbox(run: Any) -> None:
    if run.__name__ == "run_trio":
        pytest.skip("trio allows one task per descriptor, and raises in a second one")

    async def main() -> None:
        async with await Sandbox.create("py-awaited", image=IMAGE) as sb:
            other = await Sandbox.get("py-awaited")
            waiting = [asyncio.ensure_future(sb.wait()) for _ in range(3)]
            cancelled = asyncio.ensure_future(sb.wait())
            closed = asyncio.ensure_future(other.wait())
            await asyncio.sleep(0.05)
            cancelled.cancel()
            await other.close()
            with pytest.raises(m.ClosedError):
                await closed
            await sb.kill()
            await asyncio.gather(*waiting)
            assert (await sb.info()).end_reason == "killed"

    run(main)


def test_doctor_reports_drivers_and_walls(run: Any) -> None:
    async def main() -> None:
        host = await m.doctor()
        found = {driver.name: driver for driver in host.drivers}
        assert found["container"].usable and found["container"].isolation == "container"
        assert all(driver.why for driver in found.values())
        assert all(wall.name for wall in host.walls)

    run(main)
    assert blocking.doctor().drivers


def test_d6_log_is_read_and_followed(run: Any) -> None:
    async def main() -> None:
        async with await Sandbox.create("py-logged", image=IMAGE, log=True) as sb:
            handle = await sb.shell_stream("printf '\\377a'; echo err >&2; exit 3", tty=False)
            await handle.wait()
            with pytest.raises(FileNotFoundError):
                await sb.exec("no-such-program", ["x"])
            follower = sb.logs(follow=True)
            records = []
            async for record in follower:
                records.append(record)
                if record.kind == "failed":
                    break
            mine = [record for record in records if record.session == handle.id]
            assert (mine[0].kind, mine[-1].kind) == ("started", "exited")
            assert mine[0].pid and mine[0].command is not None and mine[0].command[1] == "-c"
            text = {
                kind: b"".join(record.data for record in mine if record.kind == kind)
                for kind in ("stdout", "stderr")
            }
            assert text == {"stdout": b"\xffa", "stderr": b"err\n"}
            assert mine[-1].status == m.ExitStatus(3)
            assert abs(mine[0].time - time.time()) < 60 * SCALE
            failed = records[-1]
            assert failed.failure is not None and failed.failure.errno_name == "ENOENT"
            assert failed.command == ["no-such-program", "x"]
            await sb.stop(timeout=0)
            assert await follower.recv() is None and follower.warning is None
            one = [record.kind async for record in sb.logs(handle.id)]
            assert one == [record.kind for record in mine]
            later = datetime.fromtimestamp(time.time() + 1000, timezone.utc)
            assert [record async for record in sb.logs(since=later)] == []
            await follower.close()
            with pytest.raises(m.ClosedError):
                await follower.recv()

    run(main)


def test_d6_logs_without_log_is_an_error(box: blocking.Sandbox) -> None:
    with pytest.raises(m.InvalidConfigError):
        list(box.logs())
    with pytest.raises(m.InvalidArgumentError):
        box.logs(since=-1)


def test_d6_log_timeouts_lose_no_record(box: blocking.Sandbox) -> None:
    with (
        blocking.Sandbox.create("py-follow", image=IMAGE, log=True) as sb,
        sb.logs(follow=True) as log,
    ):
        for _ in range(3):
            with pytest.raises(m.WaitTimeoutError):
                log.recv(timeout=0.02)
        sb.exec("echo", ["1"])
        kinds: list[m.LogKind] = []
        while kinds[-1:] != ["exited"]:
            record = log.recv()
            assert record is not None
            kinds.append(record.kind)
        assert kinds == ["started", "stdout", "exited"]


def public(cls: Any) -> dict[str, Any]:
    return {
        name: member
        for name, member in inspect.getmembers(cls)
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
    }


@pytest.mark.parametrize("name", ["Sandbox", "ExecHandle", "ExecSink", "LogStream", "Image"])
def test_sync_and_async_have_equal_signatures(name: str) -> None:
    ours, theirs = public(getattr(m, name)), public(getattr(blocking, name))
    assert ours.keys() == theirs.keys()
    for member, function in ours.items():
        if isinstance(function, property):
            continue
        wanted = list(inspect.signature(function).parameters)
        given = list(inspect.signature(theirs[member]).parameters)
        waits = {"write", "recv", "recv_view", "wait", "collect"}
        assert given == [*wanted, "timeout"] if member in waits else given == wanted
        assert function.__doc__ and theirs[member].__doc__


def test_version_and_typing_marker() -> None:
    assert m.version() == m.__version__
    assert os.path.exists(os.path.join(os.path.dirname(m.__file__), "py.typed"))
    assert set(m.__all__) <= set(dir(m))
