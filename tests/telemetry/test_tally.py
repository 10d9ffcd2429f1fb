"""What is counted of a queue in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from beeq import Postpone, Queue
from beeq.telemetry.tally import BUCKETS_S, OUTCOMES, QueueTally

MakeQueue = Callable[..., Queue]

pytestmark = pytest.mark.fast


def test_a_histogram_puts_a_time_into_the_first_bucket_it_fits() -> None:
    tally = QueueTally()
    for seconds in (0.0, 0.005, 0.0051, 3600.0, 3600.1, 1e9):
        tally.ran(seconds)
    total_s, buckets = tally.read().durations()
    assert total_s == pytest.approx(1e9 + 7200.1101)
    assert len(buckets) == len(BUCKETS_S) + 1
    assert (buckets[0], buckets[1], buckets[-2], buckets[-1]) == (2, 1, 1, 2)
    assert sum(buckets) == 6


def test_the_counts_of_two_processes_add_up() -> None:
    one, two = QueueTally(), QueueTally()
    one.enqueued(3)
    one.ended("failed")
    two.enqueued(4)
    two.waited(1.0)
    sums = one.read() + two.read()
    assert (sums.enqueued, sums.ended()["failed"], sums.waits()[0]) == (7, 1, 1.0)


async def test_each_end_of_an_attempt_is_counted_as_what_it_is(
    make_queue: MakeQueue, eventually: Any
) -> None:
    queue = make_queue()
    tally = queue.telemetry.tally = QueueTally()
    has_begun = asyncio.Event()

    async def handle(job: Any) -> None:
        match job.data:
            case "fail":
                raise ValueError("no")
            case "postpone" if not job.options.get("beeq"):
                raise Postpone(after=100)
            case "cancel":
                has_begun.set()
                await asyncio.sleep(60)

    for data in ("fail", "postpone", "fine"):
        await queue.enqueue(data, retries=1 if data == "fail" else 0)
    cancelled = await queue.enqueue("cancel")
    queue.process(handle, concurrency=4)
    await has_begun.wait()
    await cancelled.cancel()
    await eventually(lambda: sum(tally.read().ended().values()) >= 6)
    counts = tally.read()
    assert counts.ended() == dict(zip(OUTCOMES, (2, 1, 1, 1, 1), strict=True))
    assert counts.enqueued == 4
    assert sum(counts.durations()[1]) == 6
    assert sum(counts.waits()[1]) == 4, "the first attempts only"
    assert (counts.lost, counts.stalled, counts.redis_errors) == (0, 0, 0)


async def test_only_jobs_that_were_added_count_as_enqueued(make_queue: MakeQueue) -> None:
    queue = make_queue()
    tally = queue.telemetry.tally = QueueTally()
    await queue.enqueue({}, id="one")
    assert not (await queue.enqueue({}, id="one")).is_new
    await queue.save_all([queue.create_job({}) for _ in range(3)])
    assert tally.read().enqueued == 4


async def test_a_reopened_queue_goes_on_counting(make_queue: MakeQueue) -> None:
    queue = make_queue()
    tally = queue.telemetry.tally = QueueTally()
    await queue.enqueue({})
    await queue.close()
    await queue.connect()
    await queue.enqueue({})
    assert tally.read().enqueued == 2
