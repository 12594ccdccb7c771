import * as abi from "./abi";
import { text } from "./check";
import { ExecFailedError, InvalidArgumentError } from "./errors";
import { native, type Cell, type JobSpec, type NativeRecord } from "./native";
import { statusOf, type ExitStatus } from "./output";
import { Reader, type WaitOptions } from "./wait";

/** Which part of a log is wanted; what is left out means all that there is. */
export interface LogsOptions {
  /** Go on with what is still to come, until the sandbox ends. */
  follow?: boolean | undefined;
  /** Only the records of the session with this id. */
  session?: string | undefined;
  /** Only records from this time on. */
  since?: Date | undefined;
}

/**
 * One record of a log. `time` is when it reached the log, by the clock of the host, and `timeNs`
 * the same in nanoseconds since 1970. Ignore kinds that you do not know.
 */
export type LogRecord = {
  time: Date;
  timeNs: bigint;
} & (
  | { kind: "stdout" | "stderr"; session: string; data: Uint8Array }
  /** The session began. What is not UTF-8 in `command` was replaced. */
  | { kind: "started"; session: string; pid: number; command: string[]; tty: boolean }
  /** The session ended. All that it wrote itself stands before. */
  | { kind: "exited"; session: string; code: number; status: Omit<ExitStatus, "usage"> }
  /** The session never ran; the path of the error is empty, since the log does not keep it. */
  | { kind: "failed"; session: string; error: ExecFailedError; command: string[] }
  /** Nothing more is known of the session: the connection to the sandbox ended first. */
  | { kind: "lost"; session: string }
  /** Not of a session, once and last: what is missing from what was read, one line for people. */
  | { kind: "incomplete"; message: string }
);

/** @internal */
export function logsSpec(options: LogsOptions): JobSpec {
  const { since, session } = options;
  const ms = since === undefined ? 0 : since.getTime();
  if (!Number.isFinite(ms) || ms < 0) throw new InvalidArgumentError("since is no time after 1970");
  return {
    name: session === undefined ? undefined : text("the session", session),
    first: BigInt(ms) * 1_000_000n,
    second: options.follow ? abi.MSB_LOG_FOLLOW : 0,
  };
}

/** The record that the addon has just told; `null` at the end, `undefined` for an unknown kind. */
function recordOf(kind: number | undefined, from: NativeRecord): LogRecord | undefined {
  const { timeNs, data, argv, exit, failure, flags } = from;
  const time = { time: new Date(Number(timeNs / 1_000_000n)), timeNs };
  const session = from.session ?? "";
  switch (kind) {
    case abi.MSB_LOG_STDOUT:
      return { kind: "stdout", ...time, session, data };
    case abi.MSB_LOG_STDERR:
      return { kind: "stderr", ...time, session, data };
    case abi.MSB_LOG_STARTED: {
      const tty = (flags & abi.MSB_SESSION_TTY) !== 0;
      return { kind: "started", ...time, session, pid: native.told[1] ?? 0, command: argv, tty };
    }
    case abi.MSB_LOG_EXITED: {
      if (!exit) return undefined;
      const { usage: _, ...status } = statusOf(exit);
      return { kind: "exited", ...time, session, code: status.code, status };
    }
    case abi.MSB_LOG_FAILED: {
      if (!failure) return undefined;
      return { kind: "failed", ...time, session, error: new ExecFailedError(failure), command: argv };
    }
    case abi.MSB_LOG_LOST:
      return { kind: "lost", ...time, session };
    case abi.MSB_LOG_INCOMPLETE:
      return { kind: "incomplete", ...time, message: data.toString() };
    default:
      return undefined;
  }
}

/**
 * The log of a sandbox, while it is read: records in the order in which they reached the log, those
 * of several sessions among each other. Reading holds up neither the sandbox nor its commands. One
 * caller at a time reads. One that is forgotten is closed when it is collected.
 */
export class LogReader implements AsyncIterable<LogRecord>, AsyncDisposable {
  readonly #reader: Reader;

  /** @internal */
  constructor(cell: Cell) {
    this.#reader = new Reader(cell);
  }

  /** The next record; `null` at the end, and for ever after. Giving it up loses none. */
  recv(options: WaitOptions = {}): Promise<LogRecord | null> {
    return this.#reader.read(this.#next, options.signal);
  }

  #next = (): LogRecord | null | undefined => {
    for (;;) {
      const from = native.logsRecv(this.#reader.cell);
      const kind = native.told[0];
      if (kind === native.AGAIN) return undefined;
      if (kind === 0 || !from) return null;
      const record = recordOf(kind, from);
      if (record) return record;
    }
  };

  /** Iterate records with `for await...of`. Leaving the loop closes the reader. */
  [Symbol.asyncIterator](): AsyncIterator<LogRecord, undefined> {
    return this.#reader.iterator(this.#next, () => this.close());
  }

  /** Ends the reading. Idempotent; whoever waits gets {@link ClosedError}. */
  close(): void {
    this.#reader.close();
  }

  /** Calls `close()` on `await using` scope exit. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}
