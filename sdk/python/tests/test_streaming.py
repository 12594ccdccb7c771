"""Events, stdin, cancellation, views, and the cost of streams."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import random
import threading
import time
import tracemalloc
from typing import Any

import pytest

import microsandbox as m
from conftest import LONG, SCALE
from microsandbox import ExecEventType, Sandbox, Stdin, _native
from microsandbox import sync as blocking

LINES = 1_000_000 if LONG else 100_000


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def eventually(condition: Any) -> None:
    deadline = time.monotonic() + 20 * SCALE
    while not condition():
        gc.collect()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_b1_events_equal_their_names_and_end_once(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        handle = await sandbox.shell_stream("echo out; echo err >&2; exit 3")
        events = [event async for event in handle]
        assert events[0].event_type == "started"
        assert events[0].pid
        assert b"".join(e.data for e in events if e.event_type == "stdout") == b"out\n"
        assert b"".join(e.data for e in events if e.event_type is ExecEventType.STDERR) == b"err\n"
        assert (events[-1].event_type, events[-1].code) == ("exited", 3)
        assert f"{events[-1].event_type}" == str(events[-1].event_type) == "exited"
        assert [await handle.recv(), await handle.recv()] == [None, None]
        assert [event async for event in handle] == []
        assert (await handle.wait()).code == 3
        await handle.close()
        with pytest.raises(m.ClosedError):
            await handle.recv()

    run(main)


def test_b1_failure_to_start_is_an_event(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        handle = await sandbox.exec_stream("no-such-program")
        (event,) = [event async for event in handle]
        assert event.event_type == "failed" and event.failure is not None
        assert (event.failure.kind, event.failure.path) == ("not_found", "no-such-program")
        for call in (handle.wait, handle.collect):
            with pytest.raises(FileNotFoundError):
                await call()
        with pytest.raises(m.NoSuchProcessError):
            await handle.kill()

    run(main)


def test_b4_handle_reports_a_left_writer(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        for script, left in (("sleep 600 & echo hi", True), ("echo hi", False)):
            handle = await sandbox.shell_stream(script)
            assert [event.data async for event in handle if event.data] == [b"hi\n"]
            assert handle.writer_left is left
            with contextlib.suppress(m.NoSuchProcessError):
                await handle.kill()  # reaches the background process
            await handle.close()

    run(main)


def test_c_stdin_and_its_eof_arrive(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        size = 3_000_000
        data = bytes(range(256)) * (size // 256)
        handle = await sandbox.exec_stream("cat", stdin=Stdin.pipe())
        sink = handle.take_stdin()
        assert sink is not None and handle.take_stdin() is None
        feeder = _Feeder(sink, data)
        thread = threading.Thread(target=feeder.run)
        thread.start()
        output = await handle.collect()
        thread.join()
        assert output.stdout_bytes == data
        await sink.close()
        await sink.close()
        with pytest.raises(m.ClosedError):
            await sink.write(b"late")

    run(main)


class _Feeder:
    """Writes from the event loop of another thread."""

    def __init__(self, sink: m.ExecSink, data: bytes) -> None:
        self.sink, self.data = sink, data

    async def main(self) -> None:
        async with self.sink as sink:
            await sink.write(memoryview(self.data)[:100])
            await sink.write(b"")
            await sink.write(bytearray(self.data[100:]))

    def run(self) -> None:
        asyncio.run(self.main())


def test_c3_closed_stdin_raises_broken_pipe(box: blocking.Sandbox) -> None:
    handle = box.shell_stream("exec <&-; echo closed; exec sleep 600", stdin=Stdin.pipe())
    while (event := handle.recv()) is not None and event.event_type != "stdout":
        pass
    sink = handle.take_stdin()
    assert sink is not None
    with pytest.raises(BrokenPipeError) as raised:
        while True:
            sink.write(b"x" * 65536)
    assert isinstance(raised.value, m.BrokenInputError)
    event = handle.recv()
    assert event is not None and event.event_type == "stdin_error" and event.errno == 32
    with handle:
        pass
    with pytest.raises(m.ClosedError):
        handle.kill()


def test_b9_second_reader_is_busy_and_control_is_not(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        handle = await sandbox.exec_stream("sleep", ["600"])
        assert (await handle.recv()).event_type == "started"  # type: ignore[union-attr]
        first = handle.recv()
        # One step up to its wait, as a task would run it.
        waiting = first.send(None)
        for call in (handle.recv, handle.wait, handle.collect, handle.recv_view):
            with pytest.raises(m.BusyError):
                await call()
        assert len(handle.id) == 32
        first.close()
        del waiting
        await handle.signal("TERM")
        assert (await handle.wait()).signal == 15

    if run.__name__ == "run_trio":
        pytest.skip("cannot step a task of trio by hand")
    run(main)


def test_d1_close_wakes_a_pending_recv(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        handle = await sandbox.exec_stream("sleep", ["600"], stdin=Stdin.pipe())
        session = handle.id
        assert (await handle.recv()).event_type == "started"  # type: ignore[union-attr]
        closer = threading.Timer(0.05, lambda: asyncio.run(handle.close()))
        closer.start()
        with pytest.raises(m.ClosedError):
            await handle.recv()
        closer.join()
        assert handle.id == session and "closed" in repr(handle)
        again = await sandbox.reattach(session, None)
        await again.kill()
        assert (await again.wait()).signal == 9

    run(main)


def test_d1_end_of_scope_kills(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        async with await sandbox.exec_stream("sleep", ["600"]) as handle:
            session = handle.id
        (found,) = [one for one in await sandbox.sessions() if one.id == session]
        assert found.status is not None and found.status.signal == 9

    run(main)


def test_b10_collect_returns_the_rest(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        handle = await sandbox.shell_stream("echo 1; echo 2; echo 3 >&2; sleep 0.1; echo 4")
        seen = {"stdout": b"", "stderr": b""}
        while not seen["stdout"]:
            event = await handle.recv()
            assert event is not None
            if event.data:
                seen[event.event_type] += event.data
        output = await handle.collect()
        assert seen["stdout"] + output.stdout_bytes == b"1\n2\n4\n"
        assert output.stdout_total == len(output.stdout_bytes)
        assert seen["stderr"] + output.stderr_bytes == b"3\n"
        assert (await handle.collect()).stdout_bytes == b""
        waited = await sandbox.shell_stream("echo 1; exit 7")
        assert (await waited.recv()).event_type == "started"  # type: ignore[union-attr]
        assert (await waited.wait()).code == 7
        assert await waited.recv() is None

    run(main)


def test_d5_reattach_resumes_at_a_position(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        handle = await sandbox.shell_stream("echo 1; read x; echo 2; read y", stdin=Stdin.pipe())
        sink = handle.take_stdin()
        assert sink is not None
        while handle.position < 2:
            await handle.recv()
        await sink.write("\n")
        rest = await sandbox.reattach(handle.id, handle.position, stdin=True)
        event = await rest.recv()
        while event is not None and event.event_type != "stdout":
            event = await rest.recv()
        assert event is not None and event.data == b"2\n" and rest.missed == 0
        await rest.take_stdin().write("\n")  # type: ignore[union-attr]
        assert (await rest.wait()).code == 0
        whole = await sandbox.reattach(handle.id)
        assert (await whole.collect()).stdout_bytes == b"1\n2\n"
        for wrong, error in (("0" * 32, LookupError), ("no id", ValueError)):
            with pytest.raises(error):
                await sandbox.reattach(wrong)

    run(main)


def test_d5_dropped_peer_leaves_stdin_open(box: blocking.Sandbox) -> None:
    handle = box.exec_stream("cat", stdin=Stdin.pipe())
    other = box.reattach(handle.id)
    other.close()
    del other
    gc.collect()
    with handle.take_stdin() as sink:  # type: ignore[union-attr]
        sink.write("still open")
    assert handle.collect().stdout_bytes == b"still open"


def counting(handle: Any) -> Any:
    """Return a checker of numbered lines that arrive in pieces."""
    state = {"rest": b"", "next": 0}

    def take(data: bytes) -> None:
        lines = (state["rest"] + data).split(b"\n")  # type: ignore[operator]
        state["rest"] = lines.pop()
        first: int = state["next"]  # type: ignore[assignment]
        assert lines == [b"%d" % at for at in range(first, first + len(lines))]
        state["next"] = first + len(lines)

    return state, take


def test_b5_random_cancels_lose_no_event(sandbox: Sandbox) -> None:
    async def main() -> int:
        handle = await sandbox.exec_stream("seq", ["0", str(LINES - 1)])
        state, take = counting(handle)
        endings = cancelled = 0
        while True:
            task = asyncio.ensure_future(handle.recv())
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
            if random.random() < 0.5:
                task.cancel()
            try:
                event = await task
            except asyncio.CancelledError:
                cancelled += 1
                continue
            if event is None:
                break
            take(event.data)
            endings += event.event_type == "exited"
        assert (state["next"], state["rest"], endings) == (LINES, b"", 1)
        return cancelled

    assert asyncio.run(main()) > 0


def test_b5_random_cancels_lose_no_small_event(sandbox: Sandbox) -> None:
    wanted = 1_000_000 if LONG else 20_000
    size = 20_000
    data = (bytes(range(251)) * (size // 251 + 1))[:size]

    async def follow() -> tuple[int, int]:
        # Alternating single bytes on both outputs, which cannot be merged into larger events.
        handle = await sandbox.exec_stream("helper", ["write-both", str(size), "1"])
        seen = {"stdout": b"", "stderr": b""}
        events = endings = cancelled = 0
        while True:
            task = asyncio.ensure_future(handle.recv())
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
            if random.random() < 0.3:
                task.cancel()
            try:
                event = await task
            except asyncio.CancelledError:
                cancelled += 1
                continue
            if event is None:
                break
            events += 1
            if event.data:
                seen[event.event_type] += event.data
            endings += event.event_type == "exited"
        await handle.close()
        assert endings == 1
        assert seen == {"stdout": data, "stderr": data}
        return events, cancelled

    async def main() -> tuple[int, int]:
        events = cancelled = 0
        while events < wanted:
            more = await asyncio.gather(*(follow() for _ in range(4)))
            events += sum(one for one, _ in more)
            cancelled += sum(one for _, one in more)
        return events, cancelled

    events, cancelled = asyncio.run(main())
    assert events >= wanted and cancelled > events // 100


def test_b5_trio_cancels_lose_no_event(sandbox: Sandbox) -> None:
    import trio

    async def main() -> None:
        handle = await sandbox.exec_stream("seq", ["0", "19999"])
        state, take = counting(handle)
        while True:
            event = None
            with trio.move_on_after(random.choice([0, 0.0005, 1])) as scope:
                event = await handle.recv()
            if event is not None:
                take(event.data)
            elif not scope.cancelled_caught:
                break
        assert state["next"] == 20000

    trio.run(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_runs_on_both_and_its_scopes_kill(backend: str, sandbox: Sandbox) -> None:
    import anyio

    marker = f"{backend}-600"

    async def main() -> None:
        output = await sandbox.exec("echo", ["anyio"])
        assert output.stdout_text == "anyio\n"
        with anyio.move_on_after(0.3):
            await sandbox.shell("exec sleep 600", [marker])
        (found,) = [one for one in await sandbox.sessions() if marker.encode() in one.command]
        deadline = anyio.current_time() + 20 * SCALE
        while found.running:  # anyio's scopes also cancel the wait for the cleanup, which continues
            assert anyio.current_time() < deadline
            await anyio.sleep(0.02)
            (found,) = [one for one in await sandbox.sessions() if marker.encode() in one.command]
        assert found.status is not None and found.status.signal == 9

    anyio.run(main, backend=backend)


def test_d4_cancelled_exec_kills_the_command(run: Any, sandbox: Sandbox) -> None:
    marker = f"d4-{run.__name__}"

    async def running() -> list[str]:
        return [
            s.id for s in await sandbox.sessions() if marker.encode() in s.command and s.running
        ]

    async def with_asyncio() -> None:
        task = asyncio.ensure_future(sandbox.shell("exec sleep 600", [marker]))
        while not await running():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await running() == []

    async def with_trio() -> None:
        import trio

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sandbox.shell, "exec sleep 600", [marker])
            while not await running():
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert await running() == []

    run(with_trio if run.__name__ == "run_trio" else with_asyncio)


def test_many_streams_in_one_loop_use_no_threads(sandbox: Sandbox) -> None:
    count, before = 1000, (threads(), descriptors())

    async def main() -> tuple[int, int]:
        async def follow(number: int) -> None:
            handle = await sandbox.shell_stream(
                "echo $1; read x; echo $1", ["$0", str(number)], stdin=Stdin.pipe()
            )
            sink = handle.take_stdin()
            assert sink is not None
            got = b""
            async for event in handle:
                got += event.data
                if event.data and got == b"%d\n" % number:
                    arrived.append(number)
                    if len(arrived) == count:
                        all_arrived.set()
                    await all_arrived.wait()
                    await sink.write("\n")
            assert got == b"%d\n" % number * 2
            await handle.close()

        arrived: list[int] = []
        all_arrived = asyncio.Event()
        tasks = [asyncio.ensure_future(follow(number)) for number in range(count)]
        await all_arrived.wait()
        most = threads(), descriptors()
        await asyncio.gather(*tasks)
        return most

    most = asyncio.run(main())
    assert most[0] <= before[0] + 2
    assert most[1] <= before[1] + 2 * count + 10
    eventually(lambda: descriptors() <= before[1] + 1)


def test_stalled_stream_keeps_memory_flat(box: blocking.Sandbox) -> None:
    handle = box.shell_stream("exec head -c 200000000 /dev/zero")
    total, most = 0, 0
    tracemalloc.start()
    for event in handle:
        total += len(event.data)
        most = max(most, tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert total == 200_000_000
    assert most < 8 << 20


def test_views_stay_valid_while_a_slice_lives(
    box: blocking.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overwrite released memory to expose a dangling slice."""
    released: list[int] = []
    release = _native.lib.msb_event_release

    class Poisoned:
        def __getattr__(self, name: str) -> Any:
            return getattr(_native.lib, name)

        @staticmethod
        def msb_event_release(raw: Any) -> None:
            event = getattr(raw, "_obj", raw)
            if event.data and event.len:
                ctypes.memset(event.data, 0xDD, event.len)
                released.append(event.len)
            release(raw)

    monkeypatch.setattr("microsandbox._exec.lib", Poisoned())
    handle = box.exec_stream("helper", ["write", "300000"])
    pieces, held = b"", []
    for view in handle.views():
        assert view.data.readonly
        pieces += bytes(view.data)
        if len(view.data) > 10:
            held.append((view.data[3:9], bytes(view.data[3:9])))
            view.data.release()
    wanted = (bytes(range(251)) * (300_000 // 251 + 1))[:300_000]
    assert pieces == wanted
    handle.close()
    del view
    gc.collect()
    assert held and released == []
    assert all(bytes(part) == copy for part, copy in held)
    held.clear()
    gc.collect()
    assert sum(released) == 300_000


def test_views_stop_the_command_until_released(box: blocking.Sandbox) -> None:
    handle = box.shell_stream("exec head -c 8000000 /dev/zero")
    held: list[m.ExecView] = []
    with pytest.raises(m.WaitTimeoutError):
        while True:
            view = handle.recv_view(timeout=0.5)
            assert view is not None, "the command was not stopped"
            held.append(view)
    kept = sum(len(view.data) for view in held)
    held.clear()
    del view
    assert kept + len(handle.collect().stdout_bytes) == 8_000_000


def test_fast_command_does_not_starve_the_loop(sandbox: Sandbox) -> None:
    async def main() -> None:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        ticker = asyncio.ensure_future(tick())
        handle = await sandbox.exec_stream("yes")
        total = 0
        async for event in handle:
            total += len(event.data)
            if total > 20_000_000:
                break
        await handle.kill()
        ticker.cancel()
        assert turns > total // (64 * 65536)

    asyncio.run(main())
