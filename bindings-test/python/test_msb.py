"""The library through ctypes: descriptors and asyncio, threads, forks, garbage collection."""

import asyncio
import ctypes
import gc
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
import unittest
import warnings
import weakref

import msb

IMAGE = os.environ["MSB_TEST_ROOTFS"].encode()
NAME = b"py"
sandbox = None


def setUpModule():
    global sandbox
    sandbox = msb.create(NAME, IMAGE)


def tearDownModule():
    msb.end(sandbox, NAME)


def script(text, *args, **fields):
    return msb.command(text, *args, flags=msb.MSB_EXEC_SHELL, **fields)


def threads():
    return len(os.listdir("/proc/self/task"))


async def ready(handle):
    """Waits until a call on the handle would not say MSB_AGAIN."""
    loop, fd = asyncio.get_running_loop(), msb.descriptor(handle)
    done = loop.create_future()
    loop.add_reader(fd, lambda: done.done() or done.set_result(None))
    try:
        await done
    finally:
        loop.remove_reader(fd)


async def events(exec_):
    """Its events up to the end of the stream."""
    while True:
        batch = msb.recv_many(exec_, 0)
        for event in batch:
            yield event
            if event.kind == 0:
                return
        if not batch:
            await ready(exec_)


class Case(unittest.TestCase):
    def start(self, options, pipe=False):
        """Starts a command whose handles are closed after the test."""
        exec_, sink = msb.start(sandbox, options, pipe)
        self.addCleanup(msb.close, exec_)
        self.addCleanup(msb.close, sink)
        return (exec_, sink) if pipe else exec_

    def assertStatus(self, status, function, *arguments):
        with self.assertRaises(msb.Failure) as raised:
            msb.call(function, *arguments)
        self.assertEqual(raised.exception.status, status, str(raised.exception))
        self.assertTrue(raised.exception.message)


