import { ExecFailedError, ExecTimeoutError, StreamLostError } from "./errors";
import type { NativeOutput } from "./native";
import { ExecOutput, statusOf } from "./output";

/** Returns the output of a command that exited; throws if it failed, was lost or timed out.
 * @internal */
export function outputOf(from: NativeOutput, most: number): ExecOutput {
  if (from.failure) throw new ExecFailedError(from.failure);
  if (!from.exit) {
    const { stdout, stderr, lost } = from;
    throw new StreamLostError(lost.toString(), {
      stdout: stdout.subarray(0, most),
      stderr: stderr.subarray(0, most),
    });
  }
  const output = new ExecOutput(statusOf(from.exit), from, most);
  if (output.status.timedOut) throw new ExecTimeoutError(output);
  return output;
}
