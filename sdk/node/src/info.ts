import * as abi from "./abi";
import type { NativeBounds, NativeHost, NativeSandboxEntry, NativeSession } from "./native";
import { statusOf, type ExitStatus } from "./output";

/** Never started, running, stopped, or ended unexpectedly. */
export type SandboxStatus = "created" | "running" | "stopped" | "crashed";

/** What isolates a sandbox: hardware virtualization, emulation, a container, or a virtual machine
 * on a host configured to skip the check for hardware isolation. */
export type Isolation = "hardware" | "emulated" | "container" | "unchecked" | "gvisor";

/** Why a sandbox ended. */
export type EndReason =
  | "stopped"
  | "killed"
  | "creator_gone"
  | "max_duration"
  | "idle"
  | "crashed"
  | "boot_failed";

/** Resource limits of a sandbox; `null` means unlimited. */
export interface Bounds {
  /** Maximum number of processes and threads. */
  readonly pids: number | null;
  /** Bytes of memory. */
  readonly memoryBytes: number | null;
  /** Bytes of its upper layer. */
  readonly diskBytes: number | null;
  /** Processors, possibly a fraction. */
  readonly cpus: number | null;
}

/** Description of a sandbox. */
export interface SandboxInfo {
  /** Its name. */
  readonly name: string;
  /** Its state. */
  readonly status: SandboxStatus;
  /** The name or path of its image. */
  readonly image: string;
  /** The driver that runs it, or ran it last. */
  readonly driver: string | null;
  /** What isolates it; `null` when it was never started. */
  readonly isolation: Isolation | null;
  /** Whether all its host processes except the supervisor are in a jail with every wall; `null` if
   * it never booted. */
  readonly jailed: boolean | null;
  /** The missing walls of the jail, each with the reason. */
  readonly missingWalls: readonly string[];
  /** The limits in force; `null` if it never booted. */
  readonly bounds: Bounds | null;
  /** Requested processors. */
  readonly cpus: number | null;
  /** Requested memory, in MiB. */
  readonly memory: number | null;
  /** Whether it outlives the process that created it. */
  readonly detached: boolean;
  /** Labels of the caller. */
  readonly labels: Readonly<Record<string, string>>;
  /** When it was created. */
  readonly createdAt: Date;
  /** When it was last started. */
  readonly startedAt: Date | null;
  /** Why it ended, if it is not running. */
  readonly endReason: EndReason | null;
  /** Human-readable detail about its end. */
  readonly endDetail: string | null;
  /** Default command of its image, which `exec` and similar calls do not use. */
  readonly command: readonly string[];
}

/** One run of a command. */
export interface SessionInfo {
  /** Its id. */
  readonly id: string;
  /** Its process id in the guest. */
  readonly pid: number;
  /** Program and arguments, truncated if very long. */
  readonly command: readonly string[];
  /** Whether it has a terminal. */
  readonly tty: boolean;
  /** Exit status; `null` while it runs. */
  readonly status: ExitStatus | null;
  /** Time since its start, in milliseconds. */
  readonly ageMs: number;
  /** Number of bytes of output. */
  readonly outputTotal: number;
  /** Number of attached readers. */
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
  /** Backend details if usable, else the reason. */
  readonly why: string;
  /** The remedy, if known. */
  readonly hint: string | null;
  /** Limits that it cannot enforce, each with the reason. */
  readonly unbounded: readonly string[];
}

/** Whether a wall of the jail is available on this host. */
export interface WallInfo {
  /** Its name, such as `"seccomp"`. */
  readonly name: string;
  /** Why it is unavailable on this host; `null` if it is available. */
  readonly missing: string | null;
  /** The remedy, if known. */
  readonly hint: string | null;
}

/** Capabilities of this host. */
export interface HostInfo {
  /** Drivers, in order of preference. */
  readonly drivers: readonly DriverInfo[];
  /** Walls of the jail. */
  readonly walls: readonly WallInfo[];
}

/* Indexed by the number in C minus one; 0 means none. */
const STATES: readonly SandboxStatus[] = ["created", "running", "stopped", "crashed"];
const ISOLATIONS: readonly Isolation[] = [
  "hardware",
  "emulated",
  "container",
  "unchecked",
  "gvisor",
];
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
