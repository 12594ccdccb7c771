// Sandboxes: options, lifecycle, bounds.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { doctor, Sandbox, version } from "microsandbox";
import { create, end, image, turn } from "./support.mjs";

test("options are applied and reported", async () => {
  const sandbox = await Sandbox.builder(`node-built-${process.pid}`)
    .image(image)
    .env("A", "a")
    .envs({ B: "b" })
    .workdir("/tmp")
    .shell("/bin/sh")
    .user("app")
    .hostname("host")
    .label("for", "tests")
    .labels({ of: "node=package" })
    .maxDuration(600_000)
    .idleTimeout(600_000)
    .bootTimeout(60_000)
    .driver("container")
    .replace()
    .create();
  const output = await sandbox.shell("echo $A $B $PWD $(id -un) $(hostname)");
  assert.equal(output.stdout(), "a b /tmp app host\n");
  const info = await sandbox.info();
  assert.equal(info.name, sandbox.name);
  assert.equal(info.status, "running");
  assert.equal(info.driver, "container");
  assert.equal(info.isolation, "container");
  assert.deepEqual(info.labels, { for: "tests", of: "node=package" });
  assert.equal(info.detached, false);
  assert.ok(info.createdAt instanceof Date && info.startedAt >= info.createdAt);
  assert.equal(info.endReason, null);
  assert.ok((await Sandbox.list()).some(({ name }) => name === sandbox.name));
  await end(sandbox);
  assert.ok(!(await Sandbox.list()).some(({ name }) => name === sandbox.name));
});

test("find, stop, start and remove a sandbox by name", async () => {
  const sandbox = await create({ replace: false });
  const { name } = sandbox;
  await assert.rejects(Sandbox.create(name, { image }), {
    name: "SandboxAlreadyExistsError",
    kind: "sandbox_already_exists",
    code: "ERR_MSB_SANDBOX_ALREADY_EXISTS",
  });
  await assert.rejects(Sandbox.remove(name), { name: "SandboxRunningError" });
  await assert.rejects(Sandbox.start(name), { name: "SandboxRunningError" });
  const found = await Sandbox.get(name);
  assert.equal((await found.exec("echo", ["found"])).stdout(), "found\n");
  await sandbox.exec("touch", ["/tmp/left"]);
  const ended = sandbox.wait();
  await assert.rejects(sandbox.wait({ signal: AbortSignal.timeout(20) }), { name: "TimeoutError" });
  await found.stop({ timeout: 0 });
  await ended;
  await assert.rejects(found.stop(), { name: "SandboxNotRunningError" });
  await assert.rejects(found.exec("true"), { name: "SandboxNotRunningError" });
  assert.equal(await found.status(), "stopped");
  assert.equal((await found.info()).endReason, "stopped");
  const started = await Sandbox.start(name);
  assert.equal((await started.exec("ls", ["/tmp/left"])).stdout(), "/tmp/left\n");
  await started.kill();
  assert.equal((await started.info()).endReason, "killed");
  await Sandbox.remove(name);
  await assert.rejects(Sandbox.get(name), { name: "SandboxNotFoundError" });
  await assert.rejects(Sandbox.remove(name), { name: "SandboxNotFoundError" });
  await assert.rejects(started.info(), { name: "SandboxNotFoundError" });
});

test("close ends nothing and wakes waiters", async () => {
  const sandbox = await create();
  const handle = await sandbox.execStream("sleep", ["600"]);
  const waiting = assert.rejects(sandbox.wait(), { name: "ClosedError" });
  await turn();
  sandbox.close();
  sandbox.close();
  await waiting;
  for (const call of ["exec", "sessions", "info", "stop", "kill", "wait", "attachShell"]) {
    await assert.rejects(sandbox[call]("true"), { name: "ClosedError" });
  }
  const found = await Sandbox.get(sandbox.name);
  assert.equal((await found.sessions())[0].status, null);
  await handle.kill();
  await end(found);
});

test("dispose stops a created sandbox and closes a found one", async () => {
  const sandbox = await create();
  const found = await Sandbox.get(sandbox.name);
  await found[Symbol.asyncDispose]();
  assert.equal(await sandbox.status(), "running");
  const again = await Sandbox.get(sandbox.name);
  await sandbox[Symbol.asyncDispose]();
  await sandbox[Symbol.asyncDispose]();
  assert.equal(await again.status(), "stopped");
  await end(again);
});

test("creation can be cancelled", async () => {
  const name = `node-given-up-${process.pid}`;
  const promise = Sandbox.create(name, { image, signal: AbortSignal.abort() });
  await assert.rejects(promise, { name: "AbortError" });
  await assert.rejects(Sandbox.get(name), { name: "SandboxNotFoundError" });
});

test("j4 bounds are applied and reported", async () => {
  const name = `node-bounded-${process.pid}`;
  const sandbox = await Sandbox.builder(name)
    .image(image)
    .cpus(0.5)
    .memory(256)
    .shmSize(32 * 2 ** 20)
    .pidsLimit(512)
    .stopSignal(2)
    .disk(1024)
    .requireJail(false)
    .init()
    .security("restricted")
    .create();
  let info = await sandbox.info();
  assert.deepEqual([info.cpus, info.memory], [0.5, 256]);
  const shm = await sandbox.shell("df -k /dev/shm | tail -n 1 | awk '{ print $2 }'");
  assert.equal(shm.stdout(), "32768\n");
  const config = join(process.env.MSB_HOME, "sandboxes", name, "config.json");
  assert.equal(JSON.parse(readFileSync(config)).config.stop_signal, "SIGINT");
  assert.ok(info.jailed !== null && info.bounds !== null);
  await sandbox.kill();
  // The runner's state file, with known values.
  const path = join(process.env.MSB_HOME, "sandboxes", name, "started.json");
  const started = JSON.parse(readFileSync(path));
  const bounds = { pids: 512, memory_bytes: 2 ** 28, disk_bytes: null, cpu_millis: 500 };
  started.protection = { jailed: false, missing: ["quota: x"], bounds };
  writeFileSync(path, JSON.stringify(started));
  info = await sandbox.info();
  assert.deepEqual([info.jailed, info.missingWalls], [false, ["quota: x"]]);
  const expected = { pids: 512, memoryBytes: 2 ** 28, diskBytes: null, cpus: 0.5 };
  assert.deepEqual(info.bounds, expected);
  started.protection = null;
  writeFileSync(path, JSON.stringify(started));
  info = await sandbox.info();
  assert.deepEqual([info.jailed, info.missingWalls, info.bounds], [null, [], null]);
  await end(sandbox);
});

test("the host's drivers, and the library's version", async () => {
  const { drivers, walls } = await doctor();
  const container = drivers.find(({ name }) => name === "container");
  assert.equal(container.usable, true);
  assert.ok(Array.isArray(container.unbounded));
  assert.ok(walls.every(({ name }) => name));
  assert.match(version, /^\d+\.\d+\.\d+/);
});
