'use strict';

/*
 * One process of a benchmark, on npm's bee-queue. The twin of beeq_worker.py; see there.
 */

const readline = require('readline');
const Queue = require('bee-queue');

const { mode, url, queue: name, concurrency, count } = JSON.parse(process.argv[2]);

function tell(message) {
  process.stdout.write(JSON.stringify(message) + '\n');
}

/** The system's monotonic clock, in ns; the same for every process of the machine. */
function now() {
  return Number(process.hrtime.bigint());
}

const workers = {
  work: async () => {},
  'tell the time': async () => now(),
};

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

async function main() {
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('close', () => process.exit(0));
  const produce = producers[mode];
  const queue = produce && (await new Queue(name, { redis: url }).ready());
  lines.once('line', async () => {
    if (produce) return produce(queue);
    const worker = new Queue(name, { redis: url });
    worker.process(concurrency, workers[mode]);
    await worker.ready();
    tell({ working: true });
  });
  tell({ ready: true });
}

main();
