"""Runs the conformance cases through ctypes. Usage: conformance.py [WRONG-CASES]

MSB_TEST_ROOTFS names what conformance/make-rootfs made.
"""

import collections
import concurrent.futures
import ctypes
import itertools
import json
import os
import sys
import threading
import time

import form
import msb
from form import Wrong, mismatch, show, value

SCALE = float(os.environ.get("MSB_TEST_TIME_SCALE", "1"))
KINDS = {
    0: "end",
    msb.MSB_EVENT_STARTED: "started",
    msb.MSB_EVENT_STDOUT: "stdout",
    msb.MSB_EVENT_STDERR: "stderr",
    msb.MSB_EVENT_STDIN_ERROR: "stdin_error",
    msb.MSB_EVENT_EXITED: "exited",
    msb.MSB_EVENT_FAILED: "failed",
    msb.MSB_EVENT_LOST: "lost",
}
# A closed handle is no handle in C.
ERRORS = {
    msb.MSB_E_INVALID: "invalid_argument",
    msb.MSB_E_PIPE: "broken_pipe",
    msb.MSB_E_CLOSED: "closed",
    msb.MSB_E_HANDLE: "closed",
    msb.MSB_E_NO_PROCESS: "no_such_process",
    msb.MSB_E_NO_SESSION: "no_such_session",
    msb.MSB_E_NOT_A_TERMINAL: "not_a_terminal",
}
RESOURCES = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
]

Outcome = collections.namedtuple(
    "Outcome",
    "ending error closed output totals truncated writer_left events stdin_errors took",
    defaults=[None] * 10,
)


def inexpressible(case):
    """Why the C ABI cannot say what the case asks for, if so."""
    plain = [
        case.get("cmd", ""),
        case.get("script", ""),
        case.get("cwd", ""),
        *case.get("args", []),
    ]
    names = [name for name, _ in case.get("env", [])]
    plain += itertools.chain(*case.get("env", []))
    if any(b"\0" in value(text, "") for text in plain):
        return "a NUL in a text that a NUL ends"
    if any(b"=" in value(name, "") for name in names):
        return "'=' in a variable's name, which '=' ends"
    tty = case.get("tty", {})
    if 0 in (case.get("timeout_ms"), case.get("max_output"), tty.get("rows"), tty.get("cols")):
        return "a zero that means the default"
    return None


def error_name(failure):
    return ERRORS.get(failure.status, failure.name)


def expect_failure(wanted, function, *arguments):
    try:
        function(*arguments)
    except msb.Failure as failure:
        if error_name(failure) != wanted:
            raise Wrong(f"expected {wanted}, got {failure}") from failure
    else:
        raise Wrong(f"expected {wanted}, got success")


