"""Finding, retrying, removing, running and cancelling many jobs of a queue."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from beeq import JobFailed, JobUnreadable
from beeq.protocol.keys import Keys
from beeq.sync import Queue as SyncQueue

pytestmark = pytest.mark.fast
STATES = ("waiting", "active", "delayed", "succeeded", "failed")


def record(status: str = "created", *, created_ms: int = 1, trace: str = "", **data: Any) -> str:
    options = {"timestamp": created_ms, "stacktraces": [trace] if trace else []}
    return json.dumps({"data": data, "options": options, "status": status, "progress": 0})


async def put(redis: Any, keys: Keys, state: str, records: dict[str, str]) -> None:
    """Put jobs into a state, the first one to run first."""
    if not records:
        return
    await redis.hset(keys.jobs, mapping=records)
    key = keys.to_key(state)
    if state in ("waiting", "active"):
        await redis.lpush(key, *records)
    elif state == "delayed":
        now_ms = int((await redis.time())[0]) * 1000
        await redis.zadd(key, {job_id: now_ms + 3_600_000 + n for n, job_id in enumerate(records)})
    else:
        await redis.sadd(key, *records)


async def members(redis: Any, keys: Keys, state: str) -> list[str]:
    """Return the ids of a state, those that run first at the front."""
    key = keys.to_key(state)
    if state in ("waiting", "active"):
        return list(reversed(await redis.lrange(key, 0, -1)))
    if state == "delayed":
        return list(await redis.zrange(key, 0, -1))
    return sorted(await redis.smembers(key), key=int)


@pytest.fixture
def queue(make_queue):
    return make_queue(is_worker=False, activate_delayed_jobs=False)


async def found(queue: Any, **filters: Any) -> list[Any]:
    return [(each.state, each.job.id) async for each in queue.find_jobs(**filters)]


@pytest.mark.real_redis("so many jobs take seconds there")
@pytest.mark.parametrize("state", STATES)
async def test_every_job_of_a_state_is_found_once(queue, redis, state):
    ids = [str(n) for n in range(1, 1311)]
    await put(redis, queue.keys, state, {job_id: record(n=int(job_id)) for job_id in ids})
    listed = [each async for each in queue.find_jobs(state=state)]
    assert {each.state for each in listed} == {state}
    order = [each.job.id for each in listed]
    assert order == ids if state in ("waiting", "active", "delayed") else sorted(order, key=int) == ids
    assert [each.job.data["n"] for each in listed] == list(map(int, order))
    assert all((each.due_ms is not None) is (state == "delayed") for each in listed)


async def test_without_a_state_all_states_are_looked_at(queue, redis):
    for n, state in enumerate(STATES):
        await put(redis, queue.keys, state, {str(n): record()})
    assert set(await found(queue)) == {(state, str(n)) for n, state in enumerate(STATES)}
    assert len(await found(queue, limit=3)) == 3


async def test_filters_must_all_hold(queue, redis):
    records = {
        "1": record("failed", trace="ValueError: no\n  at x", user=7),
        "2": record("failed", trace="TimeoutError: late", user=7),
        "3": record("failed", trace="TimeoutError: late", user=8),
    }
    await put(redis, queue.keys, "failed", records)
    assert await found(queue, state="failed", error="timeout", where={"data.user": 7}) == [("failed", "2")]
    (job,) = [each async for each in queue.find_jobs(error="valueerror")]
    assert (job.error, job.created_ms) == ("ValueError: no", 1)


async def test_an_unreadable_job_is_found_and_says_so(queue, redis):
    await put(redis, queue.keys, "failed", {"1": "{"})
    (job,) = [each async for each in queue.find_jobs(state="failed")]
    assert (job.job.id, job.job.data, job.created_ms) == ("1", {}, 0)
    assert job.error.startswith("Job 1 has an unreadable record")


async def test_jobs_that_leave_while_one_looks_hide_no_others(queue, redis):
    """Workers take from the front, so all that is left moves."""
    ids = [str(n) for n in range(2000)]
    await put(redis, queue.keys, "waiting", {job_id: record() for job_id in ids})
    seen = []
    async for each in queue.find_jobs(state="waiting"):
        seen.append(each.job.id)
        if len(seen) in (500, 1000):
            await redis.hdel(queue.keys.jobs, *await redis.rpop(queue.keys.waiting, 300))
            await queue.enqueue({"new": True})
    assert sorted(set(ids) - set(seen)) == []
    assert len(seen) == len(set(seen))


async def test_failed_jobs_wait_again_and_lose_their_outcome(queue, redis):
    ids = [str(n) for n in range(1, 251)]
    await put(redis, queue.keys, "failed", {job_id: record("failed", trace="E: no") for job_id in ids})
    await redis.hset(queue.keys.results, mapping=dict.fromkeys(ids, '1:f"no"'))
    progress: list[int] = []
    counts = await queue.retry_many(on_progress=lambda so_far: progress.append(so_far.done))
    assert (counts.seen, counts.matched, counts.done, counts.moved) == (250, 250, 250, 0)
    assert progress[-1] == 250
    assert sorted(await members(redis, queue.keys, "waiting"), key=int) == ids
    assert await redis.exists(queue.keys.failed, queue.keys.results) == 0
    statuses = {json.loads(each)["status"] for each in await redis.hvals(queue.keys.jobs)}
    assert statuses == {"retrying"}


async def test_only_those_that_are_meant_are_retried(queue, redis):
    records = {str(n): record("failed", user=n % 3) for n in range(30)}
    await put(redis, queue.keys, "failed", records)
    counts = await queue.retry_many(where={"data.user": 1}, limit=4)
    assert (counts.matched, counts.done) == (4, 4)
    assert len(await members(redis, queue.keys, "failed")) == 26


async def test_an_unreadable_job_is_not_retried_and_counted(queue, redis):
    await put(redis, queue.keys, "failed", {"1": "{", "2": record("failed")})
    counts = await queue.retry_many()
    assert (counts.matched, counts.done, counts.unreadable) == (2, 1, 1)
    assert await members(redis, queue.keys, "failed") == ["1"]


@pytest.mark.real_redis("so many jobs take seconds there")
@pytest.mark.parametrize("state", STATES)
async def test_removed_jobs_are_gone_and_the_others_stay(queue, redis, state):
    records = {str(n): record(even=n % 2 == 0) for n in range(1200)}
    await put(redis, queue.keys, state, records)
    counts = await queue.remove_many(state=state, where={"data.even": True})
    assert (counts.seen, counts.matched, counts.done, counts.moved) == (1200, 600, 600, 0)
    left = [str(n) for n in range(1, 1200, 2)]
    assert await members(redis, queue.keys, state) == left
    assert sorted(await redis.hkeys(queue.keys.jobs), key=int) == left


@pytest.mark.parametrize("state", ["waiting", "active", "delayed"])
async def test_cancelled_jobs_are_told_as_failed(queue, redis, state):
    records = {f"c{n}": record(n=n) for n in range(5)}
    await put(redis, queue.keys, state, records)
    job = await queue.get_job("c3")
    result = asyncio.ensure_future(job.result(timeout=5000))
    counts = await queue.cancel_many(where={"data.n": 3})
    assert (counts.seen, counts.done) == (5, 1)
    with pytest.raises(JobFailed, match="Job c3 was cancelled"):
        await result
    assert (await queue.job_state("c3")).state == "cancelled"
    assert await members(redis, queue.keys, state) == ["c0", "c1", "c2", "c4"]


async def test_jobs_that_run_are_stopped_by_a_cancellation(make_queue, eventually):
    worker = make_queue()
    begun = asyncio.Event()
    stopped = []

    @worker.process(concurrency=3)
    async def handler(job):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(job.id)

    await worker.enqueue({})
    await begun.wait()
    assert (await worker.cancel_many(state="active")).done == 1
    await eventually(lambda: stopped == ["1"])
    assert await worker.check_health() == await make_queue(is_worker=False).check_health()


async def test_delayed_jobs_run_now_in_the_order_of_their_times(queue, redis):
    ids = [str(n) for n in range(1, 701)]
    await put(redis, queue.keys, "delayed", {job_id: record() for job_id in ids})
    assert (await queue.run_many(limit=650)).done == 650
    assert await members(redis, queue.keys, "waiting") == ids[:650]
    assert await members(redis, queue.keys, "delayed") == ids[650:]
    assert await queue.run_job(651) is True
    assert await queue.run_job("651") is False
    assert await queue.run_job("nobody") is False


async def test_many_due_at_one_moment_are_all_run(queue, redis):
    """Equal times have no order but that of the ids, and the page's end may lie among them."""
    records = {f"{n:04}": record(odd=n % 2) for n in range(1700)}
    await put(redis, queue.keys, "delayed", records)
    await redis.zadd(queue.keys.delayed, dict.fromkeys(records, 9_999_999_999_999))
    assert (await queue.run_many(where={"data.odd": 1})).done == 850
    assert await members(redis, queue.keys, "delayed") == list(records)[::2]


