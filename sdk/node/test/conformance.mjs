// Runs the conformance cases: conformance.mjs [WRONG-CASES]. See conformance/README.md.
import { createRequire } from "node:module";
import { MicrosandboxError, Sandbox, Stdin } from "microsandbox";
import { image, SCALE } from "./support.mjs";

const require = createRequire(import.meta.url);
const form = require("../../../bindings-test/node/form.js");
const { Wrong, load, loadWrong, mismatch, read, show, value } = form;

/** As the cases call what this package calls otherwise. */
const KINDS = { stdinError: "stdin_error" };
const STREAM_KINDS = ["stdout", "stderr", "end"];

async function fails(wanted, promise) {
  try {
    await promise;
  } catch (error) {
    if (error instanceof MicrosandboxError && error.kind === wanted) return;
    throw new Wrong(`expected ${wanted}, got ${error.name}: ${error.message}`);
  }
  throw new Wrong(`expected ${wanted}, got success`);
}

// B1: started once and first, one ending, then the end and nothing more.
function wellFormed(events) {
  const count = (...kinds) => events.filter((event) => kinds.includes(event)).length;
  if (count("exited", "failed", "lost") !== 1 || count("end") !== 1 || events.at(-1) !== "end") {
    return false;
  }
  if (count("failed")) return events.length === 2;
  if (count("lost")) return events.at(-2) === "lost";
  const late = events.lastIndexOf("stdin_error") > events.indexOf("exited");
  return events[0] === "started" && count("started") === 1 && !late;
}

/** Status, failure or another error, of a call that tells how a command ended. */
async function endingOf(promise) {
  try {
    const result = await promise;
    return { status: result.status ?? result, output: result.status && result };
  } catch (error) {
    if (!(error instanceof MicrosandboxError)) throw error;
    if (error.stage !== undefined) return { failure: error };
    if (error.name === "ExecTimeoutError") return { status: error.output.status, output: error.output };
    return { error };
  }
}

// One run of a case.
class Run {
  constructor(one, sandbox, own) {
    Object.assign(this, { one, sandbox, own });
    this.signal = AbortSignal.timeout(30_000 * SCALE);
    this.handle = this.sink = this.fed = this.id = null;
    this.others = [];
    this.kinds = [];
    this.stdinErrors = 0;
    this.chunks = { stdout: [], stderr: [] };
    this.looked = { stdout: 0, stderr: 0 };
  }

  get waiting() {
    return { signal: this.signal };
  }

  // Everything that is wrong with it.
  async once() {
    try {
      await this.steps(this.one.before, "before: ");
      const outcome = await this.run();
      if (this.one.also_tty && this.one.tty && outcome.bytes) {
        const plain = Buffer.from(outcome.bytes[0]).toString("latin1").replaceAll("\r\n", "\n");
        outcome.bytes[0] = Buffer.from(plain, "latin1");
      }
      const problems = this.problems(outcome);
      if (problems.length === 0) await this.steps(this.one.after, "afterwards: ");
      return problems;
    } catch (error) {
      if (error === this.signal.reason) return [`hung after ${this.kinds}, ${show(this.seen("stdout"))}`];
      if (error instanceof Wrong || error instanceof MicrosandboxError) return [String(error)];
      throw error;
    } finally {
      await this.cleanUp();
    }
  }

  async run() {
    const begun = performance.now();
    const { mode = "collect", at_once: many, steps } = this.one;
    if (many) return this.atOnce(many, begun);
    if (mode === "collect" && !steps) return this.collected(this.called(), begun);
    try {
      this.handle = await this.started();
    } catch (error) {
      if (!(error instanceof MicrosandboxError)) throw error;
      return { error, took: performance.now() - begun };
    }
    this.id = this.handle.id;
    await this.steps(steps, "");
    let outcome;
    if (this.handle === null) outcome = { closed: true };
    else if (mode === "collect") outcome = await this.collected(this.handle.collect(this.waiting), begun);
    else if (mode === "wait") outcome = await this.waited(begun);
    else outcome = await this.streamed(begun);
    const error = await this.fed;
    if (error) throw new Wrong(`feeding: ${error}`);
    return outcome;
  }

