// Executes the requests of the conformance judge with the package, and reports the results. The
// protocol is in conformance/README.md. Every request is an asynchronous call of its own.
import { MicrosandboxError, Sandbox, Stdin } from "../../../sdk/node/dist/index.mjs";

const sandboxes = new Map();
const handles = new Map();
const sinks = new Map();
const OK = ["ok"];

// Chunks of the input.
const input = process.stdin[Symbol.asyncIterator]();
let pieces = [];
let size = 0;

/** Joins the chunks; reads another one if that is not enough. */
async function gather(enough) {
  for (;;) {
    if (enough()) {
      pieces = [Buffer.concat(pieces)];
      return pieces[0];
    }
    const { value, done } = await input.next();
    if (done) return null;
    pieces.push(value);
    size += value.length;
  }
}

function take(length) {
  const [all] = pieces;
  pieces = [all.subarray(length)];
  size -= length;
  return all.subarray(0, length);
}

/** Reads a request: an id, an action, and then names and values; null at the end. */
async function next() {
  const ended = () => pieces.some((piece) => piece.includes(10));
  const all = await gather(ended);
  if (all === null) return null;
  const fields = [];
  for (const length of take(all.indexOf(10) + 1).toString().trim().split(" ").map(Number)) {
    await gather(() => size >= length);
    fields.push(take(length));
  }
  const [id, action, ...pairs] = fields;
  const named = {};
  for (const [name, value] of groups(pairs, 2)) (named[name] ??= []).push(value);
  const list = (name) => named[name] ?? [];
  const bytes = (name) => list(name)[0];
  const text = (name) => bytes(name)?.toString();
  const number = (name) => (bytes(name) === undefined ? undefined : Number(text(name)));
  return { id: id.toString(), action: action.toString(), list, bytes, text, number };
}

/** Writes one reply, uninterrupted. */
function reply(request, ...values) {
  const field = (value) => (value instanceof Uint8Array ? value : Buffer.from(String(value)));
  const fields = [request.id, ...values].map(field);
  const lengths = fields.map((field) => field.length).join(" ");
  process.stdout.write(Buffer.concat([Buffer.from(`${lengths}\n`), ...fields]));
}

function exited(word, status) {
  const { code, signal, success, coreDumped, timedOut, usage } = status;
  const times = [usage.userMs + usage.systemMs, usage.wallMs].map((ms) => Math.floor(ms * 1000));
  return [word, code, signal ?? 0, coreDumped, timedOut, success, ...times, usage.maxRss];
}

function collected(output, raised = false) {
  const { stdoutTotal, stderrTotal, truncated, writerLeft } = output;
  const data = [output.stdoutBytes(), output.stderrBytes(), stdoutTotal, stderrTotal];
  return [...exited("collected", output.status), raised, ...data, truncated, writerLeft];
}

/** Converts an error; some are endings of a command. */
function failed(error) {
  if (!(error instanceof MicrosandboxError)) return ["error", "testee", error];
  if (error.name === "ExecTimeoutError") return collected(error.output, true);
  const { kind, stage, errno = 0, errnoName = "", message, path } = error;
  return stage === undefined ? ["error", kind, message] : ["failed", kind, stage, errno, errnoName, message, path];
}

/** Reports an event; returns whether it is the one that the judge waits for. */
function report(request, event) {
  const kind = event === null ? "end" : event.kind === "stdinError" ? "stdin_error" : event.kind;
  if (kind === "stdout" || kind === "stderr") reply(request, "event", kind, event.data);
  else reply(request, "event", kind);
  return kind === "end" || ["any", kind].includes(request.text("until"));
}

/** Returns a list in groups. */
function groups(list, count) {
  const group = (_, at) => list.slice(at * count, (at + 1) * count);
  return Array.from({ length: list.length / count }, group);
}

