"""A queue's history: what workers count of their work, and who samples the queue."""

from __future__ import annotations

import asyncio
import time

import pytest

from beeq import Postpone
from beeq.client.history_note import HistoryNote
from beeq.errors import JobFailed, RedisRefused, RedisUnavailable
from beeq.protocol.keys import Keys
from beeq.sync import Queue as BlockingQueue
from tests.support.history import let_minutes_pass, wait_for_a_minute_with

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def some_seconds_of_a_minute() -> None:
    wait_for_a_minute_with(8)


async def test_two_workers_count_what_they_have_done(make_queue, redis):
    first, second = make_queue(), make_queue()
    failing = {"bad": ValueError("no")}

    async def handler(job):
        if job.data in failing:
            raise failing[job.data]

    for queue in (first, second):
        queue.process(handler, concurrency=2)
    jobs = [await first.enqueue("good") for _ in range(17)]
    jobs += [await second.enqueue("good", id=f"own-{n}") for n in range(3)]
    jobs += [await first.enqueue("bad", retries=2)]
    for job in jobs[:-1]:
        await job.result(timeout=10_000)
    with pytest.raises(JobFailed):
        await jobs[-1].result(timeout=10_000)
    await first.close()
    await second.close()
    reader = make_queue(is_worker=False)
    await let_minutes_pass(redis, reader.keys, 2)
    history = await reader.history("10m")
    total = history.total
    assert (total.succeeded, total.failed, total.retried, total.uncounted) == (20, 1, 2, 0)
    assert (total.waits.total, total.durations.total) == (21, 23)
    assert history.failure_rate == 1 / 21
    assert [point.minutes for point in history.points].count(1) == 1
    assert len(history.points) == 10


async def test_a_job_that_is_put_off_has_not_failed(make_queue, redis):
    queue = make_queue()

    @queue.process
    async def handler(job):
        if not job.options.get("beeq"):
            raise Postpone("100ms")

    await (await queue.enqueue({})).result(timeout=10_000)
    await queue.close()
    reader = make_queue(is_worker=False)
    await let_minutes_pass(redis, reader.keys, 2)
    total = (await reader.history("5m")).total
    assert (total.succeeded, total.failed, total.retried) == (1, 0, 0)
    assert (total.waits.total, total.durations.total) == (1, 2)


async def test_an_idle_worker_samples_its_queue(make_queue, redis, eventually):
    queue = make_queue(stall_interval=100)
    await queue.enqueue({}, delay_until="1h")

    @queue.process
    async def handler(job):
        pass

    assert await eventually(lambda: redis.hget(queue.keys.minutes, "last"))
    await let_minutes_pass(redis, queue.keys, 2)
    (known,) = [point for point in (await queue.history()).points if point.minutes]
    assert (known.delayed, known.waiting, known.ended) == (1.0, 0.0, 0)


async def test_a_sampler_that_died_holds_up_nobody(make_queue, redis):
    """Each minute is sampled by who calls first in it: there is nothing to run out."""
    queue = make_queue(is_worker=False)
    dead, living = HistoryNote(queue.keys, str), HistoryNote(queue.keys, str)
    await _send(queue, dead)
    await _send(queue, living)
    await let_minutes_pass(redis, queue.keys)
    await _send(queue, HistoryNote(queue.keys, str))
    assert len(await redis.hkeys(queue.keys.minutes)) == 3, "two minutes, and the newest sample"


async def _send(queue, note: HistoryNote) -> None:
    from beeq.redis import scripts

    call = note.packed()
    assert call is not None
    await queue.ready()
    note.answered(await queue.pipeline.run(scripts.note_history, call))


async def test_a_sample_is_due_once_a_minute_and_counts_in_seconds(monkeypatch):
    now_s, counts = 1000.0, ["1,,;;", "2,,;;", "3,,;;"]
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    note = HistoryNote(Keys("bq", "mail"), lambda: counts.pop(0) if counts else "")
    assert b"1,,;;" in (note.packed() or b"")
    note.answered(30_000)
    assert note.packed() is None
    assert b"2,,;;" in (note.packed(is_last=True) or b"")
    now_s += 5
    assert b"3,,;;" in (note.packed() or b"")
    now_s += 5
    assert note.packed() is None
    now_s += 20
    assert note.packed() is not None, "the next minute has begun"


@pytest.mark.parametrize(
    ("error", "again_s"), [(RedisUnavailable("away"), 5), (RedisRefused("NOPERM no"), 300)]
)
async def test_what_redis_refuses_is_not_asked_at_each_beat(monkeypatch, error, again_s):
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    note = HistoryNote(Keys("bq", "mail"))
    assert note.packed() is not None
    note.failed(error)
    now_s += again_s - 1
    assert note.packed() is None
    now_s += 2
    assert note.packed() is not None


async def test_a_key_of_another_type_stops_no_worker(make_queue, redis):
    queue = make_queue(stall_interval=100)
    await redis.set(queue.keys.minutes, "no history")

    @queue.process
    async def handler(job):
        return job.data

    assert await (await queue.enqueue(7)).result(timeout=10_000) == 7
    await queue.close()
    assert await redis.get(queue.keys.minutes) == "no history"


async def test_a_history_of_days_is_by_the_hour(make_queue, redis):
    queue = make_queue(is_worker=False)
    hour = queue.now_ms() // 3_600_000
    await redis.hset(queue.keys.hours, mapping={str(hour - ago): "60,,,60,120;;" for ago in range(48)})
    history = await queue.history("7d")
    assert history.step_ms == 2 * 3_600_000
    assert len(history.points) in {84, 85}  # as the first hour is the first or the second of its step
    assert history.total.succeeded == 48 * 60
    assert history.total.waiting == 2.0
    ((_, until_ms),) = history.gaps
    assert until_ms == (hour - 47) * 3_600_000
    by_hour = await queue.history("7d", step="1h")
    assert len(by_hour.points) == 168
    assert [point.a_minute(point.succeeded) for point in by_hour.points[-48:]] == [1.0] * 48


@pytest.mark.parametrize(
    ("last", "step"), [("31d", None), ("30s", None), ("2h", "90s"), ("2d", "30m"), ("2h", 0)]
)
async def test_what_is_not_kept_cannot_be_asked_for(make_queue, last, step):
    with pytest.raises(ValueError, match="history|step"):
        await make_queue(is_worker=False).history(last, step=step)


async def test_the_blocking_queue_has_its_history(make_queue, valkey, redis):
    queue = make_queue(is_worker=False)
    await _send(queue, HistoryNote(queue.keys, lambda: "4,1,;;"))
    await let_minutes_pass(redis, queue.keys, 2)

    def ask() -> float | None:
        with BlockingQueue(queue.name, redis=valkey.url) as blocking:
            return blocking.history("5m").failure_rate

    assert await asyncio.to_thread(ask) == 0.2


async def test_destroying_a_queue_takes_its_history(make_queue, redis):
    queue = make_queue(is_worker=False)
    await _send(queue, HistoryNote(queue.keys, str))
    assert await queue.destroy() == 2
    assert await redis.keys(queue.to_key("*")) == []