  async atOnce(many, begun) {
    for (let at = 0; at < many; at++) this.others.push(await this.started());
    let outcome;
    for (const handle of this.others) {
      outcome = await this.collected(handle.collect(this.waiting), begun);
      const problems = this.problems(outcome);
      if (problems.length) throw new Wrong(`one of ${many}: ${problems[0]}`);
    }
    return outcome;
  }

  called() {
    const { cmd, script } = this.one;
    return cmd === undefined
      ? this.sandbox.shellWith(value(script, this.own), (b) => this.configure(b), this.waiting)
      : this.sandbox.execWith(value(cmd, this.own), (b) => this.configure(b), this.waiting);
  }

  started() {
    const { cmd, script } = this.one;
    return cmd === undefined
      ? this.sandbox.shellStreamWith(value(script, this.own), (b) => this.configure(b), this.waiting)
      : this.sandbox.execStreamWith(value(cmd, this.own), (b) => this.configure(b), this.waiting);
  }

  configure(b) {
    const { one } = this;
    const bytes = (from) => value(from, this.own);
    const limit = (from) => (from === "infinity" ? Infinity : from);
    b.args((one.args ?? []).map(bytes));
    for (const [name, text] of one.env ?? []) b.env(bytes(name), bytes(text));
    if (one.cwd !== undefined) b.cwd(bytes(one.cwd));
    if (one.user !== undefined) b.user(one.user);
    if (one.tty) b.tty(true);
    if (one.tty?.rows !== undefined) b.ttySize(one.tty.rows, one.tty.cols);
    if (one.timeout_ms !== undefined) b.timeout(one.timeout_ms);
    for (const { resource, soft, hard } of one.rlimits ?? []) {
      b.rlimitRange(resource, limit(soft), limit(hard));
    }
    const { stdin = "null" } = one;
    if (stdin === "pipe") b.stdinPipe();
    else if (stdin.bytes !== undefined) b.stdin(Stdin.bytes(bytes(stdin.bytes)));
    if (one.drain_ms !== undefined) b.drain(one.drain_ms);
    if (one.wait_for_eof !== undefined) b.waitForEof(one.wait_for_eof);
    if (one.max_output !== undefined) b.maxOutput(one.max_output);
    return b;
  }

  async collected(promise, begun) {
    const outcome = await endingOf(promise);
    outcome.took = performance.now() - begun;
    const { output } = outcome;
    if (output) {
      outcome.bytes = [Buffer.from(output.stdoutBytes()), Buffer.from(output.stderrBytes())];
      outcome.writerLeft = output.writerLeft;
    }
    return outcome;
  }

  async waited(begun) {
    const outcome = await endingOf(this.handle.wait(this.waiting));
    outcome.took = performance.now() - begun;
    const again = await endingOf(this.handle.wait(this.waiting));
    const shown = ({ status, failure, error }) => JSON.stringify([status, failure, error?.kind]);
    if (shown(again) !== shown(outcome)) throw new Wrong("a second wait differs");
    return outcome;
  }

  async streamed(begun) {
    let took;
    while (!this.kinds.includes("end")) {
      if (this.kinds.includes("exited")) took ??= performance.now() - begun;
      this.take(await this.handle.recv(this.waiting));
    }
    took ??= performance.now() - begun;
    for (let at = 0; at < 2; at++) {
      const event = await this.handle.recv(this.waiting);
      if (event !== null) throw new Wrong(`${event.kind} came after the end`);
    }
    const outcome = await endingOf(this.handle.wait(this.waiting));
    const { output } = await endingOf(this.handle.collect(this.waiting));
    if (output && output.writerLeft !== this.handle.writerLeft) throw new Wrong("writerLeft differs");
    const bytes = [this.seen("stdout"), this.seen("stderr")];
    return { ...outcome, bytes, writerLeft: this.handle.writerLeft, events: this.kinds, took };
  }

