/**
 * Loads the addon and declares what native/*.c exports.
 *
 * @internal
 * @module
 */

import type { NativeExecOptions, NativeSandboxOptions } from "./abi";

// Node has these symbols from 18.18 on.
for (const name of ["asyncDispose", "dispose"]) {
  if (!(name in Symbol)) Object.defineProperty(Symbol, name, { value: Symbol(`Symbol.${name}`) });
}

/** A handle of the library, which the garbage collector closes if nothing else does. */
export interface Cell {
  readonly cell: unique symbol;
}

export interface NativeExit {
  code: number;
  signal: number;
  flags: number;
  userMs: number;
  systemMs: number;
  wallMs: number;
  maxRss: number;
}

export interface NativeFailure {
  kind: string;
  errno: number;
  errnoName: string;
  stage: string;
  message: string;
  path: Buffer;
}

export interface NativeOutput {
  kind: number;
  flags: number;
  stdout: Buffer;
  stderr: Buffer;
  stdoutTotal: number;
  stderrTotal: number;
  exit: NativeExit | null;
  failure: NativeFailure | null;
  lost: Buffer;
}

export interface NativeBounds {
  pids: number;
  memoryBytes: number;
  diskBytes: number;
  cpus: number;
}

export interface NativeSandboxEntry {
  name: string;
  state: number;
  isolation: number;
  reason: number;
  flags: number;
  jailed: number;
  missingWalls: string[];
  bounds: NativeBounds | null;
  cpus: number;
  memory: number;
  created: number;
  started: number;
  image: string;
  driver: string | null;
  detail: string | null;
  labels: string[];
  command: string[];
}

export interface NativeProgress {
  phase: number;
  layers: number;
  layersDone: number;
  bytes: number;
  bytesTotal: number;
}

export interface NativeImage {
  id: string;
  names: string[];
  digests: string[];
  architecture: string;
  layers: number;
  size: number;
  downloadSize: number;
  added: number;
  rootfs: string;
  env: string[];
  workdir: string | null;
  user: string | null;
  entrypoint: string[];
  cmd: string[];
  usedBy: string[];
}

export interface NativeFsEntry {
  name?: Buffer;
  kind: number;
  size: number;
  allocated: number;
  links: number;
  mode: number;
  uid: number;
  gid: number;
  accessed: number;
  modified: number;
  changed: number;
  created: number;
}

export interface NativeFsRequest {
  op: number;
  path: Buffer;
  to?: Buffer | undefined;
  user?: Buffer | undefined;
  flags?: number;
  set?: number;
  offset?: number;
  length?: number;
  size?: number;
  mode?: number;
  uid?: number;
  gid?: number;
  accessedS?: number;
  accessedNs?: number;
  modifiedS?: number;
  modifiedNs?: number;
}

export interface NativeFsResult {
  exists: boolean;
  path?: Buffer;
  entries: NativeFsEntry[];
}

export interface NativeSession {
  id: string;
  argv: string[];
  pid: number;
  flags: number;
  followers: number;
  ageMs: number;
  outputTotal: number;
  exit: NativeExit | null;
}

export interface NativeDriver {
  name: string;
  isolation: number;
  usable: boolean;
  why: string;
  hint: string | null;
  unbounded: string[];
}

export interface NativeWall {
  name: string;
  missing: string | null;
  hint: string | null;
}

export interface NativeHost {
  drivers: NativeDriver[];
  walls: NativeWall[];
}

export interface NativeRecord {
  timeNs: bigint;
  session: string | null;
  data: Buffer;
  argv: string[];
  flags: number;
  exit: NativeExit | null;
  failure: NativeFailure | null;
}

/** Arguments of a blocking call: a name and two numbers, whose meaning depends on the call. */
export interface JobSpec {
  name?: Buffer | undefined;
  first?: number | bigint;
  second?: number;
  command?: NativeExecOptions | undefined;
  detachKeys?: Buffer | undefined;
}

/** A blocking call on a thread of the addon, with a callback for its result. */
export type Job<T> = (
  cell: Cell | null,
  spec: JobSpec,
  done: (error: Error | null, value: T) => void,
) => void;

export interface Native {
  /** The kind in `last` when no event is available. */
  readonly AGAIN: number;
  readonly version: string;
  /** Kind and value of the event that was received last. */
  readonly last: Int32Array;
  sandboxCreate(options: NativeSandboxOptions): Cell;
  sandboxOpen(spec: { name: Buffer; flags: number }): Cell;
  sandboxReady(sandbox: Cell): boolean;
  sandboxEnded(sandbox: Cell): boolean;
  sandboxProgress(sandbox: Cell): NativeProgress | undefined;
  imagePull(spec: { name: Buffer; platform: Buffer | undefined }): Cell;
  imageImport(spec: {
    path: Buffer;
    name: Buffer | undefined;
    platform: Buffer | undefined;
  }): Cell;
  imageWait(image: Cell): NativeImage | undefined;
  imageProgress(image: Cell): NativeProgress | undefined;
  fsStart(sandbox: Cell, request: NativeFsRequest): Cell;
  fsWait(fs: Cell): NativeFsResult | undefined;
  fsRecv(fs: Cell): Buffer | null | undefined;
  fsSend(fs: Cell, data: Uint8Array, offset: number): number | undefined;
  fsFinish(fs: Cell): void;
  fsFailed(fs: Cell): Buffer | undefined;
  execStream(sandbox: Cell, command: NativeExecOptions, pipe: boolean): [Cell, Cell | null];
  execId(exec: Cell): string;
  execPosition(exec: Cell): [number, number];
  execRecv(exec: Cell): unknown;
  execWait(exec: Cell): unknown;
  execCollect(exec: Cell): NativeOutput | undefined;
  logsRecv(logs: Cell): NativeRecord | undefined;
  sinkWrite(sink: Cell, data: Uint8Array, offset: number): number | undefined;
  lentMax(bytes: number): void;
  arm(cell: Cell, ready: () => void): void;
  disarm(cell: Cell): void;
  close(cell: Cell): boolean;
  counts(): { cells: number; polls: number; lent: number };
  hold(whether: boolean): void;
  execSignal: Job<void>;
  execResize: Job<void>;
  execReattach: Job<[Cell, Cell | null]>;
  execList: Job<NativeSession[]>;
  sandboxInfo: Job<NativeSandboxEntry[]>;
  sandboxList: Job<NativeSandboxEntry[]>;
  sandboxStop: Job<void>;
  sandboxKill: Job<void>;
  sandboxRemove: Job<void>;
  doctor: Job<NativeHost>;
  imageList: Job<NativeImage[]>;
  imageRemove: Job<void>;
  imagePrune: Job<number>;
  logsOpen: Job<Cell>;
  attach: Job<number>;
}

function load(): Native {
  const chosen = process.env["MSB_NODE_ADDON"];
  if (chosen) return require(chosen) as Native;
  const name = `@microsandbox/${process.platform}-${process.arch}-gnu`;
  try {
    return require(name) as Native;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "MODULE_NOT_FOUND") throw error;
    throw new Error(
      `${name} is not installed: it is an optional dependency of microsandbox, left out by ` +
        "--omit=optional, and exists for 64-bit Linux with glibc",
      { cause: error },
    );
  }
}

export const native = load();
