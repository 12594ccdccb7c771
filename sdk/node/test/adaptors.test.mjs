// Node streams and web streams.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { create, end, sleep, until } from "./support.mjs";

let sandbox;
before(async () => {
  sandbox = await create();
});
after(() => end(sandbox));

const DATA = Buffer.alloc(4 << 20, Buffer.from([...Array(251).keys()]));

async function allOf(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const cat = () => sandbox.shellStreamWith("tee /dev/stderr", (b) => b.stdinPipe());

test("Node streams, in and out", async () => {
  const handle = await cat();
  const sink = await handle.takeStdin();
  const { stdout, stderr, exited } = handle.pipes();
  const [, out, err, status] = await Promise.all([
    pipeline(Readable.from([DATA.subarray(0, 100), DATA.subarray(100)]), sink.toWritable()),
    allOf(stdout),
    allOf(stderr),
    exited,
  ]);
  assert.ok(out.equals(DATA));
  assert.ok(err.equals(DATA));
  assert.equal(status.code, 0);
});

test("web streams, in and out", async () => {
  const handle = await cat();
  const sink = await handle.takeStdin();
  const { stdout, stderr, exited } = handle.webPipes();
  const source = new ReadableStream({
    start(controller) {
      controller.enqueue(DATA);
      controller.close();
    },
  });
  const [, out, err, status] = await Promise.all([
    source.pipeTo(sink.toWebWritable()),
    allOf(stdout),
    allOf(stderr),
    exited,
  ]);
  assert.ok(out.equals(DATA));
  assert.ok(err.equals(DATA));
  assert.equal(status.code, 0);
});

for (const kind of ["pipes", "webPipes"]) {
  test(`${kind}: a stopped reader blocks the command`, async () => {
    const handle = await sandbox.shellStream("yes");
    const { stdout } = handle[kind]();
    const total = async () => (await sandbox.sessions()).find(({ id }) => id === handle.id).outputTotal;
    let last = -1;
    await until("the command is blocked", async () => {
      const now = await total();
      const still = now > 0 && now === last;
      last = now;
      await sleep(50);
      return still;
    });
    assert.ok(last < 8 << 20, `${last} bytes`);
    let seen = 0;
    for await (const chunk of stdout) {
      seen += chunk.length;
      if (seen > 2 * last) break;
    }
    // Output of a destroyed stream is discarded, and the command continues.
    await until("it goes on", async () => (await total()) > 4 * last);
    await handle.kill();
  });

  test(`${kind}: a command that did not start fails both`, async () => {
    const { stdout, stderr, exited } = (await sandbox.execStream("nonexistent"))[kind]();
    const failed = { name: "ExecFailedError", code: "ENOENT" };
    await Promise.all([allOf(stdout), allOf(stderr), exited].map((one) => assert.rejects(one, failed)));
  });
}

test("writable fails on broken pipe and ends when destroyed", async () => {
  const closed = await sandbox.shellStreamWith("exec <&-; sleep 600", (b) => b.stdinPipe());
  const source = Readable.from(
    (function* () {
      for (;;) yield DATA;
    })(),
  );
  const writable = (await closed.takeStdin()).toWritable();
  await assert.rejects(pipeline(source, writable), { name: "BrokenPipeError", code: "EPIPE" });
  await closed.kill();
  const stuck = await sandbox.execStreamWith("sleep", (b) => b.arg("600").stdinPipe());
  const destroyed = (await stuck.takeStdin()).toWritable();
  destroyed.write(DATA);
  destroyed.write(DATA);
  destroyed.destroy();
  await new Promise((resolve) => destroyed.once("close", resolve));
  await stuck.kill();
});
