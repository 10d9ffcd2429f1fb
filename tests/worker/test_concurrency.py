"""How many jobs run at once, in which order, and on which worker."""

from __future__ import annotations

import asyncio
import functools
import math
import random
from typing import Any

import pytest

from beeq import Health, Queue, QueueClosed
from tests.support.waiting import pause

pytestmark = pytest.mark.fast


async def hang(_job):
    await asyncio.Event().wait()


async def test_process_is_refused_where_it_cannot_work(make_queue):
    with pytest.raises(RuntimeError, match="^Cannot call Queue#process on a non-worker$"):
        make_queue(is_worker=False).process(hang)
    queue = make_queue()
    queue.process(hang)
    with pytest.raises(RuntimeError, match="^Cannot call Queue#process twice$"):
        queue.process(hang)
    closed = make_queue()
    await closed.close()
    with pytest.raises(QueueClosed, match="^closed$"):
        closed.process(hang)


@pytest.mark.parametrize("concurrency", [0, -1, 2.5, math.nan, "3", True, None])
def test_a_concurrency_that_is_no_positive_int_is_refused(concurrency):
    """bee-queue takes any value."""
    with pytest.raises((TypeError, ValueError), match="concurrency"):
        Queue("addition").process(hang, concurrency=concurrency)


async def test_one_at_a_time_they_run_in_the_order_of_saving(make_queue):
    queue = make_queue()
    order: list[Any] = []
    running: list[Any] = []

    @queue.process
    async def handler(job):
        assert running == []
        running.append(job.id)
        order.append(job.data["n"])
        await pause(0)  # gives others the chance to break in
        running.clear()

    jobs = [await queue.enqueue({"n": n}) for n in range(20)]
    await asyncio.gather(*(job.result(timeout=5000) for job in jobs))
    assert order == list(range(20))


@pytest.mark.parametrize("staggered", [False, True])
async def test_at_most_the_asked_number_run_and_they_start_in_order(make_queue, redis, staggered):
    queue = make_queue()
    order, running, most, most_active = [], set(), [], []

    @queue.process(concurrency=5)
    async def handler(job):
        running.add(job.id)
        order.append(job.data["n"])
        most.append(len(running))
        most_active.append(await redis.llen(queue.keys.active))
        await pause(random.random() / 100)  # the handler's work
        running.discard(job.id)

    jobs = []
    for n in range(20):
        jobs.append(await queue.enqueue({"n": n}))
        if staggered:
            await pause(random.random() / 200)  # the user's pace
    await asyncio.gather(*(job.result(timeout=5000) for job in jobs))
    assert order == list(range(20))
    assert max(most) <= 5
    assert max(most_active) <= 5
    assert staggered or max(most) == 5


async def test_workers_share_the_jobs_and_each_job_runs_once(make_queue):
    producer = make_queue(is_worker=False)
    ran = []

    async def handler(worker, job):
        ran.append((worker, job.id))
        if len({name for name, _ in ran}) == 3:
            all_run.set()
        await all_run.wait()  # one that starts late gets a job, too

    all_run = asyncio.Event()
    for n in range(3):
        make_queue().process(functools.partial(handler, n))
    jobs = [await producer.enqueue({}) for _ in range(20)]
    await asyncio.gather(*(job.result(timeout=5000) for job in jobs))
    assert sorted((int(job_id) for _, job_id in ran)) == list(range(1, 21))
    assert len({worker for worker, _ in ran}) == 3


async def test_a_burst_ends_when_nothing_due_is_left(make_queue):
    queue = make_queue()
    ran = []

    @queue.process(concurrency=3)
    async def handler(job):
        ran.append(job.id)
        if job.data == "parent":
            await queue.enqueue("child")

    for _ in range(5):
        await queue.enqueue("parent")
    await queue.enqueue("later", delay_until=queue.now_ms() + 60_000)
    await asyncio.wait_for(queue.run(burst=True), 10)
    assert len(ran) == 10
    assert await queue.check_health() == Health(0, 0, 10, 0, 1, newest_job=11)
