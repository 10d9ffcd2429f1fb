"""Workers that die, freeze, or kill their process again and again."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from beeq import JobFailed
from beeq.sync import Queue as SyncQueue


async def line_of(process):
    return (await asyncio.wait_for(process.stdout.readline(), 30)).decode().split()


async def test_a_killed_workers_jobs_run_within_two_stall_intervals(make_queue, start_worker, recorder):
    """bee-queue's orphans wait for a check that nobody makes."""
    stall_interval_ms = 500
    worker = make_queue(stall_interval=stall_interval_ms)
    stalled = recorder(worker, "stalled")
    jobs = [await worker.enqueue({}, retries=1) for _ in range(3)]
    doomed = await start_worker(stall_interval=stall_interval_ms)
    for _ in jobs:
        assert (await line_of(doomed))[0] == "started"
    seen = []

    @worker.process
    async def handler(job):
        seen.append((job.id, job.options["retries"]))
        return "elsewhere"

    assert (await worker.check_health()).active == 3
    doomed.kill()
    await doomed.wait()
    killed_at = time.monotonic()
    for job in jobs:
        assert await job.result(timeout=5000) == "elsewhere"
    assert time.monotonic() - killed_at < 2 * 1.1 * stall_interval_ms / 1000 + 0.5
    assert sorted(seen) == [(job.id, 1) for job in jobs]
    assert len(await stalled.until("stalled", 3)) == 3


async def test_a_living_workers_jobs_are_left_alone(make_queue, start_worker, eventually):
    """With one stall interval everywhere, no healthy job stalls."""
    checker = make_queue(is_worker=False, stall_interval=100)
    await checker.enqueue({})
    busy = await start_worker(stall_interval=100)
    assert await line_of(busy) == ["started", "1"]
    stalled: list[Any] = []
    checker.on("stalled", stalled.append)
    await checker.check_stalled_jobs(interval=20)
    over = time.monotonic() + 0.8

    async def is_over():
        assert (await checker.check_health()).active == 1
        return time.monotonic() > over

    await eventually(is_over)
    assert stalled == []


async def test_a_job_that_kills_each_of_its_processes_fails_at_last(make_queue, start_worker, recorder):
    """``max_stalls`` + 1 runs, then it fails; in bee-queue it runs for ever."""
    worker = make_queue(stall_interval=100, max_stalls=1)
    record = recorder(worker, "job failed")
    job = await worker.enqueue("die")
    for _ in range(2):
        process = await start_worker(stall_interval=100, max_stalls=1)
        assert await line_of(process) == ["started", job.id]
        assert await asyncio.wait_for(process.wait(), 30) == -9
    runs = []

    @worker.process
    async def handler(job):
        runs.append(job.data)

    with pytest.raises(JobFailed, match="stall"):
        await job.result(timeout=5000)
    await (await worker.enqueue("healthy")).result(timeout=5000)
    assert runs == ["healthy"]
    ((job_id, error),) = await record.until("job failed")
    assert job_id == job.id
    assert "stall" in str(error)
    assert await job.is_in_set("failed")


async def test_a_job_that_kills_an_idle_worker_at_once_was_handed_out(
    make_queue, start_worker, redis, eventually
):
    """It begins before Redis has answered the call that claims it; that call is on its way by then."""

    async def blocking():
        return sum("b" in client["flags"] for client in await redis.client_list())

    async def waits():
        return await blocking() > before

    before = await blocking()
    producer = make_queue(is_worker=False)
    process = await start_worker(stall_interval=60_000)
    await eventually(waits)
    job = await producer.enqueue("die")
    assert await line_of(process) == ["started", job.id]
    assert await asyncio.wait_for(process.wait(), 30) == -9

    async def is_counted():
        return (await redis.hget(producer.keys.claims, job.id) or "").endswith(".0:1")

    await eventually(is_counted)
    assert await job.is_in_set("active")


async def test_a_handler_that_blocks_the_loop_keeps_its_job(make_queue, valkey, queue_name, recorder):
    """bee-queue's heartbeat is blocked as well, and the job runs twice."""
    worker = make_queue(stall_interval=150)
    record = recorder(worker, "succeeded")
    runs = []
    done = threading.Event()
    stalled = []

    def check_all_the_while():
        with SyncQueue(queue_name, redis=valkey.url, stall_interval=150) as checker:
            while not done.is_set():
                stalled.append(checker.check_stalled_jobs())
                done.wait(0.02)

    checking = threading.Thread(target=check_all_the_while)

    @worker.process
    async def handler(job):
        runs.append(job.id)
        checking.start()
        threading.Event().wait(0.9)  # blocks the loop: the fault under test
        return "kept"

    job = await worker.enqueue({})
    assert await job.result(timeout=5000) == "kept"
    done.set()
    await asyncio.to_thread(checking.join, 5)
    assert sum(stalled) == 0
    assert len(stalled) > 10
    assert runs == [job.id]
    assert len(await record.until("succeeded")) == 1


async def test_a_frozen_worker_does_not_undo_the_new_owners_outcome(
    make_queue, start_worker, recorder, redis
):
    """A process suspended for longer than the stall interval."""
    import signal

    worker = make_queue(stall_interval=100)
    record = recorder(worker, "job succeeded", "job failed")
    job = await worker.enqueue({}, timeout=1500)
    frozen = await start_worker(stall_interval=100)
    assert await line_of(frozen) == ["started", job.id]
    frozen.send_signal(signal.SIGSTOP)

    @worker.process
    async def handler(_job):
        return "new owner"

    assert await job.result(timeout=5000) == "new owner"
    before = await redis.hget(worker.keys.jobs, job.id)
    frozen.send_signal(signal.SIGCONT)
    frozen.terminate()
    await asyncio.wait_for(frozen.communicate(), 20)
    assert await redis.hget(worker.keys.jobs, job.id) == before
    assert await redis.smembers(worker.keys.succeeded) == {job.id}
    assert [call[0] for call in record.calls] == ["job succeeded"]
    assert (await worker.check_health()).active == 0
