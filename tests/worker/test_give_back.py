"""Jobs that closing does not let end: they go back, in their order, and nothing of them is used up."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

pytestmark = pytest.mark.fast


async def busy_worker(make_queue, handler, **settings):
    """Return a worker whose handler has begun with a job."""
    worker = make_queue(**settings)
    started = asyncio.Event()

    @worker.process
    async def run(job):
        started.set()
        return await handler(job)

    job = await worker.enqueue({"foo": "bar"})
    await asyncio.wait_for(started.wait(), 30)
    return worker, job


async def hang(_job):
    await asyncio.Event().wait()


async def test_a_hanging_job_makes_close_raise_and_keeps_its_retries(make_queue, redis):
    worker, job = await busy_worker(make_queue, hang)
    with pytest.raises(TimeoutError, match=r"^Operation timed out\.$"):
        await worker.close(10)
    assert await redis.lrange(worker.keys.waiting, 0, -1) == [job.id]
    assert await redis.llen(worker.keys.active) == 0
    assert not worker.is_running()


async def test_jobs_given_back_by_close_run_next_and_in_their_order(make_queue, redis):
    """To the front, no retry used, no delivery counted."""
    worker = make_queue()
    jobs = [await worker.enqueue({}, retries=1) for _ in range(4)]
    started = asyncio.Semaphore(0)

    @worker.process(concurrency=3)
    async def handler(_job):
        started.release()
        await asyncio.Event().wait()

    for _ in range(3):
        await asyncio.wait_for(started.acquire(), 5)
    with pytest.raises(TimeoutError):
        await worker.close(10)
    assert await redis.lrange(worker.keys.waiting, 0, -1) == [job.id for job in reversed(jobs)]
    assert await redis.exists(worker.keys.claims) == 0
    ran = []
    next_worker = make_queue()

    @next_worker.process
    async def note(job):
        ran.append((job.id, job.options["retries"]))

    reader = make_queue()
    last = await reader.get_job(jobs[-1].id)
    await last.result(timeout=5000)
    assert ran == [(job.id, 1) for job in jobs]


async def test_a_coroutine_is_cancelled_before_its_job_runs_elsewhere(make_queue, redis):
    cleaned_up = []

    async def handler(job):
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(await redis.lrange(job.queue.keys.waiting, 0, -1))

    worker, _job = await busy_worker(make_queue, handler)
    with pytest.raises(TimeoutError):
        await worker.close(10)
    assert cleaned_up == [[]]


@pytest.mark.parametrize("status", ["succeeded", "failed"])
async def test_a_handler_that_ends_after_close_timed_out_reports_once(make_queue, eventually, status, redis):
    started, end = threading.Event(), threading.Event()
    worker = make_queue()
    errors = []
    worker.on("error", lambda error: errors.append(str(error)))

    @worker.process
    def handler(_job):
        started.set()
        assert end.wait(10)
        if status == "failed":
            raise ValueError("no")

    job = await worker.enqueue({})
    assert await asyncio.to_thread(started.wait, 5)
    with pytest.raises(TimeoutError, match=r"^Operation timed out\.$"):
        await worker.close(10)
    assert errors == []
    end.set()
    await eventually(lambda: errors)
    assert errors == [f"unable to update the status of {status} job {job.id}"]
    assert await redis.lrange(worker.keys.waiting, 0, -1) == [job.id]


@pytest.mark.real_redis("thirty workers take a second there")
async def test_a_closing_idle_worker_strands_no_just_fetched_job(make_queue, redis):
    """bee-queue leaves the id in active, unrun."""
    producer = make_queue(is_worker=False)
    await producer.ready()
    for _ in range(30):
        worker = make_queue()
        worker.process(hang)
        await worker.ready()
        saving, closing = (asyncio.ensure_future(call) for call in (producer.enqueue({}), worker.close(1)))
        job = await saving
        with contextlib.suppress(TimeoutError):  # it may have begun to run
            await closing
        assert await redis.lrange(producer.keys.active, 0, -1) == []
        assert await redis.lrange(producer.keys.waiting, 0, -1) == [job.id]
        await job.remove()
