// Many events and many streams. MSB_TEST_NODE_LONG=1 runs the long form.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { collectGarbage, create, descriptors, end, LONG, native, threads, turn } from "./support.mjs";

let sandbox;
before(async () => {
  sandbox = await create();
});
after(() => end(sandbox));

/** Checks that numbered lines have no gap. */
class Lines {
  #rest = "";
  last = 0;

  take(data) {
    const lines = (this.#rest + Buffer.from(data).toString("latin1")).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) {
      if (Number(line) !== this.last + 1) assert.fail(`${line} came behind ${this.last}`);
      this.last++;
    }
  }
}

const LINES = LONG ? 1_000_000 : 100_000;

test(`${LINES} lines with random aborts: no gap and one end`, async () => {
  // One write per line, so that events are many and small.
  const handle = await sandbox.shellStream(`i=0; while [ $i -lt ${LINES} ]; do i=$((i+1)); echo $i; done`);
  const lines = new Lines();
  let [events, aborts, endings] = [0, 0, 0];
  for (;;) {
    const given = new AbortController();
    const random = Math.random();
    if (random < 0.2) setImmediate(() => given.abort());
    const promise = handle.recv({ signal: given.signal });
    if (random < 0.1) given.abort();
    let event;
    try {
      event = await promise;
    } catch (error) {
      assert.equal(error, given.signal.reason);
      aborts++;
      await turn();
      continue;
    }
    if (event === null) break;
    events++;
    if (event.kind === "stdout") lines.take(event.data);
    if (event.kind === "exited") endings++;
  }
  assert.equal(lines.last, LINES);
  assert.equal(endings, 1);
  // The number of events depends on the machine: pending output is merged.
  assert.ok(aborts > 0, `${aborts} aborts among ${events} events`);
});

const STREAMS = 1_000;

test(`${STREAMS} concurrent streams leak nothing`, async () => {
  await collectGarbage();
  const before = [native.counts().cells, native.counts().polls, descriptors()];
  const started = threads();
  let most = 0;
  const follow = async (at) => {
    const handle = await sandbox.shellStreamWith('read line; echo "$line"', (b) => b.stdinPipe());
    const sink = await handle.takeStdin();
    const lines = [];
    const reading = (async () => {
      for await (const event of handle) if (event.kind === "stdout") lines.push(event.data);
    })();
    await all;
    most = Math.max(most, threads());
    await sink.write(`${at}\n`);
    await reading;
    await sink.close();
    handle.close();
    assert.equal(Buffer.concat(lines).toString(), `${at}\n`);
  };
  let open;
  const all = new Promise((resolve) => {
    open = resolve;
  });
  const following = [...Array(STREAMS).keys()].map(follow);
  await turn();
  assert.ok(native.counts().cells >= 2 * STREAMS);
  open();
  await Promise.all(following);
  assert.ok(most <= started + 20, `${most} threads, ${started} before`);
  await collectGarbage();
  assert.deepEqual([native.counts().cells, native.counts().polls, descriptors()], before);
});

test("memory stays flat while streaming", async () => {
  const rss = () => process.memoryUsage.rss();
  const run = async (bytes) => {
    let seen = 0;
    const handle = await sandbox.shellStream(`yes | head -c ${bytes}`);
    for await (const event of handle) if (event.kind === "stdout") seen += event.data.length;
    handle.close();
    assert.equal(seen, bytes);
  };
  await run(100_000_000);
  await collectGarbage();
  const before = rss();
  await run(LONG ? 4_000_000_000 : 400_000_000);
  await collectGarbage();
  const grown = rss() - before;
  assert.ok(grown < 200 << 20, `${grown} bytes more`);
});

const EXECS = LONG ? 20_000 : 500;

test(`${EXECS} sequential commands leak nothing`, async () => {
  const count = () => [native.counts().cells, descriptors(), threads()];
  for (let at = 0; at < 20; at++) await sandbox.exec("true");
  await collectGarbage();
  const before = count();
  for (let at = 0; at < EXECS; at++) {
    assert.equal((await sandbox.exec("true")).code, 0);
    if (at % 5 === 0) await assert.rejects(sandbox.exec("nonexistent"), { code: "ENOENT" });
  }
  await collectGarbage();
  assert.deepEqual(count(), before);
});
