'use strict';
// Runs the conformance cases through the addon: conformance.js [WRONG-CASES], with the name of what
// conformance/make-rootfs made in MSB_TEST_ROOTFS.

const { native, Hung, Sandbox } = require('./msb.js');
const { Wrong, load, loadWrong, mismatch, read, show, value } = require('./form.js');

const SCALE = Number(process.env.MSB_TEST_TIME_SCALE || 1);
const KINDS = {
  0: 'end',
  [native.MSB_EVENT_STARTED]: 'started',
  [native.MSB_EVENT_STDOUT]: 'stdout',
  [native.MSB_EVENT_STDERR]: 'stderr',
  [native.MSB_EVENT_STDIN_ERROR]: 'stdin_error',
  [native.MSB_EVENT_EXITED]: 'exited',
  [native.MSB_EVENT_FAILED]: 'failed',
  [native.MSB_EVENT_LOST]: 'lost',
};
const ERRORS = {
  [native.MSB_E_INVALID]: 'invalid_argument',
  [native.MSB_E_PIPE]: 'broken_pipe',
  [native.MSB_E_CLOSED]: 'closed',
  [native.MSB_E_HANDLE]: 'closed', // a closed handle is no handle in C
  [native.MSB_E_NO_PROCESS]: 'no_such_process',
  [native.MSB_E_NO_SESSION]: 'no_such_session',
  [native.MSB_E_NOT_A_TERMINAL]: 'not_a_terminal',
};
const RESOURCES = (
  'cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio ' +
  'rttime'
).split(' ');

const nameOf = (error) => ERRORS[error.status] || error.code;

// Why the C ABI cannot say what the case asks for, if so.
function inexpressible(one) {
  const { cmd = '', script = '', cwd = '', args = [], env = [], tty = {} } = one;
  const texts = [cmd, script, cwd, ...args, ...env.flat()];
  if (texts.some((text) => value(text, '').includes(0))) return 'a NUL in a text that a NUL ends';
  if (env.some(([name]) => value(name, '').includes('='))) {
    return "'=' in a variable's name, which '=' ends";
  }
  if ([one.timeout_ms, one.max_output, tty.rows, tty.cols].includes(0)) {
    return 'a zero that means the default';
  }
  return null;
}

async function fails(wanted, promise) {
  try {
    await promise;
  } catch (error) {
    if (error.status === undefined || nameOf(error) !== wanted) {
      throw new Wrong(`expected ${wanted}, got ${error.code}: ${error.message}`);
    }
    return;
  }
  throw new Wrong(`expected ${wanted}, got success`);
}

// B1: started once and first, one ending, then the end and nothing more.
function wellFormed(events) {
  const count = (...kinds) => events.filter((event) => kinds.includes(event)).length;
  if (count('exited', 'failed', 'lost') !== 1 || count('end') !== 1 || events.at(-1) !== 'end') {
    return false;
  }
  if (count('failed')) return events.length === 2;
  if (count('lost')) return events.at(-2) === 'lost';
  const late = events.lastIndexOf('stdin_error') > events.indexOf('exited');
  return events[0] === 'started' && count('started') === 1 && !late;
}

// One run of a case.
class Run {
  constructor(one, sandbox, own) {
    Object.assign(this, { one, sandbox, own });
    this.deadline = performance.now() + 30000 * SCALE;
    this.exec = this.sink = this.id = this.fed = null;
    this.taken = this.inputClosed = false;
    this.others = [];
    this.kinds = [];
    this.stdinErrors = 0;
    this.chunks = { stdout: [], stderr: [] };
    this.looked = { stdout: 0, stderr: 0 };
  }

