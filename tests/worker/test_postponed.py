"""Jobs that their handler puts off, in a queue: they come back, and nobody takes that for a failure."""

from __future__ import annotations

import asyncio

import pytest

from beeq import JobFailed, Postpone

pytestmark = pytest.mark.fast


async def test_a_postponed_job_comes_back_with_all_its_retries(make_queue):
    queue = make_queue(delayed_debounce=1)
    heard = []
    for event in ("postponed", "retrying", "failed", "succeeded"):
        queue.on(event, lambda *_, event=event: heard.append(event))
    reported = asyncio.Queue()
    for event in ("job postponed", "job retrying", "job succeeded"):
        queue.on(event, lambda _id, data, event=event: reported.put_nowait((event, data)))
    seen = []

    @queue.process
    async def handler(job):
        seen.append((job.options.get("retries"), job.options.get("beeq"), list(job.options["stacktraces"])))
        if len(seen) < 3:
            raise Postpone(100, "not now")
        return "done"

    job = await queue.enqueue({}, retries=1)
    assert await job.result(10_000) == "done"
    async with asyncio.timeout(10):
        assert [await reported.get() for _ in range(3)] == [
            ("job postponed", "not now"),
            ("job postponed", "not now"),
            ("job succeeded", "done"),
        ]
    await queue.close()

    assert seen == [(1, None, []), (1, {"postponed": 100}, []), (1, {"postponed": 200}, [])]
    assert heard == ["postponed", "postponed", "succeeded"]
    assert job.options["retries"] == 1


async def test_a_postponed_job_frees_its_place(make_queue):
    queue = make_queue()
    postponed = asyncio.Event()

    @queue.process(concurrency=1)
    async def handler(job):
        if job.data["late"]:
            postponed.set()
            raise Postpone(60_000)
        return "done"

    late = await queue.enqueue({"late": True})
    await postponed.wait()
    soon = await queue.enqueue({"late": False})
    assert await soon.result(10_000) == "done"
    assert (await queue.check_health()).delayed == 1
    assert await late.is_in_set("delayed")


async def test_a_job_whose_day_is_over_fails_until_retried_by_hand(make_queue):
    queue = make_queue(delayed_debounce=1)
    is_ready = False

    @queue.process
    async def handler(_job):
        if not is_ready:
            raise Postpone(24 * 60 * 60 * 1000 + 1, "not now")
        return "done"

    job = await queue.enqueue({}, retries=3)
    with pytest.raises(JobFailed, match="not now; the job was postponed for a day in all"):
        await job.result(10_000)
    is_ready = True
    failed = await queue.get_job(job.id)
    assert await failed.retry()
    assert await failed.result(10_000) == "done"
