// Sends standard input through a script in a sandbox: filter.mjs IMAGE SCRIPT <input >output
import { pipeline } from "node:stream/promises";
import { Sandbox } from "microsandbox";

const [, , image, script] = process.argv;
if (!script) throw new Error("usage: filter.mjs IMAGE SCRIPT");
const sandbox = await Sandbox.create(`filter-${process.pid}`, { image });
try {
  const handle = await sandbox.shellStreamWith(script, (b) => b.stdinPipe());
  const { stdout, stderr, exited } = handle.pipes();
  const input = (await handle.takeStdin()).toWritable();
  await Promise.all([
    // A script may leave a part of its input unread.
    pipeline(process.stdin, input).catch((error) => {
      if (error.kind !== "broken_pipe") throw error;
    }),
    pipeline(stdout, process.stdout, { end: false }),
    pipeline(stderr, process.stderr, { end: false }),
  ]);
  process.exitCode = (await exited).code;
} finally {
  await sandbox.kill();
  await Sandbox.remove(sandbox.name);
}
