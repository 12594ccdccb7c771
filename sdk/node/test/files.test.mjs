// Files in a sandbox: operations, errors, and streams.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ClosedError, FilesystemError, InvalidArgumentError, PathNotFoundError, PermissionDeniedError } from "microsandbox";
import { create, end } from "./support.mjs";

let sandbox;
let fs;
before(async () => {
  sandbox = await create();
  fs = sandbox.fs();
});
after(() => end(sandbox));

test("k1 files are written, read, listed and removed", async () => {
  const names = ["a", "line\nbreak", "ü"];
  await fs.mkdir("/tmp/k1/deep");
  for (const name of names) await fs.write(`/tmp/k1/deep/${name}`, name);
  const odd = Buffer.from("/tmp/k1/deep/\xff\xfe", "latin1");
  await fs.write(odd, new Uint8Array([1, 2]));
  assert.deepEqual([...(await fs.read(odd))], [1, 2]);
  const entries = await fs.list("/tmp/k1/deep");
  assert.deepEqual(entries.slice(0, 3).map(({ name }) => name), names);
  assert.deepEqual([...entries[3].nameBytes], [0xff, 0xfe]);
  for (const { kind, path, name } of entries.slice(0, 3)) {
    assert.equal(kind, "file");
    assert.equal(await fs.readToString(path), name);
  }
  await assert.rejects(fs.removeEmptyDir("/tmp/k1"), { code: "ENOTEMPTY", kind: "filesystem" });
  await fs.removeDir("/tmp/k1");
  assert.equal(await fs.exists("/tmp/k1"), false);
});

test("k1 attributes, links, copies and renames", async () => {
  await fs.write("/tmp/a", "text", { mode: 0o640 });
  await fs.setStat("/tmp/a", { uid: 5, size: 2, modified: new Date(-1500) });
  await fs.symlink("a", "/tmp/link");
  const stat = await fs.stat("/tmp/link");
  assert.deepEqual([stat.kind, stat.size, stat.mode, stat.uid], ["file", 2, 0o640, 5]);
  assert.equal(stat.modified.getTime(), -1500);
  assert.equal((await fs.stat("/tmp/link", { followSymlink: false })).kind, "symlink");
  assert.equal(await fs.readLink("/tmp/link"), "a");
  assert.equal(await fs.realPath("/tmp/./link"), "/tmp/a");
  await fs.copy("/tmp/a", "/tmp/b");
  await fs.rename("/tmp/b", "/tmp/c");
  await fs.write("/tmp/c", "!", { append: true });
  assert.equal(await fs.readToString("/tmp/c"), "te!");
  await assert.rejects(fs.write("/tmp/c", "new", { createNew: true }), FilesystemError);
  await fs.remove("/tmp/c");
});

test("k1 errors have a class, a code and a path", async () => {
  for (const work of [fs.read, fs.stat, fs.list, fs.remove, fs.readLink]) {
    await assert.rejects(work.call(fs, "/tmp/none"), (error) => {
      assert.ok(error instanceof PathNotFoundError);
      assert.deepEqual([error.code, error.errno, error.path], ["ENOENT", 2, "/tmp/none"]);
      return true;
    });
  }
  await fs.write("/tmp/secret/file", "", { parents: true });
  await fs.setStat("/tmp/secret", { mode: 0o700 });
  await assert.rejects(fs.asUser("1000").read("/tmp/secret/file"), PermissionDeniedError);
  for (const path of ["", "relative", "/a\0b"]) {
    await assert.rejects(fs.read(path), InvalidArgumentError);
  }
  await assert.rejects(fs.write("/tmp/a", "", { mode: 0o10000 }), InvalidArgumentError);
});

test("k3 streams carry large files", async () => {
  const content = Buffer.alloc(3 << 20, "0123456789abcdef\n");
  const sink = await fs.writeStream("/tmp/large");
  for (let at = 0; at < content.length; at += 100_000) {
    await sink.write(content.subarray(at, at + 100_000));
  }
  await sink.close();
  await sink.close();
  await assert.rejects(sink.write("more"), ClosedError);
  const pieces = [];
  for await (const piece of await fs.readStream("/tmp/large")) pieces.push(piece);
  assert.ok(Buffer.concat(pieces).equals(content));
  const part = await fs.readStream("/tmp/large", { offset: 10, length: 20 });
  assert.ok(content.subarray(10, 30).equals(await part.collect()));
});

test("k2 a cancelled write leaves the old content", async () => {
  await fs.write("/tmp/old", "old");
  const sink = await fs.writeStream("/tmp/old");
  await sink.write("new");
  sink.abort();
  const cancelled = new AbortController();
  const written = fs.write("/tmp/old", Buffer.alloc(64 << 20), { signal: cancelled.signal });
  cancelled.abort(new Error("enough"));
  await assert.rejects(written, /enough/);
  assert.equal(await fs.readToString("/tmp/old"), "old");
});

test("k4 files are copied between host and sandbox", async () => {
  const folder = mkdtempSync(join(tmpdir(), "msb-files-"));
  try {
    writeFileSync(join(folder, "from"), "text");
    await fs.copyFromHost(join(folder, "from"), "/tmp/copied");
    await fs.copyToHost("/tmp/copied", join(folder, "to"));
    assert.equal(readFileSync(join(folder, "to"), "utf8"), "text");
    await assert.rejects(fs.copyFromHost(join(folder, "none"), "/tmp/none"), PathNotFoundError);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
