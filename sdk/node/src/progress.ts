/** How far getting an image is, and telling of it. */
import { InvalidArgumentError } from "./errors";
import type { NativeProgress } from "./native";

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
   * Called with the newest progress, at each layer and about ten times a second; a step that is over
   * at once may be left out. What it throws ends the call, which rejects with that.
   */
  onProgress?: ((progress: Progress) => void) | undefined;
}

/* At the place of their number in C; 0 is none. */
const PHASES: readonly ImagePhase[] = ["resolving", "downloading", "unpacking", "starting"];

/** Refuses what cannot be called, before anything is begun. @internal */
export function checkedCallback({ onProgress }: ProgressOptions): ProgressOptions["onProgress"] {
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new InvalidArgumentError("onProgress is no function");
  }
  return onProgress;
}

/** What looks with `look`, and tells of the progress before it does. @internal */
export function telling<T>(
  progress: () => NativeProgress | undefined,
  told: ProgressOptions["onProgress"],
  look: () => T | undefined,
): () => T | undefined {
  // Who never asks for news is not woken by them either.
  if (!told) return look;
  const tell = () => {
    for (let news = progress(); news; news = progress()) {
      const phase = PHASES[news.phase - 1];
      if (!phase) continue;
      const { layers, layersDone, bytes, bytesTotal } = news;
      told({ phase, layers: layers || null, layersDone, bytes, bytesTotal: bytesTotal || null });
    }
  };
  return () => {
    tell();
    const found = look();
    if (found !== undefined) tell();
    return found;
  };
}
