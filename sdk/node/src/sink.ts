import type { Writable } from "node:stream";
import { bytesOf } from "./check";
import { ClosedError } from "./errors";
import { native, type Cell } from "./native";
import { webWritable, writable } from "./streams";
import { fairly, Waiter, type WaitOptions } from "./wait";

/**
 * Writer for sending data to a running process's stdin, from {@link ExecHandle.takeStdin} when the
 * execution was configured with `.stdinPipe()`. It is independent of the handle. The garbage
 * collector closes an unreachable one.
 */
export class ExecSink implements AsyncDisposable {
  readonly #waiter: Waiter;
  #last: Promise<void> | undefined;

  /** @internal */
  constructor(cell: Cell) {
    this.#waiter = new Waiter(cell);
  }

  /**
   * Write bytes to the process's stdin. Strings are UTF-8 encoded. Resolves when all bytes were
   * written, so it waits while the process does not read. Writes are serialized in the order of the
   * calls. `data` must not be modified until then.
   *
   * A cancelled write may have written a part.
   *
   * @throws {@link BrokenPipeError} when the process no longer reads, {@link ClosedError} when the
   * sink was closed.
   */
  write(data: Uint8Array | string, options: WaitOptions = {}): Promise<void> {
    const before = this.#last;
    const written = this.#write(data, before, options.signal);
    const settled = written.then(
      () => {},
      () => {},
    );
    this.#last = settled;
    void settled.then(() => {
      if (this.#last === settled) this.#last = undefined;
    });
    return written;
  }

  async #write(
    data: Uint8Array | string,
    before: Promise<void> | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const bytes = bytesOf(data);
    if (before) await unlessAborted(before, signal);
    if (this.#waiter.closed) throw new ClosedError("the input was closed");
    const { cell } = this.#waiter;
    let done = 0;
    do {
      done += await this.#waiter.until(() => native.sinkWrite(cell, bytes, done), signal);
      await fairly();
    } while (done < bytes.length);
  }

  /** Send EOF. Idempotent. It cancels a pending write: await that first. */
  async close(): Promise<void> {
    this.#waiter.close();
  }

  /** Return a Node stream of this sink: ending or destroying it sends EOF. */
  toWritable(): Writable {
    return writable(this);
  }

  /** Return a web stream of this sink: closing or aborting it sends EOF. */
  toWebWritable(): WritableStream<Uint8Array | string> {
    return webWritable(this);
  }

  /** Calls `close()` on `await using` scope exit. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Waits for a promise until the signal aborts; the promise itself is not cancelled. */
function unlessAborted(what: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return what;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    void what.then(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    });
  });
}
