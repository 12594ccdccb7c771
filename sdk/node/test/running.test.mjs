// Collected commands.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ExecFailedError, MicrosandboxError, Sandbox } from "microsandbox";
import { collectGarbage, create, descriptors, end, image, native, sleep, until } from "./support.mjs";

let sandbox;
before(async () => {
  sandbox = await create();
});
after(() => end(sandbox));

test("an exit code is a result", async () => {
  const output = await sandbox.exec("sh", ["-c", "echo out; echo err >&2; exit 3"]);
  assert.equal(output.code, 3);
  assert.equal(output.success, false);
  assert.deepEqual([output.stdout(), output.stderr()], ["out\n", "err\n"]);
  assert.ok(output.stdoutBytes() instanceof Uint8Array);
  assert.equal(output.status.signal, null);
  assert.equal(typeof output.status.usage.wallMs, "number");
});

test("invalid UTF-8 is lossy as text and exact as bytes", async () => {
  const output = await sandbox.exec("printf", ["a\\377b"]);
  assert.equal(output.stdout(), "a\ufffdb");
  assert.deepEqual([...output.stdoutBytes()], [97, 255, 98]);
});

test("a failure to start has a class and its details", async () => {
  const wanted = {
    name: "ExecFailedError",
    kind: "not_found",
    code: "ENOENT",
    errno: 2,
    errnoName: "ENOENT",
    stage: "execve",
    path: "nonexistent",
    origin: "agent",
    message: "cannot run nonexistent: No such file or directory",
  };
  await assert.rejects(sandbox.exec("nonexistent"), wanted);
  await assert.rejects(sandbox.exec("nonexistent"), (error) => {
    assert.ok(error instanceof ExecFailedError);
    assert.ok(error instanceof MicrosandboxError);
    assert.ok(error instanceof Error);
    return true;
  });
  await assert.rejects(
    sandbox.execWith("true", (b) => b.cwd("/nowhere")),
    { kind: "bad_cwd", stage: "chdir", path: "/nowhere" },
  );
});

test("a timeout carries the output so far", async () => {
  await assert.rejects(
    sandbox.shellWith("echo early; sleep 600", (b) => b.timeout(200)),
    (error) => {
      assert.equal(error.name, "ExecTimeoutError");
      assert.equal(error.kind, "exec_timeout");
      assert.equal(error.output.stdout(), "early\n");
      assert.equal(error.output.status.timedOut, true);
      return true;
    },
  );
});

test("an aborted command is killed", async () => {
  const given = new AbortController();
  const promise = sandbox.shell("sleep 4711", { signal: given.signal });
  const running = async () =>
    (await sandbox.sessions()).find(({ command }) => command.includes("sleep 4711"));
  await until("the command runs", async () => (await running())?.status === null);
  given.abort();
  await assert.rejects(promise, { name: "AbortError" });
  await until("the command is gone", async () => (await running())?.status?.signal === 9);
  await assert.rejects(sandbox.exec("true", [], { signal: given.signal }), { name: "AbortError" });
});

test("invalid arguments are rejected before sending", async () => {
  const invalid = { name: "InvalidArgumentError", kind: "invalid_argument" };
  const refused = (configure) => assert.rejects(sandbox.execWith("true", configure), invalid);
  await assert.rejects(sandbox.exec("tr\0ue"), invalid);
  await assert.rejects(sandbox.exec(""), invalid);
  await assert.rejects(sandbox.exec("true", ["a\0b"]), invalid);
  await assert.rejects(sandbox.exec("true", "ab"), invalid);
  await assert.rejects(sandbox.exec(7), invalid);
  await refused((b) => b.env("A=B", "c"));
  await refused((b) => b.env("", "c"));
  await refused((b) => b.env("A", "c\0"));
  await refused((b) => b.cwd(""));
  await refused((b) => b.user("\0"));
  await refused((b) => b.timeout(0));
  await refused((b) => b.timeout(-1));
  await assert.rejects(sandbox.attachWith("true", (b) => b.timeout(0)), invalid);
  await refused((b) => b.timeout(Number.NaN));
  await refused((b) => b.tty(true).ttySize(0, 80));
  await refused((b) => b.tty(true).ttySize(24, 65536));
  await refused((b) => b.tty("yes"));
  await refused((b) => b.rlimit("nofile", -1));
  await refused((b) => b.rlimit("nofile", 2 ** 60));
  await refused((b) => b.rlimit("nofile", 2n ** 64n));
  await refused((b) => b.rlimit("files", 1));
  await refused((b) => b.rlimitRange("nofile", 2, 1));
  await refused(() => {});
  await assert.rejects(Sandbox.create("x", { image, cpus: 0 }), invalid);
  await assert.rejects(Sandbox.create("x", { image, memory: 1 }), invalid);
  for (const [options, named] of [
    [{ cpus: -0.5 }, /cpus is -0.5;/],
    [{ cpus: NaN }, /cpus is NaN;/],
    [{ cpus: 4096.5 }, /cpus is 4096.5;/],
    [{ cpus: true }, /cpus is true;/],
    [{ cpus: "2" }, /cpus is 2;/],
    [{ memory: true }, /memory \(in MiB\) is true/],
    [{ memory: 104857600 }, /memory \(in MiB\) is 104857600/],
    [{ shmSize: 64 }, /shmSize \(in bytes\) is 64/],
    [{ pidsLimit: 7 }, /pidsLimit is 7/],
    [{ pidsLimit: true }, /pidsLimit is true/],
    [{ disk: 15 }, /disk \(in MiB\) is 15/],
    [{ requireJail: 1 }, /requireJail is 1/],
    [{ init: "auto" }, /init is "auto"/],
    [{ detached: "no" }, /detached is "no"/],
    [{ security: "strict" }, /security is "strict"/],
    [{ stopSignal: "" }, /the stop signal is empty/],
    [{ stopSignal: true }, /the stop signal is neither/],
  ]) {
    await assert.rejects(Sandbox.create("x", { image, ...options }), { ...invalid, message: named });
  }
  await assert.rejects(Sandbox.create("x", { image, env: { "A=": "" } }), invalid);
  await assert.rejects(Sandbox.create("x", { image, cpu: 1 }), invalid);
  await assert.rejects(Sandbox.create("no/name", { image }), { kind: "invalid_config" });
  await assert.rejects(Sandbox.builder("x").create(), invalid);
});

