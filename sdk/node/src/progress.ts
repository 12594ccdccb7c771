/** Progress of an image pull or import, and how it is reported. */
import { InvalidArgumentError } from "./errors";
import type { NativeProgress } from "./native";

/** Phase of an image pull or import: resolving the name, downloading the layers, unpacking them; or
 * the image is ready and the sandbox is starting. */
export type ImagePhase = "resolving" | "downloading" | "unpacking" | "starting";

/** Progress of an image pull or import. */
export interface Progress {
  /** Current phase. */
  readonly phase: ImagePhase;
  /** Number of layers; `null` while unknown. */
  readonly layers: number | null;
  /** Number of layers finished in this phase. */
  readonly layersDone: number;
  /** Number of bytes finished in this phase. */
  readonly bytes: number;
  /** Total number of bytes; `null` while unknown. */
  readonly bytesTotal: number | null;
}

/** Options of calls that pull or import an image. */
export interface ProgressOptions {
  /**
   * Called with the latest progress, after each layer and about ten times a second; a short phase
   * may be skipped. If it throws, the call is cancelled and rejects with that error.
   */
  onProgress?: ((progress: Progress) => void) | undefined;
}

/* Indexed by the number in C minus one; 0 means none. */
const PHASES: readonly ImagePhase[] = ["resolving", "downloading", "unpacking", "starting"];

/** Validates `onProgress` before anything is started. @internal */
export function checkedCallback({ onProgress }: ProgressOptions): ProgressOptions["onProgress"] {
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new InvalidArgumentError("onProgress is not a function");
  }
  return onProgress;
}

/** Wraps `look` to report all pending progress first. @internal */
export function reporting<T>(
  progress: () => NativeProgress | undefined,
  onProgress: ProgressOptions["onProgress"],
  look: () => T | undefined,
): () => T | undefined {
  // Without a callback no progress is read, so that progress never wakes the caller.
  if (!onProgress) return look;
  const report = () => {
    for (let next = progress(); next; next = progress()) {
      const phase = PHASES[next.phase - 1];
      if (!phase) continue;
      const { layers, layersDone, bytes, bytesTotal } = next;
      onProgress({ phase, layers: layers || null, layersDone, bytes, bytesTotal: bytesTotal || null });
    }
  };
  return () => {
    report();
    const found = look();
    if (found !== undefined) report();
    return found;
  };
}
