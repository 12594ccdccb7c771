// Runs many commands at once and cancels those that take too long: many.mjs IMAGE
import { Sandbox } from "microsandbox";

const [, , image] = process.argv;
if (!image) throw new Error("usage: many.mjs IMAGE");
const sandbox = await Sandbox.create(`many-${process.pid}`, { image });
const late = AbortSignal.timeout(1_000);
const outcomes = await Promise.allSettled(
  [...Array(100).keys()].map((at) =>
    sandbox.shell(`sleep ${at % 10 === 0 ? 60 : 0.1}; echo ${at}`, { signal: late }),
  ),
);
const done = outcomes.filter(({ status }) => status === "fulfilled").length;
console.log(`${done} done, ${outcomes.length - done} cancelled`);
await sandbox.kill();
await Sandbox.remove(sandbox.name);
