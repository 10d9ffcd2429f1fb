"""Removing jobs, wherever they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beeq import JobFailed, JobLost
from beeq.client.reader import Reader
from beeq.redis import scripts
from beeq.redis.scripts import Script

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("store_jobs", [True, False])
@pytest.mark.parametrize("through_job", [True, False])
async def test_a_removed_job_is_gone(make_queue, redis, store_jobs, through_job):
    """bee-queue's callback form is the awaitable form."""
    queue = make_queue(is_worker=False, store_jobs=store_jobs)
    job = await queue.enqueue({"foo": "bar"})
    assert (await queue.get_job(job.id)).data == {"foo": "bar"}
    if through_job:
        assert await job.remove() is job
    else:
        assert await queue.remove_job(job.id) is queue
    assert await queue.get_job(job.id) is None
    assert await redis.hget(queue.keys.jobs, job.id) is None
    assert await redis.lrange(queue.keys.waiting, 0, -1) == []


async def test_removing_twice_or_what_never_was_is_fine(make_queue):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    await job.remove()
    await job.remove()
    await queue.remove_job("never was")


async def test_an_unsaved_job_cannot_be_removed(make_queue):
    with pytest.raises(ValueError, match="no id"):
        await make_queue(is_worker=False).create_job({}).remove()


@pytest.mark.parametrize("state", ["waiting", "delayed", "succeeded", "failed"])
async def test_a_job_is_removed_from_any_state_and_leaves_nothing(make_queue, redis, state):
    queue = make_queue()

    if state in ("succeeded", "failed"):

        @queue.process
        async def handler(_job):
            if state == "failed":
                raise ValueError("no")
            return 1

    job = await queue.enqueue({}, delay_until=queue.now_ms() + 60_000 if state == "delayed" else None)
    if state in ("succeeded", "failed"):
        await asyncio.wait([asyncio.ensure_future(job.result(timeout=5000))])
    await job.remove()
    await queue.close()
    left = {key.rpartition(":")[2] for key in await redis.keys(queue.to_key("*"))}
    of_the_queue = {"minutes", "hours"}  # its history, which is of no job
    assert left - of_the_queue <= {"id", "stallBlock"}


async def test_a_job_removed_right_after_its_save_never_runs(make_queue):
    queue = make_queue()
    ran = []
    errors: list[Any] = []
    queue.on("error", errors.append)

    @queue.process
    async def handler(job):
        ran.append(job.id)

    await queue.ready()
    job = queue.create_job({"foo": "bar"}).set_id("deadbeef")
    await asyncio.gather(job.save(), queue.remove_job("deadbeef"))
    await (await queue.enqueue({}, id="next")).result(timeout=5000)
    assert ran == ["next"]
    assert errors == []


async def test_a_job_removed_while_it_runs_stays_removed(make_queue, redis):
    """In bee-queue its finish brings it back."""
    worker = make_queue()
    lost: asyncio.Future[Any] = asyncio.Future()
    worker.on("error", lost.set_result)
    heard = []
    worker.on("succeeded", lambda *args: heard.append(args))

    @worker.process
    async def handler(job):
        await job.remove()
        return "too late"

    job = await worker.enqueue({})
    error = await asyncio.wait_for(lost, 30)
    assert isinstance(error, JobLost)
    assert error.job_id == job.id
    assert heard == []
    assert await redis.hlen(worker.keys.jobs) == 0
    assert await redis.scard(worker.keys.succeeded) == 0
    assert await redis.llen(worker.keys.active) == 0


async def test_a_job_saved_again_while_it_runs_is_not_ended_by_the_old(
    make_queue, redis, recorder, eventually
):
    """The new job of the same id is another job."""
    worker = make_queue(stall_interval=60_000)
    record = recorder(worker, "error")
    runs = []

    @worker.process
    async def handler(job):
        runs.append(job.data)
        if job.data == "old":
            await job.remove()
            await worker.enqueue("new", id="same")
        return job.data

    # A heartbeat between removing and saving would stop the handler: the next one is far away.
    await eventually(lambda: redis.exists(worker.keys.workers))
    await worker.enqueue("old", id="same")
    ((error,),) = await record.until("error")
    assert isinstance(error, JobLost)
    job = await worker.get_job("same")
    assert await job.result(timeout=5000) == "new"
    assert runs == ["old", "new"]


async def test_a_job_both_finished_and_queued_is_removed_from_both(make_queue, redis):
    """bee-queue leaves the id in waiting."""
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    await redis.sadd(queue.keys.succeeded, job.id)
    await job.remove()
    assert await redis.exists(queue.keys.waiting, queue.keys.succeeded, queue.keys.jobs) == 0


async def test_whoever_waits_for_a_removed_job_is_told(make_queue):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    waiting = asyncio.ensure_future(job.result(timeout=10_000))
    await job.remove()
    with pytest.raises(JobFailed, match="gone"):
        await waiting


