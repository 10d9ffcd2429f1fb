"""Connections that break, go silent, or lose a reply: every job is done, and done once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from beeq import RedisUnavailable
from tests.support.proxy import Proxy, proxy_to
from tests.support.waiting import pause


def counting(queue, concurrency=1, work=None):
    """Make the queue's handler count its runs by job."""
    runs: Counter[str] = Counter()

    @queue.process(concurrency=concurrency)
    async def handler(job):
        runs[job.id] += 1
        if work is not None:
            await work(job)
        return job.id

    return runs


async def kill(redis, *commands):
    """Have the server hang up on the connections whose last command was one of these."""
    for client in await redis.client_list():
        if client["cmd"] in commands:
            await redis.client_kill_filter(_id=client["id"])


async def all_succeeded(redis, queue, count, eventually):
    async def holds():
        return await redis.scard(queue.keys.succeeded) == count

    await eventually(holds, 15)


async def test_after_a_lost_connection_the_full_capacity_is_back(
    make_queue, redis, eventually, expect_errors
):
    """bee-queue's slots come back one by one, over minutes."""
    worker = make_queue()
    together = asyncio.Event()
    started = []

    async def meet(job):
        if job.data != "meet":
            return
        started.append(job.id)
        if len(started) == 8:
            together.set()
        await together.wait()

    counting(worker, concurrency=8, work=meet)
    for _ in range(20):
        await (await worker.enqueue({})).result(timeout=5000)

    async def is_blocking():
        return any(client["cmd"] == "blmove" for client in await redis.client_list())

    await eventually(is_blocking)
    await kill(redis, "blmove")
    await eventually(lambda: expect_errors)
    assert len(expect_errors) == 1
    for _ in range(8):
        await worker.enqueue("meet")
    await asyncio.wait_for(together.wait(), 2.5)
    assert len(expect_errors) == 1


async def test_repeated_failures_of_the_pop_are_reported_each(make_queue, redis, recorder):
    worker = make_queue(initial_redis_failure_retry_delay=10)
    await redis.set(worker.keys.waiting, "of the wrong type")
    record = recorder(worker, "error")
    loop = asyncio.get_running_loop()
    times = []
    worker.on("error", lambda _error: times.append(loop.time()))
    counting(worker)
    await record.until("error", count=5)
    gaps = [after - before for before, after in pairwise(times[:5])]
    assert min(gaps[-2:]) > gaps[0] * 0.9
    assert gaps[-1] >= 0.03
    await redis.delete(worker.keys.waiting)
    assert await (await worker.enqueue({})).result(timeout=5000) == "1"


@pytest.mark.parametrize(
    "commands", [("blmove",), ("evalsha",), ("subscribe", "ping"), ("zadd", "srem", "evalsha|zrem")]
)
async def test_connections_killed_under_load_lose_and_repeat_no_job(
    make_queue, redis, eventually, recorder, commands, expect_errors
):
    """bee-queue's slots come back one by one, and what was fetched stays in active."""
    producer = make_queue(is_worker=False, stall_interval=300)
    worker = make_queue(stall_interval=300, initial_redis_failure_retry_delay=10)
    local = recorder(worker, "succeeded")

    async def work(_job):
        await pause(0.002)

    runs = counting(worker, concurrency=8, work=work)
    for _ in range(15):
        for _ in range(20):
            with contextlib.suppress(RedisUnavailable):
                await producer.enqueue({})
        await kill(redis, *commands)
    newest = (await producer.check_health()).newest_job
    await all_succeeded(redis, producer, newest, eventually)
    assert newest >= 200
    assert set(runs) == {str(n) for n in range(1, newest + 1)}
    assert set(runs.values()) == {1}
    await eventually(lambda: len(local.calls) == newest)
    assert await redis.llen(producer.keys.active) == 0


async def test_results_arrive_while_event_connections_are_killed(make_queue, redis, expect_errors):
    """What was published meanwhile is lost."""
    producer, worker = make_queue(is_worker=False), make_queue()
    counting(worker)
    for _ in range(5):
        job = await producer.enqueue({})
        await kill(redis, "subscribe", "ping")
        assert await job.result(timeout=5000) == job.id


async def test_scripts_flushed_under_load_cost_no_job(make_queue, redis, eventually):
    """bee-queue fails until it is restarted."""
    producer, worker = make_queue(is_worker=False), make_queue()
    runs = counting(worker, concurrency=4)
    for _ in range(40):
        for _ in range(5):
            await producer.enqueue({})
        await redis.script_flush()
    await all_succeeded(redis, producer, 200, eventually)
    assert set(runs.values()) == {1}


