"""Jobs that end while the event connection is down: their listeners, and who waits for a result, hear of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from typing import Any

import pytest

from beeq import JobFailed, Queue
from beeq.protocol.events import encode_event
from tests.support.proxy import Proxy, proxy_to

COUNT = 100


class EventLine(Proxy):
    """Cuts the connections that subscribe, and lets none subscribe while ``is_down``."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.is_down = False
        self.refused = asyncio.Event()
        self.swallow = self._swallows

    def _swallows(self, request: bytes) -> bool:
        if self.is_down and b"SUBSCRIBE" in request:
            self.refused.set()
            return True
        return False


async def cut(redis, line) -> None:
    """Take the event connection down, and return when it cannot come back."""
    line.is_down = True
    line.refused.clear()
    await redis.client_kill_filter(_type="pubsub")
    await line.refused.wait()


@pytest.fixture
async def line(valkey):
    line = EventLine(valkey.port)
    server = await asyncio.start_server(line.accept, "127.0.0.1", line.port)
    yield line
    server.close()
    await line.close()


@pytest.fixture
async def producer(make_queue, line, expect_errors):
    """A producer whose event connection goes over ``line``, and ends before it does."""
    queue = make_queue(redis=line.url, is_worker=False)
    yield queue
    await queue.close()


@pytest.fixture
def worker(make_queue):
    return make_queue()


async def work(worker: Queue) -> None:
    @worker.process(concurrency=10)
    async def handler(job: Any) -> Any:
        if job.data["i"] % 2:
            raise ValueError("odd")
        return job.data["i"]

    await worker.ready()


def listening(job, reported: list[Any]) -> Any:
    return (
        job.on("succeeded", lambda value: reported.append((job.data["i"], value)))
        .on("failed", lambda error: reported.append((job.data["i"], str(error))))
        .on("progress", lambda value: reported.append((job.data["i"], "progress", value)))
    )


def ends(count: int = COUNT) -> Counter[Any]:
    return Counter((i, "odd" if i % 2 else i) for i in range(count))


async def ended(redis, queue: Queue, count: int, eventually) -> None:
    async def holds() -> bool:
        return bool(await redis.scard(queue.keys.succeeded) + await redis.scard(queue.keys.failed) == count)

    await eventually(holds)


def leaves_nothing(queue: Queue) -> bool:
    gc.collect()
    hub = queue.event_hub
    return not (hub.jobs or hub._kept or hub._waiters or hub._expected)


async def test_listeners_hear_what_ended_while_nothing_was_heard(producer, worker, redis, line, eventually):
    reported: list[Any] = []
    for i in range(COUNT):
        await listening(producer.create_job({"i": i}), reported).save()
    await cut(redis, line)
    await work(worker)
    await ended(redis, worker, COUNT, eventually)
    assert reported == []
    line.is_down = False
    await eventually(lambda: len(reported) >= COUNT)
    await producer.check_health()
    assert Counter(reported) == ends()
    await eventually(lambda: leaves_nothing(producer))


async def test_jobs_saved_while_nothing_is_heard_are_told_too(producer, worker, redis, line, eventually):
    """Some with ids of their own, whose listeners are there before the save."""
    await producer.enqueue({"i": 0})
    await cut(redis, line)
    reported: list[Any] = []
    for i in range(1, 20):
        job = producer.create_job({"i": i})
        if i % 3:
            job.set_id(f"own-{i}")
        await listening(job, reported).save()
    results = [asyncio.ensure_future(job.result()) for job in producer.event_hub.jobs.values()]
    await work(worker)
    await ended(redis, worker, 20, eventually)
    line.is_down = False
    await eventually(lambda: len(reported) >= 19)
    assert Counter(reported) == ends(20) - Counter([(0, 0)])
    await asyncio.wait(results)
    assert {type(future.exception()) for future in results} <= {type(None), JobFailed}


async def test_an_event_that_comes_after_the_look_is_not_told_again(
    producer, worker, redis, line, eventually
):
    reported: list[Any] = []
    job = await listening(producer.create_job({"i": 0}), reported).save()
    await cut(redis, line)
    await work(worker)
    await ended(redis, worker, 1, eventually)
    line.is_down = False
    await eventually(lambda: reported)
    await redis.publish(producer.keys.events, encode_event(job.id, "succeeded", 0))
    await (await producer.enqueue({"i": 2})).result()
    assert reported == [(0, 0)]


async def test_lost_twice_each_end_is_told_once(producer, worker, redis, line, eventually):
    reported: list[Any] = []
    for i in range(10):
        await listening(producer.create_job({"i": i}), reported).save()
    await cut(redis, line)
    await work(worker)
    await ended(redis, worker, 10, eventually)
    line.is_down = False
    for _ in range(5):
        await redis.client_kill_filter(_type="pubsub")
        await asyncio.sleep(0)
    await eventually(lambda: len(reported) >= 10)
    await cut(redis, line)
    line.is_down = False
    await (await producer.enqueue({"i": 12})).result()
    assert Counter(reported) == ends(10)


async def test_what_became_of_each_job_meanwhile_is_told(producer, redis, line, eventually, make_queue):
    """Cancelled, removed, dropped by a Node worker with its record, retried: and one that has not ended."""
    reported: list[Any] = []
    jobs = {}
    for i, name in enumerate(("cancelled", "removed", "dropped", "retried", "waiting")):
        jobs[name] = await listening(producer.create_job({"i": i}).set_id(name), reported).save()
    await cut(redis, line)
    other = make_queue(is_worker=False)
    await other.cancel_job("cancelled")
    await other.remove_job("removed")
    await redis.lrem(producer.keys.waiting, 0, "dropped")
    await redis.hdel(producer.keys.jobs, "dropped")
    await redis.lrem(producer.keys.waiting, 0, "retried")
    await redis.sadd(producer.keys.failed, "retried")
    assert await (await other.get_job("retried")).retry()
    line.is_down = False
    gone = "the job is gone: removed, or finished by a peer that kept nothing"
    await eventually(lambda: len(reported) == 3)
    assert sorted(reported) == [(0, "Job cancelled was cancelled"), (1, gone), (2, gone)]
    assert set(producer.event_hub._kept) == {"retried", "waiting"}
    await redis.publish(producer.keys.events, encode_event("retried", "succeeded", 5))
    await eventually(lambda: len(reported) == 4)
    assert reported[-1] == (3, 5)


async def test_a_missed_end_is_the_result_at_once(producer, worker, redis, line, eventually):
    """Also where the next look of ``result`` itself would be seconds away."""
    job = await producer.enqueue({"i": 4})
    await cut(redis, line)
    result = asyncio.ensure_future(job.result())
    await work(worker)
    line.is_down = False
    assert await asyncio.wait_for(result, 10) == 4


async def test_the_look_is_repeated_until_redis_answers(make_queue, own_valkey, expect_errors, eventually):
    """The connection for commands is down longer than that for events."""
    async with proxy_to(own_valkey.port) as proxy:
        producer = make_queue(redis=proxy.url, is_worker=False, redis_timeout=300)
        reported: list[Any] = []
        job = await listening(producer.create_job({"i": 0}), reported).save()
        async with own_valkey.client() as admin:
            await admin.hdel(producer.keys.jobs, job.id)
        lost = 0

        def swallow(request: bytes) -> bool:
            nonlocal lost
            lost += b"PING" in request
            return b"PING" in request and lost < 6

        proxy.swallow = swallow
        proxy.hang_up()
        await eventually(lambda: reported)
        assert lost >= 4
        with contextlib.suppress(TimeoutError):
            await producer.close()
