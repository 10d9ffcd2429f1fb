"""Jobs whose worker is gone: found, run again, and not for ever."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from beeq import JobFailed, JobStalled, JobUnreadable, RedisRefused

RECORD = '{"data":{"foo":"bar"},"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0}'


async def orphan(redis, keys, *job_ids, record=RECORD):
    """Leave jobs as a worker that died does."""
    if record is not None:
        await redis.hset(keys.jobs, mapping=dict.fromkeys(job_ids, record))
    await redis.lpush(keys.active, *job_ids)


async def expired(redis, keys, eventually):
    """Wait until another stall check may be made."""

    async def is_open():
        return not await redis.exists(keys.stall_block)

    await eventually(is_open)


def noting(queue, concurrency=1):
    ran = []

    @queue.process(concurrency=concurrency)
    async def handler(job):
        ran.append(job.id)

    return ran


async def test_an_orphan_runs_when_a_worker_starts_after_a_check(make_queue, redis, eventually):
    checker = make_queue(is_worker=False, stall_interval=10)
    await orphan(redis, checker.keys, "1")
    assert await checker.check_stalled_jobs() == 0
    assert await redis.smembers(checker.keys.stalling) == {"1"}
    await expired(redis, checker.keys, eventually)
    worker = make_queue(stall_interval=60_000)
    ran = noting(worker)
    await (await checker.get_job("1")).result(timeout=5000)
    assert ran == ["1"]


async def test_a_worker_finds_orphans_by_itself(make_queue, redis, eventually):
    """bee-queue needs two restarts, or a check that its user asks for."""
    worker = make_queue(stall_interval=100)
    stalled: list[Any] = []
    worker.on("stalled", stalled.append)
    await orphan(redis, worker.keys, "1", "2")
    ran = noting(worker)
    for job_id in ("1", "2"):
        await (await worker.get_job(job_id)).result(timeout=2000)
    assert sorted(ran) == ["1", "2"]
    await eventually(lambda: sorted(stalled) == ["1", "2"])  # the jobs may be faster than the check's reply


async def test_a_thousand_orphans_and_more_are_all_run(make_queue, redis, eventually):
    """In calls of bounded size."""
    checker = make_queue(is_worker=False, stall_interval=50)
    job_ids = [str(n) for n in range(1, 1026)]
    await orphan(redis, checker.keys, *job_ids)
    assert await checker.check_stalled_jobs() == 0
    assert await redis.scard(checker.keys.stalling) == 1025
    await expired(redis, checker.keys, eventually)
    assert await checker.check_stalled_jobs() == 1025
    ran = noting(make_queue(stall_interval=60_000), concurrency=50)
    await eventually(lambda: len(ran) >= 1025)
    assert sorted(ran) == sorted(job_ids)


async def test_orphans_of_five_closed_queues_are_all_run(make_queue, redis, eventually):
    for number in range(5):
        queue = make_queue()
        await orphan(redis, queue.keys, f"orphan-{number}")
        await queue.close()
    ran = noting(make_queue(stall_interval=50))
    await eventually(lambda: len(ran) >= 5)
    assert sorted(ran) == [f"orphan-{number}" for number in range(5)]


async def test_jobs_of_a_silent_worker_run_once_each(make_queue, redis, eventually):
    producer = make_queue(is_worker=False)
    for _ in range(10):
        await producer.enqueue({})
    for _ in range(5):  # what a worker of concurrency 5 has when it dies
        await redis.lmove(producer.keys.waiting, producer.keys.active, "RIGHT", "LEFT")
    ran = noting(make_queue(stall_interval=50))
    await eventually(lambda: len(ran) >= 10)
    assert sorted(ran, key=int) == [str(n) for n in range(1, 11)]


async def test_a_periodic_check_finds_only_silent_workers(make_queue, redis, eventually):
    """The callback form is the ``stalled`` event."""
    worker = make_queue(stall_interval=100, activate_delayed_jobs=False)
    end = asyncio.Event()
    ran = []

    @worker.process(concurrency=2)
    async def handler(job):
        ran.append(job.id)
        await end.wait()

    healthy = [await worker.enqueue({}, id=f"healthy-{n}") for n in range(2)]
    await eventually(lambda: len(ran) == 2)
    checker = make_queue(is_worker=False, stall_interval=100)
    heard: list[Any] = []
    for queue in (checker, worker):
        queue.on("stalled", heard.append)
    await checker.check_stalled_jobs(interval=50)
    await orphan(redis, checker.keys, "first", "second")
    await eventually(lambda: len(heard) == 2)
    assert sorted(heard) == ["first", "second"]
    await orphan(redis, checker.keys, "third")
    await redis.lrem(checker.keys.waiting, 0, "third")
    await eventually(lambda: len(heard) == 3)
    assert heard[2] == "third"
    end.set()
    for job in healthy:
        await job.result(timeout=5000)
    await eventually(lambda: len(ran) == 5)
    assert ran.count("healthy-0") == ran.count("healthy-1") == 1


async def test_a_failed_first_check_raises_and_later_ones_are_events(make_queue, redis, eventually):
    queue = make_queue(is_worker=False, stall_interval=10)
    errors: list[Any] = []
    queue.on("error", errors.append)
    await redis.set(queue.keys.stalling, "of the wrong type")
    with pytest.raises(RedisRefused, match="WRONGTYPE"):
        await queue.check_stalled_jobs(interval=20)
    await eventually(lambda: len(errors) >= 2)
    await redis.delete(queue.keys.stalling)
    await orphan(redis, queue.keys, "1")
    stalled: list[Any] = []
    queue.on("stalled", stalled.append)
    await eventually(lambda: stalled == ["1"])


async def test_a_worker_whose_first_check_fails_works_all_the_same(make_queue, redis):
    """bee-queue's worker is dead from then on."""
    worker = make_queue(stall_interval=100)
    errors: list[Any] = []
    worker.on("error", errors.append)
    await redis.set(worker.keys.stalling, "of the wrong type")
    noting(worker)
    await redis.delete(worker.keys.stalling)
    job = await worker.enqueue({})
    await job.result(timeout=5000)