async def test_a_dry_run_counts_and_changes_nothing(queue, redis):
    for state in ("failed", "waiting", "delayed"):
        await put(redis, queue.keys, state, {state: record()})
    for verb in (queue.retry_many, queue.run_many, queue.cancel_many):
        counts = await verb(dry_run=True)
        assert (counts.matched, counts.done) == (2 if verb == queue.cancel_many else 1, 0)
    assert (await queue.remove_many(state=STATES, dry_run=True)).matched == 3
    assert (await queue.purge("failed", dry_run=True)).matched == 1
    assert await members(redis, queue.keys, "waiting") == ["waiting"]
    assert await members(redis, queue.keys, "delayed") == ["delayed"]
    assert await redis.smembers(queue.keys.failed) == {"failed"}


async def test_a_purge_takes_what_is_older(queue, redis):
    now_ms = queue.now_ms()
    records = {str(n): record("failed", created_ms=now_ms - n * 86_400_000) for n in range(10)}
    await put(redis, queue.keys, "failed", records)
    assert (await queue.purge("failed", timedelta(days=6))).done == 4
    assert await members(redis, queue.keys, "failed") == list("012345")
    assert (await queue.purge("failed")).done == 6


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda queue: queue.remove_many(), "remove_many needs a state"),
        (lambda queue: queue.retry_many(state="waiting"), "state must be one of failed"),
        (lambda queue: queue.run_many(state="failed"), "state must be one of delayed"),
        (lambda queue: queue.cancel_many(state="failed"), "state must be one of active, waiting, delayed"),
        (lambda queue: queue.purge("active"), "state must be one of waiting, delayed, succeeded, failed"),
    ],
)
async def test_a_state_that_makes_no_sense_is_refused(queue, call, complaint):
    with pytest.raises(ValueError, match=complaint):
        await call(queue)


