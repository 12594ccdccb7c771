import * as abi from "./abi";
import { text, whole, type Text } from "./check";
import { SandboxBuilder, sandboxOptions, type CreateOptions } from "./create";
import { ClosedError, InvalidArgumentError, MicrosandboxError, StreamLostError } from "./errors";
import { ExecHandle, positionOf, type ReattachFrom } from "./handle";
import { sandboxInfo, sessionInfo, type SandboxInfo, type SandboxStatus, type SessionInfo } from "./info";
import { LogReader, logsSpec, type LogsOptions } from "./logs";
import { native, type Cell } from "./native";
import { AttachOptionsBuilder, ExecOptionsBuilder, type Command } from "./options";
import type { ExecOutput } from "./output";
import { checkedCallback, telling, type ProgressOptions } from "./progress";
import { call, job, Waiter, type WaitOptions } from "./wait";

type Configure<B> = (builder: B) => B;

const STOP_GRACE_MS = 10_000;

/**
 * A sandbox and everything that runs in it.
 *
 * Unless it is `detached` it ends, within two seconds, when the process that created it does. An
 * idle object keeps no process alive. Every call that waits takes an `AbortSignal`: a collected
 * command that is given up is killed, since nobody could reach it any more; of other calls, only
 * the wait ends.
 */
export class Sandbox implements AsyncDisposable {
  /** Its name. */
  readonly name: string;
  readonly #waiter: Waiter;
  /** Whether leaving an `await using` scope ends it. */
  readonly #ours: boolean;
  /** Whether commands can be started without a wait for the connection. */
  #connected: boolean;

  private constructor(name: string, cell: Cell, ours: boolean, connected: boolean) {
    this.name = name;
    this.#waiter = new Waiter(cell);
    this.#ours = ours;
    this.#connected = connected;
  }

  /**
   * Create a sandbox and start it. Resolves when it runs commands.
   *
   * @param name - 1 to 128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
   * @throws {@link SandboxAlreadyExistsError}, {@link InvalidConfigError}, {@link NoDriverError} or
   * {@link BootFailedError}; and of its image {@link ImageNotFoundError} and what else
   * {@link Image.pull} throws. Giving it up while the image is got ends that, and there is no
   * sandbox; later the sandbox comes up, and is found by its name. What `onProgress` throws undoes
   * that as well.
   */
  static async create(name: string, options: CreateOptions): Promise<Sandbox> {
    const told = checkedCallback(options);
    if (options.signal?.aborted) throw options.signal.reason;
    const cell = call(() => native.sandboxCreate(sandboxOptions(name, options)));
    const sandbox = new Sandbox(name, cell, !options.detached, true);
    return sandbox.#ready(options.signal, told);
  }

  /** Build a sandbox step by step. */
  static builder(name: string): SandboxBuilder {
    return new SandboxBuilder(name, (name, options) => Sandbox.create(name, options));
  }

  /**
   * Find a sandbox by its name, running or not, whoever created it.
   *
   * @throws {@link SandboxNotFoundError}
   */
  static get(name: string, options: WaitOptions = {}): Promise<Sandbox> {
    return Sandbox.#open(name, 0, options.signal);
  }

  /**
   * Start a sandbox that was stopped, with the files it was left with.
   *
   * @throws {@link SandboxNotFoundError}, {@link SandboxRunningError}
   */
  static start(name: string, options: WaitOptions = {}): Promise<Sandbox> {
    return Sandbox.#open(name, abi.MSB_OPEN_START, options.signal);
  }

  /** All sandboxes, by name, running or not. */
  static async list(options: WaitOptions = {}): Promise<SandboxInfo[]> {
    return (await job(native.sandboxList, null, {}, options.signal)).map(sandboxInfo);
  }

