/**
 * Waiting: for handles to become ready, for calls that are made on threads, and for others' turn.
 *
 * @internal
 * @module
 */
import { BusyError, ClosedError, typed } from "./errors";
import { native, type Cell, type Job, type JobSpec } from "./native";

/** What every waiting call takes. */
export interface WaitOptions {
  /** Gives the call up, which then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** Does a call of the addon, with its errors as classes. */
export function call<T>(what: () => T): T {
  try {
    return what();
  } catch (error) {
    throw typed(error);
  }
}

/** A handle that can be waited for, by any number of callers. */
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
   * Looks until there is something. What there is belongs to whoever looked: a caller that gives up
   * has not looked, so nothing is lost.
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

  /** Closes the handle; whoever waits is told so. Again is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    native.close(this.cell);
    this.#ready();
  }
}

/** A handle that one caller at a time reads. */
export class Reader extends Waiter {
  #reading = false;

  /** What is there already comes without a detour: a busy stream is read by this alone. */
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
    const turn = fairly();
    return turn ? this.#later(turn, found) : Promise.resolve(found);
  }

  async #wait<T>(look: () => T | undefined, signal: AbortSignal | undefined): Promise<T> {
    this.#reading = true;
    try {
      return await this.until(look, signal);
    } finally {
      this.#reading = false;
    }
  }

  /** What was taken is handed out, whatever happens in the meantime. */
  async #later<T>(turn: Promise<void>, found: T): Promise<T> {
    this.#reading = true;
    await turn;
    this.#reading = false;
    return found;
  }

  /** Reads until `null`. What `returned` does, leaving the loop does. */
  iterator<T>(look: () => T | null | undefined, returned = () => {}): AsyncIterator<T, undefined> {
    const given = new AbortController();
    const over: IteratorReturnResult<undefined> = { done: true, value: undefined };
    let done = false;
    return {
      next: () => {
        if (done) return Promise.resolve(over);
        return this.read(look, given.signal).then(
          (value): IteratorResult<T, undefined> => {
            if (value !== null) return { done: false, value };
            done = true;
            return over;
          },
          (error: unknown) => {
            if (!given.signal.aborted || error !== given.signal.reason) throw error;
            return over;
          },
        );
      },
      // Also while a `next` waits, which then has no more.
      return: async () => {
        done = true;
        given.abort();
        returned();
        return over;
      },
    };
  }
}

let awaited = 0;

function hold(by: number): void {
  const before = awaited;
  awaited += by;
  if ((before === 0) !== (awaited === 0)) native.hold(awaited > 0);
}

/**
 * Makes a call on a thread. One that is given up goes on, but keeps no process alive; what comes of
 * it is then `discard`ed.
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
 * How much may be handed out before timers and sockets get their turn. Promises alone would starve
 * them: what is there already is handed out without the event loop ever turning.
 */
const MOST_PER_TURN = 64;
const MS_PER_TURN = 5;

let taken = 0;
let begun = 0;
let turn: Promise<void> | null = null;

function turnBegins(): void {
  taken = 0;
}

/**
 * To be awaited between taking something and handing it out; `undefined` when there is no need to.
 * Not before taking it: whether a call that is given up at once has taken what was there would then
 * be a matter of luck.
 */
export function fairly(): Promise<void> | undefined {
  if (turn) return turn;
  if (taken === 0) begun = performance.now();
  if (taken++ < MOST_PER_TURN && performance.now() - begun < MS_PER_TURN) return undefined;
  turn = new Promise((resolve) => {
    setImmediate(() => {
      turn = null;
      taken = 0;
      resolve();
    });
  });
  return turn;
}