async def test_a_stall_interval_has_one_check_for_all_workers(make_queue, redis):
    first, second = make_queue(is_worker=False, stall_interval=60_000), make_queue(is_worker=False)
    await orphan(redis, first.keys, "1")
    assert await first.check_stalled_jobs() == 0
    assert await second.check_stalled_jobs() == 0
    assert await redis.lrange(first.keys.active, 0, -1) == ["1"]
    assert 0 < await redis.pttl(first.keys.stall_block) <= 60_000


async def test_a_stalled_job_keeps_its_retries_and_goes_to_the_back(make_queue, redis, eventually):
    checker = make_queue(is_worker=False, stall_interval=10)
    await checker.enqueue({}, id="other")
    record = RECORD.replace('"stacktraces":[]', '"stacktraces":[],"retries":2')
    await orphan(redis, checker.keys, "lost", record=record)
    await checker.check_stalled_jobs()
    await expired(redis, checker.keys, eventually)
    assert await checker.check_stalled_jobs() == 1
    assert await redis.lrange(checker.keys.waiting, 0, -1) == ["lost", "other"]
    assert await redis.hget(checker.keys.jobs, "lost") == record


@pytest.mark.parametrize("place", ["waiting", "active"])
async def test_an_id_without_a_record_is_dropped(make_queue, redis, eventually, place):
    """In bee-queue it goes round for ever."""
    worker = make_queue(stall_interval=50)
    await redis.lpush(worker.keys.to_key(place), "ghost")
    ran = noting(worker)

    async def is_gone():
        return not await redis.exists(worker.keys.waiting, worker.keys.active, worker.keys.stalling)

    await eventually(is_gone)
    await (await worker.enqueue({})).result(timeout=5000)
    assert ran == ["1"]