  // Everything that is wrong with it.
  async once() {
    try {
      await this.steps(this.one.before, 'before: ');
      const outcome = await this.run();
      if (this.one.also_tty && this.one.tty && outcome.output) {
        const plain = outcome.output[0].toString('latin1').replaceAll('\r\n', '\n');
        outcome.output[0] = Buffer.from(plain, 'latin1');
      }
      const problems = this.problems(outcome);
      if (problems.length === 0) await this.steps(this.one.after, 'afterwards: ');
      return problems;
    } catch (error) {
      if (error instanceof Hung) return [`hung after ${this.kinds}, ${show(this.seen('stdout'))}`];
      if (error instanceof Wrong || error.status !== undefined) return [error.message || error.code];
      throw error;
    } finally {
      await this.cleanUp();
    }
  }

  async run() {
    const begun = performance.now();
    const { mode = 'collect', at_once: many, steps } = this.one;
    if (many) return this.atOnce(many, begun);
    try {
      [this.exec, this.sink] = this.start();
    } catch (error) {
      return { error, took: performance.now() - begun };
    }
    this.id = this.exec.id;
    await this.steps(steps, '');
    let outcome;
    if (this.exec === null) outcome = { closed: true };
    else if (mode === 'collect') outcome = await this.collected(this.exec, begun);
    else if (mode === 'wait') outcome = await this.waited(begun);
    else outcome = await this.streamed(begun);
    const error = await this.fed;
    if (error) throw new Wrong(`feeding: ${error.code} ${error.message}`);
    return outcome;
  }

  async atOnce(many, begun) {
    for (let at = 0; at < many; at++) this.others.push(this.start()[0]);
    let outcome;
    for (const exec of this.others) {
      outcome = await this.collected(exec, begun);
      const problems = this.problems(outcome);
      if (problems.length) throw new Wrong(`one of ${many}: ${problems[0]}`);
    }
    return outcome;
  }

  start() {
    const { one, own } = this;
    const { stdin = 'null', tty, args = [], env = [], rlimits = [] } = one;
    const bytes = (form) => (form === undefined ? undefined : value(form, own));
    const number = (limit) => (limit === 'infinity' ? 2n ** 64n - 1n : BigInt(limit));
    const nanoseconds = (ms) => (ms === undefined ? 0n : BigInt(ms) * 1_000_000n);
    const options = {
      cmd: bytes(one.cmd ?? one.script),
      args: args.map(bytes),
      env: env.map(([name, text]) => Buffer.concat([bytes(name), Buffer.from('='), bytes(text)])),
      cwd: bytes(one.cwd),
      user: one.user,
      stdin: stdin.bytes === undefined ? undefined : bytes(stdin.bytes),
      rlimits: rlimits.map(({ resource, soft, hard }) => ({
        resource: RESOURCES.indexOf(resource),
        soft: number(soft),
        hard: number(hard),
      })),
      flags:
        (one.script === undefined ? 0 : native.MSB_EXEC_SHELL) |
        (tty ? native.MSB_EXEC_TTY : 0) |
        (one.wait_for_eof ? native.MSB_EXEC_WAIT_FOR_EOF : 0),
      ...tty,
      timeoutNs: nanoseconds(one.timeout_ms),
      // Zero would be the default; this is as good as none.
      drainNs: one.drain_ms === 0 ? 1n : nanoseconds(one.drain_ms),
      maxOutput: one.max_output,
    };
    return this.sandbox.start(options, stdin === 'pipe');
  }

  async collected(exec, begun) {
    const output = await exec.collect(this.deadline);
    return {
      ending: output,
      output: [output.stdout, output.stderr],
      totals: [output.stdoutTotal, output.stderrTotal],
      truncated: Boolean(output.flags & native.MSB_OUTPUT_TRUNCATED),
      writerLeft: Boolean(output.flags & native.MSB_EVENT_WRITER_LEFT),
      took: performance.now() - begun,
    };
  }

  async waited(begun) {
    const ending = await this.exec.wait(this.deadline);
    const took = performance.now() - begun;
    const again = await this.exec.wait(this.deadline);
    if (JSON.stringify(again) !== JSON.stringify(ending)) throw new Wrong('a second wait differs');
    return { ending, took };
  }

