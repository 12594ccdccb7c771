import { getSystemErrorName } from "node:util";
import * as abi from "./abi";
import type { StatusKind } from "./abi";
import type { NativeFailure } from "./native";
import type { ExecOutput } from "./output";

/** Who detected a failure: the caller (an invalid call), this host, the driver, the transport, or
 * the agent in the sandbox. */
export type ErrorOrigin = "caller" | "host" | "driver" | "transport" | "agent";

/** Why a command failed to start. */
export type ExecFailureKind =
  | "not_found"
  | "permission_denied"
  | "not_executable"
  | "bad_cwd"
  | "bad_args"
  | "resource_limit"
  | "user_setup_failed"
  | "out_of_memory"
  | "pty_setup_failed"
  | "other";

/** Kind of a failure, the same in every language. */
export type ErrorKind = ExecFailureKind | Exclude<StatusKind, "exec_failed">;

/** Details of an error besides its message. @internal */
export interface Detail {
  errno?: number | undefined;
  errnoName?: string | undefined;
  origin?: ErrorOrigin | undefined;
}

const ORIGINS: readonly ErrorOrigin[] = ["caller", "host", "driver", "transport", "agent"];

/** Returns the name of a Linux errno, such as `"ENOENT"`; `undefined` for 0. */
function nameOf(errno: number | undefined): string | undefined {
  return errno ? getSystemErrorName(-errno) : undefined;
}

/** Base class of all errors of this package. */
export class MicrosandboxError extends Error {
  /** Kind of the failure, for callers that branch on it. */
  readonly kind: ErrorKind;
  /** Name of the system error if there is one (`"ENOENT"`), else `ERR_MSB_` and the kind. */
  readonly code: string;
  /** System error number, of the host or the guest according to `origin`. */
  readonly errno: number | undefined;
  /** Name of the system error. */
  readonly errnoName: string | undefined;
  /** Who detected the failure. */
  readonly origin: ErrorOrigin;
  /** The file in the sandbox on which an operation failed, or what a command failed to use. */
  declare path?: string;

  /** @internal */
  constructor(kind: ErrorKind, message: string, detail: Detail = {}) {
    super(message);
    this.kind = kind;
    this.errno = detail.errno || undefined;
    this.errnoName = detail.errnoName || nameOf(detail.errno);
    this.code = this.errnoName ?? `ERR_MSB_${kind.toUpperCase()}`;
    this.origin = detail.origin ?? "caller";
  }

  /** What the error knows but its output, for logs, workers and other processes: `JSON.stringify`
   * and `structuredClone` of an error itself keep only some of it. */
  toJSON(): Record<string, unknown> {
    const { name, message, output: _, ...rest } = this as this & { output?: unknown };
    return { name, message, ...rest };
  }

  static {
    this.prototype.name = "MicrosandboxError";
  }
}

/** The command failed to start; `kind` is the reason. */
export class ExecFailedError extends MicrosandboxError {
  declare readonly kind: ExecFailureKind;
  /** The step that failed: `"execve"`, `"chdir"`, ... */
  readonly stage: string;
  /** The program, directory or name that the step concerned. */
  override readonly path: string;

  /** @internal */
  constructor(failure: NativeFailure) {
    const { errno, errnoName } = failure;
    const path = failure.path.toString();
    super(failure.kind as ErrorKind, sentence(failure.kind, failure.message, escaped(path)), {
      errno,
      errnoName,
      origin: "agent",
    });
    this.stage = failure.stage;
    this.path = path;
  }
}

/** Escapes terminal control characters; the library escapes messages in the same way. */
function escaped(text: string): string {
  const hostile = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
  return text.slice(0, 200).replace(hostile, (c) => {
    if (c === "\n" || c === "\t") return " ";
    return c === "\r" ? "\\r" : `\\u{${c.charCodeAt(0).toString(16)}}`;
  });
}

/** Returns the message with the path, which the agent's message may name already. */
function sentence(kind: string, message: string, path: string): string {
  const why = message || kind;
  if (path === "" || why.includes(path)) return why;
  if (kind === "bad_cwd") return `cannot enter the working directory ${path}: ${why}`;
  if (kind === "user_setup_failed") return `cannot become the user ${path}: ${why}`;
  return `cannot run ${path}: ${why}`;
}

