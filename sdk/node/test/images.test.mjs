// Images by name: import, use, removal, and a registry that never responds.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Image, Sandbox } from "microsandbox";
import { create, descriptors, end, image as directory, native, root, threads, until } from "./support.mjs";

const never = { pullPolicy: "never" };
let folder, archive;

before(() => {
  folder = mkdtempSync(join(tmpdir(), "node-images-"));
  execFileSync(join(root, "conformance/make-image"), [directory, folder]);
  archive = join(folder, "made.tar");
});

after(async () => {
  await Image.prune({ all: true });
  rmSync(folder, { recursive: true });
  assert.deepEqual(await Image.list(), []);
});

/** Starts a registry that accepts connections and never responds. */
async function silent(t) {
  const taken = [];
  const server = createServer((socket) => taken.push(socket.on("error", () => {})));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  t.after(() => {
    server.close();
    for (const socket of taken) socket.destroy();
  });
  return { taken, name: `localhost:${server.address().port}/nothing` };
}

test("import, list and remove an image", async () => {
  const seen = [];
  const image = await Image.import(archive, { onProgress: (progress) => seen.push(progress) });
  assert.deepEqual(image.names, ["made:1"]);
  assert.match(image.id, /^sha256:[0-9a-f]{64}$/);
  assert.deepEqual([image.layers, image.workdir, image.user], [1, "/work", "app"]);
  assert.deepEqual([image.entrypoint, image.cmd], [["echo", "entry"], ["point"]]);
  assert.equal(image.env.COLOR, "green");
  assert.ok(image.size > 0 && existsSync(join(image.rootfs, "bin/busybox")));
  assert.ok(image.addedAt instanceof Date && image.addedAt.getTime() > 1e12);
  const last = seen.at(-1);
  assert.deepEqual([last.phase, last.layers, last.layersDone], ["unpacking", 1, 1]);
  assert.equal(last.bytes, last.bytesTotal);
  const again = await Image.import(archive, { name: "other:2" });
  assert.deepEqual([again.id, [...again.names].sort()], [image.id, ["made:1", "other:2"]]);
  assert.deepEqual((await Image.list()).map(({ id }) => id), [image.id]);
  await Image.remove("other:2");
  await Image.remove(image.id);
  await assert.rejects(Image.remove("made:1"), { name: "ImageNotFoundError", kind: "image_not_found" });
});

test("a sandbox uses the defaults of its image", async () => {
  const { id } = await Image.import(archive);
  const seen = [];
  const sandbox = await Sandbox.builder(`node-image-${process.pid}`)
    .image("made:1")
    .pullPolicy("never")
    .onProgress(({ phase }) => seen.push(phase))
    .env("SHAPE", "flat")
    .create();
  assert.equal(seen.at(-1), "starting");
  const output = await sandbox.shell("echo $COLOR $SHAPE $PWD $(id -un)");
  assert.equal(output.stdout(), "green flat /work app\n");
  const info = await sandbox.info();
  assert.deepEqual([info.image, info.command], ["made:1", ["echo", "entry", "point"]]);
  assert.deepEqual((await Image.list())[0].usedBy, [sandbox.name]);
  await assert.rejects(Image.remove("made:1"), { name: "ImageInUseError", kind: "image_in_use" });
  await Image.prune({ all: true });
  assert.deepEqual((await Image.list())[0].names, ["made:1"]);
  await end(sandbox);
  for (const [entrypoint, command] of [["cat", ["cat"]], [["cat", "-n"], ["cat", "-n"]], [[], []]]) {
    const own = await create({ image: "made:1", entrypoint, ...never });
    assert.deepEqual((await own.info()).command, command);
    await end(own);
  }
  const other = await create({ image: id.slice(7, 19), user: "root", ...never });
  assert.equal((await other.exec("id", ["-un"])).stdout(), "root\n");
  await end(other);
  assert.ok((await Image.prune({ all: true })) > 0);
});

test("creation reports progress for an archive only", async () => {
  const seen = [];
  const onProgress = (progress) => seen.push(progress.phase);
  const sandbox = await create({ image: join(folder, "rootfs.tar"), onProgress });
  assert.equal((await sandbox.exec("echo", ["here"])).stdout(), "here\n");
  assert.deepEqual((await sandbox.info()).command, []);
  await end(sandbox);
  assert.equal(seen.at(-1), "starting");
  seen.length = 0;
  await end(await create({ onProgress }));
  assert.deepEqual(seen, []);
});