class Run:
    """One run of a case."""

    def __init__(self, case, sandbox, own):
        self.case, self.sandbox, self.own = case, sandbox, own
        self.deadline = time.monotonic() + 30 * SCALE
        self.exec = self.sink = self.session = self.feeder = None
        self.taken, self.ended_input, self.fed = False, False, None
        self.others = []
        self.kinds, self.stdin_errors = [], 0
        self.seen = {"stdout": bytearray(), "stderr": bytearray()}
        self.looked = {"stdout": 0, "stderr": 0}

    def once(self):
        """Everything that is wrong with it."""
        try:
            self.steps(self.case.get("before", []), "before: ")
            outcome = self.run()
            if self.case.get("also_tty") and self.case.get("tty") is not None and outcome.output:
                stdout, stderr = outcome.output
                outcome = outcome._replace(output=(stdout.replace(b"\r\n", b"\n"), stderr))
            problems = list(self.problems(outcome))
            if not problems:
                self.steps(self.case.get("after", []), "afterwards: ")
            return problems
        except (Wrong, msb.Failure) as wrong:
            return [str(wrong)]
        finally:
            self.clean_up()

    def left(self):
        """Milliseconds that are left."""
        left = int((self.deadline - time.monotonic()) * 1000)
        if left <= 0:
            raise Wrong(f"hung after {self.kinds}, {show(self.seen['stdout'])}")
        return left

    def in_time(self, function, *arguments):
        """What a call with a time limit gives in the end."""
        result = function(*arguments, self.left())
        if result is None:
            raise Wrong(f"hung after {self.kinds}, {show(self.seen['stdout'])}")
        return result

    def run(self):
        begun = time.monotonic()
        mode = self.case.get("mode", "collect")
        many = self.case.get("at_once")
        if many:
            return self.at_once(many, begun)
        try:
            self.exec, self.sink = self.start()
        except msb.Failure as failure:
            return Outcome(error=failure, took=time.monotonic() - begun)
        self.session = msb.session_id(self.exec)
        self.steps(self.case.get("steps", []), "")
        if self.exec is None:
            outcome = Outcome(closed=True)
        elif mode == "collect":
            outcome = self.collected(self.exec, begun)
        elif mode == "wait":
            outcome = self.waited(begun)
        else:
            outcome = self.streamed(begun)
        if self.feeder:
            self.feeder.join(self.left() / 1000)
            if self.feeder.is_alive():
                raise Wrong("feeding hung")
            if self.fed:
                raise Wrong(f"feeding: {self.fed}")
        return outcome

    def at_once(self, many, begun):
        for _ in range(many):
            self.others.append(self.start()[0])
        for exec_ in self.others:
            outcome = self.collected(exec_, begun)
            problem = next(self.problems(outcome), None)
            if problem:
                raise Wrong(f"one of {many}: {problem}")
        return outcome

    def start(self):
        case, own = self.case, self.own
        fields, flags = {}, 0
        if "script" in case:
            flags |= msb.MSB_EXEC_SHELL
        tty = case.get("tty")
        if tty is not None:
            flags |= msb.MSB_EXEC_TTY
            fields.update(tty)
        if case.get("wait_for_eof"):
            flags |= msb.MSB_EXEC_WAIT_FOR_EOF
        if "cwd" in case:
            fields["cwd"] = value(case["cwd"], own)
        if "user" in case:
            fields["user"] = case["user"].encode()
        if "timeout_ms" in case:
            fields["timeout_ns"] = case["timeout_ms"] * 1_000_000
        if "drain_ms" in case:
            # Zero would be the default; this is as good as none.
            fields["drain_ns"] = case["drain_ms"] * 1_000_000 or 1
        if "max_output" in case:
            fields["max_output"] = case["max_output"]
        stdin = case.get("stdin", "null")
        options = msb.command(
            value(case.get("cmd", case.get("script")), own),
            *[value(arg, own) for arg in case.get("args", [])],
            env=[value(name, own) + b"=" + value(text, own) for name, text in case.get("env", [])],
            rlimits=[self.rlimit(limit) for limit in case.get("rlimits", [])],
            stdin=value(stdin["bytes"], own) if isinstance(stdin, dict) else None,
            flags=flags,
            **fields,
        )
        return msb.start(self.sandbox, options, pipe=stdin == "pipe")

    @staticmethod
    def rlimit(limit):
        soft, hard = (
            2**64 - 1 if limit[name] == "infinity" else limit[name] for name in ("soft", "hard")
        )
        return msb.msb_rlimit(resource=RESOURCES.index(limit["resource"]), soft=soft, hard=hard)

    def collected(self, exec_, begun):
        output = self.in_time(msb.collect, exec_)
        return Outcome(
            ending=output,
            output=(output.stdout, output.stderr),
            totals=output.totals,
            truncated=bool(output.flags & msb.MSB_OUTPUT_TRUNCATED),
            writer_left=bool(output.flags & msb.MSB_EVENT_WRITER_LEFT),
            took=time.monotonic() - begun,
        )

    def waited(self, begun):
        first = self.in_time(msb.wait, self.exec)
        took = time.monotonic() - begun
        second = self.in_time(msb.wait, self.exec)
        if repr(first) != repr(second):
            raise Wrong(f"a second wait said {second} after {first}")
        return Outcome(ending=first, took=took)

    def streamed(self, begun):
        took = None
        while "end" not in self.kinds:
            if took is None and "exited" in self.kinds:
                took = time.monotonic() - begun
            events = self.in_time(msb.recv_many, self.exec)
            if not events:
                raise Wrong(f"hung after {self.kinds}, {show(self.seen['stdout'])}")
            for event in events:
                self.take(event)
        took = time.monotonic() - begun if took is None else took
        for _ in range(2):
            event = self.in_time(msb.recv, self.exec)
            if event.kind:
                raise Wrong(f"{event} came after the end")
        ending = self.in_time(msb.wait, self.exec)
        output = self.in_time(msb.collect, self.exec)
        left = bool(output.flags & msb.MSB_EVENT_WRITER_LEFT)
        return Outcome(
            ending=ending,
            output=(bytes(self.seen["stdout"]), bytes(self.seen["stderr"])),
            writer_left=left if ending.exit else None,
            events=self.kinds,
            stdin_errors=self.stdin_errors,
            took=took,
        )

    def take(self, event):
        kind = KINDS[event.kind]
        if kind in self.seen:
            self.seen[kind] += event.data
        if kind == "stdin_error":
            self.stdin_errors += 1
        last = self.kinds[-1] if self.kinds else None
        # Output comes in pieces of any size, and the end is told for ever.
        if last != kind or kind not in ("stdout", "stderr", "end"):
            self.kinds.append(kind)

    def until(self, condition):
        while not condition():
            if "end" in self.kinds:
                raise Wrong(f"the end came first: {self.kinds}, {show(self.seen['stdout'])}")
            self.take(self.in_time(msb.recv, self.exec))

    def wait_text(self, name, text):
        seen = self.seen[name]
        self.until(lambda: seen.find(text, self.looked[name]) >= 0)
        self.looked[name] = seen.find(text, self.looked[name]) + len(text)

    def steps(self, steps, where):
        for number, step in enumerate(steps, 1):
            try:
                self.step(step)
            except (Wrong, msb.Failure) as wrong:
                raise Wrong(f"{where}step {number} ({json.dumps(step)}): {wrong}") from wrong

    def step(self, step):
        name, content = (step, None) if isinstance(step, str) else next(iter(step.items()))
        getattr(self, "step_" + name)(content)

    def step_wait(self, kind):
        self.until(lambda: kind in self.kinds)

    def step_wait_stdout(self, text):
        self.wait_text("stdout", value(text, self.own))

    def step_wait_stderr(self, text):
        self.wait_text("stderr", value(text, self.own))

    def step_wait_exit(self, _):
        if not self.in_time(msb.wait, self.exec).exit:
            raise Wrong("it did not exit")

    def pipe(self):
        """The writing end, which is then taken."""
        if self.sink is None:
            raise Wrong("there is no writing end")
        self.taken = True
        return self.sink

    def write_all(self, sink, data):
        start = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        written, done = ctypes.c_size_t(), 0
        while True:
            arguments = (start + done, len(data) - done, self.left(), ctypes.byref(written))
            if msb.call(msb.lib.msb_sink_write, sink, *arguments) == msb.MSB_AGAIN:
                raise Wrong("writing hung")
            done += written.value
            if done >= len(data):
                return

    def step_write(self, data):
        self.write_all(self.pipe(), value(data, self.own))

    def step_write_fails(self, content):
        data = value(content["data"], self.own)

        def write_for_ever():
            while True:
                self.write_all(self.pipe(), data)

        expect_failure(content["error"], write_for_ever)

    def step_feed(self, data):
        sink, data = self.pipe(), value(data, self.own)

        def feed():
            try:
                self.write_all(sink, data)
            except msb.Failure as failure:
                if error_name(failure) != "broken_pipe":
                    self.fed = failure
            except Wrong as wrong:
                self.fed = wrong
            msb.close(sink)

        self.feeder = threading.Thread(target=feed, daemon=True)
        self.feeder.start()

    def step_close_stdin(self, _):
        # Again is harmless, and says that the handle is none any more.
        wanted = msb.MSB_E_HANDLE if self.ended_input else msb.MSB_OK
        if msb.close(self.pipe()) != wanted:
            raise Wrong("closing the writing end went wrong")
        self.ended_input = True

    def step_no_sink(self, _):
        if self.sink is not None and not self.taken:
            raise Wrong("there is a writing end")

    def signal(self, number, flags):
        """By another handle of the session's, when the case's own is closed."""
        handles = [self.exec]
        if self.exec is None:
            handles = msb.reattach(self.sandbox, self.session, msb.MSB_FROM_NOW)
        try:
            msb.call(msb.lib.msb_exec_signal, handles[0], number, flags)
        finally:
            for handle in handles if self.exec is None else ():
                msb.close(handle)

    def kill(self):
        self.signal(9, msb.MSB_SIGNAL_TREE)

    def resize(self, rows, cols):
        msb.call(msb.lib.msb_exec_resize, self.exec, rows, cols)

    def step_signal(self, number):
        self.signal(number, msb.MSB_SIGNAL_GROUP)

    def step_signal_fails(self, content):
        expect_failure(content["error"], self.signal, content["signal"], msb.MSB_SIGNAL_GROUP)

    def step_kill(self, _):
        self.kill()

    def step_kill_fails(self, error):
        expect_failure(error, self.kill)

    def step_resize(self, size):
        self.resize(*size)

    def step_resize_fails(self, content):
        expect_failure(content["error"], self.resize, content["rows"], content["cols"])

    def step_give_up(self, content):
        function = {"recv": msb.recv, "wait": msb.wait, "collect": msb.collect}[content["on"]]
        for _ in range(content["times"]):
            result = function(self.exec, 0)
            if result is not None and content["on"] == "recv":
                self.take(result)
            if result is not None and content["on"] == "collect":
                raise Wrong("it ended while collecting was given up")

    def step_close(self, _):
        if msb.close(self.exec) != msb.MSB_OK:
            raise Wrong("closing failed")
        self.exec = None

    def step_run(self, content):
        script = value(content["script"], self.own)
        exec_, _ = msb.start(self.sandbox, msb.command(script, flags=msb.MSB_EXEC_SHELL))
        try:
            output = self.in_time(msb.collect, exec_)
        finally:
            msb.close(exec_)
        if not output.exit or output.exit.code != 0:
            raise Wrong(f"{output}, {show(output.stderr)}")
        problem = mismatch(content.get("stdout", ""), output.stdout, self.own)
        if problem:
            raise Wrong(problem)

    def step_until(self, condition):
        script = f"until {condition}; do usleep 10000; done"
        self.step_run({"script": script, "stdout": {}})

    def step_listed(self, wanted):
        entries = msb.msb_exec_entries()
        msb.call(msb.lib.msb_exec_list, self.sandbox, ctypes.byref(entries))
        states = {
            entries.entries[at].contents.id: "ended"
            if entries.entries[at].contents.exit
            else "running"
            for at in range(entries.len)
        }
        msb.lib.msb_exec_entries_release(ctypes.byref(entries))
        if states.get(self.session) != wanted:
            raise Wrong(f"session {self.session} is {states.get(self.session)}")

    def problems(self, outcome):
        """Everything that is not as expected."""
        expect = self.case.get("expect", {})
        yield from self.end_problem(expect, outcome)
        if outcome.output and not expect.get("closed"):
            for name, got in zip(("stdout", "stderr"), outcome.output):
                problem = mismatch(expect.get(name, ""), got, self.own)
                if problem:
                    yield f"{name}: {problem}"
        exited = outcome.ending is not None and outcome.ending.exit
        if outcome.totals and exited:
            for name, got in zip(("stdout_total", "stderr_total"), outcome.totals):
                if expect.get(name, got) != got:
                    yield f"{name}: expected {expect[name]}, got {got}"
            if outcome.truncated != expect.get("truncated", False):
                yield f"truncated: {outcome.truncated}"
        left = expect.get("writer_left", False) if exited else outcome.writer_left
        if outcome.writer_left not in (None, left):
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

    def end_problem(self, expect, outcome):
        ending = outcome.ending
        if expect.get("closed") or outcome.closed:
            fine = expect.get("closed") and outcome.closed
        elif "error" in expect or outcome.error:
            fine = outcome.error and error_name(outcome.error) == expect.get("error")
        elif "failure" in expect or ending.failure:
            fine = ending.failure and self.failed_as(expect.get("failure"), ending.failure)
        else:
            fine = ending.exit and self.exited_as(expect, ending.exit)
        if not fine:
            yield f"expected {expect}, got {outcome.error or ending or 'closed'}"

    def failed_as(self, wanted, got):
        text = got["message"].decode()
        return (
            wanted is not None
            and got["kind_name"].decode() == wanted["kind"]
            and got["stage"].decode() == wanted["stage"]
            and got["os_error_name"].decode() == wanted["errno_name"]
            and (got["os_error"] == 0) == (wanted["errno_name"] == "")
            and ("path" not in wanted or got["path"] == value(wanted["path"], self.own))
            and text
            and "\n" not in text
        )

    @staticmethod
    def exited_as(expect, got):
        timed_out = expect.get("timed_out", False)
        signal = expect.get("signal", 9 if timed_out and "code" not in expect else 0)
        code = expect.get("code", -1 if signal else 0)
        core = bool(got.flags & msb.MSB_EXIT_CORE_DUMPED)
        usage = expect.get("usage", {})
        return (
            (got.code, got.signal) == (code, signal)
            and bool(got.flags & msb.MSB_EXIT_TIMED_OUT) == timed_out
            and core == expect.get("core", core)
            and got.user_ns + got.system_ns >= usage.get("cpu_ms_min", 0) * 1_000_000
            and got.wall_ns >= usage.get("wall_ms_min", 0) * 1_000_000
            and got.max_rss >= usage.get("rss_min", 0)
        )

    def clean_up(self):
        """Leaves nothing behind, whatever went wrong."""
        if self.session:
            try:
                self.kill()
            except msb.Failure:
                pass  # most have ended
        for exec_ in self.others:
            try:
                msb.call(msb.lib.msb_exec_signal, exec_, 9, msb.MSB_SIGNAL_TREE)
            except msb.Failure:
                pass
        for handle in (self.exec, self.sink, *self.others):
            msb.close(handle)


