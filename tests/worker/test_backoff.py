"""How long a job waits between its attempts."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from beeq import JobFailed, Retry

pytestmark = pytest.mark.fast


def failing(queue, times):
    """Make the queue's handler fail so many times; return what each attempt saw, and when."""
    seen = []
    loop = asyncio.get_running_loop()

    @queue.process
    async def handler(job):
        seen.append((loop.time(), json.loads(json.dumps(job.options.get("backoff")))))
        if len(seen) <= times:
            raise ValueError("not yet")

    return seen


def gaps_ms(seen):
    return [round((after[0] - before[0]) * 1000) for before, after in pairwise(seen)]


@pytest.mark.parametrize(
    ("strategy", "delay", "text"),
    [
        ("wow", None, "^unknown strategy$"),
        ("", 5, "^unknown strategy$"),
        (None, 5, "^unknown strategy$"),
        ("fixed", -100, "^delay must be a positive integer$"),
        ("fixed", 0, "^delay must be a positive integer$"),
        ("fixed", 44.5, "^delay must be a positive integer$"),
        ("fixed", None, "^delay must be a positive integer$"),
        ("exponential", "5", "^delay must be a positive integer$"),
        ("exponential", math.inf, "^delay must be a positive integer$"),
        ("fixed", 2**53, "^delay must be a positive integer$"),
        ("fixed", True, "^delay must be a positive integer$"),
    ],
)
def test_an_unknown_strategy_or_a_bad_delay_is_refused(make_queue, strategy, delay, text):
    with pytest.raises(ValueError, match=text):
        make_queue().create_job({}).backoff(strategy, delay)


async def test_a_strategy_of_the_queues_own_decides_the_delay(make_queue, redis):
    queue = make_queue(delayed_debounce=1)
    asked = []

    def linear(job):
        asked.append(job.id)
        return job.options["backoff"]["delay"] * len(asked)

    queue.backoff_strategies["linear"] = linear
    seen = failing(queue, 2)
    job = await queue.create_job({}).retries(2).backoff("linear", 30).save()
    await job.result(timeout=5000)
    first, second = gaps_ms(seen)
    assert first >= 29
    assert second >= 59
    assert [backoff for _, backoff in seen] == [{"strategy": "linear", "delay": 30}] * 3


async def test_fixed_waits_its_delay_each_time(make_queue):
    queue = make_queue(delayed_debounce=1)
    seen = failing(queue, 2)
    job = await queue.enqueue({}, retries=2, backoff=("fixed", 40))
    await job.result(timeout=5000)
    assert min(gaps_ms(seen)) >= 39
    assert [backoff for _, backoff in seen] == [{"strategy": "fixed", "delay": 40}] * 3


async def test_immediate_stores_only_its_name_and_waits_for_nothing(make_queue):
    queue = make_queue(activate_delayed_jobs=False)
    seen = failing(queue, 2)
    job = await queue.enqueue({}, retries=2, backoff="immediate")
    await job.result(timeout=5000)
    assert [backoff for _, backoff in seen] == [{"strategy": "immediate"}] * 3


async def test_exponential_doubles_its_delay_in_the_record(make_queue):
    queue = make_queue(delayed_debounce=1)
    seen = failing(queue, 2)
    job = await queue.enqueue({}, retries=2, backoff=("exponential", 30))
    await job.result(timeout=5000)
    first, second = gaps_ms(seen)
    assert first >= 29
    assert second >= 59
    assert [backoff["delay"] for _, backoff in seen] == [30, 60, 120]


