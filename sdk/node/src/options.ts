import * as abi from "./abi";
import type { NativeExecOptions, NativeRlimit } from "./abi";
import { bytesOf, nanoseconds, optional, pair, text, u64, whole, type Text } from "./check";
import { InvalidArgumentError } from "./errors";

/** Names of the resources that can be limited, indexed by their Linux number. */
const RESOURCES = [
  "cpu",
  "fsize",
  "data",
  "stack",
  "core",
  "rss",
  "nproc",
  "nofile",
  "memlock",
  "as",
  "locks",
  "sigpending",
  "msgqueue",
  "nice",
  "rtprio",
  "rttime",
] as const;

/** A limitable POSIX resource. */
export type RlimitResource =
  | "cpu" | "fsize" | "data" | "stack" | "core" | "rss"
  | "nproc" | "nofile" | "memlock" | "as" | "locks"
  | "sigpending" | "msgqueue" | "nice" | "rtprio" | "rttime";

/** A POSIX resource limit applied to the process. `Infinity` is no limit. */
export interface Rlimit {
  /** Which resource is limited. */
  resource: RlimitResource;
  /** Soft limit, which is in force. */
  soft: number | bigint;
  /** Hard limit, to which the command may raise the soft one. */
  hard: number | bigint;
}

/** Stdin behavior for an execution; see {@link Stdin}. */
export type StdinMode =
  /** Stdin connected to `/dev/null`. */
  | { kind: "null" }
  /** Writable pipe opened for the caller. */
  | { kind: "pipe" }
  /** Pre-supplied stdin bytes, then EOF. */
  | { kind: "bytes"; data: Uint8Array };

/** Constructors of {@link StdinMode}, for {@link ExecOptionsBuilder.stdin}. */
export const Stdin = {
  /** Connect stdin to `/dev/null`. */
  null: (): StdinMode => ({ kind: "null" }),
  /** Open a writable pipe; the caller writes to {@link ExecHandle.takeStdin}. */
  pipe: (): StdinMode => ({ kind: "pipe" }),
  /** Send the given bytes (or UTF-8-encoded string) and close stdin. */
  bytes: (data: Uint8Array | string): StdinMode => ({ kind: "bytes", data: bytesOf(data) }),
} as const;

/** A command for the addon. @internal */
export interface Command {
  native: NativeExecOptions;
  pipe: boolean;
  /** The caller's limit on collected output, before conversion for C. */
  most: number;
}

function flag(name: string, value: boolean): boolean {
  if (typeof value === "boolean") return value;
  throw new InvalidArgumentError(`${name} must be true or false`);
}

/** Options that both builders share. */
abstract class CommandBuilder {
  #args: Text[] = [];
  #cwd: Text | undefined;
  #user: string | undefined;
  #env: [Text, Text][] = [];
  #rlimits: Rlimit[] = [];
  #timeout: number | bigint | undefined;

  /** Append a single argument. */
  arg(arg: Text): this {
    this.#args.push(arg);
    return this;
  }

  /** Append many arguments. */
  args(args: Iterable<Text>): this {
    if (typeof args === "string") throw new InvalidArgumentError("args must be a list, not a string");
    this.#args.push(...args);
    return this;
  }

  /** Working directory; else the sandbox's. */
  cwd(cwd: Text): this {
    this.#cwd = cwd;
    return this;
  }

  /** Guest user: `name`, `uid`, `name:group` or `uid:gid`; else the sandbox's. */
  user(user: string): this {
    this.#user = user;
    return this;
  }

  /** Add a single env var, which overrides the sandbox's. The last value of a name wins. */
  env(key: Text, value: Text): this {
    this.#env.push([key, value]);
    return this;
  }

  /** Add many env vars. */
  envs(vars: Record<string, string>): this {
    this.#env.push(...Object.entries(vars));
    return this;
  }

  /** Kill the process and its process tree after this many milliseconds. */
  timeout(ms: number | bigint): this {
    this.#timeout = ms;
    return this;
  }

  /** Set both soft and hard rlimit. `Infinity` is no limit; above 2^53, pass a bigint. */
  rlimit(resource: RlimitResource, limit: number | bigint): this {
    return this.rlimitRange(resource, limit, limit);
  }

  /** Set distinct soft and hard rlimits. */
  rlimitRange(resource: RlimitResource, soft: number | bigint, hard: number | bigint): this {
    this.#rlimits.push({ resource, soft, hard });
    return this;
  }

