/**
 * Made by `make abi` from src: the constants of microsandbox.h, by their names there, and what kind of
 * error each status is.
 *
 * @internal
 * @module
 */

export const MSB_ABI_VERSION = 0;
export const MSB_OK = 0;
export const MSB_AGAIN = 1;
export const MSB_EOF = 2;
export const MSB_E_INVALID = -1;
export const MSB_E_HANDLE = -2;
export const MSB_E_CLOSED = -3;
export const MSB_E_BUSY = -4;
export const MSB_E_UNSUPPORTED = -5;
export const MSB_E_LIMIT = -6;
export const MSB_E_IO = -7;
export const MSB_E_INTERNAL = -8;
export const MSB_E_PROTOCOL = -9;
export const MSB_E_TIMED_OUT = -10;
export const MSB_E_CONFIG = -20;
export const MSB_E_NOT_FOUND = -21;
export const MSB_E_EXISTS = -22;
export const MSB_E_NOT_RUNNING = -23;
export const MSB_E_RUNNING = -24;
export const MSB_E_NO_DRIVER = -25;
export const MSB_E_BOOT = -26;
export const MSB_E_CRASHED = -27;
export const MSB_E_EXEC_FAILED = -40;
export const MSB_E_EXEC_TIMEOUT = -41;
export const MSB_E_LOST = -42;
export const MSB_E_PIPE = -43;
export const MSB_E_NO_PROCESS = -44;
export const MSB_E_NO_SESSION = -45;
export const MSB_E_NOT_A_TERMINAL = -46;
export const MSB_E_NO_IMAGE = -60;
export const MSB_E_IMAGE_DENIED = -61;
export const MSB_E_REGISTRY = -62;
export const MSB_E_BAD_IMAGE = -63;
export const MSB_E_IMAGE_IN_USE = -64;
export const MSB_E_IMAGE_FAILED = -65;
export const MSB_E_NO_SPACE = -66;
export const MSB_E_NO_COMMAND = -67;
export const MSB_E_NO_VOLUME = -100;
export const MSB_E_VOLUME_EXISTS = -101;
export const MSB_E_VOLUME_IN_USE = -102;
export const MSB_E_NO_PATH = -80;
export const MSB_E_PERMISSION = -81;
export const MSB_E_FILESYSTEM = -82;
export const MSB_ORIGIN_CALLER = 1;
export const MSB_ORIGIN_HOST = 2;
export const MSB_ORIGIN_DRIVER = 3;
export const MSB_ORIGIN_TRANSPORT = 4;
export const MSB_ORIGIN_AGENT = 5;
export const MSB_ERROR_MESSAGE_LEN = 496;
export const MSB_TRACE_ERROR = 1;
export const MSB_TRACE_WARN = 2;
export const MSB_TRACE_INFO = 3;
export const MSB_TRACE_DEBUG = 4;
export const MSB_TRACE_TRACE = 5;
export const MSB_PHASE_RESOLVING = 1;
export const MSB_PHASE_DOWNLOADING = 2;
export const MSB_PHASE_UNPACKING = 3;
export const MSB_PHASE_STARTING = 4;
export const MSB_MOUNT_BIND = 1;
export const MSB_MOUNT_VOLUME = 2;
export const MSB_MOUNT_TMPFS = 3;
export const MSB_MOUNT_DISK = 4;
export const MSB_MOUNT_READONLY = 1;
export const MSB_MOUNT_NOEXEC = 2;
export const MSB_MOUNT_NOSUID = 4;
export const MSB_MOUNT_NODEV = 8;
export const MSB_MOUNT_OWNER = 16;
export const MSB_MOUNT_CREATE = 32;
export const MSB_MOUNT_ENSURE_EXISTS = 64;
export const MSB_SANDBOX_DETACHED = 1;
export const MSB_SANDBOX_REPLACE = 2;
export const MSB_SANDBOX_NETWORK = 4;
export const MSB_SANDBOX_LOG = 8;
export const MSB_SANDBOX_REQUIRE_JAIL = 16;
export const MSB_SANDBOX_INIT = 32;
export const MSB_SECURITY_DEFAULT = 0;
export const MSB_SECURITY_RESTRICTED = 1;
export const MSB_PULL_MISSING = 0;
export const MSB_PULL_ALWAYS = 1;
export const MSB_PULL_NEVER = 2;
export const MSB_STATE_CREATED = 1;
export const MSB_STATE_RUNNING = 2;
export const MSB_STATE_STOPPED = 3;
export const MSB_STATE_CRASHED = 4;
export const MSB_JAILED_YES = 1;
export const MSB_JAILED_NO = 2;
export const MSB_REASON_STOPPED = 1;
export const MSB_REASON_KILLED = 2;
export const MSB_REASON_CREATOR_GONE = 3;
export const MSB_REASON_MAX_DURATION = 4;
export const MSB_REASON_IDLE = 5;
export const MSB_REASON_CRASHED = 6;
export const MSB_REASON_BOOT_FAILED = 7;
export const MSB_OPEN_START = 1;
export const MSB_REMOVE_FORCE = 1;
export const MSB_ISOLATION_HARDWARE = 1;
export const MSB_ISOLATION_EMULATED = 2;
export const MSB_ISOLATION_CONTAINER = 3;
export const MSB_ISOLATION_UNCHECKED = 4;
export const MSB_ISOLATION_GVISOR = 5;
export const MSB_PRUNE_ALL = 1;
export const MSB_VOLUME_DIRECTORY = 0;
export const MSB_VOLUME_DISK = 1;
export const MSB_EXEC_TTY = 1;
export const MSB_EXEC_WAIT_FOR_EOF = 2;
export const MSB_EXEC_SHELL = 4;
export const MSB_SESSION_ID_LEN = 33;
export const MSB_SIGNAL_GROUP = 0;
export const MSB_SIGNAL_TREE = 1;
export const MSB_FROM_NOW = -1;
export const MSB_EVENT_STARTED = 1;
export const MSB_EVENT_STDOUT = 2;
export const MSB_EVENT_STDERR = 3;
export const MSB_EVENT_STDIN_ERROR = 4;
export const MSB_EVENT_EXITED = 5;
export const MSB_EVENT_FAILED = 6;
export const MSB_EVENT_LOST = 7;
export const MSB_EVENT_WRITER_LEFT = 1;
export const MSB_EVENT_CUT = 2;
export const MSB_EXIT_CORE_DUMPED = 1;
export const MSB_EXIT_TIMED_OUT = 2;
export const MSB_FAILURE_NOT_FOUND = 1;
export const MSB_FAILURE_PERMISSION_DENIED = 2;
export const MSB_FAILURE_NOT_EXECUTABLE = 3;
export const MSB_FAILURE_BAD_CWD = 4;
export const MSB_FAILURE_BAD_ARGS = 5;
export const MSB_FAILURE_RESOURCE_LIMIT = 6;
export const MSB_FAILURE_USER_SETUP_FAILED = 7;
export const MSB_FAILURE_OUT_OF_MEMORY = 8;
export const MSB_FAILURE_PTY_SETUP_FAILED = 9;
export const MSB_FAILURE_OTHER = 10;
export const MSB_RECV_MAX = 256;
export const MSB_OUTPUT_TRUNCATED = 4;
export const MSB_SESSION_TTY = 1;
export const MSB_LOG_FOLLOW = 1;
export const MSB_LOG_STDOUT = 1;
export const MSB_LOG_STDERR = 2;
export const MSB_LOG_STARTED = 3;
export const MSB_LOG_EXITED = 4;
export const MSB_LOG_FAILED = 5;
export const MSB_LOG_LOST = 6;
export const MSB_LOG_OTHER = 7;
export const MSB_LOG_INCOMPLETE = 8;
export const MSB_FS_OP_STAT = 1;
export const MSB_FS_OP_SET_STAT = 2;
export const MSB_FS_OP_EXISTS = 3;
export const MSB_FS_OP_LIST = 4;
export const MSB_FS_OP_MKDIR = 5;
export const MSB_FS_OP_REMOVE = 6;
export const MSB_FS_OP_REMOVE_DIR = 7;
export const MSB_FS_OP_RENAME = 8;
export const MSB_FS_OP_COPY = 9;
export const MSB_FS_OP_SYMLINK = 10;
export const MSB_FS_OP_READ_LINK = 11;
export const MSB_FS_OP_REAL_PATH = 12;
export const MSB_FS_OP_READ = 13;
export const MSB_FS_OP_WRITE = 14;
export const MSB_FS_OP_OPEN_DIR = 15;
export const MSB_FS_OP_READ_DIR = 16;
export const MSB_FS_OP_CLOSE_DIR = 17;
export const MSB_FS_OP_COPY_FROM_HOST = 18;
export const MSB_FS_OP_COPY_TO_HOST = 19;
export const MSB_FS_NO_FOLLOW = 1;
export const MSB_FS_RECURSIVE = 2;
export const MSB_FS_PARENTS = 4;
export const MSB_FS_NO_REPLACE = 8;
export const MSB_FS_EXISTING = 16;
export const MSB_FS_APPEND = 32;
export const MSB_FS_IN_PLACE = 64;
export const MSB_FS_SYNC = 128;
export const MSB_FS_SET_MODE = 1;
export const MSB_FS_SET_UID = 2;
export const MSB_FS_SET_GID = 4;
export const MSB_FS_SET_SIZE = 8;
export const MSB_FS_SET_ACCESSED = 16;
export const MSB_FS_SET_MODIFIED = 32;
export const MSB_FS_KIND_FILE = 1;
export const MSB_FS_KIND_DIRECTORY = 2;
export const MSB_FS_KIND_SYMLINK = 3;
export const MSB_FS_KIND_OTHER = 4;
export const MSB_ATTACH_DETACHED = 1;

