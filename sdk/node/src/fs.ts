import * as abi from "./abi";
import { bytesOf, optional, text, whole, type Text } from "./check";
import { ClosedError, InvalidArgumentError, MicrosandboxError } from "./errors";
import { native, type Cell, type NativeFsEntry, type NativeFsRequest, type NativeFsResult } from "./native";
import { call, fairly, Reader, Waiter, type WaitOptions } from "./wait";

/** Type of a file. */
export type FsEntryKind = "file" | "directory" | "symlink" | "other";

/** Attributes of a file. */
export interface FsMetadata {
  /** Its type. */
  readonly kind: FsEntryKind;
  /** Length in bytes; of a link, of its target. */
  readonly size: number;
  /** Permissions with set-user-id, set-group-id and sticky bit. */
  readonly mode: number;
  /** Its owner. */
  readonly uid: number;
  /** Its group. */
  readonly gid: number;
  /** Whether nobody may write to it. */
  readonly readonly: boolean;
  /** Time of the last access. */
  readonly accessed: Date;
  /** Time of the last change of the content. */
  readonly modified: Date;
  /** Time of the last change of the attributes. */
  readonly changed: Date;
  /** Time of creation; `null` where the file system does not record it. */
  readonly created: Date | null;
  /** Number of hard links. */
  readonly links: number;
  /** Bytes on the disk. */
  readonly allocated: number;
}

/** An entry of a directory. A link is not followed. */
export interface FsEntry extends FsMetadata {
  /** Its path; what is not UTF-8 is replaced. */
  readonly path: string;
  /** Its name in the directory, likewise. */
  readonly name: string;
  /** Its name: any bytes. */
  readonly nameBytes: Uint8Array;
}

/** Options of a write. */
export interface FsWriteOptions {
  /** Mode of the file, instead of that of the old file, or 0644. */
  mode?: number | undefined;
  /** Makes missing parent directories. */
  parents?: boolean | undefined;
  /** Appends to the content, in place. */
  append?: boolean | undefined;
  /** Fails if the file exists. */
  createNew?: boolean | undefined;
  /** Waits for the disk. */
  sync?: boolean | undefined;
}

/** New attributes of a file; those that are not set stay. */
export interface FsSetAttrs {
  mode?: number | undefined;
  uid?: number | undefined;
  gid?: number | undefined;
  size?: number | undefined;
  accessed?: Date | undefined;
  modified?: Date | undefined;
  /** Changes a symbolic link itself if it is `false`. */
  followSymlink?: boolean | undefined;
}

const KINDS: Readonly<Record<number, FsEntryKind>> = {
  [abi.MSB_FS_KIND_FILE]: "file",
  [abi.MSB_FS_KIND_DIRECTORY]: "directory",
  [abi.MSB_FS_KIND_SYMLINK]: "symlink",
};

function metadata(raw: NativeFsEntry): FsMetadata {
  return {
    kind: KINDS[raw.kind] ?? "other",
    size: raw.size,
    mode: raw.mode,
    uid: raw.uid,
    gid: raw.gid,
    readonly: (raw.mode & 0o222) === 0,
    accessed: new Date(raw.accessed),
    modified: new Date(raw.modified),
    changed: new Date(raw.changed),
    created: raw.created ? new Date(raw.created) : null,
    links: raw.links,
    allocated: raw.allocated,
  };
}

/** Adds the path on which an operation failed to its error. */
function located<T>(cell: Cell, look: () => T): T {
  try {
    return call(look);
  } catch (error) {
    const path = native.fsFailed(cell);
    if (path && error instanceof MicrosandboxError) error.path = path.toString();
    throw error;
  }
}

/** Content of a file, piece by piece. It has one reader at a time. */
export class FsReadStream implements AsyncIterable<Uint8Array>, AsyncDisposable {
  readonly #reader: Reader;

  /** @internal */
  constructor(cell: Cell) {
    this.#reader = new Reader(cell);
  }

