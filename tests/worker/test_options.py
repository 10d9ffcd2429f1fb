"""The settings that change what a worker writes and publishes, and the limits of what it stores."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from beeq import JobFailed

pytestmark = pytest.mark.fast


async def test_traces_of_earlier_attempts_are_kept_newest_first(make_queue, redis):
    queue = make_queue()
    runs = []

    @queue.process
    async def handler(_job):
        runs.append(1)
        raise ValueError(f"attempt {len(runs)}")

    job = await queue.enqueue({}, retries=2)
    with pytest.raises(JobFailed):
        await job.result(timeout=5000)
    traces = json.loads(await redis.hget(queue.keys.jobs, job.id))["options"]["stacktraces"]
    assert [trace.splitlines()[0] for trace in traces] == [f"ValueError: attempt {n}" for n in (3, 2, 1)]


async def test_a_long_trace_is_cut_and_old_ones_go(make_queue, redis):
    """Records grow without bound in bee-queue."""
    queue = make_queue()

    @queue.process
    async def handler(_job):
        raise ValueError("begin" + "ü" * 20_000 + "end")

    job = queue.create_job({})
    job.options["stacktraces"] = [f"old {n}" for n in range(100)]
    await job.save()
    with pytest.raises(JobFailed) as failure:
        await job.result(timeout=5000)
    traces = json.loads(await redis.hget(queue.keys.jobs, job.id))["options"]["stacktraces"]
    assert len(traces) == 100
    assert len(traces[0].encode()) <= 10_100
    assert "begin" in traces[0]
    assert "end" in traces[0]
    assert traces[-1] == "old 98"
    assert len(str(failure.value).encode()) <= 10_100


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", (x for x in "ab")])
async def test_a_result_that_is_not_json_fails_the_job_for_good(make_queue, redis, value):
    """In bee-queue the job runs again at every stall check, for ever."""
    queue = make_queue()
    runs = []

    @queue.process
    async def handler(_job):
        runs.append(1)
        return value

    job = await queue.enqueue({}, retries=3)
    with pytest.raises(JobFailed, match="JSON"):
        await job.result(timeout=5000)
    assert runs == [1]
    assert await redis.smembers(queue.keys.failed) == {job.id}


async def test_a_circular_result_fails_the_job_for_good(make_queue):
    """In bee-queue it runs again at every stall check, for ever."""
    queue = make_queue()

    @queue.process
    async def handler(_job):
        circle: list[Any] = []
        circle.append(circle)
        return circle

    job = await queue.enqueue({})
    with pytest.raises(JobFailed, match="circular"):
        await job.result(timeout=5000)


@pytest.mark.parametrize("fails", [True, False])
async def test_an_unwritable_record_fails_the_job_and_is_kept(make_queue, redis, fails):
    """In bee-queue it runs again at every stall check, for ever."""
    queue = make_queue()

    @queue.process
    async def handler(job):
        job.data["bad"] = object()
        if fails:
            raise ValueError("no")

    job = await queue.enqueue({"x": 1}, retries=1)
    with pytest.raises(JobFailed):
        await job.result(timeout=5000)
    record = json.loads(await redis.hget(queue.keys.jobs, job.id))
    assert (record["data"], record["status"]) == ({"x": 1}, "failed")
    assert await redis.smembers(queue.keys.failed) == {job.id}


async def test_a_queue_that_stores_no_jobs_still_knows_results(make_queue):
    queue = make_queue(store_jobs=False)

    @queue.process
    async def handler(_job):
        return 7

    job = await queue.enqueue({})
    assert await job.result(timeout=5000) == 7
    assert queue.event_hub.jobs == {}


async def test_job_objects_nobody_holds_are_not_kept(make_queue):
    """bee-queue keeps those whose event it missed, for ever."""
    queue = make_queue(is_worker=False)
    for _ in range(50):
        await queue.enqueue({})
    assert len(queue.event_hub.jobs) <= 1


async def test_a_job_object_with_listeners_is_kept_until_its_end(make_queue, eventually):
    queue, worker = make_queue(is_worker=False), make_queue()
    heard: list[Any] = []

    async def start():
        job = queue.create_job({})
        job.on("succeeded", heard.append)
        await job.save()

    await start()

    @worker.process
    async def handler(_job):
        return "end"

    await eventually(lambda: heard == ["end"])
    await eventually(lambda: queue.event_hub.jobs == {})


@pytest.mark.real_redis("the many scripts take seconds there")
async def test_both_drop_settings_leave_nothing_but_the_results_time(make_queue, redis, eventually):
    queue = make_queue(remove_on_success=True, remove_on_failure=True, result_ttl=50, stall_interval=100)

    @queue.process
    async def handler(job):
        if job.data == "bad":
            raise ValueError("no")
        return job.data

    good, bad = await queue.enqueue("good"), await queue.enqueue("bad")
    assert await good.result(timeout=5000) == "good"
    with pytest.raises(JobFailed):
        await bad.result(timeout=5000)

    async def left():
        names = [key.removeprefix(queue.to_key("")) for key in await redis.keys(queue.to_key("*"))]
        # One of each process, with a TTL; and the history, which is of no job.
        of_the_queue = ("beeq:workers", "beeq:running:", "beeq:minutes", "beeq:hours")
        return {name for name in names if not name.startswith(of_the_queue)} <= {"id", "stallBlock"}

    await eventually(left)


async def test_a_dropped_job_frees_its_id(make_queue):
    """At most one outstanding."""
    queue = make_queue(remove_on_success=True)
    runs = []

    @queue.process
    async def handler(job):
        runs.append(job.data)
        return job.data

    for n in range(3):
        job = await queue.enqueue(f"run {n}", id="same")
        assert job.id == "same"
        assert await job.result(timeout=5000) == f"run {n}"
    assert runs == ["run 0", "run 1", "run 2"]


async def test_a_large_payload_and_result_go_through(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(job):
        return job.data["text"][::-1]

    text = "0123456789" * 300_000
    job = await queue.enqueue({"text": text})
    assert await job.result(timeout=10_000) == text[::-1]


async def test_integers_of_any_size_are_exact(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(job):
        return job.data["n"] + 1

    jobs = await asyncio.gather(*(queue.enqueue({"n": n}) for n in (2**53, 2**64, 10**40)))
    assert [await job.result(timeout=5000) for job in jobs] == [2**53 + 1, 2**64 + 1, 10**40 + 1]