  /**
   * Remove a sandbox that is not running, and its files; with `force`, one that runs is killed first.
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

  /** When it is ready. Tells how far its image is meanwhile. */
  async #ready(
    signal: AbortSignal | undefined,
    told?: ProgressOptions["onProgress"],
  ): Promise<Sandbox> {
    const { cell } = this.#waiter;
    let threw = false;
    const watched: typeof told = told && ((progress) => {
      threw = true;
      told(progress);
      threw = false;
    });
    const look = () => native.sandboxReady(cell) || undefined;
    try {
      await this.#waiter.until(telling(() => native.sandboxProgress(cell), watched, look), signal);
      return this;
    } catch (error) {
      if (threw) void this.#undo();
      else this.close();
      throw error;
    }
  }

  /** Ends and removes what its creator has no use for: also the getting of its image. */
  async #undo(): Promise<void> {
    const { cell } = this.#waiter;
    try {
      await job(native.sandboxKill, cell);
      await job(native.sandboxRemove, null, { name: text("the name", this.name), first: 0 });
    } catch {
      // It did not come up, or somebody else was faster.
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
   * into memory. An exit code other than 0 is a result and no error.
   *
   * @throws {@link ExecFailedError} when it never started, {@link ExecTimeoutError} when its time
   * ran out, {@link StreamLostError} when the sandbox went first.
   */
  async exec(cmd: Text, args: Iterable<Text> = [], options: WaitOptions = {}): Promise<ExecOutput> {
    return this.execWith(cmd, (b) => b.args(args), options);
  }

  /** As {@link Sandbox.exec}, with per-execution overrides, which change nothing else. */
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
   * Run a command with streaming output: a handle that tells stdout, stderr and exit as they
   * happen, also that the command could not be started.
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
      // The first call makes the connection, which may take a while.
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
      // Given up: nobody could reach it any more.
      void handle[Symbol.asyncDispose]();
      throw error;
    } finally {
      if (!signal?.aborted) handle.close();
    }
  }

  /**
   * Bridge your terminal directly to a process inside the sandbox for a fully interactive PTY
   * session. Press `Ctrl+]` (or configured detach keys) to disconnect without stopping the process.
   * Nothing else may read `process.stdin` meanwhile.
   *
   * Resolves to the exit code of the process, 128 and the signal's number for a death by signal, or
   * -1 when it was detached from. Giving it up detaches, too.
   *
   * @throws {@link NotATerminalError} when standard input is none, {@link BusyError} when another
   * attach has it.
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
   * Take up a session with a terminal, by its id. Resolves as {@link Sandbox.attach}.
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
    // A handle of its own, so that closing it can part the terminal.
    const own = await Sandbox.get(this.name, { signal });
    try {
      return await job(native.attach, own.#cell(), spec, signal);
    } finally {
      own.close();
    }
  }

  /**
   * Follow a session that runs, or that ended a short while ago: one of this process or another's.
   * About the last mebibyte of its output is kept and replayed from `from` on (0 unless set);
   * {@link ExecHandle.missed} tells how much is missing. With `stdin`, {@link ExecHandle.takeStdin}
   * gives a sink if the session's input is open; whoever closes one ends the input for all.
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
   * Read the log of its sessions' output, which is there if it was created with `log`; also when it
   * has ended.
   *
   * @throws {@link InvalidConfigError} when it keeps none.
   */
  async logs(options: LogsOptions & WaitOptions = {}): Promise<LogReader> {
    const discard = (cell: Cell) => native.close(cell);
    const spec = logsSpec(options);
    return new LogReader(await job(native.logsOpen, this.#cell(), spec, options.signal, discard));
  }

  /** The commands that run in it, and those that ended a short while ago. */
  async sessions(options: WaitOptions = {}): Promise<SessionInfo[]> {
    return (await job(native.execList, this.#cell(), {}, options.signal)).map(sessionInfo);
  }

  /**
   * What is known about it now.
   *
   * @throws {@link SandboxNotFoundError} when it was removed.
   */
  async info(options: WaitOptions = {}): Promise<SandboxInfo> {
    const [entry] = await job(native.sandboxInfo, this.#cell(), {}, options.signal);
    if (!entry) throw new MicrosandboxError("internal", "the sandbox tells nothing of itself");
    return sandboxInfo(entry);
  }

  /** Its state now. */
  async status(options: WaitOptions = {}): Promise<SandboxStatus> {
    return (await this.info(options)).status;
  }

  /**
   * End it in order: its commands are asked to end, and killed after `timeout` milliseconds (10,000
   * unless set). Resolves when it has ended.
   *
   * @throws {@link SandboxNotRunningError} when it had ended before, {@link SandboxCrashedError}
   * when it ended by itself first.
   */
  async stop(options: { timeout?: number } & WaitOptions = {}): Promise<void> {
    const first = whole("the timeout", options.timeout ?? STOP_GRACE_MS, 0, 2 ** 32 - 1);
    await job(native.sandboxStop, this.#cell(), { first }, options.signal);
  }

  /** End it at once, with everything that runs in it. Fails as {@link Sandbox.stop} does. */
  async kill(options: WaitOptions = {}): Promise<void> {
    await job(native.sandboxKill, this.#cell(), {}, options.signal);
  }

  /**
   * Wait until it has ended, however that comes; {@link Sandbox.info} says why.
   *
   * @throws {@link SandboxCrashedError} when it ended by itself.
   */
  async wait(options: WaitOptions = {}): Promise<void> {
    const cell = this.#cell();
    await this.#waiter.until(() => native.sandboxEnded(cell) || undefined, options.signal);
  }

  /**
   * Let go of it. Ends nothing: not the sandbox and no command. Idempotent; whoever waits gets
   * {@link ClosedError}.
   */
  close(): void {
    this.#waiter.close();
  }

  /**
   * On `await using` scope exit: stops it when this process created it and it is not detached, and
   * closes it. Never rejects.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ours && !this.#waiter.closed) await this.stop().catch(() => {});
    this.close();
  }
}

/** A callback that forgets to return the builder would run without its options in silence. */
function returned<B>(builder: B): B {
  if (builder) return builder;
  throw new InvalidArgumentError("the callback has to return the builder");
}

function built(configure: Configure<ExecOptionsBuilder>, cmd: Text, shell: boolean): Command {
  return returned(configure(new ExecOptionsBuilder())).build(cmd, shell);
}