  #next = (): Uint8Array | null | undefined =>
    located(this.#reader.cell, () => native.fsRecv(this.#reader.cell));

  /** Receive the next piece; `null` at the end. Cancelling loses nothing. */
  recv(options: WaitOptions = {}): Promise<Uint8Array | null> {
    return this.#reader.read(this.#next, options.signal);
  }

  /** Receive everything that was not received, and close the stream. */
  async collect(options: WaitOptions = {}): Promise<Uint8Array> {
    try {
      const pieces: Uint8Array[] = [];
      for (;;) {
        const piece = await this.recv(options);
        if (piece === null) return Buffer.concat(pieces);
        pieces.push(piece);
      }
    } finally {
      this.close();
    }
  }

  /** Iterate pieces with `for await...of`. Leaving the loop closes the stream. */
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return this.#reader.iterator(this.#next, () => this.close());
  }

  /** Cancel the rest. Idempotent. */
  close(): void {
    this.#reader.close();
  }

  /** Calls `close()` on `await using` scope exit. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/** Writes a file, piece by piece. The file has its new content once `close` has resolved. */
export class FsWriteSink implements AsyncDisposable {
  readonly #waiter: Waiter;
  #writing = false;

  /** @internal */
  constructor(cell: Cell) {
    this.#waiter = new Waiter(cell);
  }

