"""A job that is taken away from its worker while it runs: the handler is stopped at once, not at its end."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from beeq import JobLost
from beeq.worker import heartbeat
from tests.worker import process_handlers

pytestmark = pytest.mark.fast

#: Nobody checks by itself while a test looks on …
CALM = {"stall_interval": 60_000}


@pytest.fixture(autouse=True)
def beats_fast(monkeypatch):
    """… but everybody beats."""
    monkeypatch.setattr(heartbeat, "_LONGEST_INTERVAL_MS", 10)


class Scene:
    """A worker of one place, whose first job never ends by itself; further runs do."""

    def __init__(self, make_queue: Any, recorder: Any, redis: Any) -> None:
        self.worker = make_queue(**CALM)
        self.producer = make_queue(is_worker=False, **CALM)
        self.keys = self.worker.keys
        self.redis = redis
        self.reported = recorder(self.worker, "error", "succeeded", "failed", "retrying", "cancelled")
        self.runs: list[str] = []
        self.stopped = asyncio.Event()
        self.job: Any = None

    async def begins(self) -> None:
        started = asyncio.Event()

        @self.worker.process
        async def handler(job: Any) -> str:
            self.runs.append(job.id)
            if len(self.runs) > 1:
                return "second run"
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
            return ""

        self.job = await self.producer.enqueue({}, id="taken", retries=3)
        await asyncio.wait_for(started.wait(), 30)

    async def is_stopped(self) -> None:
        await asyncio.wait_for(self.stopped.wait(), 30)

    async def place_is_free(self) -> None:
        """Everything that is queued runs, and the outcome of the first run is not among what is recorded."""
        following = await self.producer.enqueue({}, id="next")
        assert await following.result(timeout=10_000) == "second run"


@pytest.fixture
async def scene(make_queue, recorder, redis):
    scene = Scene(make_queue, recorder, redis)
    await scene.begins()
    return scene


async def stall_check_of_beeq(scene):
    taken = 0
    while not taken:  # a beat may come between
        await scene.redis.delete(scene.keys.stall_block)
        taken = await scene.producer.check_stalled_jobs()


async def removal(scene):
    await scene.job.remove()


async def new_job_under_its_id(scene):
    await scene.job.remove()
    await scene.producer.enqueue({}, id="taken")


async def retry_of_a_job_that_node_has_failed(scene):
    await scene.redis.sadd(scene.keys.failed, "taken")
    assert await (await scene.producer.get_job("taken")).retry()


async def deletion_of_all_claims(scene):
    await scene.redis.delete(scene.keys.claims)


async def claim_of_another_worker(scene):
    await scene.redis.hset(scene.keys.claims, "taken", "another.0:2")


async def destruction(scene):
    await scene.producer.destroy()


@pytest.mark.parametrize(
    "takes_it",
    [
        stall_check_of_beeq,
        removal,
        new_job_under_its_id,
        retry_of_a_job_that_node_has_failed,
        deletion_of_all_claims,
        claim_of_another_worker,
        destruction,
    ],
)
async def test_who_loses_a_job_stops_it_says_so_once_and_is_free(scene, takes_it, eventually):
    await takes_it(scene)
    await scene.is_stopped()
    await scene.place_is_free()
    ((error,),) = scene.reported.of("error")
    assert isinstance(error, JobLost)
    assert error.job_id == "taken"
    assert {call[0] for call in scene.reported.calls} <= {"error", "succeeded"}
    scheduler = scene.worker._consumer.worker.pump.scheduler
    await eventually(lambda: scheduler.places.taken == 0)  # an event may overtake the reply
    assert not scheduler.claimed
    await scene.job.remove()  # nobody runs it, and no stall check comes


async def test_nobody_beats_for_a_job_that_is_lost(scene):
    await claim_of_another_worker(scene)
    await scene.redis.sadd(scene.keys.stalling, "taken")
    await scene.is_stopped()
    # The next job is beaten for, all the while.
    await scene.place_is_free()
    assert await scene.redis.sismember(scene.keys.stalling, "taken")
    await scene.reported.until("error")
    await scene.job.remove()


async def test_a_cancelled_job_counts_as_cancelled_not_as_lost(scene, monkeypatch):
    monkeypatch.setattr("beeq.worker.consumer.Consumer._cancelled", lambda _consumer, _claim: None)
    assert await scene.job.cancel()
    await scene.is_stopped()
    await scene.place_is_free()
    await scene.reported.until("succeeded")  # the result comes first
    assert {call[0] for call in scene.reported.calls} == {"cancelled", "succeeded"}


async def test_a_check_by_node_leaves_the_claim_and_the_handler(scene, make_queue, eventually):
    """Its requeue is seen at the outcome only, or when another beeq worker claims the job."""
    await scene.redis.lrem(scene.keys.active, 0, "taken")
    await scene.redis.lpush(scene.keys.waiting, "taken")
    await scene.redis.sadd(scene.keys.stalling, "taken")
    await eventually(lambda: _is_beaten_for(scene))
    assert not scene.stopped.is_set()
    other = make_queue(**CALM)

    @other.process
    async def handler(_job):
        return "done elsewhere"

    assert await scene.job.result(timeout=10_000) == "done elsewhere"
    await scene.is_stopped()
    ((error,),) = await scene.reported.until("error")
    assert isinstance(error, JobLost)


async def _is_beaten_for(scene):
    return not await scene.redis.exists(scene.keys.stalling)


async def test_a_worker_that_takes_its_job_again_stops_the_first_run(make_queue, recorder, redis):
    """With a second place it may claim it before a heartbeat shows the loss."""
    worker = make_queue(**CALM)
    reported = recorder(worker, "error", "succeeded")
    runs: list[asyncio.Event] = []
    stopped = []

    @worker.process(concurrency=2)
    async def handler(_job):
        number = len(runs)
        runs.append(asyncio.Event())
        try:
            await runs[number].wait()
        except asyncio.CancelledError:
            stopped.append(number)
            raise
        return number

    job = await worker.enqueue({})
    while len(runs) < 2:
        await redis.delete(worker.keys.stall_block)
        await worker.check_stalled_jobs()
    await reported.until("error")
    assert stopped == [0]
    runs[1].set()
    assert await job.result(timeout=5000) == 1
    await reported.until("succeeded")
    assert [type(call[1]) for call in reported.calls if call[0] == "error"] == [JobLost]


async def test_a_thread_that_lost_its_job_is_left_behind(make_queue, recorder, redis):
    """Its place is free at once, and the job's commands raise JobLost."""
    worker = make_queue(**CALM)
    reported = recorder(worker, "error")
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    raised: list[JobLost] = []

    @worker.process
    def handler(job):
        if job.data == "next":
            return "ran"
        started.set()
        go_on.wait(30)
        try:
            job.report_progress(1)
        except JobLost as error:
            raised.append(error)
        ended.set()
        return "too late"

    job = await worker.enqueue({})
    assert await asyncio.to_thread(started.wait, 30)
    await job.remove()
    await reported.until("error")
    assert await (await worker.enqueue("next")).result(timeout=5000) == "ran"
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 30)
    assert [error.job_id for error in raised] == [job.id]
    assert [type(error) for (error,) in reported.of("error")] == [JobLost]


@pytest.mark.real_redis("a child process takes its time")
async def test_a_child_process_that_lost_its_job_is_killed(make_queue, recorder, redis, eventually):
    worker = make_queue(**CALM)
    reported, heard = recorder(worker, "error"), recorder(worker, "job progress")
    worker.process(process_handlers.hang, executor="process")
    job = await worker.enqueue({})
    ((_job_id, progress),) = await heard.until("job progress")
    await job.remove()
    ((error,),) = await reported.until("error")
    assert isinstance(error, JobLost)
    await eventually(lambda: not _lives(progress["pid"]))


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_worker_that_closes_then_hands_nothing_back(scene):
    """Its handler was stopped, and the job is another one's."""
    await claim_of_another_worker(scene)
    await scene.is_stopped()
    await scene.worker.close(5000)
    assert await scene.redis.lrange(scene.keys.active, 0, -1) == ["taken"]
    assert await scene.redis.exists(scene.keys.waiting) == 0
    await scene.job.remove()