async def test_clean_removes_old_finished_jobs_and_no_others(make_queue):
    """Sets of finished jobs grow without bound."""
    queue = make_queue()

    @queue.process
    async def handler(_job):
        return None

    old = queue.create_job({})
    old.options["timestamp"] = queue.now_ms() - 3_600_000
    await old.save()
    young = await queue.enqueue({})
    await old.result(timeout=5000)
    await young.result(timeout=5000)
    assert await queue.clean("succeeded", older_than=1_800_000) == 1
    assert [job.id for job in await queue.get_jobs("succeeded")] == [young.id]
    with pytest.raises(ValueError, match="clean"):
        await queue.clean("waiting", older_than=0)


def failing(queue):
    """Let the queue's jobs fail."""

    @queue.process
    async def handler(_job):
        raise ValueError("no")

    return queue


def meanwhile(monkeypatch, act):
    """Let ``await act()`` happen between clean's reading of records and what it does about them."""
    read = Reader.records

    async def records(reader, ids):
        found = await read(reader, ids)
        await act()
        return found

    monkeypatch.setattr(Reader, "records", records)


async def failed_jobs(make_queue, count, **options):
    """Return a queue, and jobs of it that have failed; nobody works on it any more."""
    producer, worker = make_queue(is_worker=False), failing(make_queue())
    jobs = [producer.create_job({"n": n}) for n in range(count)]
    for job in jobs:
        job.options.update(options)
    assert await producer.save_all(jobs) == {}
    await asyncio.wait([asyncio.ensure_future(job.result(timeout=10_000)) for job in jobs])
    await worker.close()
    return producer, jobs


@pytest.mark.parametrize("move", ["retried", "saved anew"])
async def test_clean_lets_a_job_be_that_is_queued_again_meanwhile(make_queue, redis, monkeypatch, move):
    queue, jobs = await failed_jobs(make_queue, 3, timestamp=1)

    async def queue_again():
        if move == "retried":
            assert await jobs[1].retry()
        else:
            await jobs[1].remove()
            await queue.enqueue("anew", id=jobs[1].id)

    meanwhile(monkeypatch, queue_again)
    assert await queue.clean("failed", older_than=1000) == 2
    assert await redis.lrange(queue.keys.waiting, 0, -1) == [jobs[1].id]
    assert await redis.hkeys(queue.keys.jobs) == [jobs[1].id]
    assert await redis.exists(queue.keys.failed, queue.keys.results) == 0


@pytest.mark.real_redis("so many jobs take seconds there")
async def test_clean_and_retries_at_once_lose_no_job(make_queue, redis):
    """Each job is either gone or waits with its record."""
    queue, jobs = await failed_jobs(make_queue, 300, timestamp=1)
    other = make_queue(is_worker=False)
    cleaned, *retried = await asyncio.gather(
        other.clean("failed", older_than=0), *(job.retry() for job in jobs)
    )
    waiting = await redis.lrange(queue.keys.waiting, 0, -1)
    assert len(waiting) == sum(retried) == len(jobs) - cleaned
    assert sorted(await redis.hkeys(queue.keys.jobs)) == sorted(waiting)
    assert await redis.exists(queue.keys.failed) == 0


async def test_what_is_cleaned_is_not_remembered_and_what_stays_is(make_queue, monkeypatch):
    queue, jobs = await failed_jobs(make_queue, 2, timestamp=1)
    meanwhile(monkeypatch, jobs[1].retry)
    failing(make_queue())
    assert await queue.clean("failed", older_than=1000) == 1
    assert queue.event_hub.heard(jobs[0].id) is None
    with pytest.raises(JobFailed, match="gone"):
        await jobs[0].result(timeout=10_000)
    with pytest.raises(JobFailed, match="^no$"):
        await jobs[1].result(timeout=10_000)


async def test_clean_removes_much_in_calls_of_bounded_size(make_queue, redis, monkeypatch):
    queue = make_queue(is_worker=False)
    records = {str(n): '{"options":{"timestamp":1}}' for n in range(400)}
    records |= {f"large{n}": f'{{"data":"{"x" * 600_000}","options":{{"timestamp":1}}}}' for n in range(4)}
    records |= {"odd": "no record"}
    await redis.hset(queue.keys.jobs, mapping=records)
    await redis.sadd(queue.keys.succeeded, *records)
    calls = []
    pack = Script.pack

    def watched(script, keys, /, **arguments):
        if script is scripts.clean_jobs:
            calls.append(arguments["jobs"])
        return pack(script, keys, **arguments)

    monkeypatch.setattr(Script, "pack", watched)
    assert await queue.clean("succeeded", older_than=1000) == 405
    assert await redis.exists(queue.keys.jobs, queue.keys.succeeded) == 0
    assert sum(len(jobs) for jobs in calls) == 405
    for jobs in calls:
        assert len(jobs) <= 100
        assert sum(job_id.startswith("large") for job_id, _ in jobs) <= 1  # two are more than a call takes