async def test_an_idle_worker_drops_an_id_without_a_record_and_goes_on(make_queue, redis):
    """The id arrives by the blocking move."""
    worker = make_queue()
    ran = noting(worker)
    await (await worker.enqueue({})).result(timeout=5000)
    await redis.lpush(worker.keys.waiting, "ghost")
    await (await worker.enqueue({})).result(timeout=5000)
    assert ran == ["1", "2"]
    assert await redis.exists(worker.keys.active) == 0


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{'a': 1}", '{"data":NaN}', "\udcff", '"text"', "7", "{" * 2000]
)
async def test_an_unreadable_record_fails_with_its_text_untouched(make_queue, redis, text, valkey, recorder):
    """In bee-queue it goes round for ever."""
    raw = text.encode(errors="surrogateescape")
    worker = make_queue()
    record = recorder(worker, "error")
    noting(worker)
    async with valkey.client() as client:
        await client.hset(worker.keys.jobs, "bad", raw)
        await client.lpush(worker.keys.waiting, "bad")
        ((error,),) = await record.until("error")
        assert isinstance(error, JobUnreadable)
        assert (error.job_id, error.raw) == ("bad", raw)
        await (await worker.enqueue({})).result(timeout=5000)
        assert await client.smembers(worker.keys.failed) == {b"bad"}
        assert await client.hget(worker.keys.jobs, "bad") == raw
        assert await client.exists(worker.keys.active) == 0


async def test_a_record_of_a_foreign_writer_runs_with_what_it_has(make_queue, redis):
    """Traces other than a list make bee-queue throw for ever."""
    worker = make_queue()

    @worker.process
    async def handler(job):
        if job.id == "odd":
            raise ValueError("no")
        return job.data

    await redis.hset(
        worker.keys.jobs, mapping={"bare": "{}", "odd": '{"options":{"stacktraces":"old","extra":{"x":1}}}'}
    )
    await redis.lpush(worker.keys.waiting, "bare", "odd")
    assert await (await worker.get_job("bare")).result(timeout=5000) == {}
    with pytest.raises(JobFailed, match="no"):
        await (await worker.get_job("odd")).result(timeout=5000)
    record = json.loads(await redis.hget(worker.keys.jobs, "odd"))
    new, old = record["options"]["stacktraces"]
    assert (new.splitlines()[0], old) == ("ValueError: no", "old")
    assert record["options"]["extra"] == {"x": 1}


async def test_a_job_that_outlives_too_many_workers_fails(make_queue, redis):
    """In bee-queue a job that kills its process is run for ever."""
    worker = make_queue(max_stalls=1)
    failures = []
    worker.on("failed:fatal", lambda job, error: failures.append((job.id, error)))
    await redis.hset(worker.keys.claims, mapping={"twice": "dead-worker-1:2", "once": "dead-worker-1:1"})
    await redis.hset(worker.keys.jobs, mapping={"twice": RECORD, "once": RECORD})
    await redis.lpush(worker.keys.waiting, "twice", "once")
    ran = noting(worker)
    job = await worker.get_job("twice")
    with pytest.raises(JobFailed, match="stall"):
        await job.result(timeout=5000)
    ((job_id, error),) = failures
    assert job_id == "twice"
    assert isinstance(error, JobStalled)
    assert ran == ["once"]
    assert await redis.smembers(worker.keys.failed) == {"twice"}
    assert "stall" in json.loads(await redis.hget(worker.keys.jobs, "twice"))["options"]["stacktraces"][0]


async def test_a_finished_job_has_no_deliveries_to_its_name(make_queue, redis):
    """A retry by hand resets the count."""
    worker = make_queue(max_stalls=0)
    runs = []

    @worker.process
    async def handler(_job):
        runs.append(1)
        if len(runs) < 3:
            raise ValueError("no")

    job = await worker.enqueue({}, retries=1)
    with pytest.raises(JobFailed):
        await job.result(timeout=5000)
    assert await redis.hlen(worker.keys.claims) == 0
    assert await job.retry()
    assert await job.result(timeout=5000) is None


async def test_what_node_peers_leave_is_swept_by_all_together(make_queue, redis, eventually):
    """Tens of thousands of fields are gone after some checks, not one page a check of each process."""
    queues = [make_queue(stall_interval=200) for _ in range(2)]
    keys = queues[0].keys
    for key, value in ((keys.claims, "dead.0:1"), (keys.results, "5:s1")):
        await redis.hset(key, mapping={f"removed {n}": value for n in range(10_000)})
    for queue in queues:
        noting(queue)

    async def is_swept():
        return not await redis.exists(keys.claims, keys.results, keys.swept)

    await eventually(is_swept)
