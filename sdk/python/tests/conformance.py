"""Runs the conformance cases through the package, see conformance/README.md.

The runner is written for the asynchronous names; `Twin` gives the synchronous ones the same form,
each call on a thread.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import os
import pathlib
import sys
import time
from typing import Any, NamedTuple

import microsandbox as m
from microsandbox import sync as blocking

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "bindings-test" / "python"))

import form  # its place is known only now
from form import Wrong, mismatch, show, value

SCALE = float(os.environ.get("MSB_TEST_TIME_SCALE", "1"))


class Outcome(NamedTuple):
    """What came of a run; what is not known is None."""

    ending: Any = None
    error: Any = None
    closed: Any = None
    output: Any = None
    totals: Any = None
    truncated: Any = None
    writer_left: Any = None
    events: Any = None
    stdin_errors: Any = None
    took: Any = None


class Twin:
    """An object of the synchronous twin, with methods to await."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def _take_stdin(self) -> Any:
        sink = self.inner.take_stdin()
        return sink and Twin(sink)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name == "take_stdin":
            return self._take_stdin
        if not callable(found):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            result = await asyncio.to_thread(found, *args, **options)
            return Twin(result) if isinstance(result, blocking.ExecHandle) else result

        return call


async def given_up(handle: Any, name: str) -> Any:
    """What a call gave that was given up at once; None if nothing."""
    if isinstance(handle, Twin):
        with contextlib.suppress(m.WaitTimeoutError):
            return getattr(handle.inner, name)(timeout=0)
        return None
    task = asyncio.ensure_future(getattr(handle, name)())
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None


async def expect_failure(wanted: str, call: Any) -> None:
    try:
        await call
    except m.MicrosandboxError as error:
        if error.code != wanted:
            raise Wrong(f"expected {wanted}, got {error.code}: {error}") from error
    else:
        raise Wrong(f"expected {wanted}, got success")


