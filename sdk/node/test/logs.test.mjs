// Session logs.
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOf, create, end } from "./support.mjs";

test("read, filter, follow and cancel a log", async () => {
  const sandbox = await create({ log: { files: 2, maxBytes: 1 << 20 } });
  const first = await sandbox.shellStream("echo out; echo err >&2; exit 3");
  await first.collect();
  await assert.rejects(sandbox.exec("nonexistent"), { code: "ENOENT" });
  const other = await sandbox.shellStream("echo other");
  await other.collect();
  const records = [];
  // Output reaches the log shortly after it reaches the reader.
  for await (const record of await sandbox.logs({ session: first.id, follow: true })) {
    records.push(record);
    if (record.kind === "exited") break;
  }
  for await (const { kind } of await sandbox.logs({ session: other.id, follow: true })) {
    if (kind === "exited") break;
  }
  assert.deepEqual(new Set(records.map(({ session }) => session)), new Set([first.id]));
  assert.equal(records[0].kind, "started");
  assert.deepEqual(records[0].command, ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]);
  assert.equal(bytesOf(records).toString(), "out\n");
  assert.equal(bytesOf(records, "stderr").toString(), "err\n");
  assert.equal(records.at(-1).kind, "exited");
  assert.equal(records.at(-1).code, 3);
  assert.ok(records[0].time instanceof Date);
  assert.ok(records[0].timeNs > 1_700_000_000_000_000_000n);
  const all = [];
  for await (const record of await sandbox.logs()) all.push(record);
  assert.equal(all.find(({ kind }) => kind === "failed").error.code, "ENOENT");
  assert.equal(bytesOf(all).toString(), "out\nother\n");
  const reader = await sandbox.logs({ follow: true, since: new Date(Date.now() + 3_600_000) });
  await assert.rejects(reader.recv({ signal: AbortSignal.timeout(20) }), { name: "TimeoutError" });
  const waiting = assert.rejects(reader.recv(), { name: "ClosedError" });
  await assert.rejects(reader.recv(), { name: "BusyError" });
  reader.close();
  await waiting;
  const follower = await sandbox.logs({ follow: true });
  for await (const record of follower) if (record.kind === "exited") break;
  await assert.rejects(follower.recv(), { name: "ClosedError" });
  await assert.rejects(sandbox.logs({ since: new Date(Number.NaN) }), { name: "InvalidArgumentError" });
  const last = await sandbox.logs({ follow: true });
  await sandbox.kill();
  for await (const record of last) assert.notEqual(record.kind, "incomplete");
  await end(sandbox);
});

test("reading a log that was not enabled is rejected", async () => {
  const sandbox = await create();
  await assert.rejects(sandbox.logs(), { name: "InvalidConfigError" });
  await end(sandbox);
});