function configure({ list, bytes, text, number }, b) {
  const bound = (field) => (field.toString() === "-1" ? Infinity : BigInt(field.toString()));
  const given = (name) => bytes(name) !== undefined;
  b.args(list("arg"));
  for (const [name, value] of groups(list("env"), 2)) b.env(name, value);
  if (given("cwd")) b.cwd(bytes("cwd"));
  if (given("user")) b.user(text("user"));
  if (given("tty")) b.tty(true);
  if (given("rows")) b.ttySize(number("rows"), number("cols"));
  if (given("timeout_ms")) b.timeout(number("timeout_ms"));
  for (const [name, , soft, hard] of groups(list("rlimit"), 4)) {
    b.rlimitRange(name.toString(), bound(soft), bound(hard));
  }
  if (given("stdin_pipe")) b.stdinPipe();
  if (given("stdin")) b.stdin(Stdin.bytes(bytes("stdin")));
  if (given("drain_ms")) b.drain(number("drain_ms"));
  if (given("wait_for_eof")) b.waitForEof(true);
  if (given("max_output")) b.maxOutput(number("max_output"));
  return b;
}

async function create({ id, list, bytes, text }) {
  const env = groups(list("env"), 2).map(([name, value]) => [name.toString(), value.toString()]);
  const options = { env: Object.fromEntries(env) };
  for (const field of ["image", "workdir", "shell", "user"]) {
    if (bytes(field) !== undefined) options[field] = text(field);
  }
  sandboxes.set(id, await Sandbox.create(text("name"), options));
  return OK;
}

async function inSandbox(request, sandbox) {
  const { action, bytes, text } = request;
  if (action === "remove") {
    await sandbox.kill();
    sandbox.close();
    await Sandbox.remove(sandbox.name);
    return OK;
  }
  if (action === "listed") {
    const found = (await sandbox.sessions()).find(({ id }) => id === text("session"));
    return ["state", found ? (found.status ? "ended" : "running") : "unknown"];
  }
  let handle;
  if (action === "reattach") {
    handle = await sandbox.reattach(text("session"), { from: "now" });
  } else {
    const call = bytes("script") === undefined ? "exec" : "shell";
    const program = bytes("script") ?? bytes("cmd");
    const options = (b) => configure(request, b);
    if (action === "run") return collected(await sandbox[`${call}With`](program, options));
    handle = await sandbox[`${call}StreamWith`](program, options);
  }
  handles.set(request.id, handle);
  return ["started", handle.id];
}

async function giveUp(request, handle) {
  let ended = false;
  for (let left = request.number("times"); left > 0; left--) {
    const given = new AbortController();
    const promise = handle[request.text("on")]({ signal: given.signal });
    given.abort();
    try {
      const result = await promise;
      ended = true;
      if (request.text("on") === "recv") report(request, result);
    } catch (error) {
      if (error !== given.signal.reason) throw error;
    }
  }
  return ["yes", ended];
}

const onHandle = {
  async recv(handle, request) {
    while (!report(request, await handle.recv()));
    return OK;
  },
  wait: async (handle) => exited("exited", await handle.wait()),
  collect: async (handle) => collected(await handle.collect()),
  give_up: (handle, request) => giveUp(request, handle),
  async take_stdin(handle, { text }) {
    const sink = await handle.takeStdin();
    if (sink !== null) sinks.set(text("exec"), sink);
    return ["yes", sink !== null];
  },
  write: (_, { text, bytes }) => sinks.get(text("exec")).write(bytes("data")),
  close_stdin: (_, { text }) => sinks.get(text("exec")).close(),
  signal: (handle, { number }) => handle.signal(number("signal")),
  kill: (handle) => handle.kill(),
  resize: (handle, { number }) => handle.resize(number("rows"), number("cols")),
  close: (handle) => handle.close(),
  async forget(handle, { text }) {
    handles.delete(text("exec"));
    await sinks.get(text("exec"))?.close();
    sinks.delete(text("exec"));
    handle.close();
  },
};

async function act(request) {
  if (request.action === "hello") return ["hello", "lossy"];
  if (request.action === "create") return create(request);
  const [sandbox, exec] = [request.text("sandbox"), request.text("exec")];
  if (sandbox !== undefined) return inSandbox(request, sandboxes.get(sandbox));
  return (await onHandle[request.action](handles.get(exec), request)) ?? OK;
}

for (let request = await next(); request !== null; request = await next()) {
  const current = request;
  act(current)
    .catch(failed)
    .then((done) => reply(current, ...done));
}
// Ends pending calls.
process.exit(0);
