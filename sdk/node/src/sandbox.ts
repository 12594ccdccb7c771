import * as abi from "./abi";
import { text, whole, type Text } from "./check";
import {
  sandboxOptions,
  type CreateOptions,
  type PullPolicy,
  type SandboxOptions,
  type Security,
} from "./create";
import { ClosedError, InvalidArgumentError, MicrosandboxError, StreamLostError } from "./errors";
import { SandboxFsOps } from "./fs";
import { ExecHandle, positionOf, type ReattachFrom } from "./handle";
import { sandboxInfo, sessionInfo, type SandboxInfo, type SandboxStatus, type SessionInfo } from "./info";
import { LogReader, logsSpec, type LogsOptions } from "./logs";
import type { MountBuilder } from "./mounts";
import { native, type Cell } from "./native";
import { AttachOptionsBuilder, ExecOptionsBuilder, type Command } from "./options";
import type { ExecOutput } from "./output";
import { checkedCallback, reporting, type Progress, type ProgressOptions } from "./progress";
import { call, job, Waiter, type WaitOptions } from "./wait";

type Configure<B> = (builder: B) => B;

const STOP_GRACE_MS = 10_000;

/**
 * A sandbox and everything that runs in it.
 *
 * Unless it is `detached` it ends within two seconds of the end of the process that created it. An
 * idle object does not keep the process alive. Every call that waits takes an `AbortSignal`, which
 * ends only the wait; but cancelling a collecting call kills the command, since no handle to it is
 * left.
 */
export class Sandbox implements AsyncDisposable {
  /** Its name. */
  readonly name: string;
  readonly #waiter: Waiter;
  /** Whether leaving an `await using` scope stops it. */
  readonly #owned: boolean;
  /** Whether commands can be started without waiting for the connection. */
  #connected: boolean;

  private constructor(name: string, cell: Cell, owned: boolean, connected: boolean) {
    this.name = name;
    this.#waiter = new Waiter(cell);
    this.#owned = owned;
    this.#connected = connected;
  }

  /**
   * Create a sandbox and start it. Resolves when it can run commands.
   *
   * @param name - 1 to 128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
   * @throws {@link SandboxAlreadyExistsError}, {@link InvalidConfigError}, {@link NoDriverError} or
   * {@link BootFailedError}; for its image {@link ImageNotFoundError} and the other errors of
   * {@link Image.pull}. Cancelling during the image pull cancels creation; after the pull creation
   * continues, and {@link Sandbox.get} finds the sandbox. If `onProgress` throws, the sandbox is
   * removed in either case.
   */
  static async create(name: string, options: CreateOptions): Promise<Sandbox> {
    const onProgress = checkedCallback(options);
    if (options.signal?.aborted) throw options.signal.reason;
    const cell = call(() => native.sandboxCreate(sandboxOptions(name, options)));
    const sandbox = new Sandbox(name, cell, !options.detached, true);
    return sandbox.#ready(options.signal, onProgress);
  }

  /** Return a builder of a sandbox. */
  static builder(name: string): SandboxBuilder {
    return new SandboxBuilder(name, (name, options) => Sandbox.create(name, options));
  }

  /**
   * Find a sandbox by its name, running or not, created by any process.
   *
   * @throws {@link SandboxNotFoundError}
   */
  static get(name: string, options: WaitOptions = {}): Promise<Sandbox> {
    return Sandbox.#open(name, 0, options.signal);
  }

  /**
   * Start a stopped sandbox with its existing files.
   *
   * @throws {@link SandboxNotFoundError}, {@link SandboxRunningError}
   */
  static start(name: string, options: WaitOptions = {}): Promise<Sandbox> {
    return Sandbox.#open(name, abi.MSB_OPEN_START, options.signal);
  }

  /** List all sandboxes, sorted by name, running or not. */
  static async list(options: WaitOptions = {}): Promise<SandboxInfo[]> {
    return (await job(native.sandboxList, null, {}, options.signal)).map(sandboxInfo);
  }

  /**
   * Remove a sandbox and its files; with `force`, kill a running one first.
   *
   * @throws {@link SandboxNotFoundError}, {@link SandboxRunningError}
   */
  static async remove(name: string, options: { force?: boolean } & WaitOptions = {}): Promise<void> {
    const first = options.force ? abi.MSB_REMOVE_FORCE : 0;
    await job(native.sandboxRemove, null, { name: text("the name", name), first }, options.signal);
  }