  take(event) {
    const kind = event === null ? "end" : (KINDS[event.kind] ?? event.kind);
    this.chunks[kind]?.push(event.data);
    if (kind === "stdin_error") this.stdinErrors++;
    // Output comes in pieces of any size, and the end is told for ever.
    if (this.kinds.at(-1) !== kind || !STREAM_KINDS.includes(kind)) this.kinds.push(kind);
  }

  // Everything of one output, put together only when somebody looks.
  seen(name) {
    const chunks = this.chunks[name];
    if (chunks.length !== 1) this.chunks[name] = [Buffer.concat(chunks)];
    return this.chunks[name][0];
  }

  async until(condition) {
    while (!condition()) {
      if (this.kinds.includes("end")) {
        throw new Wrong(`the end came first: ${this.kinds}, ${show(this.seen("stdout"))}`);
      }
      this.take(await this.handle.recv(this.waiting));
    }
  }

  async waitText(name, text) {
    const found = () => this.seen(name).indexOf(text, this.looked[name]);
    await this.until(() => found() >= 0);
    this.looked[name] = found() + text.length;
  }

  async steps(steps = [], where) {
    for (const [at, step] of steps.entries()) {
      try {
        const [name, content] = typeof step === "string" ? [step] : Object.entries(step)[0];
        await this[`step_${name}`](content);
      } catch (error) {
        if (!(error instanceof Wrong) && !(error instanceof MicrosandboxError)) throw error;
        throw new Wrong(`${where}step ${at + 1} (${JSON.stringify(step)}): ${error}`);
      }
    }
  }

  step_wait(kind) {
    return this.until(() => this.kinds.includes(kind));
  }

  step_wait_stdout(text) {
    return this.waitText("stdout", value(text, this.own));
  }

  step_wait_stderr(text) {
    return this.waitText("stderr", value(text, this.own));
  }

  async step_wait_exit() {
    await this.handle.wait(this.waiting);
  }

  // The writing end, which is then taken.
  async pipe() {
    this.sink ??= await this.handle.takeStdin();
    if (this.sink === null) throw new Wrong("there is no writing end");
    return this.sink;
  }

  async step_write(data) {
    await (await this.pipe()).write(value(data, this.own), this.waiting);
  }

  async step_write_fails({ data, error }) {
    const sink = await this.pipe();
    const bytes = value(data, this.own);
    const forEver = async () => {
      for (;;) await sink.write(bytes, this.waiting);
    };
    await fails(error, forEver());
  }

  async step_feed(data) {
    const sink = await this.pipe();
    const feed = async () => {
      try {
        await sink.write(value(data, this.own), this.waiting);
        await sink.close();
      } catch (error) {
        if (error.kind !== "broken_pipe") return error;
      }
      return null;
    };
    this.fed = feed();
  }

  async step_close_stdin() {
    await (await this.pipe()).close();
  }

  async step_no_sink() {
    if ((await this.handle.takeStdin()) !== null) throw new Wrong("there is a writing end");
  }

