"""Calls that took a job while their reply was lost: the job runs once, and does not wait for a stall check."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from beeq.worker.pump.blocking_fetch import MAX_RECORD_BYTES
from tests.support.proxy import FirstExchange, proxy_to


async def test_a_job_that_another_worker_has_by_then_is_left_to_it(
    valkey, make_queue, redis, eventually, expect_errors
):
    """The move fetched it, the lost call claimed it, it went back, and the other worker waited for it.

    Its record is a long one: it did not come along with the move, and the job had not begun.
    """

    async def blocking():
        return sum("b" in client["flags"] for client in await redis.client_list())

    before = await blocking()
    runs: Counter[str] = Counter()
    done = asyncio.Event()

    async def handler(job):
        runs[job.id] += 1
        await done.wait()

    async with proxy_to(valkey.port) as proxy:
        producer = make_queue(is_worker=False)
        unlucky = make_queue(redis=proxy.url, initial_redis_failure_retry_delay=10, stall_interval=60_000)
        other = make_queue(stall_interval=60_000)
        for number, worker in enumerate((unlucky, other), start=1):
            worker.process(handler)

            async def all_wait(number=number):
                return await blocking() == before + number

            await eventually(all_wait)
        proxy.swallow = FirstExchange()
        job = await producer.enqueue("x" * MAX_RECORD_BYTES)
        await eventually(lambda: runs)

        async def unlucky_waits_again():
            return await blocking() == before + 1

        await eventually(unlucky_waits_again)
        assert proxy.swallow.has_come.is_set()
        done.set()
        await job.result(timeout=5000)
        assert runs == Counter({job.id: 1})


async def test_a_worker_that_is_closed_meanwhile_gives_the_job_back(
    valkey, make_queue, redis, eventually, expect_errors
):
    async with proxy_to(valkey.port) as proxy:
        job = await make_queue(is_worker=False).enqueue(1)
        worker = make_queue(redis=proxy.url, initial_redis_failure_retry_delay=10, stall_interval=60_000)
        proxy.swallow, proxy.hold = FirstExchange(), FirstExchange()

        @worker.process
        async def handler(_job):
            pytest.fail("nobody has heard of the job")

        await proxy.hold.has_come.wait()
        closing = asyncio.create_task(worker.close())
        await eventually(worker._consumer.worker.pump.scheduler.is_stopping)
        proxy.released.set()
        await closing
        assert await redis.lrange(worker.keys.waiting, 0, -1) == [job.id]
        assert await redis.exists(worker.keys.active, worker.keys.claims) == 0
