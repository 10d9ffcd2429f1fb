"""What a queue's counts say."""

from __future__ import annotations

import asyncio

import pytest

from beeq import Health

pytestmark = pytest.mark.fast


async def test_an_empty_queue_counts_nothing(make_queue):
    assert await make_queue().check_health() == Health(0, 0, 0, 0, 0, 0)


async def test_a_waiting_job_is_counted(make_queue):
    """bee-queue's callback form is the awaitable form."""
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({"foo": "bar"})
    assert job.id == "1"
    assert await queue.check_health() == Health(
        waiting=1, active=0, succeeded=0, failed=0, delayed=0, newest_job=1
    )


async def test_a_running_job_is_counted_as_active(make_queue):
    queue = make_queue()
    seen = []

    @queue.process
    async def handler(_job):
        seen.append(await queue.check_health())

    job = await queue.enqueue({"foo": "bar"})
    await job.result(timeout=5000)
    assert seen == [Health(waiting=0, active=1, succeeded=0, failed=0, delayed=0, newest_job=1)]


async def test_a_job_that_succeeded_is_counted(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(_job):
        return None

    await (await queue.enqueue({})).result(timeout=5000)
    assert await queue.check_health() == Health(0, 0, 1, 0, 0, 1)


async def test_a_failed_job_is_reported_failed_and_fatal_and_counted(make_queue):
    """``failed:fatal`` is the final one."""
    queue = make_queue()
    heard = []
    both = asyncio.Event()
    queue.on("failed", lambda job, error: heard.append(("failed", job.id, str(error), job.status)))
    queue.on(
        "failed:fatal", lambda job, error: heard.append(("failed:fatal", job.id, str(error), job.status))
    )
    queue.on("failed:fatal", lambda _job, _error: both.set())

    @queue.process
    async def handler(_job):
        raise ValueError("failed!")

    await queue.enqueue({})
    await asyncio.wait_for(both.wait(), 30)
    assert heard == [("failed", "1", "failed!", "failed"), ("failed:fatal", "1", "failed!", "failed")]
    assert await queue.check_health() == Health(0, 0, 0, 1, 0, 1)


async def test_a_retried_job_is_reported_as_retrying_not_as_failed(make_queue):
    queue = make_queue()
    heard = []
    done = asyncio.Event()
    for event in ("retrying", "failed", "failed:fatal"):
        queue.on(event, lambda job, error, event=event: heard.append((event, str(error), job.status)))
    queue.on("succeeded", lambda job, result: heard.append(("succeeded", result, job.status)))
    queue.on("succeeded", lambda _job, _result: done.set())
    attempts = []

    @queue.process
    async def handler(_job):
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("once")
        return "fine"

    await queue.enqueue({}, retries=1)
    await asyncio.wait_for(done.wait(), 30)
    assert heard == [
        ("retrying", "once", "retrying"),
        ("failed", "once", "retrying"),
        ("succeeded", "fine", "succeeded"),
    ]
    assert await queue.check_health() == Health(0, 0, 1, 0, 0, 1)


async def test_a_delayed_job_is_counted(make_queue):
    queue = make_queue(is_worker=False)
    await queue.enqueue({}, delay_until=queue.now_ms() + 60_000)
    assert await queue.check_health() == Health(0, 0, 0, 0, 1, 1)


async def test_ids_of_the_users_own_do_not_count_as_newest(make_queue):
    queue = make_queue(is_worker=False)
    await queue.enqueue({}, id="foobar")
    assert await queue.check_health() == Health(1, 0, 0, 0, 0, newest_job=0)


async def test_stats_know_living_workers_and_the_oldest_waiting_job(make_queue, eventually):
    queue = make_queue()
    assert (await queue.stats()).workers == 0
    assert (await queue.stats()).oldest_waiting_ms is None
    hang = asyncio.Event()

    @queue.process
    async def handler(_job):
        await hang.wait()

    job = queue.create_job({})
    old = queue.create_job({})
    old.options["timestamp"] = queue.now_ms() - 90_000
    await job.save()

    async def has_worker():
        return (await queue.stats()).workers == 1 and (await queue.check_health()).active == 1

    await eventually(has_worker)
    await old.save()
    assert (await queue.stats()).oldest_waiting_ms == pytest.approx(90_000, abs=5000)
    hang.set()
    await queue.close()
    reader = make_queue(is_worker=False)
    assert (await reader.stats()).workers == 0


async def test_looking_at_a_queue_writes_nothing(make_queue, redis):
    queue = make_queue(is_worker=False)
    await queue.check_health()
    await queue.stats()
    for kind in ("waiting", "active", "delayed", "succeeded", "failed"):
        await queue.get_jobs(kind)
    assert await redis.exists(*queue.keys.every()) == 0
