"""Cancelling jobs that wait, are delayed or run; and what a running job remembers for its next attempt."""

from __future__ import annotations

import asyncio
import threading

import pytest

from beeq import JobFailed, JobLost
from beeq.sync import Queue as BlockingQueue
from tests.support.waiting import Recorder, eventually, pause

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("delay_ms", [None, 3_600_000])
async def test_a_job_that_waits_is_cancelled_and_its_producer_hears_so(make_queue, redis, delay_ms):
    queue = make_queue(is_worker=False)
    job = queue.create_job({"a": 1})
    if delay_ms is not None:
        job.delay_until(queue.now_ms() + delay_ms)
    await job.save()
    waiting = asyncio.create_task(job.result(timeout=5000))
    assert await queue.cancel_job(job.id) is True
    with pytest.raises(JobFailed, match="^Job 1 was cancelled$"):
        await waiting
    health = await queue.check_health()
    assert (health.waiting, health.delayed, health.failed) == (0, 0, 0)
    assert await queue.get_job(job.id) is None
    assert await job.cancel() is False


@pytest.mark.parametrize("listens", [True, False])
async def test_a_running_coroutine_is_cancelled_and_its_place_is_free(
    make_queue, redis, queue_name, listens, monkeypatch
):
    """By the channel at once; or, when the message is lost, by the next heartbeat."""
    if not listens:
        monkeypatch.setattr("beeq.worker.consumer.Consumer._cancelled", lambda _consumer, _claim: None)
    worker = make_queue(stall_interval=1500)
    heard = Recorder(worker, "cancelled", "succeeded", "failed", "error")
    started, ended = asyncio.Event(), []

    @worker.process
    async def handler(job):
        if job.data == "next":
            return "ran"
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(job.id)

    job = await worker.enqueue("runs")
    await started.wait()
    assert await worker.cancel_job(job.id) is True
    ((cancelled,),) = await heard.until("cancelled")
    assert (cancelled.id, ended) == (job.id, [job.id])
    following = await worker.enqueue("next")
    assert await following.result(timeout=5000) == "ran"
    await heard.until("succeeded")  # the events channel may bring the result before
    assert [call[0] for call in heard.calls] == ["cancelled", "succeeded"]
    assert await redis.hexists(f"bq:{queue_name}:beeq:claims", job.id) == 0


@pytest.mark.parametrize("listens", [True, False])
async def test_of_jobs_taken_at_once_only_the_cancelled_one_is_stopped(make_queue, listens, monkeypatch):
    if not listens:
        monkeypatch.setattr("beeq.worker.consumer.Consumer._cancelled", lambda _consumer, _claim: None)
    worker = make_queue(stall_interval=500)
    heard = Recorder(worker, "cancelled", "succeeded")
    jobs = [worker.create_job(n) for n in range(1, 7)]
    assert await worker.save_all(jobs) == {}
    let_go, started = asyncio.Event(), []

    @worker.process(concurrency=6)
    async def handler(job):
        started.append(job.id)
        await let_go.wait()

    await eventually(lambda: len(started) == 6)
    assert await worker.cancel_job("2") is True
    ((cancelled,),) = await heard.until("cancelled")
    let_go.set()
    await heard.until("succeeded", 5)
    assert cancelled.id == "2"
    assert sorted(started) == ["1", "2", "3", "4", "5", "6"]
    assert sorted(call[1].id for call in heard.calls if call[0] == "succeeded") == ["1", "3", "4", "5", "6"]


async def test_a_handler_that_does_not_stop_frees_its_place_anyway(make_queue, expect_errors):
    worker = make_queue()
    started, let_go = asyncio.Event(), asyncio.Event()

    @worker.process
    async def handler(job):
        if job.data == "next":
            return "ran"
        started.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return None

    job = await worker.enqueue("stubborn")
    await started.wait()
    assert await job.cancel() is True
    following = await worker.enqueue("next")
    assert await following.result(timeout=5000) == "ran"
    let_go.set()


