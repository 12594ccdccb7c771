import * as abi from "./abi";
import type { NativeSandboxOptions } from "./abi";
import { optional, pair, processors, text, truth, whole } from "./check";
import { InvalidArgumentError } from "./errors";
import { mountsOf, type Volumes } from "./mounts";
import type { ProgressOptions } from "./progress";
import type { WaitOptions } from "./wait";

/** When an image is pulled: if it is not in the store, each time (unchanged layers are not
 * downloaded again), or never. */
export type PullPolicy = "missing" | "always" | "never";

/** Privileges of commands in a virtual machine: all privileges of root in a kernel of its own, or
 * those of commands in a container. */
export type Security = "default" | "restricted";

/** Options of a new sandbox; an omitted option has its default. Times are in milliseconds. */
export interface SandboxOptions {
  /**
   * The name of an image, as in docker: `"python:3.12"`; or a path beginning with `/`, `./` or
   * `../`, of a directory, which is the root filesystem and is never modified, or of an archive.
   */
  image: string;
  /** When the image is pulled; `"missing"` unless set. */
  pullPolicy?: PullPolicy | undefined;
  /** Number of processors: 2, or a fraction such as 0.5; more than 0 and at most 4096. */
  cpus?: number | undefined;
  /** Memory in MiB, 16 to 16,777,216; unless set, the lesser of 2 GiB and half of the host's. */
  memory?: number | undefined;
  /** Size of `/dev/shm` in bytes, at least 65,536 and at most the memory, of which it is a part; 64
   * MiB unless set. */
  shmSize?: number | undefined;
  /** Processes and threads at once, at least 8; 4096 unless set. */
  pidsLimit?: number | undefined;
  /** Size of the upper layer in MiB, 16 to 16,777,216; 32 GiB unless set. */
  disk?: number | undefined;
  /** Whether the start fails if a wall of the jail is missing; `MSB_REQUIRE_JAIL=1` in the
   * environment sets it for every sandbox. */
  requireJail?: boolean | undefined;
  /** Privileges of commands in a virtual machine; `"default"` unless set. */
  security?: Security | undefined;
  /** Environment variables of every command, which override the image's. */
  env?: Record<string, string> | undefined;
  /** Default working directory of commands; else the image's, else `/`. */
  workdir?: string | undefined;
  /** Shell for scripts; else the image's, else `/bin/sh`. */
  shell?: string | undefined;
  /** Default user of commands: `name`, `uid`, `name:group` or `uid:gid`; else the image's,
   * else root. */
  user?: string | undefined;
  /** Host name; else the sandbox's name. */
  hostname?: string | undefined;
  /** A program, or a list of a program and its arguments, instead of the image's entrypoint and
   * default command; empty for none. {@link SandboxInfo.command} begins with it. */
  entrypoint?: string | readonly string[] | undefined;
  /** Signal that asks the process of each session to end when it is stopped: `"SIGINT"`, `"INT"`,
   * `2`; else the image's, else SIGTERM for every process. */
  stopSignal?: string | number | undefined;
  /** Whether it has an init that reaps orphans and forwards signals, as docker's `--init` is; every
   * sandbox has one. */
  init?: boolean | undefined;
  /** Mounts by their absolute paths in the sandbox: `{ "/data": m => m.bind("./data") }`. */
  volumes?: Volumes | undefined;
  /** Labels of the caller. */
  labels?: Record<string, string> | undefined;
  /** Whether it outlives the process that creates it. */
  detached?: boolean | undefined;
  /** Whether to kill and remove an existing sandbox with this name first. */
  replace?: boolean | undefined;
  /** Time after which it is killed. */
  maxDuration?: number | undefined;
  /** Time without a running command after which it is stopped. */
  idleTimeout?: number | undefined;
  /** Time limit of the start; 30,000 unless set. */
  bootTimeout?: number | undefined;
  /** Driver such as `"container"`; else `$MSB_DRIVER`, else the first usable one with hardware
   * isolation. */
  driver?: string | undefined;
  /** Platform of the image, such as `"linux/arm64"` or `"linux/arm/v7"`; else this host's. An image
   * whose programs this host cannot run is refused. */
  platform?: string | undefined;
  /** Whether it has access to the network. */
  network?: boolean | undefined;
  /**
   * Whether the output of its sessions is logged, and the limits of the log: at most `files` files
   * (2 to 10,000; 4 unless set) of `maxBytes` each (at least 524,288; 16 MiB unless set).
   */
  log?: boolean | { maxBytes?: number | undefined; files?: number | undefined } | undefined;
}

/** Options of {@link Sandbox.create}. */
export type CreateOptions = SandboxOptions & ProgressOptions & WaitOptions;

