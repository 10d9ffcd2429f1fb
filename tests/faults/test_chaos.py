"""Many jobs, several workers, connections cut at random: each job ends once, in one place."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

from beeq import RedisUnavailable
from tests.support.waiting import pause

JOBS = 2000


async def test_two_thousand_jobs_survive_random_cuts_with_one_outcome_each(
    make_queue, redis, eventually, recorder, expect_errors
):
    """Flaw A1, A8, B1, B3: the audit of the fixtures looks at the keys afterwards."""
    dice = random.Random(20)
    producer = make_queue(is_worker=False)
    workers = [
        make_queue(stall_interval=1000, initial_redis_failure_retry_delay=10, delayed_debounce=10)
        for _ in range(3)
    ]
    ends = [recorder(worker, "succeeded", "failed:fatal") for worker in workers]
    runs = Counter()

    async def handler(job):
        runs[job.id] += 1
        await pause(0.01)  # the work
        kind = job.data["kind"]
        if kind == "fails" or (kind == "retries" and job.options["retries"] > 0):
            raise ValueError(kind)
        return job.data["n"]

    for worker in workers:
        worker.process(handler, concurrency=7)
    kinds = ["succeeds"] * 7 + ["fails", "retries", "delayed"]
    jobs = []
    for n in range(JOBS):
        job = producer.create_job({"n": n, "kind": kinds[n % len(kinds)]}).set_id(f"job-{n}")
        if n % len(kinds) == 8:
            job.retries(1).backoff(*(("fixed", 20) if n % 20 == 8 else ("immediate",)))
        if n % len(kinds) == 9:
            job.delay_until(producer.now_ms() + 100)
        jobs.append(job)
    done = asyncio.Event()
    cuts = []

    async def cut():
        while not done.is_set():
            clients = [client for client in await redis.client_list() if client["cmd"] != "client|list"]
            for client in dice.sample(clients, min(2, len(clients))):
                await redis.client_kill_filter(_id=client["id"])
            if dice.random() < 0.1:
                await redis.script_flush()
            cuts.append(len(clients))
            await pause(0.03)

    cutting = asyncio.ensure_future(cut())
    for start in range(0, JOBS, 100):
        left = jobs[start : start + 100]
        while left:
            with contextlib.suppress(RedisUnavailable):
                errors = await producer.save_all(left)
                left = list(errors)

    async def all_ended():
        health = await producer.check_health()
        return health.succeeded + health.failed == JOBS

    def patiently():
        async def look():
            with contextlib.suppress(RedisUnavailable):
                return await all_ended()

        return look()

    await eventually(patiently, 40)
    done.set()
    await cutting
    assert len(cuts) > 20

    async def all_told():
        return sum(len(record.calls) for record in ends) >= JOBS - 5

    await eventually(all_told)
    failing = {job.data["n"] for job in jobs if job.data["kind"] == "fails"}
    assert await redis.smembers(producer.keys.failed) == {f"job-{n}" for n in failing}
    assert await redis.scard(producer.keys.succeeded) == JOBS - len(failing)
    assert await redis.exists(producer.keys.waiting, producer.keys.active, producer.keys.delayed) == 0
    told = Counter(call[1].id for record in ends for call in record.calls)
    assert max(told.values()) == 1
    extra = {job_id: n for job_id, n in runs.items() if n > (2 if int(job_id[4:]) % 10 == 8 else 1)}
    assert not extra