/** The kind of each status that is a failure. */
export const KIND_OF_STATUS = {
  [MSB_E_INVALID]: "invalid_argument",
  [MSB_E_HANDLE]: "closed",
  [MSB_E_CLOSED]: "closed",
  [MSB_E_BUSY]: "busy",
  [MSB_E_UNSUPPORTED]: "unsupported",
  [MSB_E_LIMIT]: "limit_reached",
  [MSB_E_IO]: "io",
  [MSB_E_INTERNAL]: "internal",
  [MSB_E_PROTOCOL]: "protocol",
  [MSB_E_TIMED_OUT]: "timed_out",
  [MSB_E_CONFIG]: "invalid_config",
  [MSB_E_NOT_FOUND]: "sandbox_not_found",
  [MSB_E_EXISTS]: "sandbox_already_exists",
  [MSB_E_NOT_RUNNING]: "sandbox_not_running",
  [MSB_E_RUNNING]: "sandbox_running",
  [MSB_E_NO_DRIVER]: "no_driver",
  [MSB_E_BOOT]: "boot_failed",
  [MSB_E_CRASHED]: "sandbox_crashed",
  [MSB_E_EXEC_FAILED]: "exec_failed",
  [MSB_E_EXEC_TIMEOUT]: "exec_timeout",
  [MSB_E_LOST]: "stream_lost",
  [MSB_E_PIPE]: "broken_pipe",
  [MSB_E_NO_PROCESS]: "no_such_process",
  [MSB_E_NO_SESSION]: "no_such_session",
  [MSB_E_NOT_A_TERMINAL]: "not_a_terminal",
  [MSB_E_NO_IMAGE]: "image_not_found",
  [MSB_E_IMAGE_DENIED]: "image_unauthorized",
  [MSB_E_REGISTRY]: "registry_unreachable",
  [MSB_E_BAD_IMAGE]: "image_invalid",
  [MSB_E_IMAGE_IN_USE]: "image_in_use",
  [MSB_E_IMAGE_FAILED]: "image_failed",
  [MSB_E_NO_SPACE]: "no_space",
  [MSB_E_NO_COMMAND]: "no_command",
  [MSB_E_NO_VOLUME]: "volume_not_found",
  [MSB_E_VOLUME_EXISTS]: "volume_already_exists",
  [MSB_E_VOLUME_IN_USE]: "volume_in_use",
  [MSB_E_NO_PATH]: "path_not_found",
  [MSB_E_PERMISSION]: "permission_denied",
  [MSB_E_FILESYSTEM]: "filesystem",
} as const;

