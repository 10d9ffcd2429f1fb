"""Running jobs: handlers, their outcomes, and how many run at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from beeq import Discard, JobFailed, JobTimedOut

pytestmark = pytest.mark.fast


async def stored(redis, queue, job):
    return json.loads(await redis.hget(queue.keys.jobs, job.id))


async def hang(_job):
    await asyncio.Event().wait()


async def test_a_handlers_value_reaches_listeners_and_the_record(make_queue, redis):
    queue = make_queue()
    heard: asyncio.Future[Any] = asyncio.Future()
    queue.on("succeeded", lambda job, result: heard.set_result((job.id, job.status, result)))

    @queue.process
    async def handler(job):
        return job.data["x"] + 1

    job = await queue.enqueue({"x": 1})
    assert await asyncio.wait_for(heard, 30) == (job.id, "succeeded", 2)
    assert await redis.smembers(queue.keys.succeeded) == {job.id}
    assert await job.is_in_set("succeeded")
    assert (await stored(redis, queue, job))["status"] == "succeeded"


async def test_a_listener_that_a_listener_adds_hears_the_next_success(make_queue):
    queue = make_queue()
    heard: asyncio.Future[Any] = asyncio.Future()
    queue.once("failed", lambda _job, _error: queue.on("succeeded", lambda _job, n: heard.set_result(n)))

    @queue.process(concurrency=2)
    async def handler(job):
        if not job.data["n"]:
            raise Discard("no")
        return job.data["n"]

    await queue.save_all([queue.create_job({"n": n}) for n in (0, 1)])
    assert await asyncio.wait_for(heard, 30) == 1


@pytest.mark.parametrize("job_id", ["amazingjob", "größe", "a:b", " ", '"', "1e1"])
async def test_an_id_that_is_no_number_works_from_end_to_end(make_queue, redis, job_id):
    queue = make_queue()

    @queue.process
    async def handler(job):
        return [job.id, await job.report_progress(50)]

    job = await queue.enqueue({}, id=job_id)
    assert await job.result(timeout=5000) == [job_id, 1]
    assert await redis.smembers(queue.keys.succeeded) == {job_id}


async def test_a_job_that_succeeds_leaves_no_record_if_so_set(make_queue, redis):
    queue = make_queue(remove_on_success=True)

    @queue.process
    async def handler(_job):
        return "value"

    job = await queue.enqueue({})
    assert await job.result(timeout=5000) == "value"
    assert await redis.exists(queue.keys.jobs, queue.keys.succeeded, queue.keys.active) == 0


async def test_a_job_that_fails_leaves_no_record_if_so_set(make_queue, redis):
    queue = make_queue(remove_on_failure=True)

    @queue.process
    async def handler(_job):
        raise ValueError("failed!")

    job = await queue.enqueue({})
    with pytest.raises(JobFailed, match=r"^failed!$"):
        await job.result(timeout=5000)
    assert await redis.exists(queue.keys.jobs, queue.keys.failed, queue.keys.active) == 0


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_exception_fails_the_job_with_its_message(make_queue, redis, is_async):
    """Raised at the first step, in a coroutine or in a plain function."""
    queue = make_queue()
    heard: asyncio.Future[Any] = asyncio.Future()
    queue.on("failed", lambda job, error: heard.set_result((job.id, type(error), str(error))))

    def fail(_job):
        raise ValueError("failed!")

    async def fail_async(job):
        fail(job)

    queue.process(fail_async if is_async else fail)
    job = await queue.enqueue({})
    assert await asyncio.wait_for(heard, 30) == (job.id, ValueError, "failed!")
    assert await redis.smembers(queue.keys.failed) == {job.id}
    assert (await stored(redis, queue, job))["status"] == "failed"


class Silent(Exception):
    pass


class Broken(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "first_line", "message"),
    [
        (ValueError("boom"), "ValueError: boom", "boom"),
        (Silent(), "Silent: Silent", "Silent"),
        (ValueError(""), "ValueError: ValueError", "ValueError"),
        (ValueError(0), "ValueError: 0", "0"),
        (Broken(), "Broken: Broken", "Broken"),
        (KeyError("k"), "KeyError: 'k'", "'k'"),
        (SystemExit(3), "SystemExit: 3", "3"),
        (asyncio.CancelledError(), "CancelledError: CancelledError", "CancelledError"),
    ],
)
async def test_the_stored_trace_begins_with_the_error(make_queue, redis, error, first_line, message):
    """bee-queue takes an empty error for success."""
    queue = make_queue()

    @queue.process
    async def handler(_job):
        raise error

    job = await queue.enqueue({})
    with pytest.raises(JobFailed) as failure:
        await job.result(timeout=5000)
    assert str(failure.value) == message
    record = await stored(redis, queue, job)
    assert record["status"] == "failed"
    (trace,) = record["options"]["stacktraces"]
    assert trace.splitlines()[0] == first_line
    assert await redis.sismember(queue.keys.failed, job.id)


async def test_a_failed_listener_may_retry_the_job_and_it_succeeds(make_queue, redis):
    """bee-queue's callback form is the awaitable form."""
    queue = make_queue()
    runs = []
    done = asyncio.Event()

    async def again(job, _error):
        assert await job.retry() is True

    queue.on("failed", again)
    queue.on("succeeded", lambda _job, _result: done.set())

    @queue.process
    async def handler(_job):
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("failed!")

    job = await queue.enqueue({})
    await asyncio.wait_for(done.wait(), 30)
    assert await redis.smembers(queue.keys.succeeded) == {job.id}
    assert await redis.scard(queue.keys.failed) == 0


