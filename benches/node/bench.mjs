// The cost of the Node package, as ratios to a C program in the same run: the two take turns, and
// the result is the median of the ratios. bench.mjs PACKAGE PLAIN ROOTFS
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , where, plain, image] = process.argv;
const { Sandbox } = await import(pathToFileURL(where));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const sandbox = await Sandbox.create(`bench-node-${process.pid}`, { image });
const child = spawn(plain, [sandbox.name], { stdio: ["pipe", "pipe", "inherit"] });
const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();

async function inC(name) {
  child.stdin.write(`${name}\n`);
  return Number((await answers.next()).value);
}

const variants = {
  // Seconds.
  async run() {
    const begun = performance.now();
    for (let times = 0; times < 20; times++) await sandbox.shell(":");
    return (performance.now() - begun) / 1e3 / 20;
  },
  // Bytes per second.
  async bulk() {
    const handle = await sandbox.shellStream("head -c 134217728 /dev/zero");
    const begun = performance.now();
    let total = 0;
    for await (const event of handle) if (event.kind === "stdout") total += event.data.length;
    handle.close();
    return (total / (performance.now() - begun)) * 1e3;
  },
  // Events per second.
  async small() {
    const handle = await sandbox.shellStream("while :; do echo x; echo y >&2; done");
    await sleep(100);
    const begun = performance.now();
    let total = 0;
    for await (const event of handle) if (++total === 2000) break;
    const took = performance.now() - begun;
    await handle[Symbol.asyncDispose]();
    return (total / took) * 1e3;
  },
};

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
const TABLES = [
  ["run", "A collected no-op command", "µs", 1e6, 20],
  ["bulk", "128 MiB of output, in chunks", "MiB/s", 2 ** -20, 5],
  ["small", "Small events from a full queue", "events/s", 1, 15],
];
for (const [name, title, unit, scale, turns] of TABLES) {
  await variants[name]();
  const [ours, theirs, ratios] = [[], [], []];
  for (let turn = 0; turn < turns; turn++) {
    theirs.push(await inC(name));
    ours.push(await variants[name]());
    ratios.push(ours.at(-1) / theirs.at(-1));
  }
  const show = (values) => (median(values) * scale).toFixed(0);
  console.log(`\n${title} (${turns} turns)\n\n| | ${unit} | ratio |\n| --- | ---: | ---: |`);
  console.log(`| C | ${show(theirs)} | 1.00 |\n| Node ${process.version} | ${show(ours)} | ${median(ratios).toFixed(2)} |`);
}
child.stdin.end();
await once(child, "exit");
await sandbox.kill();
await Sandbox.remove(sandbox.name);