def well_formed(events):
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


class Sandboxes:
    """One sandbox per profile, made when it is asked for."""

    def __init__(self, image):
        self.image, self.lock, self.made = image, threading.Lock(), {}
        self.profiles = json.loads((form.FOLDER / "profiles.json").read_text())

    def get(self, name):
        with self.lock:
            if name not in self.made:
                profile = self.profiles[name]
                fields = {
                    field: profile[field].encode()
                    for field in ("workdir", "shell", "user")
                    if field in profile
                }
                env = [f"{key}={text}".encode() for key, text in profile.get("env", [])]
                self.made[name] = msb.create(f"py-{name}".encode(), self.image, env, **fields)
            return self.made[name]

    def end(self):
        for name, sandbox in self.made.items():
            msb.end(sandbox, f"py-{name}".encode())


class Suite:
    """Runs cases, several at a time."""

    def __init__(self):
        self.sandboxes = Sandboxes(os.environ["MSB_TEST_ROOTFS"].encode())
        self.numbers = itertools.count()

    def problems(self, case):
        for _ in range(case.get("times", 1)):
            own = f"/tmp/case-{next(self.numbers)}"
            problems = Run(case, self.sandboxes.get(case.get("sandbox", "default")), own).once()
            if problems:
                return problems
        return []

    def run(self, cases):
        """Pairs of a case and its problems."""
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return list(zip(cases, pool.map(self.problems, cases)))


