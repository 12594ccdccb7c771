// Streamed commands: events, input, cancellation, closing.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { bytesOf, collectGarbage, create, end, eventsOf, native, sleep, turn, until } from "./support.mjs";

let sandbox;
before(async () => {
  sandbox = await create();
});
after(() => end(sandbox));

const endless = () => sandbox.exec && sandbox.execStream("sleep", ["600"]);

test("events in order, then the end on every call", async () => {
  const handle = await sandbox.shellStream("echo out; exit 3");
  const events = await eventsOf(handle);
  assert.deepEqual(events.map(({ kind }) => kind), ["started", "stdout", "exited"]);
  assert.ok(events[0].pid > 0);
  assert.equal(bytesOf(events).toString(), "out\n");
  assert.equal(events[2].code, 3);
  assert.equal(await handle.recv(), null);
  assert.equal(await handle.recv(), null);
  assert.deepEqual(await eventsOf(handle), []);
  assert.equal((await handle.wait()).code, 3);
  assert.equal((await handle.collect()).stdout(), "");
  assert.match(handle.id, /^[0-9a-f]{32}$/);
  assert.equal(handle.position, 4);
  handle.close();
  assert.equal(handle.position, 4);
});

test("a failure to start is an event, and an error of wait", async () => {
  const handle = await sandbox.execStream("nonexistent");
  const [event, ...more] = await eventsOf(handle);
  assert.equal(event.kind, "failed");
  assert.equal(event.error.code, "ENOENT");
  assert.deepEqual(more, []);
  await assert.rejects(handle.wait(), { name: "ExecFailedError", kind: "not_found" });
  await assert.rejects(handle.collect(), { name: "ExecFailedError", kind: "not_found" });
});

test("a command that stops reading causes stdinError", async () => {
  const handle = await sandbox.shellStreamWith("exec <&-; echo closed; sleep 600", (b) => b.stdinPipe());
  const sink = await handle.takeStdin();
  const kinds = [];
  for await (const event of handle) {
    kinds.push(event.kind);
    if (event.kind === "stdout") {
      await assert.rejects(
        (async () => {
          for (;;) await sink.write("x".repeat(65536));
        })(),
        { name: "BrokenPipeError", code: "EPIPE", kind: "broken_pipe" },
      );
    }
    if (event.kind === "stdinError") {
      assert.equal(event.code, "EPIPE");
      await handle.kill();
    }
  }
  assert.deepEqual(kinds, ["started", "stdout", "stdinError", "exited"]);
});

test("a lost sandbox is an event, and an error of wait and collect", async () => {
  const other = await create();
  const handle = await other.execStream("sleep", ["600"]);
  const [collected, waited] = [await other.execStream("sleep", ["600"]), await other.execStream("sleep", ["600"])];
  const called = other.exec("sleep", ["600"]);
  const promises = [eventsOf(handle), collected.collect(), waited.wait(), called];
  const outcome = Promise.allSettled(promises);
  await until("it runs", async () => (await other.sessions()).length === 4);
  await other.kill();
  const [events, ...others] = await outcome;
  assert.equal(events.value.at(-1).kind, "lost");
  for (const { reason } of others) assert.equal(reason?.name, "StreamLostError");
  await assert.rejects(other.exec("true"), { name: "SandboxNotRunningError" });
  await end(other);
});

test("one reader at a time, and signals at any time", async () => {
  const handle = await sandbox.shellStream("trap 'echo term; exit 4' TERM; echo up; while :; do sleep 1; done");
  const events = eventsOf(handle);
  const busy = { name: "BusyError", kind: "busy" };
  // No more events follow, so the first reader waits.
  await until("it runs", () => handle.position > 0);
  await assert.rejects(handle.recv(), busy);
  await assert.rejects(handle.wait(), busy);
  await assert.rejects(handle.collect(), busy);
  await handle.control().signal("SIGTERM");
  assert.equal((await events).at(-1).code, 4);
  await assert.rejects(handle.signal(15), { name: "NoSuchProcessError", code: "ESRCH" });
  await assert.rejects(handle.signal(999), { name: "InvalidArgumentError" });
  await assert.rejects(handle.signal("SIGNOT"), { name: "InvalidArgumentError" });
});

