"""Deleting a queue."""

from __future__ import annotations

import asyncio

import pytest

from beeq import JobLost, QueueClosed

pytestmark = pytest.mark.fast


async def test_destroy_leaves_no_key(make_queue, redis):
    """bee-queue's callback form is the awaitable form."""
    queue = make_queue(stall_interval=60_000)  # no key expires meanwhile

    @queue.process
    async def handler(job):
        if job.data == "bad":
            raise ValueError("no")
        return "value"

    await queue.enqueue({}, delay_until=queue.now_ms() + 60_000)
    await (await queue.enqueue({})).result(timeout=5000)
    await asyncio.wait([asyncio.ensure_future((await queue.enqueue("bad")).result(timeout=5000))])
    await queue.close()
    destroyer = make_queue(is_worker=False)
    keys = await redis.keys(queue.to_key("*"))
    assert {key.rpartition(":")[2] for key in keys} >= {"id", "jobs", "succeeded", "failed", "delayed"}
    assert await destroyer.destroy() == len(keys)
    assert await redis.keys(queue.to_key("*")) == []
    assert await destroyer.destroy() == 0


async def test_destroy_after_close_is_refused(make_queue):
    queue = make_queue()
    await queue.close()
    with pytest.raises(QueueClosed, match="^closed$"):
        await queue.destroy()


async def test_a_destroyed_queue_can_be_used_again(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(job):
        return job.data

    await (await queue.enqueue("before")).result(timeout=5000)
    await queue.destroy()
    job = await queue.enqueue("after")
    assert job.id == "1"
    assert await job.result(timeout=5000) == "after"


async def test_an_old_run_does_not_finish_a_new_job_of_the_same_id(make_queue, redis, recorder):
    """bee-queue tells the new job's producer of the old job's result."""
    worker = make_queue()
    lost = recorder(worker, "error", "succeeded")
    started, end = asyncio.Event(), asyncio.Event()

    @worker.process
    async def handler(job):
        if job.data == "old":
            started.set()
            await end.wait()
        return f"{job.data} result"

    await worker.enqueue("old")
    await asyncio.wait_for(started.wait(), 30)
    await worker.destroy()
    new = await worker.enqueue("new")
    assert new.id == "1"
    end.set()
    assert await new.result(timeout=5000) == "new result"
    ((error,),) = lost.of("error")
    assert isinstance(error, JobLost)
    assert [(job.data, result) for job, result in lost.of("succeeded")] == [("new", "new result")]
    assert await redis.smembers(worker.keys.succeeded) == {"1"}


async def test_destroy_spares_queues_whose_names_begin_alike(make_queue, queue_name, redis):
    queue = make_queue(is_worker=False)
    neighbour = make_queue(f"{queue_name}:jobs", is_worker=False)
    await queue.enqueue({})
    await neighbour.enqueue({})
    await queue.destroy()
    assert (await neighbour.check_health()).waiting == 1
    await neighbour.destroy()
