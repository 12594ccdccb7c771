import { Readable, Writable } from "node:stream";
import type { ExecEvent } from "./events";
import type { ExitStatus } from "./output";

/** A command's outputs as Node streams. */
export interface ExecPipes {
  /** What it writes to standard output. */
  readonly stdout: Readable;
  /** What it writes to standard error. */
  readonly stderr: Readable;
  /** How it ended; rejects if it failed to start or was lost. */
  readonly exited: Promise<ExitStatus>;
}

/** A command's outputs as web streams. */
export interface ExecWebPipes {
  /** What it writes to standard output. */
  readonly stdout: ReadableStream<Uint8Array>;
  /** What it writes to standard error. */
  readonly stderr: ReadableStream<Uint8Array>;
  /** How it ended; rejects if it failed to start or was lost. */
  readonly exited: Promise<ExitStatus>;
}

/** How many bytes a stream buffers before the command blocks. */
const HIGH_WATER_MARK = 64 * 1024;

/** The events of a command and its exit, as an `ExecHandle` has them. */
interface Source extends AsyncIterable<ExecEvent> {
  wait(): Promise<ExitStatus>;
}

/** The input of a command, as an `ExecSink` takes it. */
interface Target {
  write(data: Uint8Array | string): Promise<void>;
  close(): Promise<void>;
}

/** Feeds one of the two outputs into a stream. */
interface Lane {
  /** Queues data. Returns whether there is room for more. */
  push(data: Uint8Array): boolean;
  /** Resolves when there is room again, or the stream has lost its reader. */
  room(): Promise<void>;
  end(): void;
  fail(error: unknown): void;
}

/** Distributes the events of a handle. A full lane blocks both outputs. */
async function pump(handle: Source, stdout: Lane, stderr: Lane): Promise<ExitStatus> {
  let status: ExitStatus | undefined;
  try {
    for await (const event of handle) {
      switch (event.kind) {
        case "stdout":
          if (!stdout.push(event.data)) await stdout.room();
          break;
        case "stderr":
          if (!stderr.push(event.data)) await stderr.room();
          break;
        case "exited":
          status = event.status;
          break;
        case "failed":
        case "lost":
          throw event.error;
      }
    }
    status ??= await handle.wait();
  } catch (error) {
    stdout.fail(error);
    stderr.fail(error);
    throw error;
  }
  stdout.end();
  stderr.end();
  return status;
}

/** A promise that another caller resolves. */
class Gate {
  #open: (() => void) | undefined;

  wait(): Promise<void> {
    return new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  open(): void {
    this.#open?.();
    this.#open = undefined;
  }
}

class ReadableLane implements Lane {
  readonly #gate = new Gate();
  readonly stream = new Readable({
    highWaterMark: HIGH_WATER_MARK,
    read: () => this.#gate.open(),
    destroy: (error, done) => {
      this.#gate.open();
      done(error);
    },
  });

  /** Discards data once the stream is destroyed. */
  push(data: Uint8Array): boolean {
    return this.stream.destroyed || this.stream.push(data);
  }

  room(): Promise<void> {
    return this.stream.destroyed ? Promise.resolve() : this.#gate.wait();
  }

  end(): void {
    if (!this.stream.destroyed) this.stream.push(null);
  }

  fail(error: unknown): void {
    this.stream.destroy(error as Error);
  }
}

class WebLane implements Lane {
  readonly #gate = new Gate();
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #cancelled = false;
  readonly stream = new ReadableStream<Uint8Array>(
    {
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#gate.open(),
      cancel: () => {
        this.#cancelled = true;
        this.#gate.open();
      },
    },
    new ByteLengthQueuingStrategy({ highWaterMark: HIGH_WATER_MARK }),
  );

  #hasRoom(): boolean {
    return this.#cancelled || (this.#controller.desiredSize ?? 0) > 0;
  }

  push(data: Uint8Array): boolean {
    if (!this.#cancelled) this.#controller.enqueue(data);
    return this.#hasRoom();
  }

  room(): Promise<void> {
    return this.#hasRoom() ? Promise.resolve() : this.#gate.wait();
  }

  end(): void {
    if (!this.#cancelled) this.#controller.close();
  }

  fail(error: unknown): void {
    if (!this.#cancelled) this.#controller.error(error);
  }
}

/** @internal */
export function pipes(handle: Source): ExecPipes {
  const stdout = new ReadableLane();
  const stderr = new ReadableLane();
  const exited = pump(handle, stdout, stderr);
  exited.catch(() => {}); // the streams report it too
  return { stdout: stdout.stream, stderr: stderr.stream, exited };
}

/** @internal */
export function webPipes(handle: Source): ExecWebPipes {
  const stdout = new WebLane();
  const stderr = new WebLane();
  const exited = pump(handle, stdout, stderr);
  exited.catch(() => {});
  return { stdout: stdout.stream, stderr: stderr.stream, exited };
}

/** @internal */
export function writable(sink: Target): Writable {
  return new Writable({
    highWaterMark: HIGH_WATER_MARK,
    decodeStrings: true,
    write: (chunk: Buffer, _encoding, done) => {
      sink.write(chunk).then(() => done(), done);
    },
    writev: (chunks, done) => {
      const data = Buffer.concat(chunks.map(({ chunk }) => chunk as Buffer));
      sink.write(data).then(() => done(), done);
    },
    final: (done) => {
      sink.close().then(() => done(), done);
    },
    destroy: (error, done) => {
      sink.close().then(() => done(error), done);
    },
  });
}

/** @internal */
export function webWritable(sink: Target): WritableStream<Uint8Array | string> {
  const close = () => sink.close();
  return new WritableStream<Uint8Array | string>(
    { write: (chunk) => sink.write(chunk), close, abort: close },
    { highWaterMark: HIGH_WATER_MARK, size: (chunk) => chunk?.length ?? 1 },
  );
}