  async streamed(begun) {
    let took;
    while (!this.kinds.includes('end')) {
      if (this.kinds.includes('exited')) took ??= performance.now() - begun;
      for (const event of await this.exec.recvMany(this.deadline)) this.take(event);
      await new Promise(setImmediate);
    }
    took ??= performance.now() - begun;
    for (let at = 0; at < 2; at++) {
      const event = await this.exec.recv(this.deadline);
      if (event.kind !== 0) throw new Wrong(`${KINDS[event.kind]} came after the end`);
    }
    const ending = await this.exec.wait(this.deadline);
    const { flags } = await this.exec.collect(this.deadline);
    return {
      ending,
      output: [this.seen('stdout'), this.seen('stderr')],
      writerLeft: Boolean(flags & native.MSB_EVENT_WRITER_LEFT),
      events: this.kinds,
      took,
    };
  }

  take(event) {
    const kind = KINDS[event.kind];
    this.chunks[kind]?.push(event.data);
    if (kind === 'stdin_error') this.stdinErrors++;
    // Output comes in pieces of any size, and the end is told for ever.
    if (this.kinds.at(-1) !== kind || !['stdout', 'stderr', 'end'].includes(kind)) {
      this.kinds.push(kind);
    }
  }

  // Everything of one output, put together only when somebody looks.
  seen(name) {
    const chunks = this.chunks[name];
    if (chunks.length !== 1) this.chunks[name] = [Buffer.concat(chunks)];
    return this.chunks[name][0];
  }

