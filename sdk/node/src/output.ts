import * as abi from "./abi";
import type { NativeExit, NativeOutput } from "./native";

/** Resource usage of a command and the children that it waited for. */
export interface ResourceUsage {
  /** CPU time in user mode, in milliseconds. */
  readonly userMs: number;
  /** CPU time in the kernel, in milliseconds. */
  readonly systemMs: number;
  /** Time from start to exit, in milliseconds. */
  readonly wallMs: number;
  /** Maximum resident set size, in bytes. */
  readonly maxRss: number;
}

/** The exit result of a process. */
export interface ExitStatus {
  /** Exit code; -1 if a signal killed it. */
  readonly code: number;
  /** `true` when `code === 0`. */
  readonly success: boolean;
  /** Number of the signal that killed it. */
  readonly signal: number | null;
  /** Whether it dumped core. */
  readonly coreDumped: boolean;
  /** Whether it was killed because it timed out. */
  readonly timedOut: boolean;
  /** Its resource usage. */
  readonly usage: ResourceUsage;
}

/** @internal */
export function statusOf(exit: NativeExit): ExitStatus {
  const { code, signal, flags, userMs, systemMs, wallMs, maxRss } = exit;
  return {
    code,
    success: code === 0,
    signal: signal || null,
    coreDumped: (flags & abi.MSB_EXIT_CORE_DUMPED) !== 0,
    timedOut: (flags & abi.MSB_EXIT_TIMED_OUT) !== 0,
    usage: { userMs, systemMs, wallMs, maxRss },
  };
}

/** The result of a completed command execution: collected output plus exit status. */
export class ExecOutput {
  /** Exit status object. */
  readonly status: ExitStatus;
  /** Number of bytes written to standard output, including those beyond a limit. */
  readonly stdoutTotal: number;
  /** Number of bytes written to standard error, including those beyond a limit. */
  readonly stderrTotal: number;
  /** Whether `maxOutput` truncated an output. */
  readonly truncated: boolean;
  /** Whether a background process still had the output open when collecting ended. */
  readonly writerLeft: boolean;
  /** Whether the connection was lost after the exit, so that output may be missing. */
  readonly cut: boolean;
  readonly #stdout: Buffer;
  readonly #stderr: Buffer;

  /** @internal */
  constructor(status: ExitStatus, output: NativeOutput, most = Infinity) {
    this.status = status;
    this.#stdout = output.stdout.subarray(0, most);
    this.#stderr = output.stderr.subarray(0, most);
    this.stdoutTotal = output.stdoutTotal;
    this.stderrTotal = output.stderrTotal;
    this.truncated =
      (output.flags & abi.MSB_OUTPUT_TRUNCATED) !== 0 ||
      Math.max(output.stdout.length, output.stderr.length) > most;
    this.writerLeft = (output.flags & abi.MSB_EVENT_WRITER_LEFT) !== 0;
    this.cut = (output.flags & abi.MSB_EVENT_CUT) !== 0;
  }

  /** Process exit code; -1 if a signal killed it. */
  get code(): number {
    return this.status.code;
  }

  /** `true` when `code === 0`. */
  get success(): boolean {
    return this.status.success;
  }

  /** Collected stdout decoded as UTF-8; invalid sequences become U+FFFD. */
  stdout(): string {
    return this.#stdout.toString();
  }

  /** Collected stderr decoded as UTF-8; invalid sequences become U+FFFD. */
  stderr(): string {
    return this.#stderr.toString();
  }

  /** Raw stdout bytes, not copied: the same memory each time. */
  stdoutBytes(): Uint8Array {
    return this.#stdout;
  }

  /** Raw stderr bytes, not copied: the same memory each time. */
  stderrBytes(): Uint8Array {
    return this.#stderr;
  }
}