  static async #open(name: string, flags: number, signal?: AbortSignal): Promise<Sandbox> {
    if (signal?.aborted) throw signal.reason;
    const cell = call(() => native.sandboxOpen({ name: text("the name", name), flags }));
    return new Sandbox(name, cell, false, flags !== 0).#ready(signal);
  }

  /** Resolves when it is ready. Reports the progress of its image until then. */
  async #ready(
    signal: AbortSignal | undefined,
    onProgress?: ProgressOptions["onProgress"],
  ): Promise<Sandbox> {
    const { cell } = this.#waiter;
    let threw = false;
    const guarded: typeof onProgress = onProgress && ((progress) => {
      threw = true;
      onProgress(progress);
      threw = false;
    });
    const look = () => native.sandboxReady(cell) || undefined;
    try {
      await this.#waiter.until(reporting(() => native.sandboxProgress(cell), guarded, look), signal);
      return this;
    } catch (error) {
      if (threw) void this.#undo();
      else this.close();
      throw error;
    }
  }

  /** Kills and removes the sandbox, and cancels the pull of its image. */
  async #undo(): Promise<void> {
    const { cell } = this.#waiter;
    try {
      await job(native.sandboxKill, cell);
      await job(native.sandboxRemove, null, { name: text("the name", this.name), first: 0 });
    } catch {
      // It did not boot, or another caller removed it first.
    } finally {
      this.close();
    }
  }

  #cell(): Cell {
    if (this.#waiter.closed) throw new ClosedError("the sandbox was closed");
    return this.#waiter.cell;
  }

  /**
   * Run a command inside the sandbox and wait for it to complete. Collects all stdout and stderr
   * into memory. An exit code other than 0 is a result, not an error.
   *
   * @throws {@link ExecFailedError} when it did not start, {@link ExecTimeoutError} when it timed
   * out, {@link StreamLostError} when the sandbox was lost first.
   */
  async exec(cmd: Text, args: Iterable<Text> = [], options: WaitOptions = {}): Promise<ExecOutput> {
    return this.execWith(cmd, (b) => b.args(args), options);
  }

  /** As {@link Sandbox.exec}, with options for this execution only. */
  async execWith(
    cmd: Text,
    configure: Configure<ExecOptionsBuilder>,
    options: WaitOptions = {},
  ): Promise<ExecOutput> {
    return this.#collected(built(configure, cmd, false), options.signal);
  }

  /**
   * Run a command through the sandbox's configured shell (defaults to `/bin/sh`). Shell syntax like
   * pipes, redirects, and `&&` chains works. Fails as {@link Sandbox.exec} does.
   */
  async shell(script: Text, options: WaitOptions = {}): Promise<ExecOutput> {
    return this.shellWith(script, (b) => b, options);
  }

  /** As {@link Sandbox.shell}, with overrides. The first argument is the script's `$0`. */
  async shellWith(
    script: Text,
    configure: Configure<ExecOptionsBuilder>,
    options: WaitOptions = {},
  ): Promise<ExecOutput> {
    return this.#collected(built(configure, script, true), options.signal);
  }

  /**
   * Run a command with streaming output: the handle delivers stdout, stderr and the exit as they
   * happen, including a failure to start.
   */
  async execStream(
    cmd: Text,
    args: Iterable<Text> = [],
    options: WaitOptions = {},
  ): Promise<ExecHandle> {
    return this.execStreamWith(cmd, (b) => b.args(args), options);
  }

  /** Streaming variant of {@link Sandbox.execWith}. */
  async execStreamWith(
    cmd: Text,
    configure: Configure<ExecOptionsBuilder>,
    options: WaitOptions = {},
  ): Promise<ExecHandle> {
    return this.#started(built(configure, cmd, false), options.signal);
  }

  /** Run a shell command with streaming output. */
  async shellStream(script: Text, options: WaitOptions = {}): Promise<ExecHandle> {
    return this.shellStreamWith(script, (b) => b, options);
  }

  /** Streaming variant of {@link Sandbox.shellWith}. */
  async shellStreamWith(
    script: Text,
    configure: Configure<ExecOptionsBuilder>,
    options: WaitOptions = {},
  ): Promise<ExecHandle> {
    return this.#started(built(configure, script, true), options.signal);
  }

  async #started(command: Command, signal: AbortSignal | undefined): Promise<ExecHandle> {
    if (signal?.aborted) throw signal.reason;
    const cell = this.#cell();
    if (!this.#connected) {
      // The first call connects, which may take a while.
      await job(native.execList, cell, {}, signal);
      this.#connected = true;
    }
    const [exec, sink] = call(() => native.execStream(this.#cell(), command.native, command.pipe));
    return new ExecHandle(exec, sink, command.most);
  }

  async #collected(command: Command, signal: AbortSignal | undefined): Promise<ExecOutput> {
    const handle = await this.#started(command, signal);
    try {
      return await handle.collect({ signal });
    } catch (error) {
      if (error instanceof StreamLostError) this.#connected = false;
      if (error instanceof MicrosandboxError) throw error;
      // Cancelled: no handle to the command would be left.
      void handle[Symbol.asyncDispose]();
      throw error;
    } finally {
      if (!signal?.aborted) handle.close();
    }
  }

  /**
   * Bridge your terminal directly to a process inside the sandbox for a fully interactive PTY
   * session. Press `Ctrl+]` (or configured detach keys) to disconnect without stopping the process.
   * Nothing else may read `process.stdin` during the call.
   *
   * Resolves to the exit code of the process, to 128 plus the signal number if a signal killed it,
   * or to -1 after detaching. Cancelling detaches, too.
   *
   * @throws {@link NotATerminalError} when standard input is not a terminal, {@link BusyError} when
   * another attach uses it.
   */
  async attach(cmd: Text, args: Iterable<Text> = [], options: WaitOptions = {}): Promise<number> {
    return this.attachWith(cmd, (b) => b.args(args), options);
  }

  /** As {@link Sandbox.attach}, with overrides. */
  async attachWith(
    cmd: Text,
    configure: Configure<AttachOptionsBuilder>,
    options: WaitOptions = {},
  ): Promise<number> {
    const builder = returned(configure(new AttachOptionsBuilder()));
    return this.#attached(builder.build(cmd), options.signal);
  }

  /** Bridge your terminal to the sandbox's default shell. Resolves as {@link Sandbox.attach}. */
  async attachShell(options: WaitOptions = {}): Promise<number> {
    return this.#attached({}, options.signal);
  }

  /**
   * Attach to an existing session with a terminal, by its id. Resolves as {@link Sandbox.attach}.
   *
   * @throws {@link NoSuchSessionError}
   */
  async attachSession(
    id: string,
    options: { detachKeys?: string } & WaitOptions = {},
  ): Promise<number> {
    const builder = new AttachOptionsBuilder();
    if (options.detachKeys !== undefined) builder.detachKeys(options.detachKeys);
    const { detachKeys } = builder.build(undefined);
    return this.#attached({ name: text("the session", id), detachKeys }, options.signal);
  }

  async #attached(spec: Parameters<typeof native.attach>[1], signal?: AbortSignal): Promise<number> {
    this.#cell();
    // A handle of its own, so that closing it detaches the terminal.
    const own = await Sandbox.get(this.name, { signal });
    try {
      return await job(native.attach, own.#cell(), spec, signal);
    } finally {
      own.close();
    }
  }

  /**
   * Reattach to a session that is running or ended recently, of this process or another. About the
   * last mebibyte of its output is kept and replayed from `from` on (0 unless set);
   * {@link ExecHandle.missed} is how much is missing. With `stdin`, {@link ExecHandle.takeStdin}
   * returns a sink if the session's input is open; closing any of its sinks ends the input.
   *
   * @throws {@link NoSuchSessionError}
   */
  async reattach(
    id: string,
    options: { from?: ReattachFrom; stdin?: boolean } & WaitOptions = {},
  ): Promise<ExecHandle> {
    const spec = {
      name: text("the session", id),
      first: positionOf(options.from ?? 0),
      second: options.stdin ? 1 : 0,
    };
    const discard = (cells: [Cell, Cell | null]) => {
      for (const cell of cells) if (cell) native.close(cell);
    };
    const cells = await job(native.execReattach, this.#cell(), spec, options.signal, discard);
    return new ExecHandle(...cells, Infinity);
  }

  /**
   * Open the log of its sessions' output, also after it has ended. It has one if it was created
   * with `log`.
   *
   * @throws {@link InvalidConfigError} when it has no log.
   */
  async logs(options: LogsOptions & WaitOptions = {}): Promise<LogReader> {
    const discard = (cell: Cell) => native.close(cell);
    const spec = logsSpec(options);
    return new LogReader(await job(native.logsOpen, this.#cell(), spec, options.signal, discard));
  }

  /** Return the operations on its files. */
  fs(): SandboxFsOps {
    return new SandboxFsOps(() => this.#cell());
  }

  /** List the sessions that are running in it or ended recently. */
  async sessions(options: WaitOptions = {}): Promise<SessionInfo[]> {
    return (await job(native.execList, this.#cell(), {}, options.signal)).map(sessionInfo);
  }

  /**
   * Return its current description.
   *
   * @throws {@link SandboxNotFoundError} when it was removed.
   */
  async info(options: WaitOptions = {}): Promise<SandboxInfo> {
    const [entry] = await job(native.sandboxInfo, this.#cell(), {}, options.signal);
    if (!entry) throw new MicrosandboxError("internal", "the library returned no description of the sandbox");
    return sandboxInfo(entry);
  }

  /** Return its current state. */
  async status(options: WaitOptions = {}): Promise<SandboxStatus> {
    return (await this.info(options)).status;
  }

  /**
   * Stop it: signal its commands to exit, and kill them after `timeout` milliseconds (10,000 unless
   * set). Resolves when it has ended.
   *
   * @throws {@link SandboxNotRunningError} when it had ended before, {@link SandboxCrashedError}
   * when it ended unexpectedly first.
   */
  async stop(options: { timeout?: number } & WaitOptions = {}): Promise<void> {
    const first = whole("the timeout", options.timeout ?? STOP_GRACE_MS, 0, 2 ** 32 - 1);
    await job(native.sandboxStop, this.#cell(), { first }, options.signal);
  }

  /** Kill it and everything that runs in it. Fails as {@link Sandbox.stop} does. */
  async kill(options: WaitOptions = {}): Promise<void> {
    await job(native.sandboxKill, this.#cell(), {}, options.signal);
  }

  /**
   * Wait until it has ended for any reason; {@link Sandbox.info} has the reason.
   *
   * @throws {@link SandboxCrashedError} when it ended unexpectedly.
   */
  async wait(options: WaitOptions = {}): Promise<void> {
    const cell = this.#cell();
    await this.#waiter.until(() => native.sandboxEnded(cell) || undefined, options.signal);
  }

  /**
   * Close the handle; the sandbox and its commands keep running. Idempotent; pending calls get
   * {@link ClosedError}.
   */
  close(): void {
    this.#waiter.close();
  }

  /**
   * On `await using` scope exit: stops it if this object created it and it is not detached, and
   * closes the handle. Never rejects.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#owned && !this.#waiter.closed) await this.stop().catch(() => {});
    this.close();
  }
}

/** Rejects a callback that does not return the builder: its options would be ignored. */
function returned<B>(builder: B): B {
  if (builder) return builder;
  throw new InvalidArgumentError("the callback must return the builder");
}

function built(configure: Configure<ExecOptionsBuilder>, cmd: Text, shell: boolean): Command {
  return returned(configure(new ExecOptionsBuilder())).build(cmd, shell);
}

/** Builder of a sandbox: `Sandbox.builder(name).image(...).create()`. */
export class SandboxBuilder {
  #options: Partial<SandboxOptions> = {};
  #onProgress: ProgressOptions["onProgress"];

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
  onProgress(callback: (progress: Progress) => void): this {
    this.#onProgress = callback;
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
  /** As {@link SandboxOptions.shmSize}. */
  shmSize(bytes: number): this {
    return this.#set("shmSize", bytes);
  }
  /** As {@link SandboxOptions.pidsLimit}. */
  pidsLimit(count: number): this {
    return this.#set("pidsLimit", count);
  }
  /** As {@link SandboxOptions.disk}. */
  disk(mib: number): this {
    return this.#set("disk", mib);
  }
  /** As {@link SandboxOptions.requireJail}. */
  requireJail(require = true): this {
    return this.#set("requireJail", require);
  }
  /** As {@link SandboxOptions.security}. */
  security(security: Security): this {
    return this.#set("security", security);
  }
  /** As {@link SandboxOptions.entrypoint}. */
  entrypoint(words: string | readonly string[]): this {
    return this.#set("entrypoint", words);
  }
  /** As {@link SandboxOptions.init}. */
  init(enabled = true): this {
    return this.#set("init", enabled);
  }
  /** As {@link SandboxOptions.stopSignal}. */
  stopSignal(signal: string | number): this {
    return this.#set("stopSignal", signal);
  }
  /** Adds one variable for every command. */
  env(key: string, value: string): this {
    return this.envs({ [key]: value });
  }
  /** Adds many variables for every command. */
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
  /** Adds one mount, as {@link SandboxOptions.volumes}. */
  volume(guestPath: string, configure: (mount: MountBuilder) => MountBuilder): this {
    return this.#set("volumes", { ...this.#options.volumes, [guestPath]: configure });
  }
  /** Adds one label. */
  label(key: string, value: string): this {
    return this.labels({ [key]: value });
  }
  /** Adds many labels. */
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

  /** Creates the sandbox; see {@link Sandbox.create}. */
  async create(options: WaitOptions = {}): Promise<Sandbox> {
    const { image } = this.#options;
    if (image === undefined) throw new InvalidArgumentError("the sandbox has no image");
    return this.make(this.name, { ...this.#options, image, onProgress: this.#onProgress, ...options });
  }
}
