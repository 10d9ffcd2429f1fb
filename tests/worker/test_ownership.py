"""Job ownership: a worker that lost its job writes and publishes nothing."""

from __future__ import annotations

import asyncio
import json

import pytest

from beeq import JobLost

pytestmark = pytest.mark.fast

#: Nobody beats or checks by itself while a test looks on.
CALM = {"stall_interval": 60_000}


async def take_away(redis, checker):
    """Do as two stall checks of a peer do, a window apart, while the worker gives no sign of life."""
    taken = 0
    while not taken:
        await redis.delete(checker.keys.stall_block)
        taken = await checker.check_stalled_jobs()
    await redis.delete(checker.keys.stall_block)
    return taken


class Scene:
    """One job, and two workers of which the first loses it to the second."""

    def __init__(self, make_queue, recorder):
        self.first, self.second = make_queue(**CALM), make_queue(**CALM)
        self.producer = make_queue(is_worker=False, **CALM)
        self.reported = [
            recorder(queue, "succeeded", "retrying", "failed", "error") for queue in (self.first, self.second)
        ]
        self.public = recorder(self.producer, "job succeeded", "job retrying", "job failed")
        loop = asyncio.get_running_loop()
        self.started = [asyncio.Event(), asyncio.Event()]
        self.outcomes = [loop.create_future(), loop.create_future()]
        self.runs = []

    def work(self, number):
        async def handler(job):
            self.runs.append((number, job.id))
            self.started[number].set()
            return await asyncio.shield(self.outcomes[number])

        (self.first, self.second)[number].process(handler)

    async def first_has(self, **options):
        self.work(0)
        job = await self.producer.enqueue({"x": 1}, **options)
        await asyncio.wait_for(self.started[0].wait(), 30)
        return job

    async def second_has(self):
        self.work(1)
        await asyncio.wait_for(self.started[1].wait(), 30)


@pytest.fixture
async def scene(make_queue, recorder):
    return Scene(make_queue, recorder)


async def state(redis, queue):
    keys = queue.keys
    return {
        "waiting": await redis.lrange(keys.waiting, 0, -1),
        "active": await redis.lrange(keys.active, 0, -1),
        "succeeded": sorted(await redis.smembers(keys.succeeded)),
        "failed": sorted(await redis.smembers(keys.failed)),
        "delayed": await redis.zrange(keys.delayed, 0, -1),
        "record": await redis.hget(keys.jobs, "1"),
    }


@pytest.mark.parametrize("outcome", ["success", "failure"])
@pytest.mark.parametrize("retries", [0, 1])
async def test_a_late_outcome_leaves_the_new_owners_run_alone(scene, redis, outcome, retries):
    """In bee-queue it is recorded, and cancels the new owner's claim."""
    job = await scene.first_has(retries=retries)
    assert await take_away(redis, scene.producer) == 1
    await scene.second_has()
    before = await state(redis, scene.producer)
    if outcome == "success":
        scene.outcomes[0].set_result("late")
    else:
        scene.outcomes[0].set_exception(ValueError("late"))
    ((error,),) = await scene.reported[0].until("error")
    assert isinstance(error, JobLost)
    assert error.job_id == job.id
    assert [call[0] for call in scene.reported[0].calls] == ["error"]
    assert await state(redis, scene.producer) == before
    scene.outcomes[1].set_result("in time")
    assert await job.result(timeout=5000) == "in time"
    assert scene.public.calls == [("job succeeded", job.id, "in time")]
    assert await redis.smembers(scene.producer.keys.succeeded) == {job.id}
    assert scene.runs == [(0, job.id), (1, job.id)]


async def test_a_late_outcome_does_not_undo_the_new_owners(scene, redis):
    """bee-queue records it."""
    job = await scene.first_has()
    await take_away(redis, scene.producer)
    await scene.second_has()
    scene.outcomes[1].set_result("done")
    assert await job.result(timeout=5000) == "done"
    before = await state(redis, scene.producer)
    scene.outcomes[0].set_exception(ValueError("late"))
    await scene.reported[0].until("error")
    assert await state(redis, scene.producer) == before
    assert json.loads(before["record"])["status"] == "succeeded"


async def test_a_late_outcome_of_a_waiting_job_is_recorded_or_dropped(scene, redis, eventually):
    """Which of the two is free."""
    job = await scene.first_has()
    await scene.first.check_health()
    scene.first._consumer.worker.pump.drain()  # it shall not take the job again itself
    await take_away(redis, scene.producer)
    scene.outcomes[0].set_result("late")
    await eventually(lambda: scene.reported[0].calls)
    now = await state(redis, scene.producer)
    is_recorded = bool(scene.reported[0].of("succeeded"))
    assert now["succeeded"] == ([job.id] if is_recorded else [])
    assert now["waiting"] == ([] if is_recorded else [job.id])
    assert now["active"] == []


