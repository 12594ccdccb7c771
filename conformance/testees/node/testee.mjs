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

/** Reads a request: its fields, and the bytes that they number; null at the end. */
async function next() {
  const ended = () => pieces.some((piece) => piece.includes(10));
  const all = await gather(ended);
  if (all === null) return null;
  const request = JSON.parse(take(all.indexOf(10) + 1).toString());
  const parts = [];
  for (const length of request.parts) {
    await gather(() => size >= length);
    parts.push(take(length));
  }
  return { ...request, bytes: (number) => parts[number], text: (number) => parts[number]?.toString() };
}

/** Writes one reply, uninterrupted. */
function reply(request, line, parts = []) {
  const lengths = parts.map((part) => part.length);
  const text = JSON.stringify({ id: request.id, ...line, parts: lengths });
  process.stdout.write(Buffer.concat([Buffer.from(`${text}\n`), ...parts]));
}

function exited(status) {
  const { code, signal, success, coreDumped, timedOut, usage } = status;
  return {
    code,
    signal: signal ?? 0,
    success,
    core: coreDumped,
    timed_out: timedOut,
    cpu_us: Math.floor((usage.userMs + usage.systemMs) * 1000),
    wall_us: Math.floor(usage.wallMs * 1000),
    max_rss: usage.maxRss,
  };
}

function collected(output, raised = false) {
  const data = {
    stdout: 0,
    stderr: 1,
    stdout_total: output.stdoutTotal,
    stderr_total: output.stderrTotal,
    truncated: output.truncated,
    writer_left: output.writerLeft,
  };
  const line = { exited: { ...exited(output.status), raised, output: data } };
  return [line, [output.stdoutBytes(), output.stderrBytes()]];
}

/** Converts an error; some are endings of a command. */
function failed(error) {
  if (!(error instanceof MicrosandboxError)) {
    return [{ error: { kind: "testee", message: 0 } }, [Buffer.from(String(error))]];
  }
  if (error.name === "ExecTimeoutError") return collected(error.output, true);
  if (error.stage === undefined) {
    return [{ error: { kind: error.kind, message: 0 } }, [Buffer.from(error.message)]];
  }
  const { kind, stage, errno = 0, errnoName = "" } = error;
  const line = { kind, stage, errno, errno_name: errnoName, message: 0, path: 1 };
  return [{ failed: line }, [Buffer.from(error.message), Buffer.from(error.path)]];
}

/** Reports an event; returns whether it is the one that the judge waits for. */
function report(request, event) {
  const kind = event === null ? "end" : event.kind === "stdinError" ? "stdin_error" : event.kind;
  if (kind === "stdout" || kind === "stderr") reply(request, { event: kind, data: 0 }, [event.data]);
  else reply(request, { event: kind });
  return kind === "end" || request.until === "any" || request.until === kind;
}

function configure(request, b) {
  const { bytes } = request;
  const bound = (text) => (text === "-1" ? Infinity : BigInt(text));
  b.args((request.args ?? []).map(bytes));
  for (const [name, value] of request.env ?? []) b.env(bytes(name), bytes(value));
  if (request.cwd !== undefined) b.cwd(bytes(request.cwd));
  if (request.user !== undefined) b.user(request.text(request.user));
  if (request.tty) b.tty(true);
  if (request.rows !== undefined) b.ttySize(request.rows, request.cols);
  if (request.timeout_ms !== undefined) b.timeout(request.timeout_ms);
  for (const [name, , soft, hard] of request.rlimits ?? []) b.rlimitRange(name, bound(soft), bound(hard));
  if (request.stdin_pipe) b.stdinPipe();
  if (request.stdin !== undefined) b.stdin(Stdin.bytes(bytes(request.stdin)));
  if (request.drain_ms !== undefined) b.drain(request.drain_ms);
  if (request.wait_for_eof) b.waitForEof(true);
  if (request.max_output !== undefined) b.maxOutput(request.max_output);
  return b;
}

async function create(request) {
  const { text } = request;
  const options = { image: text(request.image), env: {} };
  for (const [name, value] of request.env ?? []) options.env[text(name)] = text(value);
  for (const field of ["workdir", "shell", "user"]) {
    if (request[field] !== undefined) options[field] = text(request[field]);
  }
  sandboxes.set(request.id, await Sandbox.create(text(request.name), options));
  return OK;
}

async function inSandbox(request, sandbox) {
  if (request.do === "remove") {
    await sandbox.kill();
    sandbox.close();
    await Sandbox.remove(sandbox.name);
    return OK;
  }
  if (request.do === "listed") {
    const found = (await sandbox.sessions()).find(({ id }) => id === request.session);
    return [{ state: found ? (found.status ? "ended" : "running") : "unknown" }];
  }
  let handle;
  if (request.do === "reattach") {
    handle = await sandbox.reattach(request.session, { from: "now" });
  } else {
    const call = request.script === undefined ? "exec" : "shell";
    const program = request.bytes(request.script ?? request.cmd);
    const options = (b) => configure(request, b);
    if (request.do === "run") return collected(await sandbox[`${call}With`](program, options));
    handle = await sandbox[`${call}StreamWith`](program, options);
  }
  handles.set(request.id, handle);
  return [{ started: { session: handle.id } }];
}

async function giveUp(request, handle) {
  let ended = false;
  for (let at = 0; at < request.times; at++) {
    const given = new AbortController();
    const promise = handle[request.on]({ signal: given.signal });
    given.abort();
    try {
      const result = await promise;
      ended = true;
      if (request.on === "recv") report(request, result);
    } catch (error) {
      if (error !== given.signal.reason) throw error;
    }
  }
  return [{ ended }];
}

const onHandle = {
  async recv(handle, request) {
    while (!report(request, await handle.recv()));
    return OK;
  },
  wait: async (handle) => [{ exited: exited(await handle.wait()) }],
  collect: async (handle) => collected(await handle.collect()),
  give_up: (handle, request) => giveUp(request, handle),
  async take_stdin(handle, { exec }) {
    const sink = await handle.takeStdin();
    if (sink !== null) sinks.set(exec, sink);
    return [{ sink: sink !== null }];
  },
  write: (_, { exec, data, bytes }) => sinks.get(exec).write(bytes(data)),
  close_stdin: (_, { exec }) => sinks.get(exec).close(),
  signal: (handle, { signal }) => handle.signal(signal),
  kill: (handle) => handle.kill(),
  resize: (handle, { rows, cols }) => handle.resize(rows, cols),
  close: (handle) => handle.close(),
  async forget(handle, { exec }) {
    handles.delete(exec);
    await sinks.get(exec)?.close();
    sinks.delete(exec);
    handle.close();
  },
};

async function act(request) {
  if (request.do === "hello") return [{ hello: { lossy: true } }];
  if (request.do === "create") return create(request);
  if (request.sandbox) return inSandbox(request, sandboxes.get(request.sandbox));
  return (await onHandle[request.do](handles.get(request.exec), request)) ?? OK;
}

for (let request = await next(); request !== null; request = await next()) {
  const current = request;
  act(current)
    .catch(failed)
    .then(([done, parts]) => reply(current, { done }, parts));
}
// Ends pending calls.
process.exit(0);