class Run:
    """One run of a case."""

    def __init__(self, case: Any, sandbox: Any, own: str) -> None:
        self.case, self.sandbox, self.own = case, sandbox, own
        self.handle: Any = None
        self.sink: Any = None
        self.session: Any = None
        self.feeder: Any = None
        self.closed = False
        self.others: list[Any] = []
        self.kinds: list[str] = []
        self.stdin_errors = 0
        self.seen = {"stdout": bytearray(), "stderr": bytearray()}
        self.looked = {"stdout": 0, "stderr": 0}

    async def once(self) -> list[str]:
        """Everything that is wrong with it."""
        try:
            return await asyncio.wait_for(self.tried(), 30 * SCALE)
        except asyncio.TimeoutError:
            return [f"hung after {self.kinds}, {show(self.seen['stdout'])}"]
        except (Wrong, m.MicrosandboxError) as wrong:
            return [f"{type(wrong).__name__}: {wrong}"]
        finally:
            await self.clean_up()

    async def tried(self) -> list[str]:
        await self.steps(self.case.get("before", []), "before: ")
        outcome = await self.run()
        if self.case.get("also_tty") and self.case.get("tty") is not None and outcome.output:
            stdout, stderr = outcome.output
            outcome = outcome._replace(output=(stdout.replace(b"\r\n", b"\n"), stderr))
        problems = list(self.problems(outcome))
        if not problems:
            await self.steps(self.case.get("after", []), "afterwards: ")
        return problems

    def command(self) -> tuple[str, Any, dict[str, Any]]:
        """What to call with, but for the name of the method."""
        case, own = self.case, self.own
        options: dict[str, Any] = {
            "args": [value(arg, own) for arg in case.get("args", [])],
            "env": [(value(name, own), value(text, own)) for name, text in case.get("env", [])],
            "rlimits": [self.rlimit(limit) for limit in case.get("rlimits", [])],
        }
        tty = case.get("tty")
        if tty is not None:
            options["tty"] = True
        if tty:
            options["tty_size"] = (tty["rows"], tty["cols"])
        if "cwd" in case:
            options["cwd"] = value(case["cwd"], own)
        for name in ("user", "wait_for_eof", "max_output"):
            if name in case:
                options[name] = case[name]
        for name in ("timeout", "drain"):
            if f"{name}_ms" in case:
                options[name] = case[f"{name}_ms"] / 1000
        stdin = case.get("stdin", "null")
        if isinstance(stdin, dict):
            options["stdin"] = m.Stdin.bytes(value(stdin["bytes"], own))
        else:
            options["stdin"] = m.Stdin.pipe() if stdin == "pipe" else m.Stdin.null()
        kind = "shell" if "script" in case else "exec"
        return kind, value(case.get("cmd", case.get("script")), own), options

    @staticmethod
    def rlimit(limit: Any) -> m.Rlimit:
        bounds = [
            m.Rlimit.INFINITY if limit[n] == "infinity" else limit[n] for n in ("soft", "hard")
        ]
        make = getattr(m.Rlimit, {"as": "as_"}.get(limit["resource"], limit["resource"]))
        made: m.Rlimit = make(*bounds)
        return made

    async def run(self) -> Outcome:
        begun = time.monotonic()
        mode, many = self.case.get("mode", "collect"), self.case.get("at_once")
        try:
            kind, program, options = self.command()
            if many:
                return await self.at_once(many, begun, kind, program, options)
            if mode == "collect" and not self.case.get("steps"):
                return await self.collected(getattr(self.sandbox, kind)(program, **options), begun)
            self.handle = await getattr(self.sandbox, kind + "_stream")(program, **options)
        except m.InvalidArgumentError as error:
            return Outcome(error=error, took=time.monotonic() - begun)
        self.session = self.handle.id
        await self.steps(self.case.get("steps", []), "")
        if self.closed:
            outcome = Outcome(closed=True)
        elif mode == "collect":
            outcome = await self.collected(self.handle.collect(), begun)
        elif mode == "wait":
            outcome = await self.waited(begun)
        else:
            outcome = await self.streamed(begun)
        if self.feeder:
            await self.feeder
        return outcome

    async def at_once(
        self, many: int, begun: float, kind: str, program: Any, options: Any
    ) -> Outcome:
        start = getattr(self.sandbox, kind + "_stream")
        self.others = [await start(program, **options) for _ in range(many)]
        for handle in self.others:
            outcome = await self.collected(handle.collect(), begun)
            for problem in self.problems(outcome):
                raise Wrong(f"one of {many}: {problem}")
        return outcome

    async def collected(self, call: Any, begun: float) -> Outcome:
        try:
            output = await call
        except m.ExecTimeoutError as error:
            output = error.output
        except m.MicrosandboxError as error:
            return Outcome(error=error, took=time.monotonic() - begun)
        return Outcome(
            ending=output.status,
            output=(output.stdout_bytes, output.stderr_bytes),
            totals=(output.stdout_total, output.stderr_total),
            truncated=output.truncated,
            writer_left=output.writer_left,
            took=time.monotonic() - begun,
        )

    async def ending(self) -> Any:
        try:
            return await self.handle.wait()
        except m.ExecFailedError as error:
            return error

    async def waited(self, begun: float) -> Outcome:
        try:
            first = await self.ending()
        except m.MicrosandboxError as error:
            return Outcome(error=error, took=time.monotonic() - begun)
        took = time.monotonic() - begun
        second = await self.ending()
        if repr(first) != repr(second):
            raise Wrong(f"a second wait said {second} after {first}")
        return self.told(first)._replace(took=took)

    @staticmethod
    def told(ending: Any) -> Outcome:
        is_error = isinstance(ending, m.MicrosandboxError)
        return Outcome(error=ending) if is_error else Outcome(ending=ending)

    async def streamed(self, begun: float) -> Outcome:
        took = None
        while "end" not in self.kinds:
            if took is None and "exited" in self.kinds:
                took = time.monotonic() - begun
            self.take(await self.handle.recv())
        took = time.monotonic() - begun if took is None else took
        for _ in range(2):
            event = await self.handle.recv()
            if event is not None:
                raise Wrong(f"{event} came after the end")
        left = self.handle.writer_left
        return self.told(await self.ending())._replace(
            output=(bytes(self.seen["stdout"]), bytes(self.seen["stderr"])),
            writer_left=left if "exited" in self.kinds else None,
            events=self.kinds,
            stdin_errors=self.stdin_errors,
            took=took,
        )

    def take(self, event: Any) -> None:
        kind = "end" if event is None else str(event.event_type)
        if kind in self.seen:
            self.seen[kind] += event.data
        if kind == "stdin_error":
            self.stdin_errors += 1
        last = self.kinds[-1] if self.kinds else None
        # Output comes in pieces of any size, and the end is told for ever.
        if last != kind or kind not in ("stdout", "stderr", "end"):
            self.kinds.append(kind)

    async def until(self, condition: Any) -> None:
        while not condition():
            if "end" in self.kinds:
                raise Wrong(f"the end came first: {self.kinds}, {show(self.seen['stdout'])}")
            self.take(await self.handle.recv())

    async def wait_text(self, name: str, text: bytes) -> None:
        seen = self.seen[name]
        await self.until(lambda: seen.find(text, self.looked[name]) >= 0)
        self.looked[name] = seen.find(text, self.looked[name]) + len(text)

    async def steps(self, steps: Any, where: str) -> None:
        for number, step in enumerate(steps, 1):
            name, content = (step, None) if isinstance(step, str) else next(iter(step.items()))
            try:
                await getattr(self, "step_" + name)(content)
            except (Wrong, m.MicrosandboxError) as wrong:
                raise Wrong(f"{where}step {number} ({json.dumps(step)}): {wrong!r}") from wrong

    async def step_wait(self, kind: str) -> None:
        await self.until(lambda: kind in self.kinds)

    async def step_wait_stdout(self, text: Any) -> None:
        await self.wait_text("stdout", value(text, self.own))

    async def step_wait_stderr(self, text: Any) -> None:
        await self.wait_text("stderr", value(text, self.own))

    async def step_wait_exit(self, _: None) -> None:
        await self.handle.wait()

    def pipe(self) -> Any:
        if self.sink is None:
            self.sink = self.handle.take_stdin()
        if self.sink is None:
            raise Wrong("there is no writing end")
        return self.sink

    async def step_write(self, data: Any) -> None:
        await self.pipe().write(value(data, self.own))

    async def step_write_fails(self, content: Any) -> None:
        data = value(content["data"], self.own)

        async def write_for_ever() -> None:
            while True:
                await self.pipe().write(data)

        await expect_failure(content["error"], write_for_ever())

    async def step_feed(self, data: Any) -> None:
        sink = self.pipe()

        async def feed() -> None:
            with contextlib.suppress(m.BrokenInputError):
                await sink.write(value(data, self.own))
            await sink.close()

        self.feeder = asyncio.ensure_future(feed())

    async def step_close_stdin(self, _: None) -> None:
        await self.pipe().close()

    async def step_no_sink(self, _: None) -> None:
        if self.handle.take_stdin() is not None:
            raise Wrong("there is a writing end")

    @contextlib.asynccontextmanager
    async def reachable(self) -> Any:
        """The handle, or another of the session's when it is closed."""
        if not self.closed:
            yield self.handle
            return
        other = await self.sandbox.reattach(self.session, None)
        yield other
        await other.close()

    async def step_signal(self, number: int) -> None:
        async with self.reachable() as handle:
            await handle.signal(number)

    async def step_signal_fails(self, content: Any) -> None:
        await expect_failure(content["error"], self.step_signal(content["signal"]))

    async def step_kill(self, _: None) -> None:
        async with self.reachable() as handle:
            await handle.kill()

    async def step_kill_fails(self, error: str) -> None:
        await expect_failure(error, self.step_kill(None))

    async def step_resize(self, size: Any) -> None:
        await self.handle.resize(*size)

    async def step_resize_fails(self, content: Any) -> None:
        size = content["rows"], content["cols"]
        await expect_failure(content["error"], self.handle.resize(*size))

    async def step_give_up(self, content: Any) -> None:
        for _ in range(content["times"]):
            result = await given_up(self.handle, content["on"])
            if result is not None and content["on"] == "recv":
                self.take(result)
            if result is not None and content["on"] == "collect":
                raise Wrong("it ended while collecting was given up")

    async def step_close(self, _: None) -> None:
        if self.case.get("stdin") == "pipe":
            self.pipe()
        await self.handle.close()
        self.closed = True

    async def step_run(self, content: Any) -> None:
        output = await self.sandbox.shell(value(content["script"], self.own))
        if not output.success:
            raise Wrong(f"{output}")
        problem = mismatch(content.get("stdout", ""), output.stdout_bytes, self.own)
        if problem:
            raise Wrong(problem)

    async def step_until(self, condition: str) -> None:
        script = f"until {condition}; do usleep 10000; done"
        await self.step_run({"script": script, "stdout": {}})

    async def step_listed(self, wanted: str) -> None:
        sessions = {session.id: session for session in await self.sandbox.sessions()}
        found = sessions.get(self.session)
        state = found and ("running" if found.running else "ended")
        if state != wanted:
            raise Wrong(f"session {self.session} is {state}")

    def problems(self, outcome: Any) -> Any:
        """Everything that is not as expected."""
        expect = self.case.get("expect", {})
        yield from self.end_problem(expect, outcome)
        if outcome.output and not expect.get("closed"):
            for name, got in zip(("stdout", "stderr"), outcome.output):
                problem = mismatch(expect.get(name, ""), got, self.own)
                if problem:
                    yield f"{name}: {problem}"
        if outcome.totals:
            for name, got in zip(("stdout_total", "stderr_total"), outcome.totals):
                if expect.get(name, got) != got:
                    yield f"{name}: expected {expect[name]}, got {got}"
            if outcome.truncated != expect.get("truncated", False):
                yield f"truncated: {outcome.truncated}"
        if outcome.writer_left not in (None, expect.get("writer_left", False)):
            yield f"writer_left: {outcome.writer_left}"
        if outcome.events:
            wanted = expect.get("stdin_errors", 0)
            if outcome.stdin_errors not in ((0, 1) if wanted == "at_most_one" else (wanted,)):
                yield f"stdin_errors: expected {wanted}, got {outcome.stdin_errors}"
            if expect.get("events", outcome.events) != outcome.events:
                yield f"events: expected {expect['events']}, got {outcome.events}"
            if not well_formed(outcome.events):
                yield f"events are out of form: {outcome.events}"
        if outcome.took is not None:
            took = outcome.took * 1000
            if took < expect.get("at_least_ms", 0):
                yield f"expected at least {expect['at_least_ms']} ms, took {took}"
            if took > expect.get("within_ms", took / SCALE) * SCALE:
                yield f"expected at most {expect['within_ms']} ms, took {took}"

    def end_problem(self, expect: Any, outcome: Any) -> Any:
        error = outcome.error
        if expect.get("closed") or outcome.closed:
            fine = expect.get("closed") and outcome.closed
        elif "failure" in expect:
            fine = isinstance(error, m.ExecFailedError) and self.failed_as(expect["failure"], error)
        elif "error" in expect or error:
            fine = error and error.code == expect.get("error")
        else:
            fine = self.exited_as(expect, outcome.ending)
        if not fine:
            yield f"expected {expect}, got {error or outcome.ending or 'closed'!r}"

    def failed_as(self, wanted: Any, got: m.ExecFailedError) -> bool:
        path = got.path.encode("utf-8", "surrogateescape")
        return (
            got.kind == wanted["kind"]
            and got.stage == wanted["stage"]
            and got.errno_name == wanted["errno_name"]
            and (got.errno is None) == (wanted["errno_name"] == "")
            and isinstance(got, FileNotFoundError) == (got.errno_name == "ENOENT")
            and isinstance(got, PermissionError) == (got.errno_name in ("EACCES", "EPERM"))
            and ("path" not in wanted or path == value(wanted["path"], self.own))
            and bool(got.message)
            and "\n" not in got.message
        )

    @staticmethod
    def exited_as(expect: Any, got: m.ExitStatus) -> bool:
        timed_out = expect.get("timed_out", False)
        signal = expect.get("signal", 9 if timed_out and "code" not in expect else None)
        code = expect.get("code", -1 if signal else 0)
        usage = expect.get("usage", {})
        assert got.usage is not None
        return (
            (got.code, got.signal) == (code, signal or None)
            and got.timed_out == timed_out
            and got.core_dumped == expect.get("core", got.core_dumped)
            and got.success == (code == 0 and not signal)
            and got.usage.user_time + got.usage.system_time >= usage.get("cpu_ms_min", 0) / 1000
            and got.usage.wall_time >= usage.get("wall_ms_min", 0) / 1000
            and got.usage.max_rss >= usage.get("rss_min", 0)
        )

    async def clean_up(self) -> None:
        """Leaves nothing behind, whatever went wrong."""
        if self.feeder:
            self.feeder.cancel()
        with contextlib.suppress(m.MicrosandboxError):
            if self.session:
                await self.step_kill(None)
        for handle in [self.handle, self.sink, *self.others]:
            if handle is not None:
                with contextlib.suppress(m.MicrosandboxError):
                    if handle in self.others:
                        await handle.kill()
                await handle.close()