  /** Write all bytes, waiting while the sandbox is behind. Await one write before the next. */
  async write(data: Uint8Array | string, options: WaitOptions = {}): Promise<void> {
    const bytes = bytesOf(data);
    if (this.#waiter.closed) throw new ClosedError("the file was closed");
    if (this.#writing) throw new InvalidArgumentError("another write to this file is in progress");
    this.#writing = true;
    const { cell } = this.#waiter;
    try {
      for (let done = 0; done < bytes.length; ) {
        const look = () => located(cell, () => native.fsSend(cell, bytes, done));
        done += await this.#waiter.until(look, options.signal);
        await fairly();
      }
    } finally {
      this.#writing = false;
    }
  }

  /** Complete the file: the sandbox has closed it without error. Closing twice is fine. */
  async close(options: WaitOptions = {}): Promise<void> {
    if (this.#waiter.closed) return;
    const { cell } = this.#waiter;
    try {
      options.signal?.throwIfAborted();
      located(cell, () => native.fsFinish(cell));
      await this.#waiter.until(() => located(cell, () => native.fsWait(cell)), options.signal);
    } finally {
      this.#waiter.close();
    }
  }

  /** Cancel the write: the old content stays, or no file. Idempotent. */
  abort(): void {
    this.#waiter.close();
  }

  /** Calls `abort()` on `await using` scope exit, which is a no-op after `close()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.abort();
  }
}

function writeRequest(path: Text, options: FsWriteOptions): NativeFsRequest {
  let flags = 0;
  if (options.parents) flags |= abi.MSB_FS_PARENTS;
  if (options.append) flags |= abi.MSB_FS_APPEND;
  if (options.createNew) flags |= abi.MSB_FS_NO_REPLACE;
  if (options.sync) flags |= abi.MSB_FS_SYNC;
  const request = { op: abi.MSB_FS_OP_WRITE, path: text("the path", path), flags };
  if (options.mode === undefined) return request;
  return { ...request, set: abi.MSB_FS_SET_MODE, mode: whole("the mode", options.mode, 0, 0o7777) };
}

function attributes(attrs: FsSetAttrs): Omit<NativeFsRequest, "op" | "path"> {
  const found: Omit<NativeFsRequest, "op" | "path"> = {};
  let set = 0;
  for (const [name, most, bit] of [
    ["mode", 0o7777, abi.MSB_FS_SET_MODE],
    ["uid", 2 ** 32 - 2, abi.MSB_FS_SET_UID],
    ["gid", 2 ** 32 - 2, abi.MSB_FS_SET_GID],
    ["size", Number.MAX_SAFE_INTEGER, abi.MSB_FS_SET_SIZE],
  ] as const) {
    const value = attrs[name];
    if (value === undefined) continue;
    found[name] = whole(`the ${name}`, value, 0, most);
    set |= bit;
  }
  for (const [name, bit] of [
    ["accessed", abi.MSB_FS_SET_ACCESSED],
    ["modified", abi.MSB_FS_SET_MODIFIED],
  ] as const) {
    const time = attrs[name]?.getTime();
    if (time === undefined) continue;
    if (Number.isNaN(time)) throw new InvalidArgumentError(`the time ${name} is invalid`);
    found[`${name}S`] = Math.floor(time / 1000);
    found[`${name}Ns`] = (time - Math.floor(time / 1000) * 1000) * 1_000_000;
    set |= bit;
  }
  return { ...found, set, flags: attrs.followSymlink === false ? abi.MSB_FS_NO_FOLLOW : 0 };
}

/**
 * Operations on the files of a sandbox, which need no program in it: {@link Sandbox.fs}.
 *
 * Paths are absolute; a `Uint8Array` is any bytes. A symbolic link at the end of a path is followed,
 * unless a method says otherwise. A failure on a file is a {@link PathNotFoundError},
 * {@link PermissionDeniedError} or {@link FilesystemError} with `code`, `errno` and `path`. A
 * cancelled write leaves the old content.
 */
export class SandboxFsOps {
  readonly #sandbox: () => Cell;
  readonly #user: Buffer | undefined;

  /** @internal */
  constructor(sandbox: () => Cell, user?: Buffer) {
    this.#sandbox = sandbox;
    this.#user = user;
  }

  /** Return these operations as another user: `name`, `uid`, `name:group` or `uid:gid`. */
  asUser(user: string): SandboxFsOps {
    return new SandboxFsOps(this.#sandbox, optional("the user", user));
  }

  #start(request: NativeFsRequest, signal: AbortSignal | undefined): Cell {
    signal?.throwIfAborted();
    const sandbox = this.#sandbox();
    return call(() => native.fsStart(sandbox, { ...request, user: this.#user }));
  }

  async #perform(
    op: number,
    path: Text,
    options: WaitOptions,
    more: Omit<NativeFsRequest, "op" | "path"> = {},
  ): Promise<NativeFsResult> {
    const request = { op, path: text("the path", path), ...more };
    const waiter = new Waiter(this.#start(request, options.signal));
    try {
      const { cell } = waiter;
      return await waiter.until(() => located(cell, () => native.fsWait(cell)), options.signal);
    } finally {
      waiter.close();
    }
  }

  /** Read a file. */
  async read(path: Text, options: WaitOptions = {}): Promise<Uint8Array> {
    return (await this.readStream(path, options)).collect(options);
  }

  /** Read a file that is UTF-8. */
  async readToString(path: Text, options: WaitOptions = {}): Promise<string> {
    return bytesOf(await this.read(path, options)).toString();
  }

  /** Open a file to read it piece by piece: at most `length` bytes from `offset`. */
  async readStream(
    path: Text,
    options: { offset?: number; length?: number } & WaitOptions = {},
  ): Promise<FsReadStream> {
    const most = Number.MAX_SAFE_INTEGER;
    const offset = whole("the offset", options.offset ?? 0, 0, most);
    const length = whole("the length", options.length ?? 0, 0, most);
    const request = { op: abi.MSB_FS_OP_READ, path: text("the path", path), offset, length };
    return new FsReadStream(this.#start(request, options.signal));
  }

  /** Write a file: the data becomes the whole content, at once. */
  async write(
    path: Text,
    data: Uint8Array | string,
    options: FsWriteOptions & WaitOptions = {},
  ): Promise<void> {
    const sink = await this.writeStream(path, options);
    try {
      await sink.write(data, options);
      await sink.close(options);
    } finally {
      sink.abort();
    }
  }

  /** Write a file piece by piece. */
  async writeStream(path: Text, options: FsWriteOptions & WaitOptions = {}): Promise<FsWriteSink> {
    return new FsWriteSink(this.#start(writeRequest(path, options), options.signal));
  }

  /** List a directory, sorted by name. */
  async list(path: Text, options: WaitOptions = {}): Promise<FsEntry[]> {
    const { entries } = await this.#perform(abi.MSB_FS_OP_LIST, path, options);
    const given = text("the path", path).toString();
    const folder = given.endsWith("/") ? given : `${given}/`;
    return entries.map((raw) => {
      const nameBytes = raw.name ?? Buffer.alloc(0);
      const name = nameBytes.toString();
      return { path: folder + name, name, nameBytes, ...metadata(raw) };
    });
  }

  /** Make a directory and its missing parents. An existing directory is no error. */
  async mkdir(path: Text, options: WaitOptions = {}): Promise<void> {
    await this.#perform(abi.MSB_FS_OP_MKDIR, path, options, { flags: abi.MSB_FS_PARENTS });
  }

  /** Remove a file or link, which is not followed. */
  async remove(path: Text, options: WaitOptions = {}): Promise<void> {
    await this.#perform(abi.MSB_FS_OP_REMOVE, path, options);
  }

  /** Remove a directory and everything in it. */
  async removeDir(path: Text, options: WaitOptions = {}): Promise<void> {
    await this.#perform(abi.MSB_FS_OP_REMOVE_DIR, path, options, { flags: abi.MSB_FS_RECURSIVE });
  }

  /** Remove an empty directory. */
  async removeEmptyDir(path: Text, options: WaitOptions = {}): Promise<void> {
    await this.#perform(abi.MSB_FS_OP_REMOVE_DIR, path, options);
  }

  /** Copy a file or tree inside the sandbox; `to` is the copy itself. */
  async copy(from: Text, to: Text, options: WaitOptions = {}): Promise<void> {
    await this.#perform(abi.MSB_FS_OP_COPY, from, options, { to: text("the path", to) });
  }

  /** Copy a file or tree of the host into the sandbox; `guestPath` is the copy itself. */
  async copyFromHost(hostPath: Text, guestPath: Text, options: WaitOptions = {}): Promise<void> {
    const to = text("the path", guestPath);
    await this.#perform(abi.MSB_FS_OP_COPY_FROM_HOST, hostPath, options, { to });
  }

  /** Copy a file or tree of the sandbox to the host; `hostPath` is the copy itself. Nothing that the
   * sandbox says makes it write elsewhere. */
  async copyToHost(guestPath: Text, hostPath: Text, options: WaitOptions = {}): Promise<void> {
    const to = text("the path", hostPath);
    await this.#perform(abi.MSB_FS_OP_COPY_TO_HOST, guestPath, options, { to });
  }

  /** Rename a file or directory; an existing file at the new path is replaced. */
  async rename(from: Text, to: Text, options: WaitOptions = {}): Promise<void> {
    await this.#perform(abi.MSB_FS_OP_RENAME, from, options, { to: text("the path", to) });
  }

  /** Make a symbolic link; `target` is any text. */
  async symlink(target: Text, path: Text, options: WaitOptions = {}): Promise<void> {
    await this.#perform(abi.MSB_FS_OP_SYMLINK, path, options, { to: text("the target", target) });
  }

  /** Return the target of a symbolic link. */
  async readLink(path: Text, options: WaitOptions = {}): Promise<string> {
    return String((await this.#perform(abi.MSB_FS_OP_READ_LINK, path, options)).path);
  }

  /** Return the absolute path without links, `.` and `..`. */
  async realPath(path: Text, options: WaitOptions = {}): Promise<string> {
    return String((await this.#perform(abi.MSB_FS_OP_REAL_PATH, path, options)).path);
  }

  /** Return the attributes of a file, or of a link itself. */
  async stat(
    path: Text,
    options: { followSymlink?: boolean } & WaitOptions = {},
  ): Promise<FsMetadata> {
    const flags = options.followSymlink === false ? abi.MSB_FS_NO_FOLLOW : 0;
    const { entries } = await this.#perform(abi.MSB_FS_OP_STAT, path, options, { flags });
    return metadata(entries[0] as NativeFsEntry);
  }

  /** Change attributes of a file. */
  async setStat(path: Text, attrs: FsSetAttrs, options: WaitOptions = {}): Promise<void> {
    await this.#perform(abi.MSB_FS_OP_SET_STAT, path, options, attributes(attrs));
  }

  /** Return whether a path exists. A dangling link does not. */
  async exists(path: Text, options: WaitOptions = {}): Promise<boolean> {
    return (await this.#perform(abi.MSB_FS_OP_EXISTS, path, options)).exists;
  }
}
