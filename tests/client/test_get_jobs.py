"""Finding jobs: by id, and by state."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beeq import JobUnreadable

pytestmark = pytest.mark.fast


def ids(jobs):
    return [job.id for job in jobs]


async def test_waiting_jobs_are_listed_by_start_and_end(make_queue):
    """Index 0 was queued last, both bounds are included."""
    queue = make_queue(is_worker=False)
    jobs = [await queue.enqueue({"n": n}) for n in range(3)]
    assert ids(await queue.get_jobs("waiting", start=0, end=10)) == ["3", "2", "1"]
    assert ids(await queue.get_jobs("waiting", start=0, end=1)) == ["3", "2"]
    assert ids(await queue.get_jobs("waiting", start=-1, end=-1)) == ["1"]
    found = (await queue.get_jobs("waiting", start=2, end=2))[0]
    assert (found.id, found.data, found.options, found.status) == (
        jobs[0].id,
        {"n": 0},
        jobs[0].options,
        "created",
    )


async def test_active_jobs_are_seen_from_inside_the_handler(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(job):
        return [[found.id, found.data] for found in await queue.get_jobs("active", start=0, end=100)]

    job = await queue.enqueue({"foo": "bar"})
    assert await job.result(timeout=5000) == [[job.id, {"foo": "bar"}]]


async def test_delayed_jobs_are_listed_by_due_time(make_queue):
    queue = make_queue(is_worker=False)
    now_ms = queue.now_ms()
    late = await queue.enqueue({"foo": "late"}, delay_until=now_ms + 90_000)
    early = await queue.enqueue({"foo": "early"}, delay_until=now_ms + 60_000)
    assert ids(await queue.get_jobs("delayed", start=0, end=1)) == [early.id, late.id]
    assert ids(await queue.get_jobs("delayed", start=1, end=1)) == [late.id]


@pytest.mark.parametrize("kind", ["failed", "succeeded"])
async def test_finished_jobs_are_listed_by_size(make_queue, kind):
    queue = make_queue()

    @queue.process
    async def handler(job):
        if kind == "failed":
            raise ValueError(job.id)

    job = await queue.enqueue({"foo": "bar"})
    if kind == "failed":
        with pytest.raises(Exception, match=job.id):
            await job.result(timeout=5000)
    else:
        await job.result(timeout=5000)
    (found,) = await queue.get_jobs(kind, size=10)
    assert (found.id, found.data, found.status) == (job.id, {"foo": "bar"}, kind)


async def test_of_many_succeeded_jobs_as_many_as_asked_are_given(make_queue, redis):
    queue = make_queue(is_worker=False, redis_scan_count=50)
    record = json.dumps(
        {"data": {}, "options": {"timestamp": 1, "stacktraces": []}, "status": "succeeded", "progress": 0}
    )
    numbers = [str(n) for n in range(1, 10_001)]
    await redis.hset(queue.keys.jobs, mapping=dict.fromkeys(numbers, record))
    await redis.sadd(queue.keys.succeeded, *numbers)
    found = await queue.get_jobs("succeeded", size=80)
    assert len(found) == len(set(ids(found))) == 80
    assert len(await queue.get_jobs("succeeded")) == 100


@pytest.mark.parametrize("kind", ["waiting", "active", "delayed", "succeeded", "failed"])
async def test_an_empty_queue_gives_nothing_whatever_the_page(make_queue, kind):
    """bee-queue's callback form is the awaitable form."""
    queue = make_queue(is_worker=False)
    assert await queue.get_jobs(kind) == []
    assert await queue.get_jobs(kind, start=3, end=5) == []
    assert await queue.get_jobs(kind, size=7) == []
    assert await queue.get_jobs(kind, 0, 10, 20) == []


@pytest.mark.parametrize("kind", ["invalid", "", "stalling", "jobs", "Waiting"])
async def test_a_state_that_does_not_exist_is_refused(make_queue, kind):
    with pytest.raises(ValueError, match="^Improper queue type$"):
        await make_queue(is_worker=False).get_jobs(kind)