/** The kinds of failures that calls report. */
export type StatusKind = (typeof KIND_OF_STATUS)[keyof typeof KIND_OF_STATUS];

/** `msb_sandbox_options`, as the addon takes it. */
export interface NativeSandboxOptions {
  flags: number;
  name: Buffer | undefined;
  image: Buffer | undefined;
  driver: Buffer | undefined;
  workdir: Buffer | undefined;
  shell: Buffer | undefined;
  user: Buffer | undefined;
  hostname: Buffer | undefined;
  env: Buffer[];
  labels: Buffer[];
  cpus: number;
  memoryMib: number;
  pidsLimit: number;
  maxDurationMs: number | bigint;
  idleTimeoutMs: number | bigint;
  bootTimeoutMs: number | bigint;
  logMaxBytes: number | bigint;
  logFiles: number;
  pullPolicy: number;
  security: number;
  diskMib: number | bigint;
  entrypoint: Buffer[];
  stopSignal: Buffer | undefined;
  shmSize: number | bigint;
  platform: Buffer | undefined;
  mounts: NativeMount[];
}

/** `msb_exec_options`, as the addon takes it. */
export interface NativeExecOptions {
  flags: number;
  cmd: Buffer | undefined;
  args: Buffer[];
  env: Buffer[];
  cwd: Buffer | undefined;
  user: Buffer | undefined;
  stdinData: Buffer | undefined;
  rlimits: NativeRlimit[];
  timeoutNs: number | bigint;
  drainNs: number | bigint;
  rows: number;
  cols: number;
  maxOutput: number | bigint;
}

/** `msb_mount`, as the addon takes it. */
export interface NativeMount {
  kind: number;
  flags: number;
  target: Buffer | undefined;
  source: Buffer | undefined;
  size: number | bigint;
  uid: number;
  gid: number;
}

/** `msb_rlimit`, as the addon takes it. */
export interface NativeRlimit {
  resource: number;
  soft: number | bigint;
  hard: number | bigint;
}
