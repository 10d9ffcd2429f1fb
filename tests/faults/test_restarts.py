"""Redis goes away and comes back: producers get errors in time, workers wait, no saved job is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter

import pytest

from beeq import JobFailed, RedisUnavailable
from tests.support.waiting import pause

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
EAGER = {"initial_redis_failure_retry_delay": 20, "stall_interval": 300}


@pytest.fixture
def durable(own_valkey):
    """A server whose data survives everything."""
    own_valkey.stop()
    own_valkey.start(*DURABLE)
    return own_valkey


@pytest.mark.parametrize("how", [pytest.param("stop", marks=pytest.mark.external), "kill"])
async def test_a_restart_under_load_loses_no_saved_job(durable, make_queue, eventually, expect_errors, how):
    producer = make_queue(redis=durable.url, is_worker=False)
    workers = [make_queue(redis=durable.url, **EAGER) for _ in range(2)]
    runs: Counter[str] = Counter()

    async def handler(job):
        runs[job.id] += 1
        await pause(0.005)
        return job.id

    for worker in workers:
        worker.process(handler, concurrency=3)
    saved = []
    stop = asyncio.Event()

    async def produce():
        number = 0
        while not stop.is_set():
            number += 1
            with contextlib.suppress(RedisUnavailable):
                if (await producer.enqueue({}, id=f"job-{number}")).id is not None:
                    saved.append(f"job-{number}")
            await pause(0.002)

    producing = asyncio.ensure_future(produce())
    for _ in range(2):
        before = len(saved)
        await eventually(lambda before=before: len(saved) >= before + 30)
        await asyncio.to_thread(getattr(durable, how))
        await asyncio.to_thread(durable.start, *DURABLE)
    before = len(saved)
    await eventually(lambda: len(saved) >= before + 30)
    stop.set()
    await producing
    async with durable.client(decode_responses=True) as admin:

        async def is_done():
            return await admin.smembers(producer.keys.succeeded) >= set(saved)

        await eventually(is_done)

        async def is_empty():
            return not await admin.exists(producer.keys.waiting, producer.keys.active)

        await eventually(is_empty)
        assert await admin.exists(producer.keys.failed, producer.keys.delayed) == 0
    assert set(saved) <= set(runs)


async def test_without_redis_producers_hear_in_time_and_workers_wait(own_valkey, make_queue, recorder):
    producer = make_queue(redis=own_valkey.url, is_worker=False)
    producer.on("error", lambda _error: None)
    worker = make_queue(redis=own_valkey.url, **EAGER)
    record = recorder(worker, "error")

    @worker.process
    async def handler(_job):
        return "value"

    job = await producer.enqueue({})
    assert await job.result(timeout=5000) == "value"
    own_valkey.stop()

    async def is_refused_in_time(call):
        started = time.monotonic()
        with pytest.raises(RedisUnavailable):
            await call()
        assert time.monotonic() - started < 3

    await is_refused_in_time(lambda: producer.enqueue({}))
    await asyncio.gather(
        *map(
            is_refused_in_time,
            (
                lambda: producer.save_all([producer.create_job({})]),
                producer.check_health,
                lambda: producer.get_job("1"),
                lambda: producer.get_jobs("waiting"),
                lambda: producer.remove_job("1"),
                lambda: job.report_progress(1),
                producer.check_stalled_jobs,
                producer.destroy,
            ),
        )
    )
    errors = await record.until("error")
    assert all(isinstance(error, RedisUnavailable) for (error,) in errors)
    own_valkey.start()
    assert await (await producer.enqueue({})).result(timeout=5000) == "value"


async def test_a_worker_says_each_error_once_while_redis_is_away(own_valkey, make_queue, recorder):
    """And not for each connection, each slot and each try."""
    worker = make_queue(redis=own_valkey.url, **EAGER)
    ready = await worker.ready()
    record = recorder(worker, "error")

    @ready.process(concurrency=50)
    async def handler(_job):
        return None

    own_valkey.stop()
    await record.until("error")
    await pause(2)
    texts = [f"{type(error).__name__}: {error}" for (error,) in record.of("error")]
    assert len(texts) == len(set(texts)) < 10


async def test_an_outcome_is_written_after_redis_is_back(durable, make_queue, recorder):
    worker = make_queue(redis=durable.url, **EAGER)
    record = recorder(worker, "error", "succeeded")
    runs = []

    @worker.process
    async def handler(job):
        runs.append(job.id)
        await asyncio.to_thread(durable.stop)
        return "value"

    job = await worker.enqueue({})
    await record.until("error", count=2)
    await asyncio.to_thread(durable.start, *DURABLE)
    await record.until("succeeded")
    assert await job.result(timeout=5000) == "value"
    assert runs == [job.id]


async def test_waiting_for_a_result_goes_on_while_redis_is_away(durable, make_queue):
    """What was published meanwhile is lost."""
    producer = make_queue(redis=durable.url, is_worker=False)
    producer.on("error", lambda _error: None)
    job = await producer.enqueue({})
    waiting = asyncio.ensure_future(job.result(timeout=15_000))
    await asyncio.to_thread(durable.stop)
    await pause(0.3)
    assert not waiting.done()
    await asyncio.to_thread(durable.start, *DURABLE)
    worker = make_queue(redis=durable.url, **EAGER)
    worker.on("error", lambda _error: None)

    @worker.process
    async def handler(_job):
        return "value"

    assert await waiting == "value"


async def test_jobs_delayed_over_a_restart_are_raised_when_due(durable, make_queue):
    """After an error, or a lost message, bee-queue looks again 20 minutes later."""
    queue = make_queue(redis=durable.url, **EAGER)
    queue.on("error", lambda _error: None)

    @queue.process
    async def handler(_job):
        return queue.now_ms()

    due_ms = queue.now_ms() + 1000
    job = await queue.enqueue({}, delay_until=due_ms)
    await asyncio.to_thread(durable.stop)
    await asyncio.to_thread(durable.start, *DURABLE)
    assert due_ms <= await job.result(timeout=10_000) < due_ms + 2000


async def test_a_server_that_lost_everything_is_worked_on_all_the_same(own_valkey, make_queue, recorder):
    """What ran meanwhile is dropped; the next job 1 is another job."""
    worker = make_queue(redis=own_valkey.url, **EAGER)
    record = recorder(worker, "error", "succeeded")
    started, end = asyncio.Event(), asyncio.Event()

    @worker.process(concurrency=2)
    async def handler(job):
        if job.data == "old":
            started.set()
            await end.wait()
        return job.data

    await worker.enqueue("old")
    await asyncio.wait_for(started.wait(), 30)
    await asyncio.to_thread(own_valkey.restart)
    new = None
    while new is None:
        with contextlib.suppress(RedisUnavailable):
            new = await worker.enqueue("new")
    assert new.id == "1"
    end.set()
    assert await new.result(timeout=5000) == "new"
    await record.until("succeeded")
    assert [result for _job, result in record.of("succeeded")] == ["new"]


@pytest.mark.parametrize("is_busy", [True, False])
async def test_a_worker_can_be_closed_while_redis_is_away(own_valkey, make_queue, is_busy, expect_errors):
    worker = make_queue(redis=own_valkey.url, **EAGER)
    started = asyncio.Event()

    @worker.process
    async def handler(_job):
        started.set()
        await asyncio.Event().wait()

    await worker.ready()
    if is_busy:
        await worker.enqueue({})
        await asyncio.wait_for(started.wait(), 30)
    own_valkey.stop()
    begun = time.monotonic()
    with contextlib.suppress(TimeoutError):
        await worker.close(200)
    assert time.monotonic() - begun < 8
    assert not worker.is_running()


async def test_a_server_that_stands_still_for_a_moment_costs_nothing(own_valkey, make_queue, eventually):
    """A long fork, or a snapshot: answers come late, and none is taken for another's."""
    queue = make_queue(redis=own_valkey.url, stall_interval=5000)
    runs: Counter[str] = Counter()

    @queue.process(concurrency=4)
    async def handler(job):
        runs[job.id] += 1
        if job.data == "bad":
            raise ValueError("no")
        return job.data

    jobs = [await queue.enqueue(n) for n in range(1, 50)]
    own_valkey.pause()
    late = [asyncio.ensure_future(queue.enqueue(n)) for n in range(50, 60)]
    await pause(0.3)
    own_valkey.resume()
    jobs += await asyncio.gather(*late)
    assert [await job.result(timeout=5000) for job in jobs] == list(range(1, 60))
    assert set(runs.values()) == {1}
    with pytest.raises(JobFailed):
        await (await queue.enqueue("bad")).result(timeout=5000)
