import { optional, pair, text, whole } from "./check";
import { InvalidArgumentError } from "./errors";
import { native, type NativeSandboxOptions } from "./native";
import type { Progress, ProgressOptions } from "./progress";
import type { Sandbox } from "./sandbox";
import type { WaitOptions } from "./wait";

/** When a registry is asked for an image: when it is not in the store, each time (what has not changed
 * is not fetched again), or not at all. */
export type PullPolicy = "missing" | "always" | "never";

/** What a new sandbox is to be; what is left out is the default. Times are milliseconds. */
export interface SandboxOptions {
  /**
   * The name of an image, as in docker: `"python:3.12"`. Or a path, beginning with `/`, `./` or
   * `../`: of a directory, which is the root filesystem and is never written to, or of an archive.
   */
  image: string;
  /** When the registry is asked for the image; `"missing"` unless set. */
  pullPolicy?: PullPolicy | undefined;
  /** Processors, 1 to 4096. */
  cpus?: number | undefined;
  /** Memory in MiB, at least 16. */
  memory?: number | undefined;
  /** Variables of every command, over those of the image. */
  env?: Record<string, string> | undefined;
  /** Working directory of commands that name none; else the image's, else `/`. */
  workdir?: string | undefined;
  /** Shell for scripts; else the image's, else `/bin/sh`. */
  shell?: string | undefined;
  /** User of commands that name none: `name`, `uid`, `name:group` or `uid:gid`; else the image's,
   * else root. */
  user?: string | undefined;
  /** Host name; else the sandbox's name. */
  hostname?: string | undefined;
  /** Notes of the caller's own. */
  labels?: Record<string, string> | undefined;
  /** It outlives the process that creates it. */
  detached?: boolean | undefined;
  /** A sandbox that has the name already is ended and removed first. */
  replace?: boolean | undefined;
  /** Ended after this time. */
  maxDuration?: number | undefined;
  /** Ended when nothing ran in it for this time. */
  idleTimeout?: number | undefined;
  /** How long the start may take; 30,000 unless set. */
  bootTimeout?: number | undefined;
  /** `"container"` and such; else `$MSB_DRIVER`, else the first usable with hardware isolation. */
  driver?: string | undefined;
  /** Whether it may reach the network. */
  network?: boolean | undefined;
  /**
   * Whether the output of its sessions is kept in a log, and how much of it: at most `files` files
   * (2 to 10,000; 4 unless set) of `maxBytes` each (at least 524,288; 16 MiB unless set).
   */
  log?: boolean | { maxBytes?: number | undefined; files?: number | undefined } | undefined;
}

/** What creating a sandbox takes. */
export type CreateOptions = SandboxOptions & ProgressOptions & WaitOptions;

const KNOWN: ReadonlySet<string> = new Set([
  "image", "cpus", "memory", "env", "workdir", "shell", "user", "hostname", "labels", "detached",
  "replace", "maxDuration", "idleTimeout", "bootTimeout", "driver", "network", "log", "signal",
  "pullPolicy", "onProgress",
] satisfies (keyof CreateOptions)[]);

const MOST = Number.MAX_SAFE_INTEGER;

/** 0, the default, for what is not set; and zero is refused, which would mean it. */
function number(what: string, value: number | undefined, least = 1, most = MOST): number {
  return value === undefined ? 0 : whole(what, value, least, most);
}

const POLICIES = new Map<PullPolicy, number>([
  ["missing", native.MSB_PULL_MISSING],
  ["always", native.MSB_PULL_ALWAYS],
  ["never", native.MSB_PULL_NEVER],
]);

function policy(value: PullPolicy = "missing"): number {
  const found = POLICIES.get(value);
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`${JSON.stringify(value)} is no pull policy`);
}

function pairs(what: string, from: Record<string, string> | undefined): Buffer[] {
  return Object.entries(from ?? {}).map(([key, value]) => pair(what, key, value));
}

