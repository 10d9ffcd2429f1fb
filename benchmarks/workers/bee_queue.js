'use strict';

/*
 * One process of a benchmark, on npm's bee-queue. The twin of beeq_worker.py; see there.
 */

const readline = require('readline');
const Queue = require('bee-queue');

const ask = JSON.parse(process.argv[2]);
const { mode, url, queue: name, concurrency, count } = ask;

/** How many saves, or waits for results, a producer has under way at once. */
const LANES = 100;

function tell(message) {
  process.stdout.write(JSON.stringify(message) + '\n');
}

/** The system's monotonic clock, in ns; the same for every process of the machine. */
function now() {
  return Number(process.hrtime.bigint());
}

const handlers = {
  'do nothing': async () => {},
  read: async ({ data }) => ({ to: data.to, n: data.i }),
  'tell the time': async () => now(),
  sleep: ask.sleep_ms < 1 ? giveWay : () => new Promise((resolve) => setTimeout(resolve, ask.sleep_ms)),
};

/** Takes so long, and leaves the loop to others meanwhile: its timers are no finer than a millisecond. */
async function giveWay() {
  const over = now() + ask.sleep_ms * 1e6;
  while (now() < over) await new Promise(setImmediate);
}

/** Does something `count` times, in lanes: each begins the next one when its last one is over. */
async function inLanes(one) {
  let next = 0;
  async function lane() {
    while (next < count) await one(next++);
  }
  const began = now();
  await Promise.all(Array.from({ length: LANES }, lane));
  tell({ seconds: (now() - began) / 1e9 });
}

const producers = {
  async 'save concurrently'(queue) {
    const began = now();
    const saves = [];
    for (let i = 0; i < count; i++) saves.push(queue.createJob({ i }).save());
    await Promise.all(saves);
    tell({ seconds: (now() - began) / 1e9 });
  },
  async 'save one by one'(queue) {
    const began = now();
    for (let i = 0; i < count; i++) await queue.createJob({ i }).save();
    tell({ seconds: (now() - began) / 1e9 });
  },
  async 'save in bulk'(queue) {
    const began = now();
    for (let i = 0; i < count; i += 100) {
      const jobs = [];
      for (let j = i; j < i + 100; j++) jobs.push(queue.createJob({ i: j }));
      const errors = await queue.saveAll(jobs);
      if (errors.size) throw errors.values().next().value;
    }
    tell({ seconds: (now() - began) / 1e9 });
  },
  'save in lanes': (queue) => inLanes((i) => queue.createJob({ i }).save()),
  async 'await results'(queue) {
    // By the queue's event: the job's own is lost if it overtakes the reply to save().
    const waiting = new Map();
    const early = new Map();
    queue.on('job succeeded', (id, result) => {
      const resolve = waiting.get(id);
      if (!resolve) return early.set(id, result);
      waiting.delete(id);
      resolve(result);
    });
    await inLanes(async (i) => {
      const { id } = await queue.createJob({ i, to: 'ada@example.com' }).save();
      let result = early.get(id);
      if (!early.delete(id)) result = await new Promise((resolve) => waiting.set(id, resolve));
      if (result.n !== i) throw new Error(`job ${id} has another's result`);
    });
  },
  async 'wait for each'(queue) {
    const starts = [];
    const results = [];
    for (let i = 0; i < count; i++) {
      // By the queue's event: the job's own is lost if it overtakes the reply to save().
      const heard = new Promise((resolve) => queue.once('job succeeded', (_id, began) => resolve(began)));
      const saved = now();
      await queue.createJob({ i }).save();
      const began = await heard;
      results.push((now() - saved) / 1e6);
      starts.push((began - saved) / 1e6);
      await new Promise((resolve) => setTimeout(resolve, 2)); // the worker is idle again
    }
    tell({ starts, results });
  },
};

/** Says how long it took from the first end of a job to the last. */
function hear(queue) {
  let heard = 0;
  let began;
  queue.on('job succeeded', () => {
    if (++heard === 1) began = now();
    if (heard === count) tell({ seconds: (now() - began) / 1e9 });
  });
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('close', () => process.exit(0));
  const settings = { redis: url, ...ask.settings };
  const produce = producers[mode];
  const queue = produce && (await new Queue(name, settings).ready());
  lines.once('line', async () => {
    if (produce) return produce(queue);
    const worker = new Queue(name, settings);
    if (mode === 'listen') hear(worker);
    else worker.process(concurrency, handlers[ask.handler]);
    await worker.ready();
    tell({ working: true });
  });
  tell({ ready: true });
}

main();
