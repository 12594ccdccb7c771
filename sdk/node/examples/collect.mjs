// Runs a command and prints its output: collect.mjs IMAGE COMMAND [ARGUMENT...]
import { ExecFailedError, Sandbox } from "microsandbox";

const [, , image, cmd, ...args] = process.argv;
if (!cmd) throw new Error("usage: collect.mjs IMAGE COMMAND [ARGUMENT...]");
const sandbox = await Sandbox.create(`collect-${process.pid}`, { image });
try {
  const output = await sandbox.exec(cmd, args);
  process.stdout.write(output.stdoutBytes());
  process.stderr.write(output.stderrBytes());
  process.exitCode = output.status.signal ? 128 + output.status.signal : output.code;
} catch (error) {
  if (!(error instanceof ExecFailedError)) throw error;
  console.error(`${error.message} (${error.kind}, ${error.stage})`);
  process.exitCode = error.kind === "not_found" ? 127 : 126;
} finally {
  await sandbox.kill();
  await Sandbox.remove(sandbox.name);
}
