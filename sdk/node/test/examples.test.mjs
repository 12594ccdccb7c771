// Runs every example of the documentation and checks what it does.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Sandbox } from "microsandbox";
import * as examples from "./dist/examples.mjs";
import { create, end, image, until } from "./support.mjs";

let sandbox;
before(async () => {
  sandbox = await create();
});
after(() => end(sandbox));

const script = fileURLToPath(new URL("example.mjs", import.meta.url));

/** Starts an example in a process of its own, since the test runner owns this one's output. */
class Printed {
  text = "";

  constructor(example, name = sandbox.name) {
    const child = spawn(process.execPath, [script, name, example], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.end = (async () => {
      for await (const data of child.stdout) this.text += data;
      return this.text;
    })();
  }
}

/** Returns the output of an example. */
function printed(example) {
  return new Printed(example).end;
}

/** Returns the output of an example that follows a log, whose tail is killed after its output. */
async function followed(example, name) {
  const run = new Printed(example, name);
  await until(() => `the log is shown, behind ${run.text}`, () => run.text.includes(LOG));
  const from = await Sandbox.get(name || "api");
  const running = (await from.sessions()).filter(({ status }) => status === null);
  const handle = await from.reattach(running.find(({ command }) => command[0] === "tail").id);
  await handle.kill();
  handle.close();
  from.close();
  return run.end;
}

const LOG = "a line of the log\n";
const END = "resolved to undefined\n";

test("the typical flow", async () => {
  await Sandbox.remove("api", { force: true }).catch(() => {}); // left by an interrupted run
  assert.equal(await followed("typicalFlow", ""), `2\n\n${LOG}${END}`);
});

test("collected commands", async () => {
  assert.equal(await printed("exec"), `2\n\n0\n${END}`);
  const out = await examples.execWith(sandbox);
  assert.match(out.stdout(), /^script\.py \/app \/app\/lib /);
  assert.match(await printed("shell"), /\ndone\n\nresolved/);
  assert.equal(await printed("guideExec"), `hello\n\ntrue\n0\n${END}`);
  assert.equal((await examples.guideOptions(sandbox)).stdout(), "compute.py /app /app/lib 1024\n");
  assert.match((await examples.guideShell(sandbox)).stdout(), /\ndone\n$/);
});

test("streamed commands", async () => {
  assert.equal(await followed("execStream", sandbox.name), `${LOG}${END}`);
  assert.equal(await followed("guideStream", sandbox.name), `${LOG}Exited: -1\n${END}`);
  assert.equal(await printed("shellStream"), `1\n2\n3\n${END}`);
  const handle = await examples.execStreamWith(sandbox);
  assert.equal((await handle.collect()).stdout(), "debug task-1\n");
  await examples.guideStdin(sandbox);
  const { handle: server, sessionId } = await examples.guideId(sandbox);
  assert.ok((await sandbox.sessions()).some(({ id }) => id === sessionId));
  await server.kill();
});

/** Runs an example on a terminal, types the answers, and returns how it ended. */
async function onTerminal(name, dialogue) {
  const command = [process.execPath, script, sandbox.name, name].join(" ");
  const child = spawn("script", ["-qec", command, "/dev/null"], {
    env: { ...process.env, TERM: "xterm" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  let seen = "";
  let at = 0;
  child.stdout.on("data", (data) => {
    seen += data;
  });
  const RESOLVED = /resolved to (.*)\r\n/;
  for (const [prompt, typed] of dialogue) {
    await until(() => `${prompt} appears after ${seen}`, () => seen.indexOf(prompt, at) >= 0);
    at = seen.indexOf(prompt, at) + prompt.length;
    child.stdin.write(typed);
  }
  await until(() => `the end is reported after ${seen}`, () => RESOLVED.test(seen));
  child.stdin.end();
  return RESOLVED.exec(seen)[1];
}

test("attach to and detach from a terminal", async () => {
  assert.equal(await onTerminal("attachShell", [["#", "exit 7\r"]]), "7");
  assert.equal(await onTerminal("attach", [[">>> ", "exit()\r"]]), "0");
  assert.equal(await onTerminal("attachWith", [["#", "echo $EDITOR-$PWD\r"], ["vim-/app", "\x1d"]]), "-1");
  assert.equal(await onTerminal("guideAttach", [["#", "exit 3\r"], ["#", "\x11"]]), "3");
});

test("attach without a terminal is rejected", async () => {
  assert.match(await printed("attachShell"), /rejected with NotATerminalError/);
});

/** Runs one of examples/ with `input`; returns its output and exit code. */
async function example(file, args, input = "") {
  const path = fileURLToPath(new URL(`../examples/${file}.mjs`, import.meta.url));
  const child = spawn(process.execPath, [path, image, ...args], { stdio: ["pipe", "pipe", "ignore"] });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.stdin.end(input);
  let text = "";
  for await (const data of child.stdout) text += data;
  return [text, await ended];
}

test("the example programs", async () => {
  assert.deepEqual(await example("collect", ["sh", "-c", "echo out; exit 3"]), ["out\n", 3]);
  assert.deepEqual(await example("collect", ["nonexistent"]), ["", 127]);
  assert.deepEqual(await example("filter", ["tr a-z A-Z; exit 2"], "text\n"), ["TEXT\n", 2]);
  assert.deepEqual(await example("many", []), ["90 done, 10 cancelled\n", 0]);
});