/** The command timed out, and it and its process tree were killed. */
export class ExecTimeoutError extends MicrosandboxError {
  declare readonly kind: "exec_timeout";
  /** Its output so far and its exit status. */
  readonly output: ExecOutput;

  /** @internal */
  constructor(output: ExecOutput) {
    super("exec_timeout", "the command timed out and was killed", {
      errno: 110, // ETIMEDOUT
      origin: "agent",
    });
    this.output = output;
  }
}

/** The connection to the sandbox was lost before the command's exit was known. */
export class StreamLostError extends MicrosandboxError {
  declare readonly kind: "stream_lost";
  /** The output that a collecting call had received so far. */
  readonly output: { stdout: Uint8Array; stderr: Uint8Array } | undefined;

  /** @internal */
  constructor(
    message: string,
    output?: { stdout: Uint8Array; stderr: Uint8Array },
    detail: Detail = {},
  ) {
    super("stream_lost", message, { origin: "transport", ...detail });
    this.output = output;
  }
}

/** An argument is invalid. */
export class InvalidArgumentError extends MicrosandboxError {
  /** @internal */
  constructor(message: string, detail?: Detail) {
    super("invalid_argument", message, detail);
  }
}
/** The configuration of the sandbox is invalid. */
export class InvalidConfigError extends MicrosandboxError {}
/** No sandbox has this name. */
export class SandboxNotFoundError extends MicrosandboxError {}
/** A sandbox with this name exists. */
export class SandboxAlreadyExistsError extends MicrosandboxError {}
/** The sandbox is not running. */
export class SandboxNotRunningError extends MicrosandboxError {}
/** The sandbox is running, but the call requires a stopped one. */
export class SandboxRunningError extends MicrosandboxError {}
/** The sandbox ended unexpectedly. */
export class SandboxCrashedError extends MicrosandboxError {}
/** No driver is usable. */
export class NoDriverError extends MicrosandboxError {}
/** The sandbox failed to boot. */
export class BootFailedError extends MicrosandboxError {}
/** The image is in neither the store nor the registry. */
export class ImageNotFoundError extends MicrosandboxError {}
/** The registry denied access: wrong credentials, or no such image. */
export class ImageUnauthorizedError extends MicrosandboxError {}
/** The registry is unreachable, not trusted, or failing. */
export class RegistryUnreachableError extends MicrosandboxError {}
/** The image is corrupt, malicious, or for another architecture. */
export class ImageInvalidError extends MicrosandboxError {}
/** A sandbox uses the image. */
export class ImageInUseError extends MicrosandboxError {}
/** The image worker process died. */
export class ImageFailedError extends MicrosandboxError {}
/** There is not enough disk space. */
export class NoSpaceError extends MicrosandboxError {}
/** The image has no default command. */
export class NoCommandError extends MicrosandboxError {}
/** No volume has this name. */
export class VolumeNotFoundError extends MicrosandboxError {}
/** A volume with this name exists. */
export class VolumeAlreadyExistsError extends MicrosandboxError {}
/** A sandbox uses the volume. */
export class VolumeInUseError extends MicrosandboxError {}
/** A path does not exist. */
export class PathNotFoundError extends MicrosandboxError {}
/** The user may not do this with a file. */
export class PermissionDeniedError extends MicrosandboxError {}
/** A file system reports an error. */
export class FilesystemError extends MicrosandboxError {}
/** The command no longer reads its input. */
export class BrokenPipeError extends MicrosandboxError {}
/** Another call is reading this handle. */
export class BusyError extends MicrosandboxError {
  /** @internal */
  constructor(message = "another call is reading this handle", detail?: Detail) {
    super("busy", message, detail);
  }
}
/** The handle was closed. */
export class ClosedError extends MicrosandboxError {
  /** @internal */
  constructor(message = "the handle was closed", detail?: Detail) {
    super("closed", message, detail);
  }
}
/** The command has ended. */
export class NoSuchProcessError extends MicrosandboxError {
  /** @internal */
  constructor(message = "the command has ended", detail: Detail = {}) {
    super("no_such_process", message, { origin: "agent", ...detail, errno: detail.errno || 3 });
  }
}
/** The sandbox has no such session. */
export class NoSuchSessionError extends MicrosandboxError {}
/** The session has no terminal, or standard input is not a terminal. */
export class NotATerminalError extends MicrosandboxError {}

