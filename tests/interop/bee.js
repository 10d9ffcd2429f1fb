'use strict';

/*
 * Drives one queue of npm's bee-queue for a Python test (see node_bee.py).
 *
 * A line of standard input is a call, `{"call": n, "op": name, …}`; a line of standard output is its
 * answer, `{"call": n, "ok": value}` or `{"call": n, "error": text}`, or news of its own accord,
 * `{"news": name, "args": […]}`. The process ends with its standard input, and dies of whatever
 * bee-queue lets it die of.
 */

const readline = require('readline');
const Queue = require('bee-queue');

let queue = null;

function send(message) {
  process.stdout.write(JSON.stringify(message) + '\n');
}

/** What JSON has no word for gets one. */
function shown(value) {
  if (value === undefined) return { $undefined: true };
  if (value instanceof Error) return { $error: value.message };
  if (value && value.queue) return { $job: jobOf(value) };
  return value;
}

function jobOf(job) {
  return {
    id: job.id,
    data: job.data,
    options: job.options,
    status: job.status,
    progress: job.progress,
  };
}

function news(name, ...args) {
  send({ news: name, args: args.map(shown) });
}

const QUEUE_EVENTS = [
  'ready',
  'error',
  'succeeded',
  'retrying',
  'failed',
  'failed:fatal',
  'stalled',
  'raised jobs',
  'job succeeded',
  'job retrying',
  'job failed',
  'job progress',
];
const JOB_EVENTS = ['succeeded', 'retrying', 'failed', 'progress'];

function listen(job) {
  for (const event of JOB_EVENTS) {
    job.on(event, (value) => news(`its ${event}`, job.id, value));
  }
}

function made(ask) {
  const job = queue.createJob(ask.data);
  if ('id' in ask) job.setId(ask.id);
  if ('retries' in ask) job.retries(ask.retries);
  if ('backoff' in ask) job.backoff(...ask.backoff);
  if ('timeout' in ask) job.timeout(ask.timeout);
  if ('delayUntil' in ask) job.delayUntil(ask.delayUntil);
  if ('options' in ask) Object.assign(job.options, ask.options);
  listen(job);
  return job;
}

/** Runs a job: its data says what is to be done. */
async function handle(job) {
  news('handling', jobOf(job));
  const { act, value } = job.data;
  switch (act) {
    case 'return':
      return value;
    case 'throw':
      throw new Error(value);
    case 'throw text':
      throw value;
    case 'flaky': // fails so many times, whoever runs it
      if (job.options.stacktraces.length < job.data.times) {
        throw new Error(`attempt ${job.options.stacktraces.length + 1}`);
      }
      return value;
    case 'progress':
      for (const step of job.data.steps) await job.reportProgress(step);
      return value;
    case 'amend': // what a handler changes is kept with the job
      Object.assign(job.data, value);
      return undefined;
    case 'slow':
      await new Promise((resolve) => setTimeout(resolve, job.data.ms));
      return value;
    case 'hang':
      return new Promise(() => {});
    case 'exit':
      return process.exit(0);
    default:
      return undefined;
  }
}

const ops = {
  async open({ name, settings }) {
    queue = new Queue(name, settings);
    for (const event of QUEUE_EVENTS) queue.on(event, (...args) => news(event, ...args));
    await queue.ready();
  },
  process({ concurrency }) {
    queue.process(concurrency, handle);
  },
  async save({ jobs }) {
    const ids = [];
    for (const ask of jobs) ids.push((await made(ask).save()).id);
    return ids;
  },
  async saveAll({ jobs }) {
    const all = jobs.map(made);
    const errors = await queue.saveAll(all);
    return { ids: all.map((job) => job.id), errors: Array.from(errors.values(), (e) => e.message) };
  },
  async getJob({ id }) {
    const job = await queue.getJob(id);
    return job && jobOf(job);
  },
  async getJobs({ type, page }) {
    return (await queue.getJobs(type, page)).map(jobOf);
  },
  async listen({ id }) {
    listen(await queue.getJob(id));
  },
  checkHealth: () => queue.checkHealth(),
  checkStalledJobs: ({ interval }) => queue.checkStalledJobs(interval),
  async removeJob({ id }) {
    await queue.removeJob(id);
  },
  async retry({ id }) {
    return (await queue.getJob(id)).retry();
  },
  async reportProgress({ id, value }) {
    return (await queue.getJob(id)).reportProgress(value);
  },
  isInSet: async ({ id, set }) => (await queue.getJob(id)).isInSet(set),
  async close({ timeout }) {
    await queue.close(timeout);
  },
  destroy: () => queue.destroy(),
  /** What Node reads in a text, in its own words. */
  canonical: ({ texts }) => texts.map((text) => JSON.stringify(JSON.parse(text))),
};

readline
  .createInterface({ input: process.stdin, crlfDelay: Infinity })
  .on('line', async (line) => {
    const { call, op, ...ask } = JSON.parse(line);
    try {
      send({ call, ok: (await ops[op](ask)) ?? null });
    } catch (err) {
      send({ call, error: String((err && err.message) || err) });
    }
  })
  .on('close', () => process.exit(0));
