"""``result_ttl`` at size: what a worker kept of dropped jobs goes in time, with no process alive."""

from __future__ import annotations

import asyncio

import pytest

from beeq import Queue

JOBS = 20_000


@pytest.fixture
async def redis(own_valkey):
    async with own_valkey.client(decode_responses=True) as client:
        yield client


async def run(url, *, count=JOBS, **settings):
    """Run that many jobs whose records are dropped, each with a result, and close."""
    async with Queue("q", redis=url, remove_on_success=True, get_events=False, **settings) as queue:
        assert await queue.save_all([queue.create_job({"n": n}) for n in range(count)]) == {}

        @queue.process(concurrency=500)
        async def handler(job):
            return job.data["n"]

        await queue.run(burst=True, catch_signals=False)


@pytest.mark.external  # takes long
async def test_twenty_thousand_results_go_with_nobody_alive(own_valkey, redis, eventually):
    await run(own_valkey.url, result_ttl=1000)

    async def is_gone():
        return await redis.keys("*Results") == []

    await eventually(is_gone)
    of_the_queue = {"bq:q:beeq:minutes", "bq:q:beeq:hours"}  # its history, which is of no job
    left = set(await redis.keys("*")) - of_the_queue
    assert left <= {"bq:q:id", "bq:q:stallBlock", "bq:beeq:queues"}


async def test_results_that_keep_coming_take_up_two_periods(own_valkey, redis):
    """None of the worker's calls works anything off."""
    most = 0
    async with Queue(
        "q", redis=own_valkey.url, remove_on_success=True, get_events=False, result_ttl=300
    ) as queue:

        @queue.process(concurrency=20)
        async def handler(_job):
            return "x" * 100

        for _ in range(40):
            assert await queue.save_all([queue.create_job({}) for _ in range(100)]) == {}
            await asyncio.sleep(0.1)
            most = max(most, sum([await redis.hlen(key) for key in await redis.keys("*Results")]))
    assert most < 2500, "of four thousand, those of two periods and a second's grace"


async def test_short_and_long_times_share_a_queue(own_valkey, redis, eventually):
    """A result is returned for as long as its own worker's setting says."""
    async with Queue("q", redis=own_valkey.url, get_events=False, is_worker=False) as asking:
        long, short = asking.create_job({"n": "long"}), asking.create_job({"n": "short"})
        for job, ttl in ((long, 600_000), (short, 100)):
            await job.save()
            await run(own_valkey.url, count=0, result_ttl=ttl)

        async def is_forgotten():
            return await asking.job_state(short.id) is None

        await eventually(is_forgotten)
        assert await long.result(timeout=5000) == "long"
        assert all([await redis.pttl(key) > 0 for key in await redis.keys("*Results")])
