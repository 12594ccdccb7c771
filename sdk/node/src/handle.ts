import { constants } from "node:os";
import * as abi from "./abi";
import { u64 } from "./check";
import { outputOf } from "./collect";
import { ClosedError, InvalidArgumentError } from "./errors";
import { eventOf, NOTHING, type ExecEvent } from "./events";
import { native, type Cell, type NativeOutput } from "./native";
import { checkedSize } from "./options";
import type { ExecOutput, ExitStatus } from "./output";
import { ExecSink } from "./sink";
import { pipes, webPipes, type ExecPipes, type ExecWebPipes } from "./streams";
import { call, job, Reader, type Waiter, type WaitOptions } from "./wait";

const SIGKILL = 9;

/**
 * Signals a command and resizes its terminal without reading it: for code that does not own the
 * {@link ExecHandle}. Never waits for the reader. Works until the handle is closed.
 */
export class ExecControl {
  /** Session id: the same in every language, in logs and in `msb`. Never used again. */
  readonly id: string;
  readonly #waiter: Waiter;

  /** @internal */
  constructor(waiter: Waiter, id: string) {
    this.#waiter = waiter;
    this.id = id;
  }

  /**
   * Send a POSIX signal to the command's process group: a number, or a name such as `"SIGTERM"`.
   *
   * @throws {@link NoSuchProcessError} when it has ended.
   */
  async signal(signal: number | NodeJS.Signals, options: WaitOptions = {}): Promise<void> {
    await this.#send(numberOf(signal), abi.MSB_SIGNAL_GROUP, options);
  }

  /**
   * Kill the process and its process tree.
   *
   * @throws {@link NoSuchProcessError} when it has ended.
   */
  kill(options: WaitOptions = {}): Promise<void> {
    return this.#send(SIGKILL, abi.MSB_SIGNAL_TREE, options);
  }

  /**
   * Change the size of its terminal. The program gets SIGWINCH.
   *
   * @throws {@link NotATerminalError} when it has no terminal.
   */
  async resize(rows: number, cols: number, options: WaitOptions = {}): Promise<void> {
    const [first, second] = checkedSize(rows, cols);
    await job(native.execResize, this.#open(), { first, second }, options.signal);
  }

  async #send(first: number, second: number, options: WaitOptions): Promise<void> {
    await job(native.execSignal, this.#open(), { first, second }, options.signal);
  }

  #open(): Cell {
    if (this.#waiter.closed) throw new ClosedError();
    return this.#waiter.cell;
  }
}

function numberOf(signal: number | NodeJS.Signals): number {
  const number = typeof signal === "string" ? constants.signals[signal] : signal;
  if (Number.isInteger(number)) return number;
  throw new InvalidArgumentError(`unknown signal ${String(signal)}`);
}

/**
 * A handle to a running streaming execution, for `for await...of` and `await using`.
 *
 * It has one reader at a time (`recv`, iteration, `wait`, `collect`, the streams); a second reader
 * gets {@link BusyError}. A cancelled read loses nothing. The command blocks when about a mebibyte
 * of its output was not read. An idle handle does not keep the process alive, a pending call does.
 * The garbage collector closes an unreachable handle; the command keeps running.
 */
export class ExecHandle implements AsyncIterable<ExecEvent>, AsyncDisposable {
  /** Session id: the same in every language, in logs and in `msb`. Never used again. */
  readonly id: string;
  readonly #cell: Cell;
  readonly #reader: Reader;
  readonly #control: ExecControl;
  readonly #most: number;
  #sink: ExecSink | null;
  #flags = 0;
  #position: [number, number] | undefined;

  /** @internal */
  constructor(exec: Cell, sink: Cell | null, most: number) {
    this.#cell = exec;
    this.#reader = new Reader(exec);
    this.#sink = sink && new ExecSink(sink);
    this.#most = most;
    this.id = call(() => native.execId(exec));
    this.#control = new ExecControl(this.#reader, this.id);
  }

  /**
   * Receive the next event, or `null` once the stream has ended, and on every later call.
   * Cancelling loses no event.
   */
  recv(options: WaitOptions = {}): Promise<ExecEvent | null> {
    return this.#reader.read(this.#nextEvent, options.signal);
  }