  async until(condition) {
    while (!condition()) {
      if (this.kinds.includes('end')) {
        throw new Wrong(`the end came first: ${this.kinds}, ${show(this.seen('stdout'))}`);
      }
      this.take(await this.exec.recv(this.deadline));
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
        const [name, content] = typeof step === 'string' ? [step] : Object.entries(step)[0];
        await this[`step_${name}`](content);
      } catch (error) {
        if (!(error instanceof Wrong) && error.status === undefined) throw error;
        const what = `${where}step ${at + 1} (${JSON.stringify(step)})`;
        throw new Wrong(`${what}: ${error.code || ''} ${error.message}`);
      }
    }
  }

  step_wait(kind) {
    return this.until(() => this.kinds.includes(kind));
  }

  step_wait_stdout(text) {
    return this.waitText('stdout', value(text, this.own));
  }

  step_wait_stderr(text) {
    return this.waitText('stderr', value(text, this.own));
  }

  async step_wait_exit() {
    if (!(await this.exec.wait(this.deadline)).exit) throw new Wrong('it did not exit');
  }

  // The writing end, which is then taken.
  pipe() {
    if (this.sink === null) throw new Wrong('there is no writing end');
    this.taken = true;
    return this.sink;
  }

  step_write(data) {
    return this.pipe().write(value(data, this.own), this.deadline);
  }

  step_write_fails({ data, error }) {
    const bytes = value(data, this.own);
    const forEver = async () => {
      for (;;) await this.pipe().write(bytes, this.deadline);
    };
    return fails(error, forEver());
  }

  step_feed(data) {
    const sink = this.pipe();
    const feed = async () => {
      try {
        await sink.write(value(data, this.own), this.deadline);
      } catch (error) {
        if (nameOf(error) !== 'broken_pipe') return error;
      }
      sink.close();
      return null;
    };
    this.fed = feed();
  }

  async step_close_stdin() {
    const close = async () => this.pipe().close();
    // Again is harmless, and says that the handle is none any more.
    await (this.inputClosed ? fails('closed', close()) : close());
    this.inputClosed = true;
  }

  step_no_sink() {
    if (this.sink !== null && !this.taken) throw new Wrong('there is a writing end');
  }

  // By another handle of the session's, when the case's own is closed.
  async signal(number, flags) {
    if (this.exec) return this.exec.signal(number, flags);
    const [exec, sink] = await this.sandbox.reattach(this.id);
    try {
      return await exec.signal(number, flags);
    } finally {
      exec.close();
      sink?.close();
    }
  }

  kill() {
    return this.signal(9, native.MSB_SIGNAL_TREE);
  }

  step_signal(number) {
    return this.signal(number);
  }

  step_signal_fails({ signal, error }) {
    return fails(error, this.signal(signal));
  }

  step_kill() {
    return this.kill();
  }

  step_kill_fails(error) {
    return fails(error, this.kill());
  }

  step_resize([rows, cols]) {
    return this.exec.resize(rows, cols);
  }

  step_resize_fails({ rows, cols, error }) {
    return fails(error, this.exec.resize(rows, cols));
  }

  step_give_up({ on, times }) {
    const looks = { recv: native.execRecv, wait: native.execWait, collect: native.execCollect };
    for (let at = 0; at < times; at++) {
      const result = looks[on](this.exec.raw);
      if (result !== null && on === 'recv') this.take(result);
      if (result !== null && on === 'collect') throw new Wrong('it ended while it was given up');
    }
  }

  step_close() {
    this.exec.close();
    this.exec = null;
  }

  async step_run({ script, stdout = '' }) {
    const exec = this.sandbox.script(value(script, this.own));
    try {
      const output = await exec.collect(this.deadline);
      if (output.exit?.code !== 0) throw new Wrong(`${JSON.stringify(output.exit)}, ${show(output.stderr)}`);
      const problem = mismatch(stdout, output.stdout, this.own);
      if (problem) throw new Wrong(problem);
    } finally {
      exec.close();
    }
  }

  step_until(condition) {
    return this.step_run({ script: `until ${condition}; do usleep 10000; done`, stdout: {} });
  }

  async step_listed(wanted) {
    const state = await this.sandbox.listed(this.id);
    if (state !== wanted) throw new Wrong(`session ${this.id} is ${state}`);
  }

  // Everything that is not as expected.
  problems(outcome) {
    const { expect = {} } = this.one;
    const { ending, output, totals, events, took } = outcome;
    const problems = [];
    const compare = (name, wanted, got) => {
      if (wanted !== got) problems.push(`${name}: expected ${wanted}, got ${got}`);
    };
    if (!this.endsAs(expect, outcome)) {
      const { error, closed } = outcome;
      const got = error ? `${error.code}: ${error.message}` : closed ? 'closed' : ending;
      problems.push(`expected ${JSON.stringify(expect)}, got ${JSON.stringify(got)}`);
    }
    if (output && !expect.closed) {
      for (const [at, name] of ['stdout', 'stderr'].entries()) {
        const problem = mismatch(expect[name] ?? '', output[at], this.own);
        if (problem) problems.push(`${name}: ${problem}`);
      }
    }
    if (totals && ending.exit) {
      compare('stdout_total', expect.stdout_total ?? totals[0], totals[0]);
      compare('stderr_total', expect.stderr_total ?? totals[1], totals[1]);
      compare('truncated', Boolean(expect.truncated), outcome.truncated);
    }
    if (outcome.writerLeft !== undefined && ending.exit) {
      compare('writer_left', Boolean(expect.writer_left), outcome.writerLeft);
    }
    if (events) {
      const { stdin_errors: wanted = 0 } = expect;
      const most = wanted === 'at_most_one' ? Math.min(this.stdinErrors, 1) : wanted;
      compare('stdin_errors', most, this.stdinErrors);
      compare('events', String(expect.events ?? events), String(events));
      if (!wellFormed(events)) problems.push(`events are out of form: ${events}`);
    }
    if (took < (expect.at_least_ms ?? 0)) problems.push(`took only ${took} ms`);
    if (took > (expect.within_ms ?? Infinity) * SCALE) problems.push(`took ${took} ms`);
    return problems;
  }

  endsAs(expect, { ending, error, closed }) {
    if (expect.closed || closed) return Boolean(expect.closed && closed);
    if (expect.error || error) return Boolean(error) && nameOf(error) === expect.error;
    if (expect.failure || ending.failure) {
      const { failure: wanted } = expect;
      const { failure: got } = ending;
      return Boolean(
        wanted &&
          got &&
          got.kind === wanted.kind &&
          got.stage === wanted.stage &&
          got.errnoName === wanted.errno_name &&
          (got.errno === 0) === (wanted.errno_name === '') &&
          (wanted.path === undefined || value(wanted.path, this.own).equals(got.path)) &&
          got.message !== '' &&
          !got.message.includes('\n'),
      );
    }
    const { exit: got } = ending;
    if (!got) return false;
    const { timed_out: timedOut = false, usage = {} } = expect;
    const signal = expect.signal ?? (timedOut && expect.code === undefined ? 9 : 0);
    const core = Boolean(got.flags & native.MSB_EXIT_CORE_DUMPED);
    return (
      got.code === (expect.code ?? (signal ? -1 : 0)) &&
      got.signal === signal &&
      Boolean(got.flags & native.MSB_EXIT_TIMED_OUT) === timedOut &&
      core === (expect.core ?? core) &&
      got.cpuMs >= (usage.cpu_ms_min ?? 0) &&
      got.wallMs >= (usage.wall_ms_min ?? 0) &&
      got.maxRss >= (usage.rss_min ?? 0)
    );
  }

  // Leaves nothing behind, whatever went wrong. Most commands have ended.
  async cleanUp() {
    if (this.id) await this.kill().catch(() => {});
    for (const exec of this.others) await exec.kill().catch(() => {});
    for (const handle of [this.exec, this.sink, ...this.others]) {
      try {
        handle?.close();
      } catch (error) {
        if (error.status !== native.MSB_E_HANDLE) throw error;
      }
    }
  }
}

