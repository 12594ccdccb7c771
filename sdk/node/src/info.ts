import * as abi from "./abi";
import type { NativeBounds, NativeHost, NativeSandboxEntry, NativeSession } from "./native";
import { statusOf, type ExitStatus } from "./output";

/** Never started, running, ended in order, or ended by itself. */
export type SandboxStatus = "created" | "running" | "stopped" | "crashed";

/** What isolates a sandbox: a virtual machine of the processor's, one in software, a container, or a
 * virtual machine on a host that was told to skip the check for hardware isolation. */
export type Isolation = "hardware" | "emulated" | "container" | "unchecked";

/** Why a sandbox ended. */
export type EndReason =
  | "stopped"
  | "killed"
  | "creator_gone"
  | "max_duration"
  | "idle"
  | "crashed"
  | "boot_failed";

/** What a sandbox can take at most; `null` where nothing bounds it. */
export interface Bounds {
  /** Processes and threads at once. */
  readonly pids: number | null;
  /** Bytes of memory. */
  readonly memoryBytes: number | null;
  /** Bytes of its upper layer. */
  readonly diskBytes: number | null;
  /** Processors, also a fraction. */
  readonly cpus: number | null;
}

/** What is known about a sandbox. */
export interface SandboxInfo {
  /** Its name. */
  readonly name: string;
  /** Its state. */
  readonly status: SandboxStatus;
  /** What it was made from: the name of an image, or a path. */
  readonly image: string;
  /** The driver that runs it, or ran it last. */
  readonly driver: string | null;
  /** What isolates it; `null` when it was never started. */
  readonly isolation: Isolation | null;
  /** Whether every process of it on the host, but its supervisor, is in a jail with all of its walls;
   * `null` when it never came up. */
  readonly jailed: boolean | null;
  /** The walls of the jail that are missing, each with the reason. */
  readonly missingWalls: readonly string[];
  /** The bounds in force; `null` when it never came up. */
  readonly bounds: Bounds | null;
  /** How many processors were asked for. */
  readonly cpus: number | null;
  /** How much memory was asked for, in MiB. */
  readonly memory: number | null;
  /** Whether it outlives the process that created it. */
  readonly detached: boolean;
  /** The caller's own notes. */
  readonly labels: Readonly<Record<string, string>>;
  /** When it was created. */
  readonly createdAt: Date;
  /** When it was last started. */
  readonly startedAt: Date | null;
  /** Why it ended, when it is not running. */
  readonly endReason: EndReason | null;
  /** More about its end, for people. */
  readonly endDetail: string | null;
  /** What its image runs when nobody names a command; `exec` and its like know nothing of it. */
  readonly command: readonly string[];
}

/** One run of a command. */
export interface SessionInfo {
  /** Its id. */
  readonly id: string;
  /** Its process id in the guest. */
  readonly pid: number;
  /** Program and arguments, cut when they are very long. */
  readonly command: readonly string[];
  /** Whether it has a terminal. */
  readonly tty: boolean;
  /** How it ended; `null` while it runs. */
  readonly status: ExitStatus | null;
  /** How long ago it started, in milliseconds. */
  readonly ageMs: number;
  /** How many bytes it has put out. */
  readonly outputTotal: number;
  /** How many readers follow it. */
  readonly followers: number;
}

/** Whether a driver can be used on this host. */
export interface DriverInfo {
  /** Its name. */
  readonly name: string;
  /** What isolates its sandboxes. */
  readonly isolation: Isolation | null;
  /** Whether it can be used. */
  readonly usable: boolean;
  /** On what it stands when it can be used, else why it cannot. */
  readonly why: string;
  /** What would make it usable, when that is known. */
  readonly hint: string | null;
  /** What it cannot bound, each with the reason. */
  readonly unbounded: readonly string[];
}

/** Whether this host has a wall of the jail. */
export interface WallInfo {
  /** What it is called, such as `"seccomp"`. */
  readonly name: string;
  /** Why this host does not have it; `null` when it does. */
  readonly missing: string | null;
  /** What would help, when that is known. */
  readonly hint: string | null;
}

/** What this host offers. */
export interface HostInfo {
  /** In the order in which they are chosen. */
  readonly drivers: readonly DriverInfo[];
  /** Of the jail. */
  readonly walls: readonly WallInfo[];
}

/* At the place of their number in C; 0 is none. */
const STATES: readonly SandboxStatus[] = ["created", "running", "stopped", "crashed"];
const ISOLATIONS: readonly Isolation[] = ["hardware", "emulated", "container", "unchecked"];
const REASONS: readonly EndReason[] = [
  "stopped",
  "killed",
  "creator_gone",
  "max_duration",
  "idle",
  "crashed",
  "boot_failed",
];

function bounds(from: NativeBounds): Bounds {
  return {
    pids: from.pids || null,
    memoryBytes: from.memoryBytes || null,
    diskBytes: from.diskBytes || null,
    cpus: from.cpus || null,
  };
}

/** @internal */
export function sandboxInfo(entry: NativeSandboxEntry): SandboxInfo {
  const labels = entry.labels.map((label) => {
    const at = label.indexOf("=");
    return [label.slice(0, at), label.slice(at + 1)] as const;
  });
  return {
    name: entry.name,
    status: STATES[entry.state - 1] ?? "crashed",
    image: entry.image,
    driver: entry.driver,
    isolation: ISOLATIONS[entry.isolation - 1] ?? null,
    jailed: entry.jailed ? entry.jailed === abi.MSB_JAILED_YES : null,
    missingWalls: entry.missingWalls,
    bounds: entry.bounds && bounds(entry.bounds),
    cpus: entry.cpus || null,
    memory: entry.memory || null,
    detached: (entry.flags & abi.MSB_SANDBOX_DETACHED) !== 0,
    labels: Object.fromEntries(labels),
    createdAt: new Date(entry.created),
    startedAt: entry.started ? new Date(entry.started) : null,
    endReason: REASONS[entry.reason - 1] ?? null,
    endDetail: entry.detail,
    command: entry.command,
  };
}

/** @internal */
export function sessionInfo(entry: NativeSession): SessionInfo {
  const { id, pid, argv, flags, exit, ageMs, outputTotal, followers } = entry;
  return {
    id,
    pid,
    command: argv,
    tty: (flags & abi.MSB_SESSION_TTY) !== 0,
    status: exit && statusOf(exit),
    ageMs,
    outputTotal,
    followers,
  };
}

/** @internal */
export function hostInfo({ drivers, walls }: NativeHost): HostInfo {
  const isolated = drivers.map((driver) => ({
    ...driver,
    isolation: ISOLATIONS[driver.isolation - 1] ?? null,
  }));
  return { drivers: isolated, walls };
}
