/** How far getting an image is, and telling of it while something is awaited. */
import { InvalidArgumentError } from "./errors";
import type { NativeProgress } from "./native";
import { call } from "./wait";

/** Finding out what the name means, getting the layers, unpacking them; the image is there, and the
 * sandbox starts. */
export type ImagePhase = "resolving" | "downloading" | "unpacking" | "starting";

/** How far getting an image is. */
export interface Progress {
  /** What is being done. */
  readonly phase: ImagePhase;
  /** How many layers there are; `null` while that is not known. */
  readonly layers: number | null;
  /** How many of them are finished in this phase. */
  readonly layersDone: number;
  /** How many bytes are finished in this phase. */
  readonly bytes: number;
  /** How many there are; `null` while that is not known. */
  readonly bytesTotal: number | null;
}

/** What calls that get an image take. */
export interface ProgressOptions {
  /**
   * Called with the newest progress, ten times a second at most; a step that is over sooner may be
   * left out. What it throws ends the call, which rejects with that.
   */
  onProgress?: ((progress: Progress) => void) | undefined;
}

/* At the place of their number in C; 0 is none. */
const PHASES: readonly ImagePhase[] = ["resolving", "downloading", "unpacking", "starting"];

/** The descriptor of a handle tells of the end only, so the progress is looked at by the clock. */
const LOOK_AGAIN_MS = 100;

/** Refuses what cannot be called, before anything is begun. @internal */
export function checkedCallback({ onProgress }: ProgressOptions): ProgressOptions["onProgress"] {
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new InvalidArgumentError("onProgress is no function");
  }
  return onProgress;
}

/** Does `work`, and tells of its progress meanwhile. What `told` throws gives it up. @internal */
export async function telling<T>(
  look: () => NativeProgress | undefined,
  told: ProgressOptions["onProgress"],
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal | undefined) => Promise<T>,
): Promise<T> {
  if (!told) return work(signal);
  const given = new AbortController();
  const abort = () => given.abort(signal?.reason);
  const tell = () => {
    if (given.signal.aborted) return;
    try {
      const news = call(look);
      const phase = PHASES[(news?.phase ?? 0) - 1];
      if (!news || !phase) return;
      const { layers, layersDone, bytes, bytesTotal } = news;
      told({ phase, layers: layers || null, layersDone, bytes, bytesTotal: bytesTotal || null });
    } catch (error) {
      given.abort(error);
    }
  };
  signal?.addEventListener("abort", abort, { once: true });
  const timer = setInterval(tell, LOOK_AGAIN_MS);
  try {
    const result = await work(given.signal);
    tell();
    if (given.signal.aborted) throw given.signal.reason;
    return result;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", abort);
  }
}