async def test_a_retry_that_waits_is_a_delayed_job_meanwhile(make_queue, redis):
    queue = make_queue()
    retrying: asyncio.Future[Any] = asyncio.Future()
    queue.on("retrying", lambda job, _error: retrying.set_result(job.id))
    failing(queue, 1)
    job = await queue.enqueue({}, retries=1, backoff=("fixed", 60_000))
    assert await asyncio.wait_for(retrying, 30) == job.id
    score = await redis.zscore(queue.keys.delayed, job.id)
    assert score == int(score)
    assert score == pytest.approx(queue.now_ms() + 60_000, abs=5000)
    assert await redis.llen(queue.keys.active) == 0
    record = json.loads(await redis.hget(queue.keys.jobs, job.id))
    assert (record["status"], record["options"]["retries"]) == ("retrying", 0)


async def test_a_worker_that_does_not_know_the_strategy_fails_the_job(make_queue):
    producer, worker = make_queue(is_worker=False), make_queue()
    producer.backoff_strategies["mine"] = lambda _job: 10
    failing(worker, 5)
    job = await producer.enqueue({}, retries=5, backoff=("mine", 10))
    with pytest.raises(JobFailed, match="not yet"):
        await job.result(timeout=5000)


@pytest.mark.parametrize("answer", [-1, math.nan, "soon", None])
async def test_a_strategy_that_answers_nonsense_fails_the_job(make_queue, redis, answer):
    queue = make_queue()
    queue.backoff_strategies["odd"] = lambda _job: answer
    failing(queue, 5)
    job = await queue.enqueue({}, retries=5, backoff=("odd", 10))
    with pytest.raises(JobFailed):
        await job.result(timeout=5000)
    assert await redis.smembers(queue.keys.failed) == {job.id}


async def test_a_strategy_that_raises_fails_the_job_and_not_the_worker(make_queue):
    queue = make_queue()

    def broken(_job):
        raise LookupError("no such delay")

    queue.backoff_strategies["broken"] = broken
    failing(queue, 1)
    job = await queue.enqueue({}, retries=5, backoff=("broken", 10))
    with pytest.raises(JobFailed, match="no such delay"):
        await job.result(timeout=5000)
    await (await queue.enqueue({})).result(timeout=5000)


@pytest.mark.parametrize(
    ("retries", "attempts"), [("2", 3), (1.5, 3), (None, 1), ("many", 1), (-3, 1), (True, 1)]
)
async def test_retries_that_a_foreign_writer_stored_are_read_with_care(make_queue, redis, retries, attempts):
    """Nonsense grants none."""
    queue = make_queue()
    seen = failing(queue, 10)
    record = {
        "data": {},
        "options": {"timestamp": 1, "stacktraces": [], "retries": retries},
        "status": "created",
        "progress": 0,
    }
    await redis.hset(queue.keys.jobs, "odd", json.dumps(record))
    await redis.lpush(queue.keys.waiting, "odd")
    job = await queue.get_job("odd")
    with pytest.raises(JobFailed, match="not yet"):
        await job.result(timeout=5000)
    assert len(seen) == attempts


@pytest.mark.parametrize("after", [30, timedelta(milliseconds=30), "30ms"])
async def test_retry_replaces_the_backoff_and_uses_a_retry(make_queue, after):
    queue = make_queue(delayed_debounce=1)
    seen = []
    loop = asyncio.get_running_loop()

    @queue.process
    async def handler(job):
        seen.append((job.options["retries"], loop.time()))
        if len(seen) == 1:
            raise Retry(after=after, reason="busy")

    job = await queue.enqueue({}, retries=1, backoff=("fixed", 60_000))
    await job.result(timeout=5000)
    assert [retries for retries, _ in seen] == [1, 0]
    assert seen[1][1] - seen[0][1] >= 0.029


async def test_retry_after_text_without_a_unit_fails_the_job(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(_job):
        raise Retry(after="30")

    job = await queue.enqueue({}, retries=3)
    with pytest.raises(JobFailed, match="the duration '30' has no unit; write 500ms"):
        await job.result(timeout=5000)


async def test_retry_without_a_retry_left_fails(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(_job):
        raise Retry(reason="busy")

    job = await queue.enqueue({})
    with pytest.raises(JobFailed, match="^busy$"):
        await job.result(timeout=5000)