  // By another handle of the session's, when the case's own is closed.
  async #controlled(what) {
    if (this.handle) return what(this.handle);
    const handle = await this.sandbox.reattach(this.id, { from: "now" });
    try {
      return await what(handle);
    } finally {
      handle.close();
    }
  }

  step_signal(number) {
    return this.#controlled((handle) => handle.signal(number));
  }

  step_signal_fails({ signal, error }) {
    return fails(error, this.step_signal(signal));
  }

  step_kill() {
    return this.#controlled((handle) => handle.kill());
  }

  step_kill_fails(error) {
    return fails(error, this.step_kill());
  }

  step_resize([rows, cols]) {
    return this.handle.resize(rows, cols);
  }

  step_resize_fails({ rows, cols, error }) {
    return fails(error, this.handle.resize(rows, cols));
  }

  async step_give_up({ on, times }) {
    for (let at = 0; at < times; at++) {
      const given = new AbortController();
      const promise = this.handle[on]({ signal: given.signal });
      given.abort();
      try {
        const result = await promise;
        if (on === "recv") this.take(result);
        if (on === "collect") throw new Wrong("it ended while it was given up");
      } catch (error) {
        if (error !== given.signal.reason) throw error;
      }
    }
  }

  async step_close() {
    this.sink ??= await this.handle.takeStdin();
    this.handle.close();
    this.handle = null;
  }

  async step_run({ script, stdout = "" }) {
    const output = await this.sandbox.shell(value(script, this.own), this.waiting);
    if (output.code !== 0) throw new Wrong(`${JSON.stringify(output.status)}, ${output.stderr()}`);
    const problem = mismatch(stdout, Buffer.from(output.stdoutBytes()), this.own);
    if (problem) throw new Wrong(problem);
  }

  step_until(condition) {
    return this.step_run({ script: `until ${condition}; do usleep 10000; done`, stdout: {} });
  }

  async step_listed(wanted) {
    const session = (await this.sandbox.sessions()).find(({ id }) => id === this.id);
    const state = session ? (session.status ? "ended" : "running") : "unknown";
    if (state !== wanted) throw new Wrong(`session ${this.id} is ${state}`);
  }

  // Everything that is not as expected.
  problems(outcome) {
    const { expect = {} } = this.one;
    const { status, output, bytes, events, took } = outcome;
    const problems = [];
    const compare = (name, wanted, got) => {
      if (wanted !== got) problems.push(`${name}: expected ${wanted}, got ${got}`);
    };
    if (!this.endsAs(expect, outcome)) {
      const { error, failure, closed } = outcome;
      const got = error ?? failure ?? (closed ? "closed" : JSON.stringify(status));
      problems.push(`expected ${JSON.stringify(expect)}, got ${got}`);
    }
    if (bytes && !expect.closed) {
      for (const [at, name] of ["stdout", "stderr"].entries()) {
        const problem = mismatch(expect[name] ?? "", bytes[at], this.own);
        if (problem) problems.push(`${name}: ${problem}`);
      }
    }
    if (output && status) {
      compare("stdout_total", expect.stdout_total ?? output.stdoutTotal, output.stdoutTotal);
      compare("stderr_total", expect.stderr_total ?? output.stderrTotal, output.stderrTotal);
      compare("truncated", Boolean(expect.truncated), output.truncated);
    }
    if (outcome.writerLeft !== undefined && status) {
      compare("writer_left", Boolean(expect.writer_left), outcome.writerLeft);
    }
    if (events) {
      const { stdin_errors: wanted = 0 } = expect;
      const most = wanted === "at_most_one" ? Math.min(this.stdinErrors, 1) : wanted;
      compare("stdin_errors", most, this.stdinErrors);
      compare("events", String(expect.events ?? events), String(events));
      if (!wellFormed(events)) problems.push(`events are out of form: ${events}`);
    }
    if (took < (expect.at_least_ms ?? 0)) problems.push(`took only ${took} ms`);
    if (took > (expect.within_ms ?? Infinity) * SCALE) problems.push(`took ${took} ms`);
    return problems;
  }

  endsAs(expect, { status, failure, error, closed }) {
    if (expect.closed || closed) return Boolean(expect.closed && closed);
    if (expect.error || error) return error?.kind === expect.error;
    if (expect.failure || failure) {
      const { failure: wanted } = expect;
      return Boolean(
        wanted &&
          failure &&
          failure.kind === wanted.kind &&
          failure.stage === wanted.stage &&
          (failure.errnoName ?? "") === wanted.errno_name &&
          (failure.errno === undefined) === (wanted.errno_name === "") &&
          (wanted.path === undefined || value(wanted.path, this.own).toString() === failure.path) &&
          failure.message !== "" &&
          !failure.message.includes("\n"),
      );
    }
    const { timed_out: timedOut = false, usage = {} } = expect;
    const signal = expect.signal ?? (timedOut && expect.code === undefined ? 9 : null);
    return (
      status.code === (expect.code ?? (signal ? -1 : 0)) &&
      status.success === (status.code === 0) &&
      status.signal === signal &&
      status.timedOut === timedOut &&
      status.coreDumped === (expect.core ?? status.coreDumped) &&
      status.usage.userMs + status.usage.systemMs >= (usage.cpu_ms_min ?? 0) &&
      status.usage.wallMs >= (usage.wall_ms_min ?? 0) &&
      status.usage.maxRss >= (usage.rss_min ?? 0)
    );
  }

  // Leaves nothing behind, whatever went wrong. Most commands have ended.
  async cleanUp() {
    for (const handle of this.others) await handle[Symbol.asyncDispose]();
    if (this.handle) await this.handle[Symbol.asyncDispose]();
    else if (this.id) await this.step_kill().catch(() => {});
    await this.sink?.close();
  }
}

