// The types of the reference page, checked by the compiler: this file is not run.
import {
  AttachOptionsBuilder,
  ExecHandle,
  ExecOptionsBuilder,
  ExecOutput,
  ExecSink,
  Image,
  Sandbox,
  Stdin,
  doctor,
  type Bounds,
  type ExecEvent,
  type ExitStatus,
  type ImageInfo,
  type Progress,
  type PullPolicy,
  type Rlimit,
  type RlimitResource,
  type Security,
  type StdinMode,
} from "microsandbox";

type Configure<B> = (configure: B) => B;

/** The signatures of the page: ours may accept and return more, but never less. */
interface Page {
  exec(cmd: string, args?: Iterable<string>): Promise<ExecOutput>;
  execWith(cmd: string, configure: Configure<ExecOptionsBuilder>): Promise<ExecOutput>;
  shell(script: string): Promise<ExecOutput>;
  attachShell(): Promise<number>;
  execStream(cmd: string, args?: Iterable<string>): Promise<ExecHandle>;
  execStreamWith(cmd: string, configure: Configure<ExecOptionsBuilder>): Promise<ExecHandle>;
  shellStream(script: string): Promise<ExecHandle>;
  attach(cmd: string, args?: Iterable<string>): Promise<number>;
  attachWith(cmd: string, configure: Configure<AttachOptionsBuilder>): Promise<number>;
}

interface PageOutput {
  get code(): number;
  get success(): boolean;
  get status(): ExitStatus;
  stdout(): string;
  stderr(): string;
  stdoutBytes(): Uint8Array;
  stderrBytes(): Uint8Array;
}

interface PageHandle extends AsyncIterable<ExecEvent>, AsyncDisposable {
  recv(): Promise<ExecEvent | null>;
  takeStdin(): Promise<ExecSink | null>;
  wait(): Promise<ExitStatus>;
  collect(): Promise<ExecOutput>;
  signal(signal: number): Promise<void>;
  kill(): Promise<void>;
}

interface PageSink extends AsyncDisposable {
  write(data: Uint8Array | string): Promise<void>;
  close(): Promise<void>;
}

interface PageBuilder<T> {
  arg(arg: string): T;
  args(args: string[]): T;
  cwd(cwd: string): T;
  user(user: string): T;
  env(key: string, value: string): T;
  envs(vars: Record<string, string>): T;
  rlimit(resource: RlimitResource, limit: number): T;
  rlimitRange(resource: RlimitResource, soft: number, hard: number): T;
}

interface PageExecBuilder extends PageBuilder<ExecOptionsBuilder> {
  timeout(ms: number): ExecOptionsBuilder;
  stdinNull(): ExecOptionsBuilder;
  stdinPipe(): ExecOptionsBuilder;
  stdinBytes(data: Buffer): ExecOptionsBuilder;
  tty(enabled: boolean): ExecOptionsBuilder;
}

interface PageAttachBuilder extends PageBuilder<AttachOptionsBuilder> {
  detachKeys(spec: string): AttachOptionsBuilder;
}

type PageEvent =
  | { kind: "started"; pid: number }
  | { kind: "stdout"; data: Uint8Array }
  | { kind: "stderr"; data: Uint8Array }
  | { kind: "exited"; code: number };

type PageStdinMode =
  | { kind: "null" }
  | { kind: "pipe" }
  | { kind: "bytes"; data: Uint8Array };

/** Compiles if the first type is assignable to the second. */
type Is<T extends U, U> = T;

export type Checks = [
  Is<Sandbox, Page>,
  Is<ExecOutput, PageOutput>,
  Is<ExecHandle, PageHandle>,
  Is<ExecSink, PageSink>,
  Is<ExecOptionsBuilder, PageExecBuilder>,
  Is<AttachOptionsBuilder, PageAttachBuilder>,
  Is<Extract<ExecEvent, { kind: PageEvent["kind"] }>, PageEvent>,
  Is<PageStdinMode, StdinMode>,
  Is<StdinMode, PageStdinMode>,
  Is<{ resource: RlimitResource; soft: number; hard: number }, Rlimit>,
];

export const modes: StdinMode[] = [Stdin.null(), Stdin.pipe(), Stdin.bytes("x"), Stdin.bytes(new Uint8Array())];

/** Images, as in the README. */
export async function images(): Promise<ImageInfo[]> {
  const policy: PullPolicy = "never";
  const onProgress = ({ phase, bytes, bytesTotal }: Progress) => console.log(phase, bytes, bytesTotal);
  await Sandbox.create("api", { image: "python", pullPolicy: policy, onProgress });
  await Sandbox.builder("api").image("python").pullPolicy("always").onProgress(onProgress).create();
  const freed: number = await Image.prune({ all: true });
  await Image.remove("python", { force: freed > 0 });
  return [await Image.pull("python", { onProgress }), await Image.import("./x.tar", { name: "x:1" })];
}

/** Bounds, the jail, and how both are reported. */
export async function limits(): Promise<Bounds | null> {
  const security: Security = "restricted";
  await Sandbox.create("api", { image: "python", cpus: 0.5, pidsLimit: 512, disk: 1024, security });
  const builder = Sandbox.builder("api").image("python").cpus(2).pidsLimit(512).disk(1024);
  const { jailed, missingWalls, bounds } = await (
    await builder.requireJail().security("default").create()
  ).info();
  const { walls } = await doctor();
  console.log(jailed === null || jailed, missingWalls.join(), walls[0]?.missing ?? "here");
  return bounds;
}

/** What must not compile. */
export async function refused(sandbox: Sandbox): Promise<void> {
  // @ts-expect-error a number is not a command
  await sandbox.exec(1);
  // @ts-expect-error unknown resource
  await sandbox.execWith("true", (b) => b.rlimit("files", 1));
  // @ts-expect-error the callback must return the builder
  await sandbox.execWith("true", () => undefined);
  // @ts-expect-error unknown policy
  await Sandbox.create("x", { image: "python", pullPolicy: "sometimes" });
  // @ts-expect-error cpus must be a number
  await Sandbox.create("x", { image: "python", cpus: true });
  // @ts-expect-error unknown security
  await Sandbox.create("x", { image: "python", security: "strict" });
  // @ts-expect-error a sandbox needs an image
  await Sandbox.create("x", {});
  await using handle = await sandbox.execStream("true");
  for await (const event of handle) {
    // @ts-expect-error only some events have data
    event.data;
  }
}
