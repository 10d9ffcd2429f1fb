"""A reply that is lost, or a peer that falls silent, costs no job and records nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from beeq import RedisUnavailable
from tests.support.proxy import proxy_to
from tests.support.waiting import Recorder


class NthExchange:
    """Chooses the n-th request of the pump's script that carries ``marker``."""

    def __init__(self, marker: bytes, n: int = 1) -> None:
        self._marker = marker
        self._left = n
        self.has_come = asyncio.Event()

    def __call__(self, request: bytes) -> bool:
        if self._marker not in request or b"EVALSHA" not in request:
            return False
        self._left -= 1
        if self._left == 0:
            self.has_come.set()
        return self._left == 0


async def test_jobs_claimed_by_a_call_whose_reply_was_lost_run_at_once(
    valkey, make_queue, redis, queue_name, eventually, expect_errors
):
    """Without a stall check: the stall interval is far longer than the test."""
    async with proxy_to(valkey.port) as proxy:
        producer = make_queue(is_worker=False)
        jobs = [await producer.enqueue(n) for n in range(1, 7)]
        worker = make_queue(redis=proxy.url, initial_redis_failure_retry_delay=10, stall_interval=60_000)
        proxy.swallow = NthExchange(b"earlierDelayed")
        runs: Counter[str] = Counter()

        @worker.process(concurrency=4)
        async def handler(job):
            runs[job.id] += 1
            return job.data

        assert [await job.result(timeout=8000) for job in jobs] == list(range(1, 7))
        assert proxy.swallow.has_come.is_set()
        assert runs == Counter({job.id: 1 for job in jobs})
        await eventually(lambda: any(isinstance(error, RedisUnavailable) for error in expect_errors))
        assert await redis.hlen(f"bq:{queue_name}:beeq:claims") == 0


async def test_an_outcome_with_a_lost_reply_is_recorded_and_sent_once(
    valkey, make_queue, redis, queue_name, expect_errors
):
    async with proxy_to(valkey.port) as proxy:
        producer = make_queue(is_worker=False)
        heard = Recorder(producer, "job succeeded")
        await producer.ready()
        worker = make_queue(redis=proxy.url, initial_redis_failure_retry_delay=10, stall_interval=60_000)
        done = Recorder(worker, "succeeded")
        proxy.swallow = NthExchange(b'"event":"succeeded"')

        @worker.process
        async def handler(job):
            return job.data

        first = await producer.enqueue("first")
        second = await producer.enqueue("second")
        assert await second.result(timeout=8000) == "second"
        await done.until("succeeded", 2)
        assert [job.id for job, _ in done.of("succeeded")] == [first.id, second.id]
        assert await heard.until("job succeeded", 2) == [(first.id, "first"), (second.id, "second")]
        assert await redis.smembers(f"bq:{queue_name}:succeeded") == {first.id, second.id}
        assert [str(error) for error in expect_errors if "no longer owned" in str(error)] == []


@pytest.mark.parametrize("result", [None, "value"])
async def test_a_dropped_jobs_outcome_with_a_lost_reply_is_recorded(
    valkey, make_queue, redis, queue_name, expect_errors, result
):
    """Of a success that keeps nothing, nothing is left to see."""
    async with proxy_to(valkey.port) as proxy:
        producer = make_queue(is_worker=False)
        worker = make_queue(
            redis=proxy.url,
            initial_redis_failure_retry_delay=10,
            stall_interval=60_000,
            remove_on_success=True,
        )
        done = Recorder(worker, "succeeded")
        proxy.swallow = NthExchange(b'"event":"succeeded"')

        @worker.process
        async def handler(_job):
            return result

        job = await producer.enqueue("once")
        await done.until("succeeded")
        assert [(job.id, value) for job, value in done.of("succeeded")] == [(job.id, result)]
        assert proxy.swallow.has_come.is_set()
        assert not await redis.exists(f"bq:{queue_name}:jobs")
        assert [str(error) for error in expect_errors if "no longer owned" in str(error)] == []


async def test_a_save_whose_reply_was_lost_raises_and_is_not_repeated(
    valkey, make_queue, redis, queue_name, expect_errors
):
    """An automatic id would make a second job of it."""
    async with proxy_to(valkey.port) as proxy:
        queue = make_queue(redis=proxy.url, is_worker=False)
        await queue.ready()
        proxy.swallow = NthExchange(b'{"data":')
        with pytest.raises(RedisUnavailable):
            await queue.enqueue("once")
        assert await redis.llen(f"bq:{queue_name}:waiting") == 1
        assert (await queue.enqueue("again")).id == "2"


async def test_a_peer_that_falls_silent_is_left_and_found_again(
    valkey, make_queue, eventually, expect_errors
):
    """Half-open connections: every wait has a bound."""
    async with proxy_to(valkey.port) as proxy:
        producer = make_queue(is_worker=False)
        # A claim whose reply is lost comes back with the second stall check.
        worker = make_queue(
            redis=proxy.url, initial_redis_failure_retry_delay=10, redis_timeout=1000, stall_interval=1000
        )
        await worker.ready()

        @worker.process(concurrency=2)
        async def handler(job):
            return job.data

        assert await (await producer.enqueue(1)).result(timeout=5000) == 1
        proxy.is_silent = True
        late = await producer.enqueue(2)
        with pytest.raises(RedisUnavailable):
            await worker.check_health()
        proxy.is_silent = False
        proxy.hang_up()
        assert await late.result(timeout=9000) == 2


async def test_cut_connections_cost_no_job_and_no_capacity(valkey, make_queue, eventually, expect_errors):
    """All of a worker's connections at once, again and again; full concurrency is back at once."""
    async with proxy_to(valkey.port) as proxy:
        producer = make_queue(is_worker=False)
        worker = make_queue(redis=proxy.url, initial_redis_failure_retry_delay=10, stall_interval=500)
        running = 0
        most = 0
        gate = asyncio.Event()

        @worker.process(concurrency=8)
        async def handler(job):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await gate.wait()
            running -= 1
            return job.data

        await worker.ready()
        for _ in range(5):
            proxy.hang_up()
            await producer.check_health()
        jobs = [await producer.enqueue(n) for n in range(1, 41)]
        await eventually(lambda: running == 8, 3)
        proxy.hang_up()
        gate.set()
        assert [await job.result(timeout=9000) for job in jobs] == list(range(1, 41))
        assert most == 8


async def test_a_job_claimed_while_its_worker_gives_up_goes_back(
    valkey, make_queue, redis, queue_name, expect_errors
):
    """The claim was on its way when the running jobs were handed back."""
    async with proxy_to(valkey.port) as proxy:
        worker = make_queue(redis=proxy.url, stall_interval=60_000)
        has_started, has_ended, is_held = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @worker.process(concurrency=2)
        async def handler(_job):
            has_started.set()
            try:
                await asyncio.Event().wait()
            finally:
                has_ended.set()

        def hold(request: bytes) -> bool:
            if b"EVALSHA" in request and b"earlierDelayed" in request:
                is_held.set()
            return is_held.is_set()

        producer = make_queue(is_worker=False)
        first = await producer.enqueue("runs")
        await has_started.wait()
        proxy.hold = hold
        second = await producer.enqueue("is claimed")
        await is_held.wait()
        closing = asyncio.create_task(worker.close(1))
        await has_ended.wait()
        proxy.released.set()
        with pytest.raises(TimeoutError):
            await closing
        assert set(await redis.lrange(f"bq:{queue_name}:waiting", 0, -1)) == {first.id, second.id}
        assert await redis.exists(f"bq:{queue_name}:active", f"bq:{queue_name}:beeq:claims") == 0
