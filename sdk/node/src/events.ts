import { getSystemErrorName } from "node:util";
import * as abi from "./abi";
import { ExecFailedError, StreamLostError } from "./errors";
import { native, type NativeExit, type NativeFailure } from "./native";
import { statusOf, type ExitStatus } from "./output";

/**
 * Event of a command, delivered by {@link ExecHandle}. The discriminator is `kind`.
 *
 * `started` comes once and first; then any number of `stdout`, `stderr` and `stdinError`; then one
 * of `exited`, `failed` and `lost`. After `exited`, output of background processes that still hold
 * the command's output may follow; `failed` (without a `started`) and `lost` are the last event.
 * Ignore unknown kinds: later versions may add some.
 */
export type ExecEvent =
  /** The process has started; `pid` is its process id in the sandbox. */
  | { kind: "started"; pid: number }
  /** A chunk of stdout data, of any size. With a terminal, of both outputs. */
  | { kind: "stdout"; data: Uint8Array }
  /** A chunk of stderr data, of any size. */
  | { kind: "stderr"; data: Uint8Array }
  /** The process no longer reads its input. It may keep running. */
  | { kind: "stdinError"; errno: number; code: string }
  /** The process has exited; `code` is -1 if a signal killed it. */
  | { kind: "exited"; code: number; status: ExitStatus }
  /** The process did not start. */
  | { kind: "failed"; error: ExecFailedError }
  /** The sandbox was lost first: the exit of the process is unknown. */
  | { kind: "lost"; error: StreamLostError };

/** No event is available yet. */
export const NOTHING = Symbol("nothing");

/** Returns the event that the addon has just received; `null` at the end, `undefined` for an
 * unknown kind. */
export function eventOf(value: unknown): ExecEvent | null | undefined | typeof NOTHING {
  const kind = native.last[0];
  const number = native.last[1] ?? 0;
  switch (kind) {
    case abi.MSB_EVENT_STDOUT:
      return { kind: "stdout", data: value as Buffer };
    case abi.MSB_EVENT_STDERR:
      return { kind: "stderr", data: value as Buffer };
    case native.AGAIN:
      return NOTHING;
    case 0:
      return null;
    case abi.MSB_EVENT_STARTED:
      return { kind: "started", pid: number };
    case abi.MSB_EVENT_STDIN_ERROR:
      return { kind: "stdinError", errno: number, code: getSystemErrorName(-number) };
    case abi.MSB_EVENT_EXITED: {
      const status = statusOf(value as NativeExit);
      return { kind: "exited", code: status.code, status };
    }
    case abi.MSB_EVENT_FAILED:
      return { kind: "failed", error: new ExecFailedError(value as NativeFailure) };
    case abi.MSB_EVENT_LOST:
      return { kind: "lost", error: new StreamLostError((value as Buffer).toString()) };
    default:
      return undefined;
  }
}
