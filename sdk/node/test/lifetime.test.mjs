// Ends of processes and workers, and what keeps them alive.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { create, end, native, SCALE, until } from "./support.mjs";

let sandbox;
before(async () => {
  sandbox = await create();
});
after(() => end(sandbox));

const cwd = fileURLToPath(new URL("..", import.meta.url));

/** Runs a program with `sandbox` in a process; returns its output, exit code and signal. */
async function run(program, options = []) {
  const source = `import { Sandbox } from "microsandbox";
    const sandbox = await Sandbox.get(${JSON.stringify(sandbox.name)});
    ${program}`;
  const child = spawn(process.execPath, [...options, "--input-type=module", "-e", source], {
    cwd,
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 30_000 * SCALE,
    killSignal: "SIGKILL",
  });
  const ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve([code, signal])));
  let text = "";
  for await (const data of child.stdout) text += data;
  return [text, ...(await ended)];
}

test("idle handles do not keep the process alive", async () => {
  const program = `
    const handle = await sandbox.execStreamWith("sleep", (b) => b.arg("600").stdinPipe());
    const sink = await handle.takeStdin();
    await handle.recv();
    globalThis.kept = [handle, sink, handle.control()];
    const given = new AbortController();
    const promise = handle.wait({ signal: given.signal });
    setTimeout(() => given.abort(), 10);
    await promise.catch(() => console.log("cancelled"));`;
  assert.deepEqual(await run(program), ["cancelled\n", 0, null]);
});

test("pending calls keep the process alive", async () => {
  const program = `
    const handle = await sandbox.shellStream("usleep 300000; echo done");
    handle.collect().then((output) => console.log(output.stdout()));`;
  assert.deepEqual(await run(program), ["done\n\n", 0, null]);
});

test("a cancelled call does not keep the process alive", async () => {
  const other = await create();
  await other.shellStream("trap '' TERM; while :; do sleep 1; done");
  const program = `
    const other = await Sandbox.get(${JSON.stringify(other.name)});
    await other.stop({ timeout: 600_000, signal: AbortSignal.timeout(100) })
      .catch((error) => console.log(error.name));`;
  assert.deepEqual(await run(program), ["TimeoutError\n", 0, null]);
  await end(other);
});

const STATES = {
  "while nothing waits": `const handle = await sandbox.execStream("sleep", ["600"]);`,
  "while a reader waits": `(await sandbox.execStream("sleep", ["600"])).wait();`,
  "in the middle of a loop": `
    for await (const event of await sandbox.shellStream("yes")) {
      if (event.kind === "stdout") process.exit(7);
    }`,
  "while a writer waits": `
    const handle = await sandbox.execStreamWith("sleep", (b) => b.arg("600").stdinPipe());
    (await handle.takeStdin()).write(Buffer.alloc(8 << 20));`,
  "while a thread waits": `
    sandbox.sessions(); sandbox.info(); sandbox.sessions(); (await sandbox.execStream("sleep", ["600"])).kill();`,
  "while it is created": `Sandbox.create("node-exit-" + process.pid, { image: process.env.MSB_TEST_ROOTFS });`,
};
for (const [state, program] of Object.entries(STATES)) {
  test(`a process exits ${state}`, async () => {
    assert.deepEqual(await run(`${program}; process.exit(7)`), ["", 7, null]);
  });
}

test("a process exits during a slow stop", async () => {
  const other = await create();
  await other.shellStream("trap '' TERM; while :; do sleep 1; done");
  const program = `
    const other = await Sandbox.get(${JSON.stringify(other.name)});
    other.stop({ timeout: 600_000 }).catch(() => {});
    setTimeout(() => process.exit(7), 100);`;
  assert.deepEqual(await run(program), ["", 7, null]);
  await end(other);
});

test("an error in a callback of the loop is an uncaught exception", async () => {
  const program = `
    process.on("uncaughtException", (error) => { console.log("caught", error.message); process.exit(3); });
    (await sandbox.shellStream("usleep 10000")).wait().then(() => { throw new Error("mine"); });`;
  assert.deepEqual(await run(program), ["caught mine\n", 3, null]);
});

const SOURCE = `
  const { parentPort, workerData } = require("node:worker_threads");
  const { Sandbox } = require(workerData.module);
  (async () => {
    const sandbox = await Sandbox.get(workerData.name);
    await new Function("sandbox", "tell", "return (async () => {" + workerData.program + "})()")(
      sandbox, (message) => parentPort.postMessage(message));
  })();`;

/** Starts a worker that runs a program; returns it and its first message. */
async function start(program) {
  const module = createRequire(import.meta.url).resolve("microsandbox");
  const workerData = { module, name: sandbox.name, program };
  const worker = new Worker(SOURCE, { eval: true, workerData });
  const first = await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  return [worker, first];
}

test("workers run commands concurrently", async () => {
  const program = `tell((await sandbox.exec("echo", ["from a worker"])).stdout());`;
  const all = await Promise.all([...Array(8)].map(() => start(program)));
  for (const [worker, first] of all) {
    assert.equal(first, "from a worker\n");
    await worker.terminate();
  }
});

const WAITS = {
  "a reader": `const handle = await sandbox.execStream("sleep", ["600"]); tell(handle.id); await handle.wait();`,
  "a busy loop": `
    const handle = await sandbox.shellStream("yes");
    for await (const event of handle) if (event.kind === "stdout") tell(handle.id);`,
  "a writer": `
    const handle = await sandbox.execStreamWith("sleep", (b) => b.arg("600").stdinPipe());
    const sink = await handle.takeStdin();
    tell(handle.id);
    await sink.write(Buffer.alloc(8 << 20));`,
  "blocking calls": `
    const handle = await sandbox.execStream("sleep", ["600"]);
    tell(handle.id);
    for (;;) await Promise.all([...Array(40)].map(() => sandbox.sessions()));`,
  "no call": `const handle = await sandbox.execStream("sleep", ["600"]); tell(handle.id);`,
};
for (const [what, program] of Object.entries(WAITS)) {
  test(`commands survive termination of a worker with ${what}`, async () => {
    for (let times = 0; times < 5; times++) {
      const [worker, id] = await start(program);
      await worker.terminate();
      const handle = await sandbox.reattach(id, { from: "now" });
      const session = (await sandbox.sessions()).find((one) => one.id === id);
      assert.equal(session.status, null);
      await handle.kill();
      await handle.wait();
      handle.close();
    }
  });
}

test("terminate the only worker with the addon, threads blocked", async () => {
  const program = `
    import("node:worker_threads").then(async ({ Worker }) => {
      for (let times = 0; times < 5; times++) {
        const worker = new Worker(${JSON.stringify(SOURCE)}, { eval: true, workerData: ${JSON.stringify({
          module: createRequire(import.meta.url).resolve("microsandbox"),
          name: sandbox.name,
          program: WAITS["blocking calls"],
        })} });
        await new Promise((resolve) => worker.once("message", resolve));
        await worker.terminate();
      }
      console.log("alive");
    });`;
  const child = spawn(process.execPath, ["-e", program], { cwd, stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  for await (const data of child.stdout) text += data;
  assert.equal(text, "alive\n");
  await until("its commands are killed", async () => {
    const running = (await sandbox.sessions()).filter(({ status }) => status === null);
    for (const { id } of running) await (await sandbox.reattach(id))[Symbol.asyncDispose]();
    return running.length === 0;
  });
});

test("terminated workers leak nothing", () => {
  assert.ok(native.counts().cells <= 3);
});