test("cancelling loses nothing", async () => {
  const handle = await sandbox.execStreamWith("cat", (b) => b.stdinPipe());
  const sink = await handle.takeStdin();
  assert.equal((await handle.recv()).kind, "started");
  for (const call of ["recv", "wait", "collect"]) {
    await assert.rejects(handle[call]({ signal: AbortSignal.timeout(20) }), { name: "TimeoutError" });
    await assert.rejects(handle[call]({ signal: AbortSignal.abort("why") }), (error) => error === "why");
  }
  await sink.write("kept");
  await sink.close();
  assert.equal((await handle.collect()).stdout(), "kept");
});

test("close wakes waiters and the command keeps running", async () => {
  const handle = await endless();
  const closed = { name: "ClosedError", kind: "closed" };
  const waiting = assert.rejects(handle.wait(), closed);
  await turn();
  handle.close();
  await waiting;
  handle.close();
  for (const call of ["recv", "wait", "collect", "kill"]) await assert.rejects(handle[call](), closed);
  await assert.rejects(handle.resize(1, 1), closed);
  const again = await sandbox.reattach(handle.id);
  await again.kill();
  assert.equal((await again.wait()).signal, 9);
});

test("leaving a loop ends nothing; return ends a pending next", async () => {
  const handle = await sandbox.shellStream("echo one; read line </dev/zero; sleep 600");
  for await (const event of handle) if (event.kind === "stdout") break;
  const iterator = handle[Symbol.asyncIterator]();
  const next = iterator.next();
  await turn();
  assert.deepEqual(await iterator.return(), { done: true, value: undefined });
  assert.deepEqual(await next, { done: true, value: undefined });
  assert.deepEqual(await iterator.next(), { done: true, value: undefined });
  await handle.kill();
  assert.equal((await handle.wait()).signal, 9);
  const closed = handle[Symbol.asyncIterator]();
  handle.close();
  await assert.rejects(closed.next(), { name: "ClosedError" });
});

test("dispose kills and closes in every state", async () => {
  const signalOf = async (id) => {
    const handle = await sandbox.reattach(id);
    return (await handle.wait()).signal;
  };
  const running = await endless();
  await running[Symbol.asyncDispose]();
  assert.equal(await signalOf(running.id), 9);
  await running[Symbol.asyncDispose]();
  const waiting = await endless();
  const promise = Promise.allSettled([waiting.wait()]);
  await waiting[Symbol.asyncDispose]();
  const [{ reason, value }] = await promise;
  assert.ok(reason?.name === "ClosedError" || value?.signal === 9);
  const ended = await sandbox.execStream("true");
  await ended.collect();
  await ended[Symbol.asyncDispose]();
  const failed = await sandbox.execStream("nonexistent");
  await failed[Symbol.asyncDispose]();
  const sinks = await sandbox.execStreamWith("cat", (b) => b.stdinPipe());
  const sink = await sinks.takeStdin();
  await sink[Symbol.asyncDispose]();
  await sink[Symbol.asyncDispose]();
  assert.equal((await sinks.wait()).code, 0);
});

test("stdin is taken once and written in order", async () => {
  const handle = await sandbox.execStreamWith("cat", (b) => b.stdinPipe());
  const sink = await handle.takeStdin();
  assert.equal(await handle.takeStdin(), null);
  assert.equal(await (await sandbox.execStream("true")).takeStdin(), null);
  const data = Buffer.alloc(4 << 20, Buffer.from([...Array(251).keys()]));
  const feed = async () => {
    await Promise.all([sink.write(data), sink.write(""), sink.write("end")]);
    await sink.close();
    await sink.close();
  };
  const [events] = await Promise.all([eventsOf(handle), feed()]);
  assert.ok(bytesOf(events).equals(Buffer.concat([data, Buffer.from("end")])));
  await assert.rejects(sink.write("x"), { name: "ClosedError" });
});

test("a pending and a queued write can be cancelled", async () => {
  const handle = await sandbox.execStreamWith("sleep", (b) => b.arg("600").stdinPipe());
  const sink = await handle.takeStdin();
  const given = new AbortController();
  const first = sink.write(Buffer.alloc(8 << 20), { signal: given.signal });
  const second = sink.write("more", { signal: AbortSignal.timeout(20) });
  await assert.rejects(second, { name: "TimeoutError" });
  given.abort();
  await assert.rejects(first, { name: "AbortError" });
  const third = assert.rejects(sink.write(Buffer.alloc(8 << 20)), { name: "ClosedError" });
  await turn();
  await sink.close();
  await third;
  await handle.kill();
});

