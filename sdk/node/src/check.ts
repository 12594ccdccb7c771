/**
 * Validates arguments before anything is sent, and converts them for the addon.
 *
 * @internal
 * @module
 */
import { InvalidArgumentError } from "./errors";

/** A string, or bytes where the value need not be valid UTF-8, such as a file name. */
export type Text = string | Uint8Array;

/** Encodes a string that must not contain NUL. */
export function text(what: string, value: Text): Buffer {
  if (typeof value !== "string" && !(value instanceof Uint8Array)) {
    throw new InvalidArgumentError(`${what} is neither a string nor a Uint8Array`);
  }
  const bytes = typeof value === "string" ? Buffer.from(value) : bytesOf(value);
  const at = bytes.indexOf(0);
  if (at >= 0) throw new InvalidArgumentError(`${what} contains a NUL byte at position ${at}`);
  return bytes;
}

/** Encodes a string as `text` does, and rejects an empty one; `undefined` if not set. */
export function optional(what: string, value: Text | undefined): Buffer | undefined {
  if (value === undefined) return undefined;
  const bytes = text(what, value);
  if (bytes.length === 0) throw new InvalidArgumentError(`${what} is empty`);
  return bytes;
}

/** Encodes `NAME=value`. */
export function pair(what: string, key: Text, value: Text): Buffer {
  const name = text(`the name of ${what}`, key);
  if (name.length === 0 || name.includes("=")) {
    const shown = JSON.stringify(name.toString());
    throw new InvalidArgumentError(`the name of ${what}, ${shown}, is empty or contains '='`);
  }
  return Buffer.concat([name, Buffer.from("="), text(`the value of ${what}`, value)]);
}

/** Returns the same bytes as a Buffer; strings are encoded as UTF-8. */
export function bytesOf(data: Uint8Array | string): Buffer {
  if (typeof data === "string") return Buffer.from(data);
  if (data instanceof Uint8Array) return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  throw new InvalidArgumentError("data is neither a string nor a Uint8Array");
}

/** Validates a boolean; false if not set. */
export function truth(what: string, value: boolean | undefined): boolean {
  if (value === undefined || typeof value === "boolean") return value ?? false;
  throw new InvalidArgumentError(`${what} is ${JSON.stringify(value)}, not true or false`);
}

/** Validates a number of processors, which may be a fraction. */
export function processors(value: number): number {
  if (typeof value === "number" && value > 0 && value <= 4096) return value;
  throw new InvalidArgumentError(`cpus is ${value}; it must be more than 0 and at most 4096`);
}

/** Validates an integer within bounds. */
export function whole(what: string, value: number | bigint, least: number, most: number): number {
  // `Number` alone would accept booleans and strings.
  const number = typeof value === "number" || typeof value === "bigint" ? Number(value) : NaN;
  if (!Number.isInteger(number) || number < least || number > most) {
    throw new InvalidArgumentError(`${what} is ${value}, not a number from ${least} to ${most}`);
  }
  return number;
}

const U64_MAX = 2n ** 64n - 1n;

/** Validates an integer from 0 to 2^64-1; `Infinity` is the largest, which means no limit. */
export function u64(what: string, value: number | bigint): bigint {
  if (value === Infinity) return U64_MAX;
  if (typeof value === "bigint" && value >= 0n && value <= U64_MAX) return value;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  throw new InvalidArgumentError(
    `${what} is ${value}, not a whole number from 0 to 2^64-1 (above 2^53, give a bigint)`,
  );
}

/** Converts milliseconds, which may be a fraction, to nanoseconds. */
export function nanoseconds(what: string, ms: number | bigint): bigint {
  if (typeof ms === "bigint" && ms >= 0n && ms <= U64_MAX / 1_000_000n) return ms * 1_000_000n;
  if (typeof ms === "number" && ms >= 0 && ms <= Number.MAX_SAFE_INTEGER) {
    const whole = Math.floor(ms);
    return BigInt(whole) * 1_000_000n + BigInt(Math.ceil((ms - whole) * 1e6));
  }
  throw new InvalidArgumentError(`${what} is ${ms}, not a number of milliseconds`);
}