@pytest.mark.parametrize("outcome", ["failure", "retry", "delayed retry"])
async def test_a_failure_with_a_lost_reply_is_recorded_and_heard_once(
    valkey, make_queue, recorder, outcome, eventually, expect_errors
):
    """Repeated with an automatic id, the save would add a second job."""
    async with proxy_to(valkey.port) as proxy:
        producer = make_queue(is_worker=False)
        worker = make_queue(redis=proxy.url, stall_interval=60_000, initial_redis_failure_retry_delay=10)
        public = recorder(producer, "job succeeded", "job retrying", "job failed")
        local = recorder(worker, "succeeded", "retrying", "failed:fatal")
        runs: list[Any] = []
        lost: list[Any] = []

        def loses_first_outcome(request):
            is_outcome = b"EVALSHA" in request and b'"event":' in request and not lost
            lost.extend([request] if is_outcome else [])
            return is_outcome

        proxy.swallow = loses_first_outcome

        @worker.process
        async def handler(job):
            runs.append(job.id)
            if len(runs) == 1:
                raise ValueError("no")

        backoff = ("fixed", 30) if outcome == "delayed retry" else None
        job = await producer.enqueue({}, retries=1 if "retry" in outcome else 0, backoff=backoff)
        expected = ["job failed"] if outcome == "failure" else ["job retrying", "job succeeded"]
        await public.until(expected[-1])
        await local.until("failed:fatal" if outcome == "failure" else "succeeded")
        assert len(lost) == 1
        assert [call[0] for call in public.calls] == expected
        assert [call[0] for call in local.calls] == [
            "failed:fatal" if name == "job failed" else name.removeprefix("job ") for name in expected
        ]
        assert runs == [job.id] * len(expected)
        health = await producer.check_health()
        assert (health.waiting, health.active, health.delayed) == (0, 0, 0)
        assert health.succeeded + health.failed == 1


async def test_saves_go_on_after_a_lost_connection(valkey, make_queue, expect_errors):
    async with proxy_to(valkey.port) as proxy:
        producer = make_queue(redis=proxy.url, is_worker=False)
        await producer.enqueue({})
        proxy.hang_up()
        saved = 0
        for _ in range(3):
            with contextlib.suppress(RedisUnavailable):
                await producer.enqueue({})
                saved += 1
        assert saved >= 2
        assert (await producer.check_health()).waiting == saved + 1


class HalfOpenProxy(Proxy):
    """Its connections can go silent one and all while new ones work: a peer that lost its state."""

    def __init__(self, target_port):
        super().__init__(target_port)
        self._lanes = []

    async def accept(self, reader, writer):
        lane = Proxy(self._target_port)
        self._lanes.append(lane)
        await lane.accept(reader, writer)

    def go_silent(self):
        for lane in self._lanes:
            lane.is_silent = True

    async def close(self):
        for lane in self._lanes:
            await lane.close()


@pytest.fixture
async def half_open(make_queue, valkey):
    """A ``HalfOpenProxy`` before the session's server; it ends before the queues do."""
    proxy = HalfOpenProxy(valkey.port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", proxy.port)
    yield proxy
    server.close()
    await proxy.close()


async def test_a_silently_dead_peer_is_noticed_and_left(
    make_queue, half_open, recorder, monkeypatch, eventually, expect_errors
):
    """bee-queue's pop hangs until the operating system gives up, after hours."""
    monkeypatch.setattr("beeq.worker.pump.blocking_fetch.FETCH_TIMEOUT_MS", 200)
    monkeypatch.setattr("beeq.redis.pubsub.PING_AFTER_S", 0.2)
    producer = make_queue(is_worker=False)
    worker = make_queue(
        redis=half_open.url, stall_interval=300, redis_timeout=600, initial_redis_failure_retry_delay=10
    )
    heard = recorder(worker, "job succeeded")
    runs = counting(worker, concurrency=2)
    await worker.ready()
    await (await producer.enqueue({})).result(timeout=5000)
    await heard.until("job succeeded")
    half_open.go_silent()
    jobs = [await producer.enqueue({}) for _ in range(5)]
    for job in jobs:
        await job.result(timeout=8000)
    assert set(runs.values()) == {1}

    later = []

    async def hears_again():
        later.append(await producer.enqueue({}))
        await later[-1].result(timeout=5000)
        return any(call[1] == job.id for call in heard.calls for job in later)

    await eventually(hears_again)


async def test_a_producer_on_a_silently_dead_connection_raises_in_time(make_queue, half_open, expect_errors):
    """Half-open connections: every wait has a bound."""
    # Without the activator: a look of its own may meet the silence first, and have a new line made.
    producer = make_queue(
        redis=half_open.url, is_worker=False, redis_timeout=1000, activate_delayed_jobs=False
    )
    await producer.enqueue({})
    half_open.go_silent()
    with pytest.raises(RedisUnavailable):
        await asyncio.wait_for(producer.enqueue({}), 3)
    assert (await producer.check_health()).waiting >= 1
