"""Redis says no: wrong types, no memory, no permission, read-only. Nothing is lost, and work goes on after."""

from __future__ import annotations

import asyncio

import pytest

from beeq import JobFailed, Queue, RedisRefused, RedisUnavailable

EAGER = {"initial_redis_failure_retry_delay": 10, "stall_interval": 200}


@pytest.mark.parametrize("suffix", ["succeeded", "beeq:results"])
async def test_a_success_that_cannot_be_written_is_written_later(make_queue, redis, recorder, suffix):
    """bee-queue reports success, and the job is nowhere."""
    worker = make_queue(**EAGER)
    record = recorder(worker, "error", "succeeded")
    runs = []

    @worker.process
    async def handler(job):
        runs.append(job.id)
        await redis.set(worker.to_key(suffix), "of the wrong type")
        return "value"

    job = await worker.enqueue({})
    errors = await record.until("error", count=2)
    assert "WRONGTYPE" in str(errors[0][0])
    assert record.of("succeeded") == []
    await redis.delete(worker.to_key(suffix))
    assert [(done.id, result) for done, result in await record.until("succeeded")] == [(job.id, "value")]
    assert runs == [job.id]
    assert await redis.smembers(worker.keys.succeeded) == {job.id}
    assert await job.result(timeout=1000) == "value"


@pytest.mark.parametrize(("suffix", "retries"), [("failed", 0), ("delayed", 1)])
async def test_a_failure_that_cannot_be_written_is_written_later(
    make_queue, redis, recorder, suffix, retries
):
    """bee-queue does not look at the replies in its transaction."""
    worker = make_queue(**EAGER)
    record = recorder(worker, "error", "failed")

    @worker.process
    async def handler(_job):
        await redis.set(worker.to_key(suffix), "of the wrong type")
        raise ValueError("no")

    job = await worker.enqueue({}, retries=retries, backoff=("fixed", 60_000))
    await record.until("error", count=2)
    assert record.of("failed") == []
    await redis.delete(worker.to_key(suffix))
    ((failed, error),) = await record.until("failed")
    assert (failed.id, str(error)) == (job.id, "no")
    assert await job.is_in_set(suffix)
    assert (await worker.check_health()).active == 0


async def test_a_worker_on_a_wrong_typed_queue_recovers_with_it(make_queue, redis, recorder):
    """bee-queue's delay doubles at each try, without a cap."""
    worker = make_queue(**EAGER)
    await redis.set(worker.keys.waiting, "of the wrong type")
    record = recorder(worker, "error")

    @worker.process
    async def handler(_job):
        return "value"

    await record.until("error", count=3)
    await redis.delete(worker.keys.waiting)
    assert await (await worker.enqueue({})).result(timeout=5000) == "value"


@pytest.mark.parametrize("suffix", ["stalling", "beeq:claims", "active"])
async def test_jobs_that_cannot_be_claimed_properly_run_once_they_can(make_queue, redis, recorder, suffix):
    """And a claim that Redis refused counts as no run."""
    worker = make_queue(max_stalls=1, **EAGER)
    record = recorder(worker, "error")
    runs = []

    @worker.process(concurrency=2)
    async def handler(job):
        runs.append(job.id)

    await (await worker.enqueue({})).result(timeout=5000)
    await redis.delete(worker.to_key(suffix))
    await redis.set(worker.to_key(suffix), "of the wrong type")
    jobs = [await worker.enqueue({}) for _ in range(3)] if suffix != "beeq:claims" else []
    if not jobs:
        await redis.hset(
            worker.keys.jobs, mapping=dict.fromkeys("234", '{"data":{},"options":{"timestamp":1}}')
        )
        await redis.lpush(worker.keys.waiting, *"234")
        jobs = [await worker.get_job(job_id) for job_id in "234"]
    await record.until("error", count=8)
    await redis.delete(worker.to_key(suffix))
    for job in jobs:
        await job.result(timeout=4000)
    assert sorted(runs) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("suffix", ["waiting", "beeq:claims"])
async def test_a_stall_check_that_is_refused_loses_no_job(make_queue, redis, suffix, eventually):
    """What cannot be queued again stays where the next check finds it."""
    checker = make_queue(is_worker=False, stall_interval=10)
    job = await checker.enqueue({})
    await redis.lmove(checker.keys.waiting, checker.keys.active, "RIGHT", "LEFT")
    assert await checker.check_stalled_jobs() == 0

    async def is_open():
        return not await redis.exists(checker.keys.stall_block)

    await eventually(is_open)
    await redis.set(checker.to_key(suffix), "of the wrong type")
    with pytest.raises(RedisRefused, match="WRONGTYPE"):
        await checker.check_stalled_jobs()
    await redis.delete(checker.to_key(suffix))

    async def is_back():
        await checker.check_stalled_jobs()
        return await redis.lrange(checker.keys.waiting, 0, -1) == [job.id]

    await eventually(is_back, 3)
    assert await redis.llen(checker.keys.active) == 0


async def test_a_job_that_cannot_be_handed_back_is_not_lost(make_queue, redis, expect_errors):
    """It stays in active, where a stall check finds it."""
    worker = make_queue(**EAGER)
    started = asyncio.Event()

    @worker.process
    async def handler(_job):
        started.set()
        await asyncio.Event().wait()

    job = await worker.enqueue({})
    await asyncio.wait_for(started.wait(), 30)
    await redis.set(worker.keys.waiting, "of the wrong type")
    with pytest.raises(TimeoutError, match="Operation timed out"):
        await worker.close(10)
    assert await redis.lrange(worker.keys.active, 0, -1) == [job.id]
    await redis.delete(worker.keys.waiting)


