// Mounts of the host (L1, L3).
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Sandbox } from "microsandbox";
import { image } from "./support.mjs";

test("l1: a directory of the host is shared, by the builder and by options", async () => {
  const host = mkdtempSync(join(tmpdir(), "msb-mounts-"));
  try {
    writeFileSync(join(host, "f"), "host\n");
    const sb = await Sandbox.builder("node-mounts")
      .image(image)
      .volume("/data", (m) => m.bind(host))
      .volume("/ro", (m) => m.bind(host).readonly())
      .volume("/t", (m) => m.tmpfs().size(8))
      .create();
    const out = await sb.shell("cat /data/f; echo guest > /data/g; touch /t/f; touch /ro/h");
    assert.equal(out.stdout(), "host\n");
    assert.match(out.stderr(), /Read-only/);
    assert.equal(readFileSync(join(host, "g"), "utf8"), "guest\n");
    await sb.kill();
    const bad = { image, volumes: { "/data": (m) => m.bind(join(host, "none")) } };
    await assert.rejects(Sandbox.create("node-bad-mount", bad), /cannot mount \/data: .*none/);
    const none = { image, volumes: { "/data": host } };
    await assert.rejects(Sandbox.create("node-bad-mount", none), { name: "InvalidArgumentError" });
    const missing = Sandbox.builder("node-bad-mount").image(image).volume("/v", (m) => m.named("no"));
    await assert.rejects(missing.create(), { name: "VolumeNotFoundError" });
  } finally {
    rmSync(host, { recursive: true });
  }
});