class Asyncio(Case):
    def test_many_execs_on_one_thread(self):
        execs = [
            self.start(script(b"for i in 1 2 3; do echo $0; usleep 30000; done", b"%d" % n))
            for n in range(40)
        ]
        before = threads()

        async def follow(number, exec_):
            output, kinds = b"", []
            async for event in events(exec_):
                kinds.append(event.kind)
                output += event.data
            self.assertEqual(output, b"%d\n" % number * 3)
            self.assertEqual(kinds[0], msb.MSB_EVENT_STARTED)
            self.assertEqual(kinds[-2:], [msb.MSB_EVENT_EXITED, 0])

        async def main():
            await asyncio.gather(*(follow(n, exec_) for n, exec_ in enumerate(execs)))
            return threads()

        self.assertLessEqual(asyncio.run(main()), before + 1)

    def test_input_and_output_at_once(self):
        size = 4 << 20
        exec_, sink = self.start(msb.command(b"cat"), pipe=True)

        async def feed():
            data, done = bytes(range(256)) * (size // 256), 0
            while done < size:
                taken = msb.write(sink, data[done : done + 65536], 0)
                if not taken:
                    await ready(sink)
                done += taken
            msb.close(sink)

        async def read():
            return b"".join([e.data async for e in events(exec_) if e.kind == msb.MSB_EVENT_STDOUT])

        async def main():
            return (await asyncio.gather(feed(), read()))[1]

        self.assertEqual(asyncio.run(main()), bytes(range(256)) * (size // 256))

    def test_a_cancelled_wait_loses_nothing(self):
        exec_ = self.start(script(b"i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done"))

        async def main():
            output, cancelled = b"", 0
            while True:
                batch = msb.recv_many(exec_, 0, capacity=1)
                if batch and batch[0].kind == 0:
                    return output
                output += b"".join(e.data for e in batch if e.kind == msb.MSB_EVENT_STDOUT)
                if not batch:
                    try:
                        await asyncio.wait_for(ready(exec_), 0.0005 * (cancelled % 4))
                    except asyncio.TimeoutError:
                        cancelled += 1

        self.assertEqual(asyncio.run(main()), b"".join(b"%d\n" % i for i in range(2000)))

    def test_a_sandbox_is_awaited_by_its_descriptor(self):
        out = ctypes.c_void_p()
        options = msb.msb_sandbox_options(name=b"py-awaited", image=IMAGE)
        msb.call(msb.lib.msb_sandbox_create, options, ctypes.byref(out))

        async def main():
            while msb.call(msb.lib.msb_sandbox_wait_ready, out, 0) == msb.MSB_AGAIN:
                await ready(out)
            self.assertEqual(msb.call(msb.lib.msb_sandbox_wait, out, 0), msb.MSB_AGAIN)
            stopper = asyncio.to_thread(msb.call, msb.lib.msb_sandbox_kill, out)
            task = asyncio.ensure_future(stopper)
            while msb.call(msb.lib.msb_sandbox_wait, out, 0) == msb.MSB_AGAIN:
                await ready(out)
            await task

        asyncio.run(asyncio.wait_for(main(), 30))
        self.assertEqual(msb.close(out), msb.MSB_OK)
        msb.call(msb.lib.msb_sandbox_remove, b"py-awaited", 0)


class Calls(Case):
    def test_versions_names_and_abilities(self):
        self.assertEqual(msb.lib.msb_abi_version(), msb.MSB_ABI_VERSION)
        self.assertRegex(msb.lib.msb_version_string(), rb"^\d+\.\d+\.\d+")
        for status in (name for name in vars(msb) if name.startswith("MSB_E_")):
            self.assertEqual(msb.lib.msb_status_name(getattr(msb, status)), status.encode())
        for ability in (b"attach", b"log", b"reattach", b"recv_many", b"trace"):
            self.assertEqual(msb.lib.msb_has(ability), 1)
        self.assertEqual((msb.lib.msb_has(b"nonsense"), msb.lib.msb_has(None)), (0, 0))

    def test_collect_gives_what_was_not_received_and_again_what_it_gave(self):
        exec_ = self.start(script(b"echo out; echo err >&2; exit 3"))
        output = msb.collect(exec_)
        self.assertEqual((output.stdout, output.stderr, output.exit.code), (b"out\n", b"err\n", 3))
        self.assertEqual(output.totals, (4, 4))
        self.assertEqual(msb.collect(exec_).exit.code, 3)

    def test_a_time_limit_is_told_with_the_output_so_far(self):
        exec_ = self.start(script(b"echo so far; exec sleep 600", timeout_ns=200_000_000))
        output = msb.collect(exec_)
        self.assertEqual(output.stdout, b"so far\n")
        self.assertTrue(output.exit.flags & msb.MSB_EXIT_TIMED_OUT)
        self.assertEqual(output.exit.signal, signal.SIGKILL)

    def test_recv_many_takes_what_is_there_and_no_more_than_asked_for(self):
        exec_ = self.start(script(b"echo a; echo b >&2; echo c"))
        time.sleep(0.3)
        kinds = []
        while True:
            batch = msb.recv_many(exec_, capacity=2)
            self.assertIn(len(batch), (1, 2))
            kinds += [event.kind for event in batch]
            if batch[-1].kind == 0:
                break
        self.assertEqual((kinds[0], kinds[-2:]), (msb.MSB_EVENT_STARTED, [msb.MSB_EVENT_EXITED, 0]))
        self.assertEqual(msb.recv_many(exec_)[0].kind, 0)

    def test_a_session_is_followed_again_from_where_it_was(self):
        exec_, sink = self.start(msb.command(b"cat"), pipe=True)
        self.assertEqual(msb.recv(exec_).kind, msb.MSB_EVENT_STARTED)
        msb.write(sink, b"first ")
        self.assertEqual(msb.recv(exec_).data, b"first ")
        position, missed = ctypes.c_uint64(), ctypes.c_uint64()
        where = (ctypes.byref(position), ctypes.byref(missed))
        msb.call(msb.lib.msb_exec_position, exec_, *where)
        self.assertEqual((position.value, missed.value), (6, 0))
        session = msb.session_id(exec_)
        self.assertRegex(session, rb"^[0-9a-f]{32}$")
        msb.close(exec_)
        whole, again = msb.reattach(sandbox, session)
        rest, second = msb.reattach(sandbox, session, position.value)
        msb.write(again, b"second")
        for handle in (sink, again, second):
            msb.close(handle)
        self.assertEqual(msb.collect(whole).stdout, b"first second")
        self.assertEqual(msb.collect(rest).stdout, b"second")
        ended, sink = msb.reattach(sandbox, session)
        self.assertIsNone(sink)
        self.assertEqual(msb.collect(ended).stdout, b"first second")
        for handle in (whole, rest, ended):
            self.assertEqual(msb.close(handle), msb.MSB_OK)
        for name, status in ((b"0" * 32, msb.MSB_E_NO_SESSION), (b"no id", msb.MSB_E_INVALID)):
            with self.assertRaises(msb.Failure) as raised:
                msb.reattach(sandbox, name)
            self.assertEqual(raised.exception.status, status)

    def test_lists_tell_of_sandboxes_sessions_and_drivers(self):
        exec_ = self.start(msb.command(b"sleep", b"600"))
        session, lib = msb.session_id(exec_), msb.lib
        self.assertEqual(msb.recv(exec_).kind, msb.MSB_EVENT_STARTED)
        entries = msb.msb_exec_entries()
        msb.call(lib.msb_exec_list, sandbox, ctypes.byref(entries))
        found = [entries.entries[at].contents for at in range(entries.len)]
        (mine,) = [entry for entry in found if entry.id == session]
        self.assertEqual([mine.argv[at] for at in range(mine.argv_len)], [b"sleep", b"600"])
        self.assertFalse(mine.exit)
        lib.msb_exec_entries_release(ctypes.byref(entries))
        lib.msb_exec_entries_release(ctypes.byref(entries))
        self.assertEqual((entries.len, bool(entries.entries)), (0, False))
        for call in ((lib.msb_sandbox_list,), (lib.msb_sandbox_info, sandbox)):
            entries = msb.msb_sandbox_entries()
            msb.call(*call, ctypes.byref(entries))
            found = [entries.entries[at].contents for at in range(entries.len)]
            (mine,) = [entry for entry in found if entry.name == NAME]
            self.assertEqual((mine.state, mine.driver), (msb.MSB_STATE_RUNNING, b"container"))
            self.assertEqual(mine.isolation, msb.MSB_ISOLATION_CONTAINER)
            lib.msb_sandbox_entries_release(ctypes.byref(entries))
        entries = msb.msb_driver_entries()
        msb.call(lib.msb_doctor, ctypes.byref(entries), None)
        found = {
            entries.entries[at].contents.name: entries.entries[at].contents.usable
            for at in range(entries.len)
        }
        self.assertEqual(found[b"container"], 1)
        lib.msb_driver_entries_release(ctypes.byref(entries))
        msb.call(lib.msb_exec_signal, exec_, signal.SIGKILL, msb.MSB_SIGNAL_TREE)

    def test_what_is_wrong_is_told_and_changes_nothing(self):
        out = ctypes.c_void_p(77)
        stream = (msb.lib.msb_exec_stream, sandbox)
        self.assertStatus(msb.MSB_E_INVALID, *stream, msb.command(b""), ctypes.byref(out), None)
        self.assertStatus(msb.MSB_E_INVALID, *stream, None, ctypes.byref(out), None)
        self.assertStatus(msb.MSB_E_INVALID, *stream, msb.command(b"x"), None, None)
        options = msb.command(b"x", flags=1 << 31)
        self.assertStatus(msb.MSB_E_INVALID, *stream, options, ctypes.byref(out), None)
        for handle in (None, 1, 2**63, 2**64 - 1, id(self)):
            self.assertIn(
                msb.lib.msb_exec_recv(handle, 0, msb.msb_event(), None),
                (msb.MSB_E_HANDLE, msb.MSB_E_INVALID),
            )
        self.assertEqual(out.value, 77)

    def test_the_log_is_told_on_a_thread_of_the_librarys(self):
        told, dropped = [], []
        log = msb.TRACE_FN(lambda _, level, target, text: told.append((level, target, text)))
        drop = msb.DROP_FN(dropped.append)
        msb.call(msb.lib.msb_trace_set, msb.MSB_TRACE_DEBUG, log, 5, drop)
        msb.collect(self.start(msb.command(b"true")))
        msb.call(msb.lib.msb_trace_set, msb.MSB_TRACE_ERROR, msb.TRACE_FN(), None, msb.DROP_FN())
        self.assertEqual(dropped, [5])
        self.assertTrue(told)
        self.assertTrue(all(1 <= level <= 4 and target and text for level, target, text in told))


class Threads(Case):
    def test_many_threads_at_once(self):
        wrong = []

        def work(number):
            for turn in range(15):
                exec_, _ = msb.start(sandbox, msb.command(b"echo", b"%d.%d" % (number, turn)))
                if msb.collect(exec_).stdout != b"%d.%d\n" % (number, turn):
                    wrong.append((number, turn))
                msb.close(exec_)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(wrong, [])

    def test_a_second_reader_is_told_and_closing_wakes_the_first(self):
        exec_ = self.start(msb.command(b"sleep", b"600"))
        session, status = msb.session_id(exec_), []
        self.assertEqual(msb.recv(exec_).kind, msb.MSB_EVENT_STARTED)
        wait = (exec_, -1, msb.msb_event(), None)

        def read():
            # It may come while this test looks whether it waits.
            while (answer := msb.lib.msb_exec_recv(*wait)) == msb.MSB_E_BUSY:
                pass
            status.append(answer)

        reader = threading.Thread(target=read)
        reader.start()
        deadline = time.monotonic() + 10
        while True:  # until the other waits
            look = msb.lib.msb_exec_recv(exec_, 0, msb.msb_event(), None)
            if look == msb.MSB_E_BUSY:
                break
            self.assertEqual(look, msb.MSB_AGAIN)
            self.assertLess(time.monotonic(), deadline)
        msb.call(msb.lib.msb_exec_signal, exec_, signal.SIGCONT, 0)  # waits for no reader
        self.assertEqual(msb.close(exec_), msb.MSB_OK)
        reader.join(10)
        self.assertEqual(status, [msb.MSB_E_CLOSED])
        again, _ = msb.reattach(sandbox, session, msb.MSB_FROM_NOW)
        msb.call(msb.lib.msb_exec_signal, again, signal.SIGKILL, msb.MSB_SIGNAL_TREE)
        self.assertEqual(msb.wait(again).exit.signal, signal.SIGKILL)
        msb.close(again)


class Fork(Case):
    def test_a_forked_child_is_told_that_it_cannot(self):
        exec_, sink = self.start(msb.command(b"cat"), pipe=True)
        out, length = ctypes.c_void_p(), ctypes.c_size_t()
        identity = ctypes.create_string_buffer(msb.MSB_SESSION_ID_LEN)
        byref, lib = ctypes.byref, msb.lib
        options = msb.msb_sandbox_options(name=b"py-forked", image=IMAGE)
        calls = [
            (lib.msb_sandbox_create, options, byref(out)),
            (lib.msb_sandbox_open, NAME, 0, byref(out)),
            (lib.msb_sandbox_wait_ready, sandbox, -1),
            (lib.msb_sandbox_wait, sandbox, -1),
            (lib.msb_sandbox_stop, sandbox, 0),
            (lib.msb_sandbox_kill, sandbox),
            (lib.msb_sandbox_info, sandbox, byref(msb.msb_sandbox_entries())),
            (lib.msb_sandbox_list, byref(msb.msb_sandbox_entries())),
            (lib.msb_sandbox_remove, NAME, 1),
            (lib.msb_doctor, byref(msb.msb_driver_entries()), None),
            (lib.msb_exec_list, sandbox, byref(msb.msb_exec_entries())),
            (lib.msb_exec_stream, sandbox, msb.command(b"true"), byref(out), None),
            (lib.msb_exec_reattach, sandbox, msb.session_id(exec_), 0, byref(out), None),
            (lib.msb_exec_id, exec_, identity),
            (lib.msb_exec_signal, exec_, 9, 0),
            (lib.msb_exec_resize, exec_, 1, 1),
            (lib.msb_exec_position, exec_, byref(ctypes.c_uint64()), None),
            (lib.msb_exec_recv, exec_, -1, byref(msb.msb_event())),
            (lib.msb_exec_recv_many, exec_, -1, byref(msb.msb_event()), 1, byref(length)),
            (lib.msb_exec_wait, exec_, -1, byref(msb.msb_event())),
            (lib.msb_exec_collect, exec_, -1, byref(msb.msb_output())),
            (lib.msb_sink_write, sink, b"x", 1, -1, byref(length)),
            (lib.msb_handle_fd, exec_, byref(ctypes.c_int32())),
            (lib.msb_attach, sandbox, None, byref(ctypes.c_int32()), None),
            (lib.msb_trace_set, msb.MSB_TRACE_INFO, msb.TRACE_FN(), None, msb.DROP_FN()),
            (lib.msb_handle_close, exec_),
        ]
        for call in calls:
            with self.subTest(call[0].__name__), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
                pid = os.fork()
                if pid == 0:
                    signal.alarm(5)
                    close = call[0] is lib.msb_handle_close
                    os._exit(-call[0](*call[1:], *[None] * (not close)) & 0x7F)
                self.assertEqual(os.waitpid(pid, 0)[1], -msb.MSB_E_UNSUPPORTED << 8)
        # Nothing of that has touched the parent's.
        msb.write(sink, b"still here")
        msb.close(sink)
        self.assertEqual(msb.collect(exec_).stdout, b"still here")


class Garbage(Case):
    def test_a_handle_that_is_forgotten_leaves_the_command_running(self):
        exec_, _ = msb.start(sandbox, script(b"usleep 100000; echo done"))
        session = msb.session_id(exec_)
        del exec_
        gc.collect()
        again, _ = msb.reattach(sandbox, session)
        self.assertEqual(msb.collect(again).stdout, b"done\n")
        msb.close(again)

    def test_a_stale_handle_stays_stale(self):
        stale, sink = msb.start(sandbox, msb.command(b"cat"), pipe=True)
        for handle in (sink, stale):
            self.assertEqual(msb.close(handle), msb.MSB_OK)
            self.assertEqual(msb.close(handle), msb.MSB_E_HANDLE)
        for _ in range(50):  # others take its place
            exec_, _ = msb.start(sandbox, msb.command(b"true"))
            self.assertNotEqual(exec_, stale)
            self.assertEqual(
                msb.lib.msb_exec_recv(stale, 0, msb.msb_event(), None), msb.MSB_E_HANDLE
            )
            msb.close(exec_)
        exec_ = self.start(msb.command(b"true"))
        self.assertStatus(
            msb.MSB_E_HANDLE,
            msb.lib.msb_sink_write,
            exec_,
            b"x",
            1,
            0,
            ctypes.byref(ctypes.c_size_t()),
        )
        self.assertStatus(msb.MSB_E_HANDLE, msb.lib.msb_exec_recv, sandbox, 0, msb.msb_event())

    def test_what_was_passed_in_may_go_when_the_call_returns(self):
        for turn in range(20):
            options = script(
                b'echo "$0 $A"; cat', b"x" * 5000, env=[b"A=" + b"y" * 5000], stdin=b"z" * 100_000
            )
            exec_ = self.start(options)
            del options
            gc.collect()
            junk = [bytes([turn + 1]) * 5001 for _ in range(50)]
            output = msb.collect(exec_)
            self.assertEqual(
                output.stdout, b"x" * 5000 + b" " + b"y" * 5000 + b"\n" + b"z" * 100_000
            )
            del junk

    def test_a_view_of_an_event_lives_as_long_as_its_last_slice(self):
        exec_, _ = msb.start(sandbox, script(b"head -c 30000 /dev/zero | tr '\\0' a"))
        raw = msb.msb_event()
        while raw.kind != msb.MSB_EVENT_STDOUT:
            msb.lib.msb_event_release(ctypes.byref(raw))
            msb.call(msb.lib.msb_exec_recv, exec_, -1, ctypes.byref(raw))
        array = (ctypes.c_char * raw.len).from_address(raw.data)
        released = []

        def release(event=raw):
            msb.lib.msb_event_release(ctypes.byref(event))
            released.append(True)

        weakref.finalize(array, release)
        size, view = raw.len, memoryview(array).cast("B")
        part = view[1:-1]
        self.assertEqual(msb.close(exec_), msb.MSB_OK)
        del array, raw, release
        view.release()
        gc.collect()
        self.assertEqual(released, [])
        self.assertEqual(bytes(part), b"a" * (size - 2))
        del view, part
        gc.collect()
        self.assertEqual(released, [True])

    def test_events_are_released_on_any_thread_and_again(self):
        exec_ = self.start(script(b"for i in 1 2 3 4 5 6; do echo $i; usleep 5000; done"))
        kept, output = [], b""
        while True:
            raw = msb.msb_event()
            if msb.call(msb.lib.msb_exec_recv, exec_, -1, ctypes.byref(raw)) == msb.MSB_EOF:
                break
            output += ctypes.string_at(raw.data, raw.len) if raw.data else b""
            kept.append(raw)
        self.assertEqual(output, b"1\n2\n3\n4\n5\n6\n")

        def release():
            for raw in kept:
                msb.lib.msb_event_release(ctypes.byref(raw))

        other = threading.Thread(target=release)
        other.start()
        other.join()
        release()
        self.assertTrue(all(not raw.data and not raw.exit and not raw.owner for raw in kept))


ATTACH = """
import ctypes, sys
import msb
out, code, flags = ctypes.c_void_p(), ctypes.c_int32(), ctypes.c_uint32()
msb.call(msb.lib.msb_sandbox_open, b"py", 0, ctypes.byref(out))
msb.call(msb.lib.msb_sandbox_wait_ready, out, -1)
command = msb.command(*(text.encode() for text in sys.argv[1:]))
options = msb.msb_attach_options(exec=ctypes.pointer(command))
result = (ctypes.byref(code), ctypes.byref(flags))
msb.call(msb.lib.msb_attach, out, ctypes.byref(options), *result)
print("code", code.value, "flags", flags.value)
"""


class Attach(Case):
    """A program of its own on a terminal, which opens the sandbox by its name."""

    def attach(self, *command, keys=b""):
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        program = [sys.executable, "-c", ATTACH, *command]
        folder = os.path.dirname(os.path.abspath(__file__))
        process = subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder)
        os.close(theirs)
        seen, deadline = b"", time.monotonic() + 30
        while b"flags" not in seen or not seen.endswith(b"\n"):
            self.assertTrue(select.select([ours], [], [], deadline - time.monotonic())[0], seen)
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            if keys and b"ready" in seen:
                os.write(ours, keys)
                keys = b""
        self.assertEqual(process.wait(30), 0, seen)
        return seen.decode()

    def test_the_terminal_is_tied_to_a_command(self):
        seen = self.attach(
            "sh", "-c", "echo ready; read line; echo got $line; exit 7", keys=b"it\n"
        )
        self.assertIn("got it", seen)
        self.assertIn("code 7 flags 0", seen)

    def test_keys_part_them(self):
        seen = self.attach("sh", "-c", "echo ready; exec sleep 20", keys=b"\x1d")
        self.assertIn(f"code -1 flags {msb.MSB_ATTACH_DETACHED}", seen)


if __name__ == "__main__":
    unittest.main()
