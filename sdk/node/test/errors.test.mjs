// Errors keep what they know.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { ExecFailedError, ExecTimeoutError, MicrosandboxError, StreamLostError } from "microsandbox";

const require = createRequire(import.meta.url);
const { typed } = require("../dist/errors.js");
const { KIND_OF_STATUS } = require("../dist/abi.js");

const failure = { kind: "not_found", message: "is missing", stage: "execve", errno: 2, errnoName: "ENOENT" };
const failed = new ExecFailedError({ ...failure, path: Buffer.from("prog") });

test("an error of the library keeps its errno, origin and text", () => {
  for (const [status, kind] of Object.entries(KIND_OF_STATUS)) {
    const raw = Object.assign(new Error("it failed"), { status: Number(status), errno: 5, origin: 2 });
    const error = typed(raw);
    assert.ok(error instanceof MicrosandboxError, kind);
    assert.equal(error.kind, kind === "exec_failed" ? "other" : kind);
    assert.deepEqual([error.errno, error.code, error.origin], [5, "EIO", "host"], kind);
  }
});

test("the JSON of an error has its text and details, and no output", () => {
  const output = { stdout: Buffer.alloc(1000), stderr: Buffer.alloc(0) };
  const details = { kind: "not_found", code: "ENOENT", errno: 2, errnoName: "ENOENT", origin: "agent" };
  const expected = {
    name: "ExecFailedError",
    message: "cannot run prog: is missing",
    ...details,
    stage: "execve",
    path: "prog",
  };
  assert.deepEqual(JSON.parse(JSON.stringify(failed)), expected);
  assert.deepEqual(structuredClone(failed.toJSON()), expected);
  for (const error of [new ExecTimeoutError(output), new StreamLostError("gone", output)]) {
    const { name, message, kind, code, origin } = error;
    const json = JSON.parse(JSON.stringify(error));
    assert.deepEqual({ ...json, errno: undefined, errnoName: undefined }, {
      name, message, kind, code, origin, errno: undefined, errnoName: undefined,
    });
    assert.equal(error.output, output);
  }
});