async def test_progress_of_a_worker_that_lost_its_job_is_not_kept(scene, redis):
    """The record is the new owner's."""
    await scene.first_has()
    await take_away(redis, scene.producer)
    await scene.second_has()
    before = await state(redis, scene.producer)
    (attempt_job,) = scene.first._consumer.worker.active_jobs
    await attempt_job.report_progress(99)
    assert await state(redis, scene.producer) == before
    scene.outcomes[0].set_result(None)
    await scene.reported[0].until("error")
    scene.outcomes[1].set_result(None)
    await scene.reported[1].until("succeeded")


async def test_a_worker_that_closes_does_not_hand_back_what_it_lost(scene, redis):
    await scene.first_has()
    await take_away(redis, scene.producer)
    await scene.second_has()
    before = await state(redis, scene.producer)
    with pytest.raises(TimeoutError):
        await scene.first.close(10)
    assert await state(redis, scene.producer) == before
    scene.outcomes[1].set_result(None)
    await scene.reported[1].until("succeeded")


async def test_a_job_is_in_one_set_only_whoever_moved_it(scene, redis):
    """In bee-queue an id can have failed and succeeded."""
    job = await scene.first_has()
    await redis.sadd(scene.producer.keys.failed, job.id)  # what a Node peer's late finish leaves
    scene.outcomes[0].set_result("done")
    await scene.reported[0].until("succeeded")
    assert await job.result(timeout=5000) == "done"
    now = await state(redis, scene.producer)
    assert (now["succeeded"], now["failed"]) == ([job.id], [])


async def test_a_finished_job_requeued_by_node_keeps_its_owner(scene, redis):
    """Node's ``retry`` takes whatever its caller takes for failed; a stall check sweeps beside the second run."""
    job = await scene.first_has()
    keys = scene.producer.keys
    scene.outcomes[0].set_result("first")
    await scene.reported[0].until("succeeded")
    scene.started[0].clear()
    scene.outcomes[0] = asyncio.get_running_loop().create_future()
    await redis.lpush(keys.waiting, job.id)
    await asyncio.wait_for(scene.started[0].wait(), 30)
    await redis.delete(keys.stall_block)
    await scene.producer.check_stalled_jobs()
    scene.outcomes[0].set_result("second")
    await scene.reported[0].until("succeeded", 2)
    health = await scene.producer.check_health()
    assert (health.active, health.waiting, health.succeeded) == (0, 0, 1)
    assert await redis.hgetall(keys.claims) == {}


async def test_an_entry_in_active_that_a_peer_took_out_ends_the_claim(scene, redis):
    """A Node peer's stall check knows nothing of claims."""
    job = await scene.first_has()
    await redis.lrem(scene.producer.keys.active, 0, job.id)
    await redis.lpush(scene.producer.keys.waiting, job.id)
    await scene.second_has()
    before = await state(redis, scene.producer)
    scene.outcomes[0].set_result("late")
    ((error,),) = await scene.reported[0].until("error")
    assert isinstance(error, JobLost)
    assert await state(redis, scene.producer) == before
    scene.outcomes[1].set_result("in time")
    assert await job.result(timeout=5000) == "in time"


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_an_id_that_was_pushed_twice_runs_once_at_a_time(
    make_queue, redis, recorder, eventually, concurrency
):
    """A Node peer may push the id of a job that waits or runs once more."""
    worker = make_queue()
    record = recorder(worker, "succeeded")
    running: list[str] = []
    most: dict[str, int] = {}

    @worker.process(concurrency=concurrency)
    async def handler(job):
        running.append(job.id)
        most[job.id] = max(most.get(job.id, 0), running.count(job.id))
        if not job.data["is_pushed"]:
            job.data["is_pushed"] = True
            await redis.lpush(worker.keys.waiting, job.id)
            await (await worker.enqueue({"is_pushed": True})).result(
                timeout=5000
            ) if concurrency > 1 else None
        running.remove(job.id)

    async def no_job_waits_or_runs() -> bool:
        health = await worker.check_health()
        return bool(health.waiting == health.active == 0)

    jobs = [worker.create_job({"is_pushed": False}) for _ in range(3)]
    await worker.save_all(jobs)
    await redis.lpush(worker.keys.waiting, *(job.id for job in jobs))
    await record.until("succeeded", count=6 if concurrency > 1 else 3)
    await eventually(no_job_waits_or_runs)
    assert set(most.values()) == {1}