test("terminals", async () => {
  const handle = await sandbox.shellStreamWith("stty size; read line; stty size", (b) =>
    b.tty(true).ttySize(30, 100).stdinPipe(),
  );
  const sink = await handle.takeStdin();
  let seen = "";
  for await (const event of handle) {
    if (event.kind !== "stdout") continue;
    seen += Buffer.from(event.data);
    if (seen === "30 100\r\n") {
      await handle.resize(40, 120);
      await sink.write("\n");
    }
  }
  assert.equal(seen.replace("\r\n\r\n", "\r\n"), "30 100\r\n40 120\r\n");
  const plain = await endless();
  await assert.rejects(plain.resize(1, 1), { name: "NotATerminalError", code: "ENOTTY" });
  await assert.rejects(plain.resize(0, 1), { name: "InvalidArgumentError" });
  await plain.kill();
});

test("reattach to a session from a position", async () => {
  const handle = await sandbox.execStreamWith("cat", (b) => b.stdinPipe());
  const sink = await handle.takeStdin();
  await sink.write("12345");
  for await (const event of handle) if (handle.position === 5) break;
  handle.close();
  const again = await sandbox.reattach(handle.id, { from: 2, stdin: true });
  const now = await sandbox.reattach(handle.id, { from: "now" });
  assert.equal(await now.takeStdin(), null);
  const other = await again.takeStdin();
  await other.write("678");
  await sink.close();
  assert.equal((await again.collect()).stdout(), "345678");
  assert.equal(again.missed, 0);
  assert.equal((await now.collect()).stdout(), "678");
  await assert.rejects(sandbox.reattach("0".repeat(32)), { name: "NoSuchSessionError" });
  await assert.rejects(sandbox.reattach("x"), { name: "InvalidArgumentError" });
  await assert.rejects(sandbox.reattach(handle.id, { from: -1 }), { name: "InvalidArgumentError" });
});

test("exit does not wait for background writers", async () => {
  const handle = await sandbox.shellStream("sleep 600 & echo hi");
  const events = await eventsOf(handle);
  assert.equal(bytesOf(events).toString(), "hi\n");
  assert.equal(handle.writerLeft, true);
  await handle.kill(); // reaches background processes
});

test("a loop over a busy stream lets timers run", async () => {
  const handle = await sandbox.shellStream("yes | head -c 200000000");
  let last = performance.now();
  let longest = 0;
  let ticks = 0;
  const ticker = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
    ticks++;
  }, 5);
  let bytes = 0;
  let most = 0;
  let before = ticks;
  let since = 0;
  for await (const event of handle) {
    if (event.kind !== "stdout") continue;
    bytes += event.data.length;
    // Counts events between two turns of the loop, without a clock.
    if (ticks !== before) since = 0;
    before = ticks;
    most = Math.max(most, ++since);
  }
  clearInterval(ticker);
  assert.equal(bytes, 200_000_000);
  assert.ok(ticks > 10, `${ticks} ticks, the longest pause ${longest} ms`);
});

test("a stopped reader blocks the program; reads return credit", async () => {
  const handle = await sandbox.shellStream("yes");
  const kept = [];
  let bytes = 0;
  // Far more than the window, all referenced: credit does not depend on garbage collection.
  while (bytes < 8 << 20) {
    const event = await handle.recv();
    if (event.kind === "stdout") bytes += event.data.length;
    kept.push(event);
  }
  const total = async () => (await sandbox.sessions()).find(({ id }) => id === handle.id).outputTotal;
  let before = -1;
  await until("the command is blocked", async () => {
    const now = await total();
    const still = now === before;
    before = now;
    await sleep(50);
    return still;
  });
  assert.ok(before - bytes <= 4 << 20, `${before - bytes} bytes on the way`);
  await handle.recv();
  await handle.kill();
  handle.close();
});

test("unreachable handles end nothing and crash nothing", async () => {
  const ids = [];
  for (let at = 0; at < 20; at++) ids.push((await sandbox.shellStream("usleep 100000; echo done")).id);
  await until("they are collected", async () => {
    await collectGarbage();
    return native.counts().cells <= 2;
  });
  for (const id of ids) {
    assert.equal((await (await sandbox.reattach(id)).collect()).stdout(), "done\n");
  }
});