async def test_without_bounds_a_page_is_a_hundred_and_one_jobs(make_queue):
    """bee-queue's bounds, kept."""
    queue = make_queue(is_worker=False)
    await queue.save_all([queue.create_job({}) for _ in range(110)])
    assert ids(await queue.get_jobs("waiting")) == [str(n) for n in range(110, 9, -1)]


async def test_a_page_keeps_the_lists_order_whoever_made_its_jobs(make_queue):
    """bee-queue puts the jobs it knows first."""
    queue, other = make_queue(is_worker=False), make_queue(is_worker=False)
    for n in range(6):
        await (queue, other)[n % 2].enqueue({})
    assert ids(await queue.get_jobs("waiting")) == ["6", "5", "4", "3", "2", "1"]


async def test_one_unreadable_record_does_not_hide_the_others(make_queue, redis, expect_errors):
    """bee-queue rejects the whole page."""
    queue = make_queue(is_worker=False)
    errors: list[Any] = []
    queue.on("error", errors.append)
    await queue.enqueue({})
    await redis.hset(queue.keys.jobs, "bad", "{'not': json}")
    await redis.lpush(queue.keys.waiting, "bad", "ghost")
    assert ids(await queue.get_jobs("waiting")) == ["1"]
    assert [(type(error), error.job_id) for error in errors] == [(JobUnreadable, "bad")]
    with pytest.raises(JobUnreadable):
        await queue.get_job("bad")
    await redis.lrem(queue.keys.waiting, 0, "ghost")


async def test_a_size_of_zero_is_an_empty_page(make_queue, redis):
    """bee-queue gets a syntax error from Redis."""
    queue = make_queue()

    @queue.process
    async def handler(_job):
        return None

    await (await queue.enqueue({})).result(timeout=5000)
    assert await queue.get_jobs("succeeded", size=0) == []


@pytest.mark.parametrize("store_jobs", [True, False])
async def test_a_job_is_found_with_all_it_was_saved_with(make_queue, redis, store_jobs):
    """Identity of objects is not promised, equality is."""
    queue = make_queue(is_worker=False, store_jobs=store_jobs)
    job = await queue.enqueue({"foo": "bar"}, retries=3, backoff=("fixed", 10), timeout=100)
    found = await queue.get_job(job.id)
    assert found.id == job.id
    assert (found.data, found.options, found.status, found.progress) == (
        job.data,
        job.options,
        job.status,
        job.progress,
    )
    assert (await queue.get_job(job.id)).options == found.options


async def test_a_job_that_was_found_hears_of_its_end(make_queue, eventually):
    """What the stored object is for."""
    producer, worker = make_queue(is_worker=False), make_queue()
    job = await producer.enqueue({"x": 1})
    heard: list[Any] = []
    found = await producer.get_job(job.id)
    found.on("succeeded", heard.append)

    @worker.process
    async def handler(job):
        return job.data["x"] + 1

    assert await found.result(timeout=5000) == 2
    await eventually(lambda: heard)  # the result may have been looked up before
    assert heard == [2]


async def test_an_id_nobody_has_is_none(make_queue):
    queue = make_queue(is_worker=False)
    assert await queue.get_job("baz") is None
    assert await queue.get_job(baz := 4) is None
    assert baz == 4


async def test_a_job_of_another_queue_object_reads_back_the_same(make_queue):
    producer, reader = make_queue(is_worker=False), make_queue(is_worker=False)
    job = await producer.enqueue({"foo": ["bar", 1, None, True, 1.5, "größe"]}, retries=1)
    found = await reader.get_job(job.id)
    assert (found.id, found.data, found.options) == (job.id, job.data, job.options)


@pytest.mark.parametrize("job_id", ["amazingjob", "with space", "größe", "1e5", 77])
async def test_a_job_with_an_id_of_its_own_is_found_by_it(make_queue, job_id):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({"foo": "bar"}, id=job_id)
    found = await queue.get_job(job_id)
    assert (job.id, found.id, found.data) == (str(job_id), str(job_id), {"foo": "bar"})


async def test_a_job_removed_elsewhere_is_not_found_here(make_queue):
    """bee-queue answers from memory."""
    queue, other = make_queue(is_worker=False), make_queue(is_worker=False)
    job = await queue.enqueue({})
    await other.remove_job(job.id)
    assert await queue.get_job(job.id) is None
