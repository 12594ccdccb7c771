/**
 * Waits for handles to become ready and for blocking calls on threads, and yields to the event
 * loop.
 *
 * @internal
 * @module
 */
import { BusyError, ClosedError, typed } from "./errors";
import { native, type Cell, type Job, type JobSpec } from "./native";

/** Options of every call that waits. */
export interface WaitOptions {
  /** Cancels the call, which then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** Calls the addon and converts its errors to classes. */
export function call<T>(what: () => T): T {
  try {
    return what();
  } catch (error) {
    throw typed(error);
  }
}

/** A handle that any number of callers can wait for. */
export class Waiter {
  #waiting = new Set<() => void>();
  #closed = false;

  constructor(readonly cell: Cell) {}

  get closed(): boolean {
    return this.#closed;
  }

  #ready = (): void => {
    turnBegins();
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  };

  /**
   * Calls `look` until it returns a value. Only `look` consumes data, so cancelling the wait loses
   * nothing.
   */
  async until<T>(look: () => T | undefined, signal: AbortSignal | undefined): Promise<T> {
    for (;;) {
      if (signal?.aborted) throw signal.reason;
      if (this.#closed) throw new ClosedError();
      const found = call(look);
      if (found !== undefined) return found;
      await this.#readable(signal);
    }
  }

  #readable(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = () => {
        signal?.removeEventListener("abort", abort);
        resolve();
      };
      const abort = () => {
        this.#waiting.delete(done);
        if (this.#waiting.size === 0) native.disarm(this.cell);
        reject(signal?.reason);
      };
      call(() => native.arm(this.cell, this.#ready));
      this.#waiting.add(done);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  /** Closes the handle and wakes all waiters. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    native.close(this.cell);
    this.#ready();
  }
}

/** A handle with one reader at a time. */
export class Reader extends Waiter {
  #reading = false;

  /** Returns available data without waiting, which is the fast path of a busy stream. */
  read<T>(look: () => T | undefined, signal: AbortSignal | undefined): Promise<T> {
    if (this.#reading) return Promise.reject(new BusyError());
    if (this.closed || signal?.aborted) return this.#wait(look, signal);
    let found: T | undefined;
    try {
      found = call(look);
    } catch (error) {
      return Promise.reject(error);
    }
    if (found === undefined) return this.#wait(look, signal);
    const pause = fairly();
    return pause ? this.#later(pause, found) : Promise.resolve(found);
  }

  async #wait<T>(look: () => T | undefined, signal: AbortSignal | undefined): Promise<T> {
    this.#reading = true;
    try {
      return await this.until(look, signal);
    } finally {
      this.#reading = false;
    }
  }

  /** Delivers data that was already consumed, whatever happens in the meantime. */
  async #later<T>(pause: Promise<void>, found: T): Promise<T> {
    this.#reading = true;
    await pause;
    this.#reading = false;
    return found;
  }

  /** Iterates until `null`. Leaving the loop calls `returned`. */
  iterator<T>(look: () => T | null | undefined, returned = () => {}): AsyncIterator<T, undefined> {
    const left = new AbortController();
    const end: IteratorReturnResult<undefined> = { done: true, value: undefined };
    let done = false;
    return {
      next: () => {
        if (done) return Promise.resolve(end);
        return this.read(look, left.signal).then(
          (value): IteratorResult<T, undefined> => {
            if (value !== null) return { done: false, value };
            done = true;
            return end;
          },
          (error: unknown) => {
            if (!left.signal.aborted || error !== left.signal.reason) throw error;
            return end;
          },
        );
      },
      // Also while a `next` is pending, which then returns the end.
      return: async () => {
        done = true;
        left.abort();
        returned();
        return end;
      },
    };
  }
}

let pending = 0;

function hold(by: number): void {
  const before = pending;
  pending += by;
  if ((before === 0) !== (pending === 0)) native.hold(pending > 0);
}

/**
 * Makes a blocking call on a thread. A cancelled call continues but does not keep the process
 * alive; its late result is passed to `discard`.
 */
export function job<T>(
  start: Job<T>,
  cell: Cell | null,
  spec: JobSpec = {},
  signal?: AbortSignal,
  discard?: (value: T) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    let settled = false;
    const settle = () => {
      settled = true;
      signal?.removeEventListener("abort", abort);
      hold(-1);
    };
    const abort = () => {
      settle();
      reject(signal?.reason);
    };
    hold(+1);
    signal?.addEventListener("abort", abort, { once: true });
    start(cell, spec, (error, value) => {
      turnBegins();
      if (settled) {
        if (!error) discard?.(value);
        return;
      }
      settle();
      if (error) reject(typed(error));
      else resolve(value);
    });
  });
}

/**
 * How much is delivered before timers and sockets run. Promises alone would starve them: available
 * data is delivered without a turn of the event loop.
 */
const MAX_PER_TURN = 64;
const MS_PER_TURN = 5;

let delivered = 0;
let begun = 0;
let pause: Promise<void> | null = null;

function turnBegins(): void {
  delivered = 0;
}

/**
 * Returns a promise to await between consuming data and delivering it; `undefined` if not needed.
 * Awaiting it before consuming would make it a matter of timing whether a call that is cancelled at
 * once has consumed data.
 */
export function fairly(): Promise<void> | undefined {
  if (pause) return pause;
  if (delivered === 0) begun = performance.now();
  if (delivered++ < MAX_PER_TURN && performance.now() - begun < MS_PER_TURN) return undefined;
  pause = new Promise((resolve) => {
    setImmediate(() => {
      pause = null;
      delivered = 0;
      resolve();
    });
  });
  return pause;
}