async def test_without_memory_saves_raise_and_outcomes_wait(own_valkey, make_queue, recorder):
    """In bee-queue the job runs again and again."""
    worker = make_queue(redis=own_valkey.url, **EAGER)
    record = recorder(worker, "error", "succeeded")
    runs = []
    async with own_valkey.client() as admin:

        @worker.process
        async def handler(job):
            runs.append(job.id)
            await admin.config_set("maxmemory", 1)
            return "value"

        job = await worker.enqueue({})
        await record.until("error", count=2)
        with pytest.raises(RedisRefused) as refused:
            await worker.enqueue({})
        assert refused.value.code == "OOM"
        errors = await worker.save_all([worker.create_job({}) for _ in range(2)])
        assert {error.code for error in errors.values()} == {"OOM"}
        await admin.config_set("maxmemory", 0)
        await record.until("succeeded")
        assert await job.result(timeout=5000) == "value"
        assert runs == [job.id]
        assert (await worker.check_health()).waiting == 0


@pytest.mark.more_rights("a user of its own")
@pytest.mark.parametrize("drops", [False, True])
async def test_a_user_who_may_not_publish_still_gets_jobs_done_once(own_valkey, make_queue, recorder, drops):
    async with own_valkey.client() as admin:
        await admin.execute_command("ACL", "SETUSER", "quiet", "on", ">pw", "~*", "&*", "+@all", "-publish")
    url = own_valkey.url.replace("redis://", "redis://quiet:pw@")
    producer = make_queue(redis=own_valkey.url, is_worker=False)
    worker = make_queue(redis=url, remove_on_success=drops, remove_on_failure=drops, **EAGER)
    record = recorder(worker, "error")
    runs = []

    @worker.process
    async def handler(job):
        runs.append(job.id)
        if job.data == "bad":
            raise ValueError("no")
        return job.data

    good, bad = await producer.enqueue("good"), await producer.enqueue("bad")
    assert await good.result(timeout=5000) == "good"
    with pytest.raises(JobFailed, match="no"):
        await bad.result(timeout=5000)
    assert runs == [good.id, bad.id]
    await record.until("error")
    assert all("pw" not in str(error) for (error,) in record.of("error"))
    health = await producer.check_health()
    assert (health.waiting, health.active) == (0, 0)
    assert (health.succeeded, health.failed) == ((0, 0) if drops else (1, 1))


@pytest.mark.more_rights("a user of its own")
async def test_a_user_who_may_not_write_gets_a_refusal_by_name(own_valkey, make_queue):
    async with own_valkey.client() as admin:
        await admin.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@all", "-lpush")
    queue = make_queue(redis=own_valkey.url.replace("redis://", "redis://reader:pw@"), is_worker=False)
    said: list[BaseException] = []
    queue.on("error", said.append)  # the lack is said when the queue opens
    with pytest.raises(RedisRefused) as refused:
        await queue.enqueue({})
    for text in map(str, [refused.value, *said]):
        assert "lpush" in text.lower()
        assert "pw" not in text
    async with own_valkey.client() as admin:
        assert await admin.exists(queue.keys.jobs) == 0


@pytest.mark.more_rights("a user of its own")
@pytest.mark.parametrize("credentials", ["quiet:wrong-secret", ":wrong-secret"])
async def test_a_wrong_password_is_unavailable_and_never_named(own_valkey, make_queue, credentials):
    async with own_valkey.client() as admin:
        await admin.execute_command("ACL", "SETUSER", "quiet", "on", ">pw", "~*", "&*", "+@all")
    url = own_valkey.url.replace("redis://", f"redis://{credentials}@")
    queue = make_queue(redis=url, is_worker=False)
    with pytest.raises(RedisUnavailable) as refused:
        await asyncio.wait_for(queue.ready(), 10)
    assert "wrong-secret" not in f"{refused.value!r} {queue.connector!r} {queue!r}"


async def test_a_server_that_is_read_only_for_a_while_costs_no_job(own_valkey, make_queue, recorder):
    """A failover: the old master refuses writes until the new one is known."""
    queue = make_queue(redis=own_valkey.url, **EAGER)
    record = recorder(queue, "error", "succeeded")
    started, end = asyncio.Event(), asyncio.Event()

    @queue.process
    async def handler(_job):
        started.set()
        await end.wait()
        return "value"

    job = await queue.enqueue({})
    await asyncio.wait_for(started.wait(), 30)
    async with own_valkey.client() as admin:
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        end.set()
        await record.until("error", count=2)
        with pytest.raises((RedisUnavailable, RedisRefused), match="READONLY"):
            await queue.enqueue({})
        await admin.execute_command("REPLICAOF", "NO", "ONE")
    await record.until("succeeded")
    assert await job.result(timeout=5000) == "value"


async def test_a_password_in_the_url_is_in_no_repr(queue_name):
    queue = Queue(queue_name, redis="redis://user:secret@127.0.0.1:1/0")
    assert "secret" not in f"{queue!r} {queue.connector!r} {queue.settings!r}"
    with pytest.raises(RedisUnavailable) as away:
        await queue.ready()
    assert "secret" not in f"{away.value!r}"
    await queue.close()