def well_formed(events: list[str]) -> bool:
    """B1: started once and first, one ending, then the end and nothing more."""
    endings = [event for event in events if event in ("exited", "failed", "lost")]
    if len(endings) != 1 or events.count("end") != 1 or events[-1] != "end":
        return False
    if endings == ["failed"]:
        return len(events) == 2
    if endings == ["lost"]:
        return events[-2] == "lost"
    late = "stdin_error" in events[events.index("exited") :]
    return events[0] == "started" and events.count("started") == 1 and not late


load_wrong = form.load_wrong


class Suite:
    """Runs cases, several at a time, in one sandbox per profile."""

    def __init__(self, image: str, is_sync: bool) -> None:
        self.image, self.is_sync = image, is_sync
        self.numbers = itertools.count()
        self.made: dict[str, Any] = {}
        self.lock = asyncio.Lock()
        self.profiles = json.loads((form.FOLDER / "profiles.json").read_text())

    async def sandbox(self, name: str) -> Any:
        async with self.lock:
            if name not in self.made:
                own = f"py-{'sync' if self.is_sync else 'async'}-{name}"
                options: Any = {"image": self.image, **self.profiles[name]}
                if self.is_sync:
                    make = blocking.Sandbox.create
                    self.made[name] = Twin(await asyncio.to_thread(make, own, options))
                else:
                    self.made[name] = await m.Sandbox.create(own, options)
            return self.made[name]

    async def problems(self, case: Any) -> list[str]:
        for _ in range(case.get("times", 1)):
            own = f"/tmp/case-{next(self.numbers)}"
            sandbox = await self.sandbox(case.get("sandbox", "default"))
            problems = await Run(case, sandbox, own).once()
            if problems:
                return problems
        return []

    async def run(self, cases: list[Any]) -> list[Any]:
        """Pairs of a case and its problems."""
        at_once = asyncio.Semaphore(4)

        async def one(case: Any) -> Any:
            async with at_once:
                return case, await self.problems(case)

        try:
            return await asyncio.gather(*map(one, cases))
        finally:
            for sandbox in self.made.values():
                await sandbox.kill()
                await m.Sandbox.remove(sandbox.name)


def choose() -> tuple[list[Any], collections.Counter[str]]:
    """The cases to run, and how many are not, by reason."""
    wanted = os.environ.get("MSB_CONFORMANCE", "")
    chosen, skipped = [], collections.Counter[str]()
    for file, case in form.load():
        about = [file, case["name"], *case["promises"], *case.get("refs", [])]
        if not any(wanted in text for text in about):
            skipped["not asked for"] += 1
        elif "root" in case.get("requires", []) and os.geteuid() != 0:
            skipped["needs root"] += 1
        else:
            chosen.append(case)
    return chosen, skipped
