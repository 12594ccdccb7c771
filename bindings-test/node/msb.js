'use strict';
// A few words around the addon: handles that can be awaited.

const native = require(process.env.MSB_ADDON);

class Hung extends Error {}

// A handle of the library's. One caller at a time waits on it.
class Handle {
  #watcher;
  #wake = null;

  constructor(raw) {
    this.raw = raw;
    this.#watcher = native.watch(raw, () => this.#woken());
  }

  #woken() {
    const wake = this.#wake;
    this.#wake = null;
    if (wake) wake();
  }

  // Looks until there is something. `deadline` is a time of performance.now().
  async until(look, deadline = Infinity) {
    for (;;) {
      const result = look();
      if (result !== null) return result;
      await this.#readable(deadline);
    }
  }

  async #readable(deadline) {
    const left = deadline - performance.now();
    if (left <= 0) throw new Hung('hung');
    let timer;
    try {
      await new Promise((resolve, reject) => {
        this.#wake = resolve;
        if (left !== Infinity) timer = setTimeout(() => reject(new Hung('hung')), left);
        native.arm(this.#watcher);
      });
    } finally {
      clearTimeout(timer);
      native.disarm(this.#watcher);
      this.#wake = null;
    }
  }

  // Whoever waits looks again, and is told that the handle is none any more.
  close() {
    native.unwatch(this.#watcher);
    try {
      native.handleClose(this.raw);
    } finally {
      this.#woken();
    }
  }
}

class Sink extends Handle {
  async write(data, deadline) {
    for (let done = 0; ; ) {
      done += await this.until(() => native.sinkWrite(this.raw, data, done), deadline);
      if (done >= data.length) return;
    }
  }
}

class Exec extends Handle {
  get id() {
    return native.execId(this.raw);
  }

  recv(deadline) {
    return this.until(() => native.execRecv(this.raw), deadline);
  }

  recvMany(deadline) {
    return this.until(() => native.execRecvMany(this.raw), deadline);
  }

  wait(deadline) {
    return this.until(() => native.execWait(this.raw), deadline);
  }

  collect(deadline) {
    return this.until(() => native.execCollect(this.raw), deadline);
  }

  signal(number, flags = native.MSB_SIGNAL_GROUP) {
    return native.execSignal(this.raw, null, number, flags);
  }

  kill() {
    return this.signal(9, native.MSB_SIGNAL_TREE);
  }

  resize(rows, cols) {
    return native.execResize(this.raw, null, rows, cols);
  }

  // Its events up to the end of the stream, which has kind 0.
  async *events() {
    for (;;) {
      for (const event of await this.recvMany()) {
        yield event;
        if (event.kind === 0) return;
      }
      // Others shall have their turn, also when there is always more.
      await new Promise(setImmediate);
    }
  }
}

function handles([exec, sink]) {
  return [new Exec(exec), sink === null ? null : new Sink(sink)];
}

// Texts are Buffers in what the addon takes.
function bytes(text) {
  return Buffer.isBuffer(text) ? text : Buffer.from(text);
}

function encoded(options) {
  const result = { ...options };
  for (const name of ['name', 'image', 'workdir', 'shell', 'cmd', 'cwd', 'user', 'stdin']) {
    if (result[name] != null) result[name] = bytes(result[name]);
  }
  for (const name of ['args', 'env']) {
    if (result[name] != null) result[name] = result[name].map(bytes);
  }
  return result;
}

class Sandbox extends Handle {
  static async create(options) {
    const sandbox = new Sandbox(native.sandboxCreate(encoded(options)));
    sandbox.name = options.name;
    await sandbox.until(() => native.sandboxReady(sandbox.raw) || null);
    return sandbox;
  }

  // [exec, sink]; the sink is null unless there is to be one.
  start(options, pipe = false) {
    return handles(native.execStream(this.raw, encoded(options), pipe));
  }

  script(text, options = {}) {
    return this.start({ ...options, cmd: text, flags: native.MSB_EXEC_SHELL })[0];
  }

  async reattach(id, from = native.MSB_FROM_NOW) {
    return handles(await native.execReattach(this.raw, id, from));
  }

  listed(id) {
    return native.execListed(this.raw, id);
  }

  // Stops, closes and removes it.
  async end() {
    await native.sandboxStop(this.raw, null, 0);
    this.close();
    await native.sandboxRemove(null, this.name, 0);
  }
}

module.exports = { native, Hung, Handle, Sink, Exec, Sandbox };