// One sandbox per profile, made when it is asked for.
class Suite {
  profiles = read('profiles.json');
  made = new Map();
  next = 0;

  sandbox(name) {
    if (!this.made.has(name)) {
      const { env = [], ...rest } = this.profiles[name];
      const pairs = env.map(([key, text]) => `${key}=${text}`);
      const image = process.env.MSB_TEST_ROOTFS;
      this.made.set(name, Sandbox.create({ ...rest, name: `node-${name}`, image, env: pairs }));
    }
    return this.made.get(name);
  }

  async problems(one) {
    const sandbox = await this.sandbox(one.sandbox ?? 'default');
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
    for (const sandbox of this.made.values()) await (await sandbox).end();
  }
}

// The cases to run, and how many are not, by reason.
function choose(cases) {
  const asked = process.env.MSB_CONFORMANCE || '';
  const chosen = [];
  const skipped = new Map();
  for (const [file, one] of cases) {
    const about = [file, one.name, ...one.promises, ...(one.refs ?? [])];
    let why = inexpressible(one);
    if (one.requires?.includes('root') && process.geteuid() !== 0) why = 'needs root';
    if (!about.some((text) => text.includes(asked))) why = 'not asked for';
    if (why) skipped.set(why, (skipped.get(why) ?? 0) + 1);
    else chosen.push(one);
  }
  return [chosen, skipped];
}

async function conform(suite) {
  const cases = load();
  const [chosen, skipped] = choose(cases);
  const problems = await suite.run(chosen);
  const failed = problems.filter((list) => list.length).length;
  for (const [at, list] of problems.entries()) {
    if (list.length) console.error(`${chosen[at].name}: ${list.join('; ')}`);
  }
  const parts = [`${chosen.length - failed} of ${cases.length} cases`];
  if (failed) parts.push(`${failed} FAILED`);
  for (const [why, count] of skipped) parts.push(`${count} skipped (${why})`);
  console.log(parts.join(', '));
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

async function main() {
  const suite = new Suite();
  const [, , file] = process.argv;
  const failed = await (file ? checkRunner(suite, file) : conform(suite));
  await suite.end();
  process.exitCode = failed ? 1 : 0;
}

main();