async def test_an_id_that_is_no_text_is_acted_on_too(queue, redis):
    raw = b"\xff\xfe"
    await redis.hset(queue.keys.jobs, raw, record("failed"))
    await redis.sadd(queue.keys.failed, raw)
    assert (await queue.retry_many()).done == 1
    assert (await queue.purge("waiting")).done == 1
    assert await redis.exists(queue.keys.jobs, queue.keys.waiting, queue.keys.failed) == 0


async def test_large_records_are_read_a_few_at_a_time(queue, redis):
    records = {str(n): record("failed", text="x" * 300_000) for n in range(12)}
    await put(redis, queue.keys, "failed", records)
    seen: list[int] = []
    assert (await queue.retry_many(on_progress=lambda so_far: seen.append(so_far.seen))).done == 12
    assert len(seen) >= 4


async def test_get_jobs_still_says_what_it_cannot_read(make_queue, redis, expect_errors):
    queue = make_queue(is_worker=False)
    await put(redis, queue.keys, "failed", {"1": "{"})
    assert await queue.get_jobs("failed") == []
    assert [type(error) for error in expect_errors] == [JobUnreadable]


def test_the_blocking_twins_do_the_same(valkey, queue_name, sync_redis, audit):
    with SyncQueue(queue_name, redis=valkey.url, activate_delayed_jobs=False) as queue:
        keys = Keys("bq", queue_name)
        audit.append(keys)
        sync_redis.hset(keys.jobs, mapping={str(n): record("failed", n=n) for n in range(250)})
        sync_redis.sadd(keys.failed, *map(str, range(250)))
        jobs = queue.find_jobs(state="failed", where={"data.n": 7})
        (job,) = list(jobs)
        assert (job.state, job.job.retry()) == ("failed", True)
        assert len(list(queue.find_jobs())) == 250
        assert queue.retry_many(limit=9).done == 9
        assert queue.cancel_many().done == 10
        later = queue.enqueue({}, delay_until=timedelta(hours=1))
        assert queue.run_many(dry_run=True).matched == 1
        assert queue.run_job(later.id) is True
        assert queue.remove_many(state="waiting").done == 1
        assert queue.purge("failed").done == 240