  #nextEvent = (): ExecEvent | null | undefined => {
    for (;;) {
      const event = eventOf(native.execRecv(this.#cell));
      if (event === NOTHING) return undefined;
      if (event === undefined) continue;
      if (event === null) this.#flags = native.last[1] ?? 0;
      return event;
    }
  };

  /**
   * Take ownership of the stdin sink. Resolves to `null` if there is no pipe, and after the first
   * call. Closing the handle closes a sink that was not taken.
   */
  async takeStdin(): Promise<ExecSink | null> {
    const sink = this.#sink;
    this.#sink = null;
    return sink;
  }

  /**
   * Wait for the process to exit and discard its output until then. A death by signal or timeout is
   * a status, too.
   *
   * @throws {@link ExecFailedError} when it did not start, {@link StreamLostError} when the sandbox
   * was lost first.
   */
  async wait(options: WaitOptions = {}): Promise<ExitStatus> {
    const end = await this.#reader.read(this.#nextEnd, options.signal);
    if (end.kind === "exited") return end.status;
    throw end.error;
  }

  #nextEnd = (): EndEvent | undefined => {
    const event = eventOf(native.execWait(this.#cell));
    return event === NOTHING ? undefined : (event as EndEvent);
  };

  /**
   * Collect the rest of stdout and stderr and wait for the end of both. Cancelling keeps the
   * collected output for the next call of this, and leaves the command running.
   *
   * @throws {@link ExecFailedError} when it did not start, {@link ExecTimeoutError} when it timed
   * out, {@link StreamLostError} when the sandbox was lost first.
   */
  async collect(options: WaitOptions = {}): Promise<ExecOutput> {
    const output = await this.#reader.read(this.#nextOutput, options.signal);
    return outputOf(output, this.#most);
  }

  #nextOutput = (): NativeOutput | undefined => {
    const output = native.execCollect(this.#cell);
    if (output) this.#flags = output.flags;
    return output;
  };

  /** As {@link ExecControl.signal}; also while another call reads. */
  signal(signal: number | NodeJS.Signals, options: WaitOptions = {}): Promise<void> {
    return this.#control.signal(signal, options);
  }

  /** As {@link ExecControl.kill}; also while another call reads. */
  kill(options: WaitOptions = {}): Promise<void> {
    return this.#control.kill(options);
  }

  /** As {@link ExecControl.resize}; also while another call reads. */
  resize(rows: number, cols: number, options: WaitOptions = {}): Promise<void> {
    return this.#control.resize(rows, cols, options);
  }

  /** Returns the control of this command, for code that does not read it. */
  control(): ExecControl {
    return this.#control;
  }

  /**
   * How many bytes of both outputs together were delivered or discarded. {@link Sandbox.reattach}
   * can continue there.
   */
  get position(): number {
    return this.#positions()[0];
  }

  /** Number of bytes requested from {@link Sandbox.reattach} that are no longer buffered. */
  get missed(): number {
    return this.#positions()[1];
  }

  #positions(): [number, number] {
    if (this.#position) return this.#position;
    if (this.#reader.closed) throw new ClosedError();
    return call(() => native.execPosition(this.#cell));
  }

  /** At the end of the stream: whether a background process still had the output open. Else
   * `false`. */
  get writerLeft(): boolean {
    return (this.#flags & abi.MSB_EVENT_WRITER_LEFT) !== 0;
  }

  /** At the end of the stream: whether the connection was lost after the exit. Else `false`. */
  get cut(): boolean {
    return (this.#flags & abi.MSB_EVENT_CUT) !== 0;
  }

  /**
   * The outputs as Node streams, which read this handle from now on. Read, `resume()` or destroy
   * each: a stream that is not consumed blocks the command, including its other output.
   */
  pipes(): ExecPipes {
    return pipes(this);
  }

  /** The outputs as web streams, which read this handle from now on. Cancel one that you do not
   * read. */
  webPipes(): ExecWebPipes {
    return webPipes(this);
  }

  /**
   * Close the handle; the command keeps running. Idempotent; pending calls on the handle get
   * {@link ClosedError}. {@link Sandbox.reattach} reattaches to the command.
   */
  close(): void {
    if (!this.#reader.closed) this.#position = this.#positions();
    this.#reader.close();
    void this.#sink?.close();
    this.#sink = null;
  }

  /**
   * Iterate events with `for await...of`. Leaving the loop ends nothing: the handle can still be
   * read, waited for or killed.
   */
  [Symbol.asyncIterator](): AsyncIterator<ExecEvent, undefined> {
    return this.#reader.iterator(this.#nextEvent);
  }

  /** Best-effort kill on `await using` scope exit, and `close`. Never rejects. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#reader.closed) await this.kill().catch(() => {});
    this.close();
  }
}

type EndEvent = Extract<ExecEvent, { kind: "exited" | "failed" | "lost" }>;

/** Where to start in a session's output: a byte position, or `"now"` for new output only. */
export type ReattachFrom = number | bigint | "now";

/** @internal */
export function positionOf(from: ReattachFrom): bigint {
  if (from === "now") return BigInt(abi.MSB_FROM_NOW);
  const position = u64("the position", from);
  if (position < 2n ** 63n) return position;
  throw new InvalidArgumentError(`the position is ${position}, above 2^63-1`);
}
