"""What is noted of failed attempts, and what one sees of a job with them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beeq import Discard, JobFailed, Retry
from beeq.process import process_name
from beeq.protocol.attempts import FailedAttempt, decode_attempts, encode_attempt
from beeq.sync import Queue as SyncQueue

pytestmark = pytest.mark.fast


async def test_each_failed_attempt_is_told_the_newest_first(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(job):
        count = len(job.options["stacktraces"])
        await asyncio.sleep(0.02)
        if count == 2:
            raise Discard("no more")
        raise Retry(after=5, reason=f"attempt {count + 1}")

    before_ms = queue.now_ms()
    job = await queue.enqueue({}, retries=5)
    with pytest.raises(JobFailed, match="no more"):
        await job.result(timeout=10_000)
    details = await queue.inspect_job(job.id)
    assert (details.state, details.job.id, str(details.ended.error)) == ("failed", job.id, "no more")
    errors = [attempt.error for attempt in details.attempts]
    assert errors == ["Discard: no more", "Retry: attempt 2", "Retry: attempt 1"]
    assert {attempt.worker for attempt in details.attempts} == {process_name()}
    moments = [
        moment
        for attempt in reversed(details.attempts)
        for moment in (attempt.started_ms, attempt.ended_ms - 10)
    ]
    assert [before_ms, *moments, queue.now_ms()] == sorted([before_ms, *moments, queue.now_ms()])


async def test_a_success_keeps_earlier_failures_and_adds_none(make_queue, redis):
    queue = make_queue()

    @queue.process
    async def handler(job):
        if job.data["fails"] and not job.options["stacktraces"]:
            raise ValueError("once")
        return 5

    bad = await queue.enqueue({"fails": True}, retries=1)
    good = await queue.enqueue({"fails": False})
    assert [await bad.result(timeout=5000), await good.result(timeout=5000)] == [5, 5]
    details = await queue.inspect_job(bad.id)
    assert (details.state, details.ended.value) == ("succeeded", 5)
    assert [attempt.error for attempt in details.attempts] == ["ValueError: once"]
    assert await redis.hkeys(queue.keys.attempts) == [bad.id]
    await bad.remove()
    assert await redis.exists(queue.keys.attempts) == 0


async def test_a_result_that_cannot_be_written_is_a_failed_attempt(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(_job):
        return object()

    job = await queue.enqueue({})
    with pytest.raises(JobFailed):
        await job.result(timeout=5000)
    (attempt,) = (await queue.inspect_job(job.id)).attempts
    assert attempt.error.startswith("TypeError: cannot be written as JSON")


async def test_an_unreadable_job_has_its_attempt_told(make_queue, redis, expect_errors, eventually):
    queue = make_queue()
    await redis.hset(queue.keys.jobs, "1", "{")
    await redis.lpush(queue.keys.waiting, "1")
    queue.process(lambda _job: None)

    async def has_failed() -> bool:
        return bool(await redis.sismember(queue.keys.failed, "1"))

    await eventually(has_failed)
    details = await queue.inspect_job("1")
    assert (details.job, details.state, details.created_ms) == (None, "failed", 0)
    assert details.problem.startswith("Job 1 has an unreadable record")
    assert [attempt.error.partition(":")[0] for attempt in details.attempts] == ["JobUnreadable"]
    assert len(expect_errors) == 1


async def test_a_job_stands_where_it_stands(make_queue):
    queue = make_queue(is_worker=False, activate_delayed_jobs=False)
    due_ms = queue.now_ms() + 60_000
    first = await queue.enqueue({})
    second = await queue.enqueue({}, id="second")
    later = await queue.enqueue({}, delay_until=due_ms)
    assert [(await queue.inspect_job(job.id)).ahead for job in (first, second)] == [0, 1]
    details = await queue.inspect_job(later.id)
    assert (details.state, details.due_ms, details.ahead, details.deliveries) == ("delayed", due_ms, None, 0)
    await queue.cancel_job("second")
    cancelled = await queue.inspect_job("second")
    assert (cancelled.state, cancelled.job, cancelled.ended.is_cancelled) == ("cancelled", None, True)
    assert await queue.inspect_job("nobody") is None


async def test_age_is_counted_from_the_last_failure(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(_job):
        raise ValueError("now")

    old = queue.create_job({})
    old.options["timestamp"] = 1000
    await old.save()
    with pytest.raises(JobFailed):
        await old.result(timeout=5000)
    assert (await queue.purge("failed", "1h")).matched == 0
    assert [found.job.id async for found in queue.find_jobs(since="1h")] == [old.id]
    assert (await queue.purge("failed", 0, dry_run=True)).matched in (0, 1), "0: within a millisecond"


def test_a_line_that_nobody_wrote_is_passed_over():
    line = encode_attempt(created_ms=5, started_ms=1, ended_ms=2, worker="w:1", error=ValueError("é\n\ud800"))
    assert b"\n" not in line
    lines = b"\n".join([line, b"nonsense", b"[1,2]", b'[5,"x",2,"w","e"]', b'[6,1,2,"w","e"]'])
    expected = FailedAttempt("w:1", 1, 2, "ValueError: é\n\ud800")
    assert decode_attempts(lines, created_ms=5) == [expected]
    assert decode_attempts(lines, created_ms=None) == [expected, FailedAttempt("w", 1, 2, "e")]


def test_a_long_error_is_cut():
    raw = encode_attempt(created_ms=1, started_ms=1, ended_ms=1, worker="w", error=ValueError("x" * 5000))
    (attempt,) = decode_attempts(raw, created_ms=1)
    assert (len(attempt.error), attempt.error[-1]) == (500, "…")


def test_the_blocking_twin_tells_the_same(valkey, queue_name, audit):
    with SyncQueue(queue_name, redis=valkey.url) as queue:
        job = queue.enqueue({"n": 1})
        details: Any = queue.inspect_job(job.id)
        assert (details.state, details.job.data, details.job.remove()) == ("waiting", {"n": 1}, details.job)
        assert queue.inspect_job(job.id) is None
        queue.destroy()