const KNOWN: ReadonlySet<string> = new Set([
  "image", "cpus", "memory", "env", "workdir", "shell", "user", "hostname", "labels", "detached",
  "replace", "maxDuration", "idleTimeout", "bootTimeout", "driver", "network", "log", "signal",
  "pullPolicy", "onProgress", "pidsLimit", "disk", "requireJail", "security", "platform",
  "entrypoint", "stopSignal", "shmSize", "init", "volumes",
] satisfies (keyof CreateOptions)[]);

const MAX = Number.MAX_SAFE_INTEGER;

/** Validates a number. Returns 0, which means default, if not set; so a given 0 is rejected. */
function number(what: string, value: number | undefined, least = 1, most = MAX): number {
  return value === undefined ? 0 : whole(what, value, least, most);
}

const POLICIES = new Map<PullPolicy, number>([
  ["missing", abi.MSB_PULL_MISSING],
  ["always", abi.MSB_PULL_ALWAYS],
  ["never", abi.MSB_PULL_NEVER],
]);

function policy(value: PullPolicy = "missing"): number {
  const found = POLICIES.get(value);
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`unknown pull policy ${JSON.stringify(value)}`);
}

const SECURITIES = new Map<Security, number>([
  ["default", abi.MSB_SECURITY_DEFAULT],
  ["restricted", abi.MSB_SECURITY_RESTRICTED],
]);

function securityOf(value: Security = "default"): number {
  const found = SECURITIES.get(value);
  if (found !== undefined) return found;
  const shown = JSON.stringify(value);
  throw new InvalidArgumentError(`security is ${shown}; it must be "default" or "restricted"`);
}

const FLAGS = [
  ["detached", abi.MSB_SANDBOX_DETACHED],
  ["replace", abi.MSB_SANDBOX_REPLACE],
  ["network", abi.MSB_SANDBOX_NETWORK],
  ["requireJail", abi.MSB_SANDBOX_REQUIRE_JAIL],
  ["init", abi.MSB_SANDBOX_INIT],
] as const;

/** Largest valid size, 16 TiB in MiB. */
const MAX_MIB = 16 * 1024 * 1024;

function pairs(what: string, from: Record<string, string> | undefined): Buffer[] {
  return Object.entries(from ?? {}).map(([key, value]) => pair(what, key, value));
}

/** An entrypoint; one empty text means none, and no text the image's. */
function entrypointOf(words: string | readonly string[] | undefined): Buffer[] {
  if (words === undefined) return [];
  const list = typeof words === "string" ? [words] : words;
  if (!Array.isArray(list)) throw new InvalidArgumentError("the entrypoint is no list of strings");
  return (list.length === 0 ? [""] : list).map((word: string) => text("the entrypoint", word));
}

function signalOf(signal: string | number | undefined): Buffer | undefined {
  return optional("the stop signal", typeof signal === "number" ? String(signal) : signal);
}

/** @internal */
export function sandboxOptions(name: string, options: SandboxOptions): NativeSandboxOptions {
  for (const key of Object.keys(options)) {
    if (!KNOWN.has(key)) throw new InvalidArgumentError(`unknown sandbox option ${key}`);
  }
  const log = typeof options.log === "object" ? options.log : {};
  const logged = typeof options.log === "object" || truth("log", options.log);
  let flags = logged ? abi.MSB_SANDBOX_LOG : 0;
  for (const [key, bit] of FLAGS) flags |= truth(key, options[key]) ? bit : 0;
  return {
    flags,
    name: text("the name", name),
    image: text("the image", options.image),
    driver: optional("the driver", options.driver),
    platform: optional("the platform", options.platform),
    workdir: optional("the working directory", options.workdir),
    shell: optional("the shell", options.shell),
    user: optional("the user", options.user),
    hostname: optional("the host name", options.hostname),
    env: pairs("a variable", options.env),
    labels: pairs("a label", options.labels),
    mounts: mountsOf(options.volumes),
    entrypoint: entrypointOf(options.entrypoint),
    stopSignal: signalOf(options.stopSignal),
    cpus: options.cpus === undefined ? 0 : processors(options.cpus),
    memoryMib: number("memory (in MiB)", options.memory, 16, MAX_MIB),
    shmSize: number("shmSize (in bytes)", options.shmSize, 65_536, MAX_MIB * 2 ** 20),
    pidsLimit: number("pidsLimit", options.pidsLimit, 8, 2 ** 32 - 1),
    diskMib: number("disk (in MiB)", options.disk, 16, MAX_MIB),
    security: securityOf(options.security),
    maxDurationMs: number("maxDuration", options.maxDuration),
    idleTimeoutMs: number("idleTimeout", options.idleTimeout),
    bootTimeoutMs: number("bootTimeout", options.bootTimeout),
    // In C these two options have defaults only together.
    logMaxBytes: logged ? number("log.maxBytes", log.maxBytes, 524_288) || 16 << 20 : 0,
    pullPolicy: policy(options.pullPolicy),
    logFiles: logged ? number("log.files", log.files, 2, 10_000) || 4 : 0,
  };
}