  /** Validates everything that can be validated before it is sent. */
  protected command(cmd: Text): NativeExecOptions {
    return {
      flags: 0,
      cmd: text("the command", cmd),
      args: this.#args.map((arg) => text("an argument", arg)),
      env: this.#env.map(([key, value]) => pair("a variable", key, value)),
      cwd: optional("the working directory", this.#cwd),
      user: optional("the user", this.#user),
      rlimits: this.#rlimits.map(checkedLimit),
      stdinData: undefined,
      timeoutNs: this.#timeout === undefined ? 0n : checkedTimeout(this.#timeout),
      drainNs: 0n,
      rows: 0,
      cols: 0,
      maxOutput: 0n,
    };
  }
}

function checkedTimeout(ms: number | bigint): bigint {
  const timeout = nanoseconds("the timeout", ms);
  if (timeout > 0n) return timeout;
  throw new InvalidArgumentError("the timeout is zero; omit it or set a positive time");
}

function checkedLimit(limit: Rlimit): NativeRlimit {
  const resource = RESOURCES.indexOf(limit.resource);
  if (resource < 0) {
    throw new InvalidArgumentError(`unknown resource ${JSON.stringify(limit.resource)}`);
  }
  const soft = u64(`the soft limit of ${limit.resource}`, limit.soft);
  const hard = u64(`the hard limit of ${limit.resource}`, limit.hard);
  if (soft > hard) {
    throw new InvalidArgumentError(
      `the soft limit of ${limit.resource} is ${soft}, above its hard limit ${hard}`,
    );
  }
  return { resource, soft, hard };
}

/**
 * Passed to the callback in `execWith(cmd, b => ...)` and its streaming and shell variants. Every
 * setter mutates the builder and returns it, so calls chain. The call rejects invalid options
 * before anything is sent.
 */
export class ExecOptionsBuilder extends CommandBuilder {
  #stdin: StdinMode = Stdin.null();
  #drain: number | bigint | undefined;
  #maxOutput: number | bigint | undefined;
  #tty = false;
  #size: [number, number] | undefined;
  #waitForEof = false;

  /** Connect stdin to `/dev/null` (default). */
  stdinNull(): this {
    return this.stdin(Stdin.null());
  }

  /** Open a writable stdin pipe; {@link ExecHandle.takeStdin} returns its writing end. */
  stdinPipe(): this {
    return this.stdin(Stdin.pipe());
  }

  /** Pre-supply stdin bytes and close it. */
  stdinBytes(data: Uint8Array | string): this {
    return this.stdin(Stdin.bytes(data));
  }

  /** Set the stdin mode; see {@link Stdin}. */
  stdin(mode: StdinMode): this {
    this.#stdin = mode;
    return this;
  }

  /** Allocate a pseudo-terminal. Stderr is then delivered as stdout. */
  tty(enabled: boolean): this {
    this.#tty = flag("tty", enabled);
    return this;
  }

  /** Set the size of the terminal; 24 rows of 80 columns unless set. */
  ttySize(rows: number, cols: number): this {
    this.#size = [rows, cols];
    return this;
  }

  /**
   * Set how long output of background processes is forwarded after the command's exit, in
   * milliseconds; 250 unless set.
   */
  drain(ms: number | bigint): this {
    this.#drain = ms;
    return this;
  }

  /** Forward output until every writer has closed it, without a time limit. */
  waitForEof(enabled: boolean): this {
    this.#waitForEof = flag("waitForEof", enabled);
    return this;
  }

  /** Limit how many bytes of each output are kept when collected; the rest is counted. */
  maxOutput(bytes: number | bigint): this {
    this.#maxOutput = bytes;
    return this;
  }

  /** @internal */
  build(cmd: Text, shell = false): Command {
    const command = this.command(cmd);
    const { MSB_EXEC_SHELL, MSB_EXEC_TTY, MSB_EXEC_WAIT_FOR_EOF } = abi;
    if (shell) command.flags |= MSB_EXEC_SHELL;
    if (this.#tty) command.flags |= MSB_EXEC_TTY;
    if (this.#waitForEof) command.flags |= MSB_EXEC_WAIT_FOR_EOF;
    if (this.#tty && this.#size) [command.rows, command.cols] = checkedSize(...this.#size);
    // In C zero means default. A nanosecond is equivalent to none.
    if (this.#drain !== undefined) command.drainNs = nanoseconds("the drain", this.#drain) || 1n;
    let most = Infinity;
    if (this.#maxOutput !== undefined) {
      const limit = u64("maxOutput", this.#maxOutput);
      most = Number(limit);
      command.maxOutput = limit || 1n; // ExecOutput discards the byte
    }
    if (this.#stdin.kind === "bytes") command.stdinData = bytesOf(this.#stdin.data);
    return { native: command, pipe: this.#stdin.kind === "pipe", most };
  }
}

/** Validates the rows and columns of a terminal, at least one of each. @internal */
export function checkedSize(rows: number, cols: number): [number, number] {
  return [whole("rows", rows, 1, 65535), whole("cols", cols, 1, 65535)];
}

/**
 * Passed to the callback in `attachWith(cmd, b => ...)`. Every setter mutates the builder and
 * returns it, so calls chain.
 */
export class AttachOptionsBuilder extends CommandBuilder {
  #detachKeys: string | undefined;

  /** Set the detach key sequence, e.g. `"ctrl-]"` (the default) or `"ctrl-p,ctrl-q"`. */
  detachKeys(spec: string): this {
    this.#detachKeys = spec;
    return this;
  }

  /** @internal */
  build(cmd: Text | undefined): { command: NativeExecOptions | undefined; detachKeys: Buffer | undefined } {
    return {
      command: cmd === undefined ? undefined : this.command(cmd),
      detachKeys: optional("the detach keys", this.#detachKeys),
    };
  }
}