/** @internal */
export function sandboxOptions(name: string, options: SandboxOptions): NativeSandboxOptions {
  for (const key of Object.keys(options)) {
    if (!KNOWN.has(key)) throw new InvalidArgumentError(`a sandbox has no option ${key}`);
  }
  const log = typeof options.log === "object" ? options.log : {};
  const flags =
    (options.detached ? native.MSB_SANDBOX_DETACHED : 0) |
    (options.replace ? native.MSB_SANDBOX_REPLACE : 0) |
    (options.network ? native.MSB_SANDBOX_NETWORK : 0) |
    (options.log ? native.MSB_SANDBOX_LOG : 0);
  return {
    flags,
    name: text("the name", name),
    image: text("the image", options.image),
    driver: optional("the driver", options.driver),
    workdir: optional("the working directory", options.workdir),
    shell: optional("the shell", options.shell),
    user: optional("the user", options.user),
    hostname: optional("the host name", options.hostname),
    env: pairs("a variable", options.env),
    labels: pairs("a label", options.labels),
    cpus: number("cpus", options.cpus, 1, 4096),
    memory: number("memory", options.memory, 16, 2 ** 32 - 1),
    maxDurationMs: number("maxDuration", options.maxDuration),
    idleTimeoutMs: number("idleTimeout", options.idleTimeout),
    bootTimeoutMs: number("bootTimeout", options.bootTimeout),
    // In C the two have their defaults together only.
    logMaxBytes: options.log ? number("log.maxBytes", log.maxBytes, 524_288) || 16 << 20 : 0,
    pullPolicy: policy(options.pullPolicy),
    logFiles: options.log ? number("log.files", log.files, 2, 10_000) || 4 : 0,
  };
}

/** Builds a sandbox step by step: `Sandbox.builder(name).image(...).create()`. */
export class SandboxBuilder {
  #options: Partial<SandboxOptions> = {};
  #told: ProgressOptions["onProgress"];

  /** @internal */
  constructor(
    private readonly name: string,
    private readonly make: (name: string, options: CreateOptions) => Promise<Sandbox>,
  ) {}

  #set<K extends keyof SandboxOptions>(key: K, value: SandboxOptions[K]): this {
    this.#options[key] = value;
    return this;
  }

  /** As {@link SandboxOptions.image}. */
  image(image: string): this {
    return this.#set("image", image);
  }
  /** As {@link SandboxOptions.pullPolicy}. */
  pullPolicy(policy: PullPolicy): this {
    return this.#set("pullPolicy", policy);
  }
  /** As {@link ProgressOptions.onProgress}. */
  onProgress(told: (progress: Progress) => void): this {
    this.#told = told;
    return this;
  }
  /** As {@link SandboxOptions.cpus}. */
  cpus(cpus: number): this {
    return this.#set("cpus", cpus);
  }
  /** As {@link SandboxOptions.memory}. */
  memory(mib: number): this {
    return this.#set("memory", mib);
  }
  /** Adds one variable of every command. */
  env(key: string, value: string): this {
    return this.envs({ [key]: value });
  }
  /** Adds many variables of every command. */
  envs(vars: Record<string, string>): this {
    return this.#set("env", { ...this.#options.env, ...vars });
  }
  /** As {@link SandboxOptions.workdir}. */
  workdir(workdir: string): this {
    return this.#set("workdir", workdir);
  }
  /** As {@link SandboxOptions.shell}. */
  shell(shell: string): this {
    return this.#set("shell", shell);
  }
  /** As {@link SandboxOptions.user}. */
  user(user: string): this {
    return this.#set("user", user);
  }
  /** As {@link SandboxOptions.hostname}. */
  hostname(hostname: string): this {
    return this.#set("hostname", hostname);
  }
  /** Adds one note of the caller's own. */
  label(key: string, value: string): this {
    return this.labels({ [key]: value });
  }
  /** Adds many notes. */
  labels(labels: Record<string, string>): this {
    return this.#set("labels", { ...this.#options.labels, ...labels });
  }
  /** As {@link SandboxOptions.detached}. */
  detached(detached = true): this {
    return this.#set("detached", detached);
  }
  /** As {@link SandboxOptions.replace}. */
  replace(replace = true): this {
    return this.#set("replace", replace);
  }
  /** As {@link SandboxOptions.maxDuration}, in milliseconds. */
  maxDuration(ms: number): this {
    return this.#set("maxDuration", ms);
  }
  /** As {@link SandboxOptions.idleTimeout}, in milliseconds. */
  idleTimeout(ms: number): this {
    return this.#set("idleTimeout", ms);
  }
  /** As {@link SandboxOptions.bootTimeout}, in milliseconds. */
  bootTimeout(ms: number): this {
    return this.#set("bootTimeout", ms);
  }
  /** As {@link SandboxOptions.driver}. */
  driver(driver: string): this {
    return this.#set("driver", driver);
  }
  /** As {@link SandboxOptions.network}. */
  network(network = true): this {
    return this.#set("network", network);
  }
  /** As {@link SandboxOptions.log}. */
  log(log: SandboxOptions["log"] = true): this {
    return this.#set("log", log);
  }

  /** As {@link Sandbox.create}. */
  async create(options: WaitOptions = {}): Promise<Sandbox> {
    const { image } = this.#options;
    if (image === undefined) throw new InvalidArgumentError("a sandbox needs an image");
    return this.make(this.name, { ...this.#options, image, onProgress: this.#told, ...options });
  }
}
