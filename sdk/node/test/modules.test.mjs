// One copy of the code for both module systems.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import * as esm from "microsandbox";

const require = createRequire(import.meta.url);

test("ESM and CommonJS export the same", () => {
  const cjs = require("microsandbox");
  assert.deepEqual(Object.keys(esm).sort(), Object.keys(cjs).sort());
  for (const name of Object.keys(cjs)) assert.equal(esm[name], cjs[name], name);
});

test("TypeScript compiles to both module systems", () => {
  const compiled = require("./dist/commonjs.cjs");
  assert.equal(compiled.same, true);
  assert.equal(compiled.Sandbox, esm.Sandbox);
});