// One sandbox per profile, made when it is asked for.
class Suite {
  profiles = read("profiles.json");
  made = new Map();
  next = 0;

  sandbox(name) {
    if (!this.made.has(name)) {
      const { env = [], ...rest } = this.profiles[name];
      const options = { ...rest, env: Object.fromEntries(env), image };
      this.made.set(name, Sandbox.create(`node-${name}`, options));
    }
    return this.made.get(name);
  }

  async problems(one) {
    const sandbox = await this.sandbox(one.sandbox ?? "default");
    for (let at = 0; at < (one.times ?? 1); at++) {
      const problems = await new Run(one, sandbox, `/tmp/case-${this.next++}`).once();
      if (problems.length) return problems;
    }
    return [];
  }

  // The problems of each case. Several run at a time.
  async run(cases) {
    const problems = [];
    const left = [...cases.entries()].reverse();
    const work = async () => {
      for (let next = left.pop(); next; next = left.pop()) {
        problems[next[0]] = await this.problems(next[1]);
      }
    };
    await Promise.all([work(), work(), work(), work()]);
    return problems;
  }

  async end() {
    for (const made of this.made.values()) {
      const sandbox = await made;
      await sandbox.kill();
      sandbox.close();
      await Sandbox.remove(sandbox.name);
    }
  }
}

async function conform(suite) {
  const cases = load();
  const asked = process.env.MSB_CONFORMANCE || "";
  const chosen = [];
  const skipped = new Map();
  for (const [file, one] of cases) {
    const about = [file, one.name, ...one.promises, ...(one.refs ?? [])];
    let why = null;
    if (one.requires?.includes("root") && process.geteuid() !== 0) why = "needs root";
    if (!about.some((text) => text.includes(asked))) why = "not asked for";
    if (why) skipped.set(why, (skipped.get(why) ?? 0) + 1);
    else chosen.push(one);
  }
  const problems = await suite.run(chosen);
  const failed = problems.filter((list) => list.length).length;
  for (const [at, list] of problems.entries()) {
    if (list.length) console.error(`${chosen[at].name}: ${list.join("; ")}`);
  }
  const parts = [`${chosen.length - failed} of ${cases.length} cases`];
  if (failed) parts.push(`${failed} FAILED`);
  for (const [why, count] of skipped) parts.push(`${count} skipped (${why})`);
  console.log(parts.join(", "));
  return failed;
}

// That the runner notices what is wrong.
async function checkRunner(suite, file) {
  const wrong = loadWrong(file);
  const problems = await suite.run(wrong);
  const unnoticed = wrong.filter((_, at) => problems[at].length === 0);
  for (const { name } of unnoticed) console.error(`not noticed: ${name}`);
  console.log(`${wrong.length - unnoticed.length} of ${wrong.length} wrong expectations noticed`);
  return unnoticed.length;
}

const suite = new Suite();
const [, , file] = process.argv;
const failed = await (file ? checkRunner(suite, file) : conform(suite));
await suite.end();
process.exitCode = failed ? 1 : 0;
