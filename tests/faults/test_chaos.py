"""Many jobs, several workers, connections cut at random: each job ends once, in one place."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

from beeq import RedisUnavailable
from tests.support.waiting import pause

JOBS = 2000
KINDS = (*["succeeds"] * 7, "fails", "retries", "delayed")


def made(producer, n):
    """Return the n-th job, of the n-th kind."""
    kind = KINDS[n % len(KINDS)]
    job = producer.create_job({"n": n, "kind": kind}).set_id(f"job-{n}")
    if kind == "retries":
        job.retries(1)
        if n % 20 == 8:
            job.backoff("fixed", 20)
    if kind == "delayed":
        job.delay_until(producer.now_ms() + 100)
    return job


class Cuts:
    """Has the server hang up on random connections, and forget its scripts, until the block ends."""

    def __init__(self, redis, seed):
        self._redis = redis
        self._dice = random.Random(seed)
        self._is_over = False
        self.count = 0

    async def __aenter__(self):
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_exception):
        self._is_over = True
        await asyncio.wait_for(self._task, 10)

    async def _run(self):
        while not self._is_over:
            clients = [c for c in await self._redis.client_list() if c["cmd"] != "client|list"]
            for client in self._dice.sample(clients, min(2, len(clients))):
                self.count += await self._redis.client_kill_filter(_id=client["id"])
            if self._dice.random() < 0.1:
                await self._redis.script_flush()
            await pause(0.03)


async def save_patiently(producer, jobs):
    """Save every job; one whose reply was lost is saved again under its own id."""
    while jobs:
        with contextlib.suppress(RedisUnavailable):
            jobs = list(await producer.save_all(jobs))


async def test_two_thousand_jobs_survive_cuts_with_one_outcome_each(
    make_queue, redis, eventually, recorder, expect_errors
):
    """The fixtures' audit looks at every key afterwards."""
    producer = make_queue(is_worker=False)
    settings = {"stall_interval": 1000, "initial_redis_failure_retry_delay": 10, "delayed_debounce": 10}
    workers = [make_queue(**settings) for _ in range(3)]
    ends = [recorder(worker, "succeeded", "failed:fatal") for worker in workers]
    runs: Counter[str] = Counter()

    async def handler(job):
        runs[job.id] += 1
        await pause(0.01)  # the work
        kind = job.data["kind"]
        if kind == "fails" or (kind == "retries" and job.options["retries"] > 0):
            raise ValueError(kind)
        return job.data["n"]

    for worker in workers:
        worker.process(handler, concurrency=7)

    async def have_all_ended():
        ended = await redis.scard(producer.keys.succeeded) + await redis.scard(producer.keys.failed)
        return ended == JOBS

    async with Cuts(redis, seed=20) as cuts:
        for start in range(0, JOBS, 100):
            await save_patiently(producer, [made(producer, n) for n in range(start, start + 100)])
        await eventually(have_all_ended, 40)
    assert cuts.count > 40

    failing = {f"job-{n}" for n in range(JOBS) if KINDS[n % len(KINDS)] == "fails"}
    assert await redis.smembers(producer.keys.failed) == failing
    assert await redis.scard(producer.keys.succeeded) == JOBS - len(failing)
    assert await redis.exists(producer.keys.waiting, producer.keys.active, producer.keys.delayed) == 0
    await eventually(lambda: sum(len(record.calls) for record in ends) >= JOBS)
    reported = Counter(call[1].id for record in ends for call in record.calls)
    assert max(reported.values()) == 1
    allowed = {f"job-{n}": 2 if KINDS[n % len(KINDS)] == "retries" else 1 for n in range(JOBS)}
    assert {job_id: count for job_id, count in runs.items() if count != allowed[job_id]} == {}
