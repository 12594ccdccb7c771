import * as abi from "./abi";
import { text } from "./check";
import { ExecFailedError, InvalidArgumentError } from "./errors";
import { native, type Cell, type JobSpec, type NativeRecord } from "./native";
import { statusOf, type ExitStatus } from "./output";
import { Reader, type WaitOptions } from "./wait";

/** Which part of a log to read; an omitted option does not restrict it. */
export interface LogsOptions {
  /** Whether to keep reading new records until the sandbox ends. */
  follow?: boolean | undefined;
  /** Only the records of the session with this id. */
  session?: string | undefined;
  /** Only records from this time on. */
  since?: Date | undefined;
}

/**
 * One record of a log. `time` is when it was logged, by the host's clock, and `timeNs` the same in
 * nanoseconds since 1970. Ignore unknown kinds.
 */
export type LogRecord = {
  time: Date;
  timeNs: bigint;
} & (
  | { kind: "stdout" | "stderr"; session: string; data: Uint8Array }
  /** The session started. Invalid UTF-8 in `command` is replaced. */
  | { kind: "started"; session: string; pid: number; command: string[]; tty: boolean }
  /** The session exited. All its own output precedes this record. */
  | { kind: "exited"; session: string; code: number; status: Omit<ExitStatus, "usage"> }
  /** The session did not start; the path of the error is empty, since the log does not keep it. */
  | { kind: "failed"; session: string; error: ExecFailedError; command: string[] }
  /** The session was lost: the connection to the sandbox ended first. */
  | { kind: "lost"; session: string }
  /** Belongs to no session, once and last: one human-readable line naming what is missing. */
  | { kind: "incomplete"; message: string }
);

/** @internal */
export function logsSpec(options: LogsOptions): JobSpec {
  const { since, session } = options;
  const ms = since === undefined ? 0 : since.getTime();
  if (!Number.isFinite(ms) || ms < 0) throw new InvalidArgumentError("since is not a time after 1970");
  return {
    name: session === undefined ? undefined : text("the session", session),
    first: BigInt(ms) * 1_000_000n,
    second: options.follow ? abi.MSB_LOG_FOLLOW : 0,
  };
}

/** Converts the record that the addon has just received; `undefined` for an unknown kind. */
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
      return { kind: "started", ...time, session, pid: native.last[1] ?? 0, command: argv, tty };
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
 * Reader of a sandbox's log. Records are in log order; those of several sessions are interleaved.
 * Reading blocks neither the sandbox nor its commands. It has one reader at a time. The garbage
 * collector closes an unreachable one.
 */
export class LogReader implements AsyncIterable<LogRecord>, AsyncDisposable {
  readonly #reader: Reader;

  /** @internal */
  constructor(cell: Cell) {
    this.#reader = new Reader(cell);
  }

  /** Receive the next record; `null` at the end, and on every later call. Cancelling loses none. */
  recv(options: WaitOptions = {}): Promise<LogRecord | null> {
    return this.#reader.read(this.#next, options.signal);
  }

  #next = (): LogRecord | null | undefined => {
    for (;;) {
      const from = native.logsRecv(this.#reader.cell);
      const kind = native.last[0];
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

  /** Close the reader. Idempotent; a pending call gets {@link ClosedError}. */
  close(): void {
    this.#reader.close();
  }

  /** Calls `close()` on `await using` scope exit. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}
