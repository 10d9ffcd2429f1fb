"""Watching one job, on workers of any kind, until it has ended."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from beeq import Discard, Postpone
from beeq.sync import Queue as SyncQueue

pytestmark = pytest.mark.fast


@pytest.fixture
def queue(make_queue):
    return make_queue(is_worker=False, activate_delayed_jobs=False)


async def watched(queue: Any, job_id: Any, within: Any = "20s") -> list[tuple[str, Any]]:
    return [(news.event, news.value) async for news in queue.watch_job(job_id, within)]


async def test_progress_failed_attempts_and_the_end_are_told(queue, make_queue):
    worker = make_queue(delayed_debounce=1)
    job = await queue.enqueue({"n": 1}, retries=1)
    news = queue.watch_job(job.id, "20s")
    assert (await anext(news)).event == "waiting"
    left = 1

    @worker.process
    async def handle(job):
        nonlocal left
        await job.report_progress(40)
        if left:
            left -= 1
            raise ValueError("not yet")
        return {"a": 1}

    reported = [(each.event, each.value) async for each in news]
    assert [each for each in reported if each[0] not in ("waiting", "active")] == [
        ("progress", 40),
        ("retrying", "not yet"),
        ("progress", 40),
        ("succeeded", {"a": 1}),
    ]
    assert ("active", None) in reported


async def test_a_job_for_which_others_run_first_says_how_many(queue):
    for n in range(3):
        await queue.enqueue({"n": n})
    with pytest.raises(TimeoutError, match="Job 3 did not end within 50 ms"):
        await watched(queue, 3, 50)
    assert (await anext(queue.watch_job("3"))).value == 2


@pytest.mark.parametrize(
    ("act", "reported"),
    [
        (lambda queue, job: queue.cancel_job(job.id), [("cancelled", "Job 1 was cancelled")]),
        (lambda queue, job: queue.remove_job(job.id), [("gone", None)]),
        (lambda queue, _job: queue.destroy(), [("gone", None)]),
    ],
    ids=["cancelled", "removed", "destroyed"],
)
async def test_what_is_taken_away_meanwhile_is_reported(queue, make_queue, act, reported):
    job = await queue.enqueue({})
    news = queue.watch_job(job.id, "20s")
    assert (await anext(news)).event == "waiting"
    await act(make_queue(is_worker=False), job)
    assert [(each.event, each.value) async for each in news] == reported


async def test_a_job_that_has_ended_is_told_at_once(queue, make_queue):
    worker = make_queue(remove_on_success=True)

    @worker.process
    async def handle(job):
        if job.data["fails"]:
            raise Discard("no")
        return 7

    good, bad = await queue.enqueue({"fails": False}), await queue.enqueue({"fails": True})
    await good.result(20_000)
    with pytest.raises(Exception, match="no"):
        await bad.result(20_000)
    assert await watched(queue, good.id) == [("succeeded", 7)], "though its record went"
    assert await watched(queue, bad.id) == [("failed", "no")]
    assert await watched(queue, "nobody") == [("gone", None)]


async def test_a_job_whose_record_goes_at_its_end_is_told(queue, make_queue):
    worker = make_queue(remove_on_success=True)
    job = await queue.enqueue({})
    news = queue.watch_job(job.id, "20s")
    await anext(news)

    @worker.process
    async def handle(job):
        return "made"

    assert [each async for each in news][-1].value == "made"


async def test_a_job_that_is_put_off_is_told(queue, make_queue):
    worker = make_queue(delayed_debounce=1)
    times = 0

    @worker.process
    async def handle(job):
        nonlocal times
        times += 1
        if times == 1:
            raise Postpone(200, "not now")

    reported = await watched(queue, (await queue.enqueue({})).id)
    assert ("postponed", "not now") in reported
    assert reported[-1] == ("succeeded", None)


@pytest.mark.real_redis("it cannot show that no other database is in use, so such events are doubted")
async def test_a_failed_job_that_a_peer_retries_is_watched(queue, redis):
    """Node's retry leaves the record as it is: it goes on saying that the job has failed."""
    record = {"data": {}, "options": {"timestamp": 1, "stacktraces": ["Error: no"]}, "status": "failed"}
    await redis.hset(queue.keys.jobs, "5", json.dumps({**record, "progress": 3}))
    await redis.lpush(queue.keys.waiting, "5")
    news = queue.watch_job(5, "20s")
    assert [(await anext(news)).event, (await anext(news)).value] == ["waiting", 3]
    for event, data in (("progress", 50), ("succeeded", "yes")):
        await redis.publish(queue.keys.events, json.dumps({"id": "5", "event": event, "data": data}))
    assert [(each.event, each.value) async for each in news] == [
        ("active", None),
        ("progress", 50),
        ("succeeded", "yes"),
    ]


async def test_an_end_without_an_event_is_found(queue, redis):
    """As of a Node worker that sends no events, or while the connection was down."""
    job = await queue.enqueue({})
    news = queue.watch_job(job.id, "20s")
    await anext(news)
    async with redis.pipeline(transaction=True) as step:
        await step.lrem(queue.keys.waiting, 1, job.id).sadd(queue.keys.succeeded, job.id).execute()
    assert [(each.event, each.value) async for each in news] == [("succeeded", None)]


async def test_a_delayed_job_is_told_to_wait_once_it_is_raised(queue, redis):
    job = await queue.enqueue({}, delay_until=timedelta(minutes=1))
    news = queue.watch_job(job.id, "20s")
    assert (await anext(news)).event == "delayed"
    async with redis.pipeline(transaction=True) as step:
        await step.zrem(queue.keys.delayed, job.id).lpush(queue.keys.waiting, job.id).execute()
    reported = await anext(news)
    assert (reported.event, reported.value) == ("waiting", 0)


async def test_an_unreadable_record_is_watched_all_the_same(queue, redis):
    await redis.hset(queue.keys.jobs, "odd", "{")
    await redis.lpush(queue.keys.waiting, "odd")
    news = queue.watch_job("odd", "20s")
    assert (await anext(news)).event == "waiting"
    await queue.remove_job("odd")
    assert [each.event async for each in news] == ["gone"]


@pytest.mark.real_redis("it cannot show that no other database is in use, so such events are doubted")
async def test_of_much_progress_the_newest_is_told(queue, redis):
    job = await queue.enqueue({})
    news = queue.watch_job(job.id, "20s")
    await anext(news)
    async with redis.pipeline(transaction=False) as step:
        for n in range(1, 3001):
            step.publish(queue.keys.events, json.dumps({"id": job.id, "event": "progress", "data": n}))
        step.publish(queue.keys.events, json.dumps({"id": job.id, "event": "succeeded", "data": "done"}))
        await step.execute()
    await job.result(20_000)
    reported = [each async for each in news]
    assert [each.value for each in reported[-2:]] == [3000, "done"]


async def test_the_blocking_queue_watches_too(queue, valkey, queue_name):
    job = await queue.enqueue({})

    def watch() -> list[str]:
        with SyncQueue(queue_name, redis=valkey.url) as blocking:
            news = blocking.watch_job(job.saved_id(), "20s")
            first = next(news).event
            blocking.cancel_job(job.saved_id())
            return [first, *(each.event for each in news)]

    assert await asyncio.to_thread(watch) == ["waiting", "cancelled"]
