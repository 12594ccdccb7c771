'use strict';
// The addon: one event loop, which nothing blocks, and memory that a garbage collector moves.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const fs = require('node:fs');
const v8 = require('node:v8');
const vm = require('node:vm');
const { Worker } = require('node:worker_threads');
const { native, Hung, Sandbox } = require('./msb.js');

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc');
const image = process.env.MSB_TEST_ROOTFS;
const threads = () => fs.readdirSync('/proc/self/task').length;
let sandbox;

before(async () => {
  sandbox = await Sandbox.create({ name: 'node', image });
});

after(() => sandbox.end());

async function outputOf(exec) {
  const chunks = [];
  for await (const event of exec.events()) {
    if (event.kind === native.MSB_EVENT_STDOUT) chunks.push(event.data);
  }
  return Buffer.concat(chunks);
}

test('many execs are followed on one loop, which goes on turning', async () => {
  let last = performance.now();
  let longest = 0;
  const ticker = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 5);
  const before = threads();
  const execs = [...Array(40).keys()].map((at) =>
    sandbox.script(`for i in 1 2 3; do echo ${at}; usleep 50000; done`),
  );
  const outputs = await Promise.all(execs.map(outputOf));
  clearInterval(ticker);
  outputs.forEach((output, at) => assert.equal(output.toString(), `${at}\n`.repeat(3)));
  assert.ok(threads() <= before + 1, `${threads()} threads, ${before} before`);
  assert.ok(longest < 500 * Number(process.env.MSB_TEST_TIME_SCALE || 1), `${longest} ms`);
  execs.forEach((exec) => exec.close());
});

test('the events of a command in order', async () => {
  const exec = sandbox.script('echo out; exit 3');
  const events = [];
  for await (const event of exec.events()) events.push(event);
  assert.deepEqual(
    events.map((event) => event.kind),
    [native.MSB_EVENT_STARTED, native.MSB_EVENT_STDOUT, native.MSB_EVENT_EXITED, 0],
  );
  assert.ok(events[0].value > 0);
  assert.ok(Buffer.isBuffer(events[1].data));
  assert.equal(events[1].data.toString(), 'out\n');
  assert.equal(events[2].exit.code, 3);
  exec.close();
});

test('events are copies, which live on, and large outputs are lent until they are collected', async () => {
  const size = 3 << 20;
  const script = `head -c ${size} /dev/zero | tr '\\0' a; head -c ${size} /dev/zero | tr '\\0' b >&2`;
  let exec = sandbox.script(script);
  const events = await outputOf(exec);
  exec.close();
  exec = sandbox.script(script);
  let output = await exec.collect();
  const part = output.stdout.subarray(10, 20);
  exec.close();
  assert.ok(events.equals(Buffer.alloc(size, 'a')));
  assert.ok(output.stderr.equals(Buffer.alloc(size, 'b')));
  output = null;
  collectGarbage();
  await new Promise(setImmediate);
  assert.equal(part.toString(), 'a'.repeat(10));
});

test('input and output at once', async () => {
  const [exec, sink] = sandbox.start({ cmd: 'cat' }, true);
  const data = Buffer.alloc(4 << 20, Buffer.from([...Array(251).keys()]));
  const feed = async () => {
    await sink.write(data);
    sink.close();
  };
  const [output] = await Promise.all([outputOf(exec), feed()]);
  assert.ok(output.equals(data));
  exec.close();
});

test('signals are sent while somebody waits', async () => {
  const exec = sandbox.start({ cmd: 'sleep', args: ['600'] })[0];
  const end = exec.wait();
  await exec.signal(15);
  assert.equal((await end).exit.signal, 15);
  await assert.rejects(exec.signal(15), { status: native.MSB_E_NO_PROCESS });
  await assert.rejects(exec.signal(999), { status: native.MSB_E_INVALID });
  exec.close();
});

test('a wait that is too late is given up and loses nothing', async () => {
  const [exec, sink] = sandbox.start({ cmd: 'cat' }, true);
  await assert.rejects(exec.collect(performance.now() + 50), Hung);
  await sink.write(Buffer.from('kept'));
  sink.close();
  assert.equal((await exec.collect()).stdout.toString(), 'kept');
  exec.close();
});

test('closing wakes whoever waits, and the command runs on', async () => {
  const exec = sandbox.script('exec sleep 600');
  const { id } = exec;
  const waiting = assert.rejects(exec.wait(), { status: native.MSB_E_HANDLE });
  await new Promise(setImmediate);
  exec.close();
  await waiting;
  assert.throws(() => exec.close(), { status: native.MSB_E_HANDLE });
  const [again] = await sandbox.reattach(id);
  assert.equal(await sandbox.listed(id), 'running');
  await again.kill();
  assert.equal((await again.wait()).exit.signal, 9);
  again.close();
});

test('what is wrong is thrown with its status', async () => {
  assert.throws(() => sandbox.start({ cmd: '' }), { status: native.MSB_E_INVALID });
  assert.throws(() => native.execRecv(1n), { status: native.MSB_E_HANDLE });
  assert.throws(() => native.execRecv(sandbox.raw), { status: native.MSB_E_HANDLE });
  await assert.rejects(Sandbox.create({ name: 'node', image }), { status: native.MSB_E_EXISTS });
  await assert.rejects(sandbox.reattach('0'.repeat(32)), { status: native.MSB_E_NO_SESSION });
});

test('handles that are forgotten end nothing and crash nothing', async () => {
  const ids = [...Array(20)].map(() => sandbox.script('usleep 200000; echo done').id);
  collectGarbage();
  await new Promise(setImmediate);
  collectGarbage();
  for (const id of ids) {
    const [exec] = await sandbox.reattach(id, 0);
    assert.equal((await exec.collect()).stdout.toString(), 'done\n');
    exec.close();
  }
});

test('a worker runs commands, and may end while it waits', async () => {
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { Handle, Exec, native } = require(workerData.module);
    const exec = new Exec(native.execStream(workerData.sandbox, {
      cmd: Buffer.from('sh'), args: [Buffer.from('-c'), Buffer.from('echo hi; exec sleep 600')],
    }, false)[0]);
    (async () => {
      for await (const event of exec.events()) {
        if (event.data.length) parentPort.postMessage([exec.id, event.data.toString()]);
      }
    })();
  `;
  const workerData = { module: require.resolve('./msb.js'), sandbox: sandbox.raw };
  const worker = new Worker(source, { eval: true, workerData });
  const [id, text] = await new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  assert.equal(text, 'hi\n');
  await worker.terminate();
  const [exec] = await sandbox.reattach(id);
  await exec.kill();
  assert.equal((await exec.wait()).exit.signal, 9);
  exec.close();
});
