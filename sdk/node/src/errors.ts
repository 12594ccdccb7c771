import { getSystemErrorName } from "node:util";
import { native, type NativeFailure } from "./native";
import type { ExecOutput } from "./output";

/** Who noticed a failure: the call itself was wrong, this host, the driver, the connection, or the
 * agent in the sandbox. */
export type ErrorOrigin = "caller" | "host" | "driver" | "transport" | "agent";

/** Why a command never started. */
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

/** What kind of failure it was, the same in every language. */
export type ErrorKind =
  | ExecFailureKind
  | "exec_timeout"
  | "invalid_argument"
  | "invalid_config"
  | "sandbox_not_found"
  | "sandbox_already_exists"
  | "sandbox_not_running"
  | "sandbox_running"
  | "sandbox_crashed"
  | "no_driver"
  | "boot_failed"
  | "image_not_found"
  | "image_unauthorized"
  | "registry_unreachable"
  | "image_invalid"
  | "image_in_use"
  | "image_failed"
  | "no_space"
  | "no_command"
  | "stream_lost"
  | "broken_pipe"
  | "busy"
  | "closed"
  | "no_such_process"
  | "no_such_session"
  | "not_a_terminal"
  | "limit_reached"
  | "timed_out"
  | "unsupported"
  | "protocol"
  | "io"
  | "internal";

/** What an error knows besides its message. @internal */
export interface Detail {
  errno?: number | undefined;
  errnoName?: string | undefined;
  origin?: ErrorOrigin | undefined;
}

const ORIGINS: readonly ErrorOrigin[] = ["caller", "host", "driver", "transport", "agent"];

/** The name of an errno of Linux: `"ENOENT"`; `undefined` for 0. */
function nameOf(errno: number | undefined): string | undefined {
  return errno ? getSystemErrorName(-errno) : undefined;
}

/** The error of every call of this package. */
export class MicrosandboxError extends Error {
  /** What kind of failure, for callers that branch on it. */
  readonly kind: ErrorKind;
  /** The name of the system's error where there is one (`"ENOENT"`), else `ERR_MSB_` and the kind. */
  readonly code: string;
  /** The system's error number, of the host or the guest as `origin` says. */
  readonly errno: number | undefined;
  /** Its name. */
  readonly errnoName: string | undefined;
  /** Who noticed. */
  readonly origin: ErrorOrigin;

  /** @internal */
  constructor(kind: ErrorKind, message: string, detail: Detail = {}) {
    super(message);
    this.kind = kind;
    this.errno = detail.errno || undefined;
    this.errnoName = detail.errnoName || nameOf(detail.errno);
    this.code = this.errnoName ?? `ERR_MSB_${kind.toUpperCase()}`;
    this.origin = detail.origin ?? "caller";
  }

  static {
    this.prototype.name = "MicrosandboxError";
  }
}

/** The command never started; `kind` says why. */
export class ExecFailedError extends MicrosandboxError {
  declare readonly kind: ExecFailureKind;
  /** The step that failed: `"execve"`, `"chdir"`, ... */
  readonly stage: string;
  /** The program, directory or name that the step was about. */
  readonly path: string;

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

/** One line of a text that acts on no terminal; the library escapes messages in the same way. */
function escaped(text: string): string {
  const hostile = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
  return text.slice(0, 200).replace(hostile, (c) => {
    if (c === "\n" || c === "\t") return " ";
    return c === "\r" ? "\\r" : `\\u{${c.charCodeAt(0).toString(16)}}`;
  });
}

/** What failed and on what. The agent's own sentence may name it already. */
function sentence(kind: string, message: string, path: string): string {
  const why = message || kind;
  if (path === "" || why.includes(path)) return why;
  if (kind === "bad_cwd") return `cannot enter the working directory ${path}: ${why}`;
  if (kind === "user_setup_failed") return `cannot become the user ${path}: ${why}`;
  return `cannot run ${path}: ${why}`;
}

/** The command's time ran out, and it was killed with everything that it had started. */
export class ExecTimeoutError extends MicrosandboxError {
  declare readonly kind: "exec_timeout";
  /** What it had put out until then, and how it ended. */
  readonly output: ExecOutput;

  /** @internal */
  constructor(output: ExecOutput) {
    super("exec_timeout", "the command did not end in its time and was killed", {
      errno: 110, // ETIMEDOUT
      origin: "agent",
    });
    this.output = output;
  }
}

/** The connection to the sandbox was lost before the end of the command was known. */
export class StreamLostError extends MicrosandboxError {
  declare readonly kind: "stream_lost";
  /** What a collected call had gathered until then. */
  readonly output: { stdout: Uint8Array; stderr: Uint8Array } | undefined;