test("limits are numbers, bigints and infinity", async () => {
  const output = await sandbox.shellWith("ulimit -n; ulimit -f; ulimit -c", (b) =>
    b.rlimit("nofile", 64).rlimitRange("fsize", 512n * 2n, Infinity).rlimit("core", 0),
  );
  assert.equal(output.stdout(), "64\n2\n0\n");
});

test("maxOutput truncates and keeps counting", async () => {
  const limited = (most) => sandbox.execWith("printf", (b) => b.arg("12345").maxOutput(most));
  const show = ({ truncated, stdoutTotal, ...output }) => [truncated, stdoutTotal];
  assert.equal((await limited(3)).stdout(), "123");
  assert.deepEqual(show(await limited(3)), [true, 5]);
  assert.equal((await limited(0)).stdout(), "");
  assert.deepEqual(show(await limited(0)), [true, 5]);
  assert.equal((await limited(5)).stdout(), "12345");
  assert.deepEqual(show(await limited(5)), [false, 5]);
});

test("large outputs are lent, or copied beyond the limit", async () => {
  const size = 3 << 20;
  const script = `head -c ${size} /dev/zero | tr '\\0' a; head -c ${size} /dev/zero | tr '\\0' b >&2`;
  const wanted = [Buffer.alloc(size, "a"), Buffer.alloc(size, "b")];
  const run = async () => {
    const output = await sandbox.shell(script);
    assert.ok(wanted[0].equals(output.stdoutBytes()));
    assert.ok(wanted[1].equals(output.stderrBytes()));
    return output.stdoutBytes().subarray(10, 20);
  };
  await collectGarbage();
  assert.equal(native.counts().lent, 0);
  let part = await run();
  assert.ok(native.counts().lent >= size);
  await collectGarbage();
  assert.equal(native.counts().lent, size); // a view of a part keeps all of it
  assert.equal(part.toString(), "a".repeat(10));
  part = null;
  await collectGarbage();
  assert.equal(native.counts().lent, 0);
  native.lentMax(0);
  try {
    await run();
    assert.equal(native.counts().lent, 0);
  } finally {
    native.lentMax(2 ** 30);
  }
});

test("pre-supplied input", async () => {
  const given = async (data) => (await sandbox.execWith("cat", (b) => b.stdinBytes(data))).stdout();
  assert.equal(await given("text ü"), "text ü");
  assert.equal(await given(Buffer.from("bytes")), "bytes");
  assert.equal(await given(new Uint8Array(0)), "");
});

test("shells, with arguments and the sandbox's own", async () => {
  assert.equal((await sandbox.shell("echo a | tr a b && echo c")).stdout(), "b\nc\n");
  const output = await sandbox.shellWith('echo "$0 $1 $X"', (b) => b.args(["zero", "one"]).env("X", "x"));
  assert.equal(output.stdout(), "zero one x\n");
});

test("many concurrent commands leak nothing", async () => {
  await collectGarbage();
  const before = [native.counts().cells, descriptors()];
  const outputs = await Promise.all(
    [...Array(200).keys()].map((at) => sandbox.exec("echo", [String(at)])),
  );
  outputs.forEach((output, at) => assert.equal(output.stdout(), `${at}\n`));
  await sleep(1); // libuv closes handles in the next turn
  assert.deepEqual([native.counts().cells, descriptors()], before);
});