async def test_a_handler_that_runs_past_its_timeout_fails(make_queue, redis):
    queue = make_queue()
    heard: asyncio.Future[Any] = asyncio.Future()
    queue.on("failed", lambda job, error: heard.set_result((job.id, job.options["timeout"], error)))
    queue.process(hang)
    job = await queue.enqueue({}, timeout=10)
    job_id, timeout_ms, error = await asyncio.wait_for(heard, 30)
    assert (job_id, timeout_ms, str(error)) == ("1", 10, "Job 1 timed out (10 ms)")
    assert isinstance(error, JobTimedOut)
    assert (await stored(redis, queue, job))["options"]["stacktraces"][0].splitlines()[0] == (
        "Error: Job 1 timed out (10 ms)"
    )


async def test_a_timeout_cancels_the_handler_before_the_next_attempt(make_queue):
    """In bee-queue both would run at once."""
    queue = make_queue()
    order = []

    @queue.process(concurrency=2)
    async def handler(_job):
        order.append("begin")
        if order.count("begin") == 2:
            return "second"
        try:
            await asyncio.Event().wait()
        finally:
            order.append("end")

    job = await queue.enqueue({}, timeout=20, retries=1)
    assert await job.result(timeout=5000) == "second"
    assert order == ["begin", "end", "begin"]


async def test_a_job_with_retries_is_tried_again_until_it_succeeds(make_queue):
    queue = make_queue()
    heard = []
    done = asyncio.Event()
    for event in ("retrying", "failed", "failed:fatal"):
        queue.on(
            event, lambda job, error, event=event: heard.append((event, str(error), job.options["retries"]))
        )
    queue.on("succeeded", lambda _job, _result: done.set())
    seen = []

    @queue.process
    async def handler(job):
        seen.append(job.options["retries"])
        if len(seen) < 3:
            raise ValueError(f"attempt {len(seen)}")

    await queue.enqueue({}, retries=2)
    await asyncio.wait_for(done.wait(), 30)
    assert seen == [2, 1, 0]
    assert heard == [
        ("retrying", "attempt 1", 1),
        ("failed", "attempt 1", 1),
        ("retrying", "attempt 2", 0),
        ("failed", "attempt 2", 0),
    ]


async def test_a_handler_may_give_up_its_retries(make_queue):
    queue = make_queue()
    runs = []

    @queue.process
    async def handler(job):
        runs.append(1)
        job.retries(0)
        raise ValueError("never again")

    job = await queue.enqueue({}, retries=5)
    heard: asyncio.Future[Any] = asyncio.Future()
    job.on("failed", heard.set_result)
    assert str(await asyncio.wait_for(heard, 30)) == "never again"
    assert len(runs) == 1


async def test_a_timeout_is_retried_like_any_failure(make_queue):
    queue = make_queue()
    runs = []

    @queue.process
    async def handler(job):
        runs.append(job.options["retries"])
        if len(runs) == 1:
            await asyncio.Event().wait()
        return "in time"

    job = await queue.enqueue({}, timeout=10, retries=1)
    assert await job.result(timeout=5000) == "in time"
    assert runs == [1, 0]


async def test_discard_fails_a_job_for_good(make_queue, redis):
    queue = make_queue()

    @queue.process
    async def handler(_job):
        raise Discard("hopeless")

    job = await queue.enqueue({}, retries=5)
    with pytest.raises(JobFailed, match="^hopeless$"):
        await job.result(timeout=5000)
    record = await stored(redis, queue, job)
    assert (record["status"], record["options"]["retries"]) == ("failed", 5)
    assert "hopeless" in record["options"]["stacktraces"][0]


@pytest.mark.parametrize("broken", [None, [], "text", 7])
@pytest.mark.parametrize("is_success", [True, False])
async def test_a_handler_that_breaks_its_jobs_options_loses_no_outcome(
    make_queue, redis, expect_errors, broken, is_success
):
    queue = make_queue()

    @queue.process
    async def handler(job):
        job.options = broken
        if not is_success:
            raise ValueError("failed all the same")
        return "done"

    job = await queue.enqueue({"a": 1})
    if is_success:
        assert await job.result(timeout=5000) == "done"
    else:
        with pytest.raises(JobFailed, match="failed all the same"):
            await job.result(timeout=5000)
    record = await stored(redis, queue, job)
    assert (record["data"], record["status"]) == ({"a": 1}, "succeeded" if is_success else "failed")
    assert expect_errors, "it is reported"
    await queue.close()