  /** @internal */
  constructor(message: string, output?: { stdout: Uint8Array; stderr: Uint8Array }) {
    super("stream_lost", message, { origin: "transport" });
    this.output = output;
  }
}

/** An argument makes no sense. */
export class InvalidArgumentError extends MicrosandboxError {
  /** @internal */
  constructor(message: string, detail?: Detail) {
    super("invalid_argument", message, detail);
  }
}
/** The sandbox cannot be what it was asked to be. */
export class InvalidConfigError extends MicrosandboxError {}
/** No sandbox has this name. */
export class SandboxNotFoundError extends MicrosandboxError {}
/** A sandbox has this name already. */
export class SandboxAlreadyExistsError extends MicrosandboxError {}
/** The sandbox is not running. */
export class SandboxNotRunningError extends MicrosandboxError {}
/** The sandbox is running, and the call needs one that is not. */
export class SandboxRunningError extends MicrosandboxError {}
/** The sandbox ended by itself. */
export class SandboxCrashedError extends MicrosandboxError {}
/** No driver is usable. */
export class NoDriverError extends MicrosandboxError {}
/** The sandbox did not come up. */
export class BootFailedError extends MicrosandboxError {}
/** No such image, in the store or in the registry. */
export class ImageNotFoundError extends MicrosandboxError {}
/** The registry wants other credentials, or there is no such image and it does not say so. */
export class ImageUnauthorizedError extends MicrosandboxError {}
/** The registry cannot be reached, is not trusted, or is in trouble. */
export class RegistryUnreachableError extends MicrosandboxError {}
/** The image is broken, hostile, or not for this machine. */
export class ImageInvalidError extends MicrosandboxError {}
/** A sandbox uses the image. */
export class ImageInUseError extends MicrosandboxError {}
/** The process that works on images died. */
export class ImageFailedError extends MicrosandboxError {}
/** The disk is too full. */
export class NoSpaceError extends MicrosandboxError {}
/** The image names no command of its own. */
export class NoCommandError extends MicrosandboxError {}
/** The command no longer reads its input. */
export class BrokenPipeError extends MicrosandboxError {}
/** Another call is reading this handle already. */
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
/** The process is gone. */
export class NoSuchProcessError extends MicrosandboxError {
  /** @internal */
  constructor(message = "the command has ended", detail: Detail = {}) {
    super("no_such_process", message, { origin: "agent", ...detail, errno: detail.errno || 3 });
  }
}
/** No such session is known in this sandbox. */
export class NoSuchSessionError extends MicrosandboxError {}
/** The session has no terminal, or standard input is none. */
export class NotATerminalError extends MicrosandboxError {}

/** Class, kind and errno of a status; the last two only where the class does not set them. */
type Make = (message: string, detail: Detail) => MicrosandboxError;

const general =
  (kind: ErrorKind, Class = MicrosandboxError, errno?: number): Make =>
  (message, detail) =>
    new Class(kind, message, { ...detail, errno: detail.errno || errno });

const MAKERS = new Map<number | undefined, Make>([
  [native.MSB_E_INVALID, (message, detail) => new InvalidArgumentError(message, detail)],
  // A handle that this package has closed is none any more.
  [native.MSB_E_HANDLE, (_, detail) => new ClosedError(undefined, detail)],
  [native.MSB_E_CLOSED, (message, detail) => new ClosedError(message, detail)],
  [native.MSB_E_BUSY, (message, detail) => new BusyError(message, detail)],
  [native.MSB_E_UNSUPPORTED, general("unsupported")],
  [native.MSB_E_LIMIT, general("limit_reached")],
  [native.MSB_E_IO, general("io")],
  [native.MSB_E_INTERNAL, general("internal")],
  [native.MSB_E_PROTOCOL, general("protocol")],
  [native.MSB_E_TIMED_OUT, general("timed_out", MicrosandboxError, 110)],
  [native.MSB_E_CONFIG, general("invalid_config", InvalidConfigError)],
  [native.MSB_E_NOT_FOUND, general("sandbox_not_found", SandboxNotFoundError)],
  [native.MSB_E_EXISTS, general("sandbox_already_exists", SandboxAlreadyExistsError)],
  [native.MSB_E_NOT_RUNNING, general("sandbox_not_running", SandboxNotRunningError)],
  [native.MSB_E_RUNNING, general("sandbox_running", SandboxRunningError)],
  [native.MSB_E_NO_DRIVER, general("no_driver", NoDriverError)],
  [native.MSB_E_BOOT, general("boot_failed", BootFailedError)],
  [native.MSB_E_CRASHED, general("sandbox_crashed", SandboxCrashedError)],
  [native.MSB_E_NO_IMAGE, general("image_not_found", ImageNotFoundError)],
  [native.MSB_E_IMAGE_DENIED, general("image_unauthorized", ImageUnauthorizedError)],
  [native.MSB_E_REGISTRY, general("registry_unreachable", RegistryUnreachableError)],
  [native.MSB_E_BAD_IMAGE, general("image_invalid", ImageInvalidError)],
  [native.MSB_E_IMAGE_IN_USE, general("image_in_use", ImageInUseError)],
  [native.MSB_E_IMAGE_FAILED, general("image_failed", ImageFailedError)],
  [native.MSB_E_NO_SPACE, general("no_space", NoSpaceError, 28)],
  [native.MSB_E_NO_COMMAND, general("no_command", NoCommandError)],
  [native.MSB_E_LOST, (message) => new StreamLostError(message)],
  [native.MSB_E_PIPE, general("broken_pipe", BrokenPipeError, 32)],
  [native.MSB_E_NO_PROCESS, (message, detail) => new NoSuchProcessError(message, detail)],
  [native.MSB_E_NO_SESSION, general("no_such_session", NoSuchSessionError)],
  [native.MSB_E_NOT_A_TERMINAL, general("not_a_terminal", NotATerminalError, 25)],
  // msb_attach alone says this, and in words only.
  [native.MSB_E_EXEC_FAILED, general("other")],
]);

/** The typed error of what the addon threw; anything else as it is. @internal */
export function typed(error: unknown): unknown {
  const raw = error as { status?: number; errno?: number; origin?: number; message: string };
  if (!(error instanceof Error) || raw.status === undefined) return error;
  const detail = { errno: raw.errno, origin: ORIGINS[(raw.origin ?? 0) - 1] };
  const made = (MAKERS.get(raw.status) ?? general("internal"))(raw.message, detail);
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
  BrokenPipeError,
  BusyError,
  ClosedError,
  NoSuchProcessError,
  NoSuchSessionError,
  NotATerminalError,
]) {
  Object.defineProperty(Class.prototype, "name", { value: Class.name, configurable: true });
}