/** Creates the error of a kind. */
type Make = (kind: ErrorKind, message: string, detail: Detail) => MicrosandboxError;

const general =
  (Class = MicrosandboxError, errno?: number): Make =>
  (kind, message, detail) =>
    new Class(kind, message, { ...detail, errno: detail.errno || errno });

const MAKERS: { readonly [kind in StatusKind]: Make } = {
  invalid_argument: (_, message, detail) => new InvalidArgumentError(message, detail),
  closed: (_, message, detail) => new ClosedError(message, detail),
  busy: (_, message, detail) => new BusyError(message, detail),
  unsupported: general(),
  limit_reached: general(),
  io: general(),
  internal: general(),
  protocol: general(),
  timed_out: general(MicrosandboxError, 110),
  invalid_config: general(InvalidConfigError),
  sandbox_not_found: general(SandboxNotFoundError),
  sandbox_already_exists: general(SandboxAlreadyExistsError),
  sandbox_not_running: general(SandboxNotRunningError),
  sandbox_running: general(SandboxRunningError),
  no_driver: general(NoDriverError),
  boot_failed: general(BootFailedError),
  sandbox_crashed: general(SandboxCrashedError),
  image_not_found: general(ImageNotFoundError),
  image_unauthorized: general(ImageUnauthorizedError),
  registry_unreachable: general(RegistryUnreachableError),
  image_invalid: general(ImageInvalidError),
  image_in_use: general(ImageInUseError),
  image_failed: general(ImageFailedError),
  no_space: general(NoSpaceError, 28),
  no_command: general(NoCommandError),
  volume_not_found: general(VolumeNotFoundError),
  volume_already_exists: general(VolumeAlreadyExistsError),
  volume_in_use: general(VolumeInUseError),
  path_not_found: general(PathNotFoundError),
  permission_denied: general(PermissionDeniedError),
  filesystem: general(FilesystemError),
  stream_lost: (_, message, detail) => new StreamLostError(message, undefined, detail),
  broken_pipe: general(BrokenPipeError, 32),
  no_such_process: (_, message, detail) => new NoSuchProcessError(message, detail),
  no_such_session: general(NoSuchSessionError),
  not_a_terminal: general(NotATerminalError, 25),
  // Only msb_attach returns this status, without the reason.
  exec_failed: (_, message, detail) => new MicrosandboxError("other", message, detail),
  exec_timeout: general(),
};

/** Converts an error of the addon to its class; returns other values unchanged. @internal */
export function typed(error: unknown): unknown {
  const raw = error as { status?: number; errno?: number; origin?: number; message: string };
  if (!(error instanceof Error) || raw.status === undefined) return error;
  const detail = { errno: raw.errno, origin: ORIGINS[(raw.origin ?? 0) - 1] };
  const kinds: { readonly [status: number]: StatusKind } = abi.KIND_OF_STATUS;
  const kind = kinds[raw.status] ?? "internal";
  // A handle that this package has closed is no longer valid.
  const message = raw.status === abi.MSB_E_HANDLE ? "the handle was closed" : raw.message;
  const made = MAKERS[kind](kind as ErrorKind, message, detail);
  Error.captureStackTrace?.(made, typed);
  return made;
}

for (const Class of [
  ExecFailedError,
  ExecTimeoutError,
  StreamLostError,
  InvalidArgumentError,
  InvalidConfigError,
  SandboxNotFoundError,
  SandboxAlreadyExistsError,
  SandboxNotRunningError,
  SandboxRunningError,
  SandboxCrashedError,
  NoDriverError,
  BootFailedError,
  ImageNotFoundError,
  ImageUnauthorizedError,
  RegistryUnreachableError,
  ImageInvalidError,
  ImageInUseError,
  ImageFailedError,
  NoSpaceError,
  NoCommandError,
  VolumeNotFoundError,
  VolumeAlreadyExistsError,
  VolumeInUseError,
  PathNotFoundError,
  PermissionDeniedError,
  FilesystemError,
  BrokenPipeError,
  BusyError,
  ClosedError,
  NoSuchProcessError,
  NoSuchSessionError,
  NotATerminalError,
]) {
  Object.defineProperty(Class.prototype, "name", { value: Class.name, configurable: true });
}
