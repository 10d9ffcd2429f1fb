'use strict';

/* A worker of npm's bullmq; run with a number, it enqueues as many jobs. */

const { Queue, Worker } = require('bullmq');

const connection = { url: process.env.BENCH_URL };

async function enqueue(count) {
  const queue = new Queue('bench', { connection });
  for (let first = 0; first < count; first += 500) {
    const jobs = [];
    for (let i = first; i < Math.min(first + 500, count); i++) jobs.push({ name: 'nothing', data: { i } });
    await queue.addBulk(jobs);
  }
  await queue.close();
}

function work() {
  const concurrency = Number(process.env.BENCH_CONCURRENCY);
  const worker = new Worker('bench', async () => {}, { connection, concurrency });
  process.once('SIGTERM', async () => {
    await worker.close();
    process.exit(0);
  });
}

if (process.argv.length > 2) enqueue(Number(process.argv[2]));
else work();