def choose(cases):
    """The cases to run, and how many are not, by reason."""
    wanted = os.environ.get("MSB_CONFORMANCE", "")
    chosen, skipped = [], collections.Counter()
    for file, case in cases:
        about = [file, case["name"], *case["promises"], *case.get("refs", [])]
        if not any(wanted in text for text in about):
            skipped["not asked for"] += 1
        elif "root" in case.get("requires", []) and os.geteuid() != 0:
            skipped["needs root"] += 1
        elif inexpressible(case):
            skipped[inexpressible(case)] += 1
        else:
            chosen.append(case)
    return chosen, skipped


def check_runner(suite, path):
    """That the runner notices what is wrong: how many expectations it was wrong about."""
    wrong = form.load_wrong(path)
    unnoticed = [case["name"] for case, problems in suite.run(wrong) if not problems]
    print(f"{len(wrong) - len(unnoticed)} of {len(wrong)} wrong expectations noticed")
    for name in unnoticed:
        print(f"not noticed: {name}", file=sys.stderr)
    return len(unnoticed)


def main():
    suite = Suite()
    if len(sys.argv) > 1:
        failed = check_runner(suite, sys.argv[1])
    else:
        chosen, skipped = choose(form.load())
        failed = 0
        for case, problems in suite.run(chosen):
            if problems:
                failed += 1
                print(f"{case['name']}: {'; '.join(problems)}", file=sys.stderr)
        parts = [f"{len(chosen) - failed} of {len(chosen) + sum(skipped.values())} cases"]
        parts += [f"{failed} FAILED"] if failed else []
        parts += [f"{count} skipped ({why})" for why, count in skipped.items()]
        print(", ".join(parts))
    suite.sandboxes.end()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