test("an error in onProgress cancels the call and leaks nothing", async () => {
  const odd = new Error("enough");
  const onProgress = () => {
    throw odd;
  };
  const same = (error) => error === odd;
  const imported = async () => {
    await Image.prune({ all: true }); // an image in the store has no progress
    await assert.rejects(Image.import(archive, { onProgress }), same);
  };
  await imported();
  const [cells, files] = [native.counts().cells, descriptors()];
  await imported();
  await Image.import(archive);
  const name = `node-odd-${process.pid}`;
  for (let round = 0; round < 3; round++) {
    await assert.rejects(Sandbox.create(name, { image: "made:1", onProgress }), same);
    await until("it is removed", async () => !(await Sandbox.list()).some((info) => info.name === name));
  }
  await until("all handles are closed", () => native.counts().cells === cells);
  await until("all descriptors are closed", () => descriptors() <= files + 2);
});

test("missing and invalid images", async () => {
  const name = `node-none-${process.pid}`;
  await assert.rejects(Sandbox.create(name, { image: "no-such-image:9", ...never }), {
    name: "ImageNotFoundError",
    code: "ERR_MSB_IMAGE_NOT_FOUND",
  });
  await assert.rejects(Sandbox.create(name, { image: "x", pullPolicy: "sometimes" }), {
    name: "InvalidArgumentError",
    message: /sometimes/,
  });
  await assert.rejects(Image.pull("x", { onProgress: 7 }), { name: "InvalidArgumentError" });
  await assert.rejects(Image.pull("UPPER case"), { name: "InvalidConfigError" });
  await assert.rejects(Image.pull("x\0y"), { name: "InvalidArgumentError" });
  await assert.rejects(Image.import(join(folder, "nothing.tar")), { name: "InvalidConfigError" });
  await assert.rejects(Image.pull("x", { platform: "vax" }), { name: "InvalidConfigError" });
  const vax = { platform: "linux/vax" };
  await assert.rejects(Image.import(archive, { name: "vax:1", ...vax }), { name: "ImageInvalidError" });
  await assert.rejects(Sandbox.create(name, { image: archive, ...vax }), { name: "ImageInvalidError" });
  const broken = join(folder, "broken.tar");
  writeFileSync(broken, "no archive ".repeat(1000));
  await assert.rejects(Image.import(broken, { name: "broken:1" }), { name: "ImageInvalidError" });
  const unused = createServer();
  await new Promise((done) => unused.listen(0, "127.0.0.1", done));
  const { port } = unused.address();
  await new Promise((done) => unused.close(done));
  await assert.rejects(Image.pull(`localhost:${port}/x`), { kind: "registry_unreachable" });
  const reason = new Error("too late");
  await assert.rejects(Image.pull("x", { signal: AbortSignal.abort(reason) }), (error) => error === reason);
});

test("a cancelled pull leaks nothing", async (t) => {
  const registry = await silent(t);
  const files = () => descriptors() - registry.taken.length;
  async function pulled(onProgress) {
    const given = new AbortController();
    const asked = registry.taken.length;
    const pull = assert.rejects(Image.pull(registry.name, { signal: given.signal, onProgress }), {
      name: "AbortError",
    });
    await until("the registry is asked", () => registry.taken.length > asked);
    given.abort();
    await pull;
  }
  await pulled(); // opens what the library keeps open
  const [cells, left, running] = [native.counts().cells, files(), threads()];
  for (let round = 0; round < 3; round++) await pulled(({ phase }) => assert.equal(phase, "resolving"));
  assert.equal(native.counts().cells, cells);
  await until("all descriptors are closed", () => files() <= left);
  await until("all threads are gone", () => threads() <= running);
});

test("cancelling creation cancels the image pull", async (t) => {
  const registry = await silent(t);
  const name = `node-given-up-${process.pid}`;
  const given = new AbortController();
  const creation = assert.rejects(Sandbox.create(name, { image: registry.name, signal: given.signal }), {
    name: "AbortError",
  });
  await until("the registry is asked", () => registry.taken.length > 0);
  given.abort();
  await creation;
  // Prune waits for pulls in progress, so it would block if the pull were not cancelled.
  await Image.prune({ signal: AbortSignal.timeout(15_000) });
  await assert.rejects(Sandbox.get(name), { name: "SandboxNotFoundError" });
});