async def test_a_thread_that_runs_is_left_behind_and_its_moves_raise(make_queue):
    worker = make_queue()
    started, go_on = asyncio.Event(), threading.Event()
    loop, outcomes, has_ended = asyncio.get_running_loop(), [], asyncio.Event()

    @worker.process
    def handler(job):
        if job.data == "next":
            return "ran"
        loop.call_soon_threadsafe(started.set)
        go_on.wait(10)
        try:
            job.report_progress(50)
        except JobLost as error:
            outcomes.append(error)
        finally:
            loop.call_soon_threadsafe(has_ended.set)
        return None

    job = await worker.enqueue("blocks")
    await started.wait()
    assert await job.cancel() is True
    following = await worker.enqueue("next")
    assert await following.result(timeout=5000) == "ran"
    go_on.set()
    await asyncio.wait_for(has_ended.wait(), 30)
    assert len(outcomes) == 1


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_thread_that_outlives_its_jobs_end_reports_nothing(
    make_queue, recorder, eventually, expect_errors, how
):
    """Its status is known: only a job that went back to its queue has a status that could not be updated."""
    worker = make_queue()
    ended = recorder(worker, "cancelled", "failed")
    started, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @worker.process
    def handler(_job):
        loop.call_soon_threadsafe(started.set)
        go_on.wait(30)

    job = await worker.enqueue(timeout=1 if how == "timed out" else None)
    await started.wait()
    if how == "cancelled":
        assert await job.cancel() is True
    await ended.until("failed" if how == "timed out" else "cancelled")
    await worker.close()
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("beeq-handler")]
    go_on.set()
    await eventually(lambda: not thread.is_alive())
    await pause(0)  # what it has left in the loop is called
    assert expect_errors == []


async def test_an_id_that_was_cancelled_can_be_used_again(make_queue):
    queue = make_queue()
    first = await queue.enqueue("never runs", id="again", delay_until=queue.now_ms() + 60_000)
    assert await first.cancel() is True
    second = await queue.enqueue("runs", id="again")
    assert second.id == "again"

    @queue.process
    async def handler(job):
        return job.data

    assert await second.result(timeout=5000) == "runs"


async def test_a_job_that_has_ended_cannot_be_cancelled(make_queue):
    queue = make_queue()

    @queue.process
    async def handler(job):
        return "done"

    job = await queue.enqueue()
    assert await job.result(timeout=5000) == "done"
    assert await job.cancel() is False
    assert await job.result(timeout=5000) == "done"
    assert await queue.cancel_job("unknown") is False


async def test_what_a_job_remembers_is_there_at_its_next_attempt(make_queue, redis):
    queue = make_queue()
    memories = []

    @queue.process
    async def handler(job):
        memories.append(job.memory)
        if not job.memory:
            await job.remember(order="order-1")
            await job.remember(asked=True)
            raise ValueError("once more")
        return job.memory

    job = await queue.enqueue({"a": 1}, retries=1)
    assert await job.result(timeout=5000) == {"order": "order-1", "asked": True}
    assert memories == [{}, {"order": "order-1", "asked": True}]


async def test_what_a_job_remembers_survives_the_death_of_its_worker(valkey, make_queue, queue_name):
    first, second = make_queue(stall_interval=60_000), make_queue(is_worker=False)
    remembered = asyncio.Event()

    @first.process
    async def handler(job):
        await job.remember(order="order-1")
        remembered.set()
        await asyncio.Event().wait()

    job = await second.enqueue()
    await remembered.wait()
    found = await second.get_job(job.id)
    assert found is not None
    assert found.memory == {"order": "order-1"}
    with pytest.raises(TimeoutError):
        await first.close(1)


async def test_only_the_worker_that_runs_a_job_can_remember_for_it(make_queue):
    queue = make_queue()
    done = Recorder(queue, "error")
    raised = []

    @queue.process
    async def handler(job):
        for fact in (object(), 1):
            if fact == 1:
                await queue.remove_job(job.id)
            try:
                await job.remember(order=fact)
            except (TypeError, JobLost) as error:
                raised.append((type(error), dict(job.options)))

    job = await queue.enqueue()
    with pytest.raises(RuntimeError, match="runs here"):
        await job.remember(order=1)
    await done.until("error")  # its outcome was dropped
    assert [kind for kind, _options in raised] == [TypeError, JobLost]
    assert "beeq" not in raised[0][1]


def test_the_blocking_queue_cancels_as_well(valkey, queue_name):
    with BlockingQueue(queue_name, redis=valkey.url, is_worker=False) as queue:
        job = queue.enqueue("waits")
        assert job.cancel() is True
        assert queue.cancel_job(job.id) is False
        queue.destroy()
