// Shared by the tests: one sandbox per file, and times that a slow machine may scale.
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { Sandbox } from "microsandbox";

export const image = process.env.MSB_TEST_ROOTFS;
export const SCALE = Number(process.env.MSB_TEST_TIME_SCALE || 1);
/** Whether to run the long form of tests that have one, for `make check`. */
export const LONG = Boolean(process.env.MSB_TEST_NODE_LONG);

const require = createRequire(import.meta.url);
export const { native } = require("../dist/native.js");

export const root = new URL("../../..", import.meta.url).pathname;
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const turn = () => new Promise(setImmediate);
export const threads = () => readdirSync("/proc/self/task").length;
export const descriptors = () => readdirSync("/proc/self/fd").length;

let next = 0;

/** Creates a sandbox for the caller. */
export function create(options = {}) {
  return Sandbox.create(`node-${process.pid}-${next++}`, { image, replace: true, ...options });
}

/** Kills and removes a sandbox. */
export async function end(sandbox) {
  await sandbox.kill().catch(() => {});
  sandbox.close();
  await Sandbox.remove(sandbox.name, { force: true });
}

/** Waits until a condition holds; `what` may be a function that returns the failure message. */
export async function until(what, condition) {
  const deadline = Date.now() + 30_000 * SCALE;
  for (;;) {
    if (await condition()) return;
    if (Date.now() > deadline) throw new Error(`timed out waiting until: ${typeof what === "function" ? what() : what}`);
    await sleep(10);
  }
}

/** Returns all events of a handle. */
export async function eventsOf(handle) {
  const events = [];
  for await (const event of handle) events.push(event);
  return events;
}

/** Returns the bytes of one output among events. */
export function bytesOf(events, kind = "stdout") {
  return Buffer.concat(events.filter((event) => event.kind === kind).map(({ data }) => data));
}

export function error(name, more = {}) {
  return { name, ...more };
}

let collect;

/** Collects garbage and lets the finalizers run. */
export async function collectGarbage() {
  if (!collect) {
    const [v8, vm] = [await import("node:v8"), await import("node:vm")];
    v8.setFlagsFromString("--expose-gc");
    collect = vm.runInNewContext("gc");
  }
  for (let at = 0; at < 3; at++) {
    collect();
    await turn();
  }
}
