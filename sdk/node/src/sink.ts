import type { Writable } from "node:stream";
import { bytesOf } from "./check";
import { ClosedError } from "./errors";
import { native, type Cell } from "./native";
import { webWritable, writable } from "./streams";
import { fairly, Waiter, type WaitOptions } from "./wait";

/**
 * Writer for sending data to a running process's stdin, from {@link ExecHandle.takeStdin} when the
 * execution was configured with `.stdinPipe()`. Its life is independent of the handle's. One that
 * is forgotten is closed when it is collected.
 */
export class ExecSink implements AsyncDisposable {
  readonly #waiter: Waiter;
  #last: Promise<void> | undefined;

  /** @internal */
  constructor(cell: Cell) {
    this.#waiter = new Waiter(cell);
  }

  /**
   * Write bytes to the process's stdin. Strings are UTF-8 encoded. Resolves when all were taken,
   * and so waits while the process does not read. Writes happen one after another, in the order of
   * the calls. `data` must not be changed until then.
   *
   * One that is given up may have written a part.
   *
   * @throws {@link BrokenPipeError} when the process no longer reads, {@link ClosedError} when this
   * was closed.
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

  /** Send EOF. Idempotent. A write that still waits is given up: await it first. */
  async close(): Promise<void> {
    this.#waiter.close();
  }

  /** This as a stream of Node's: ending it sends EOF, destroying it too. */
  toWritable(): Writable {
    return writable(this);
  }

  /** This as a web stream: closing it sends EOF, aborting it too. */
  toWebWritable(): WritableStream<Uint8Array | string> {
    return webWritable(this);
  }

  /** Calls `close()` on `await using` scope exit. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** What was waited for may take as long as it likes. */
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
