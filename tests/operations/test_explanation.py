"""``queue.explain``: from what Redis has of a job to the reasons."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beeq import Discard
from beeq.sync import Queue as SyncQueue
from tests.support.samples import job_record


@pytest.fixture
def queue(make_queue):
    return make_queue(is_worker=False, activate_delayed_jobs=False)


async def reasons(queue: Any, job_id: Any) -> dict[str, str]:
    explanation = await queue.explain(job_id)
    assert (explanation.job_id, explanation.queue_name) == (str(job_id), queue.name)
    return {reason.kind: reason.text for reason in explanation.reasons}


async def test_a_job_waits_behind_others_and_no_worker_is_there(queue):
    for n in range(3):
        await queue.enqueue({"n": n})
    found = await reasons(queue, 3)
    assert found.keys() == {"no-worker", "ahead"}
    assert found["ahead"] == "2 jobs run before it"
    assert (await reasons(queue, 1)).keys() == {"no-worker", "next"}


async def test_the_rate_is_guessed_while_jobs_are_taken(queue, redis):
    ids = [str(n) for n in range(400)]
    await redis.hset(queue.keys.jobs, mapping=dict.fromkeys(ids, job_record()))
    await redis.lpush(queue.keys.waiting, *ids)
    await redis.zadd(queue.keys.workers, {"host:1:abc": int((await redis.time())[0]) * 1000})

    async def take() -> None:
        for _ in range(60):
            await redis.rpop(queue.keys.waiting)
            await asyncio.sleep(0.01)  # as a worker takes jobs while it is looked

    found, _ = await asyncio.gather(reasons(queue, 399), take())
    await redis.delete(*queue.keys.every())
    assert "jobs/s, which is the rate just now" in found["ahead"]


async def test_a_running_job_is_a_workers(queue, make_queue):
    worker = make_queue()
    runs, ends = asyncio.Event(), asyncio.Event()

    @worker.process
    async def handle(job):
        runs.set()
        await ends.wait()

    job = await queue.enqueue({})
    await runs.wait()
    explanation = await queue.explain(job.id)
    ends.set()
    await job.result(20_000)
    assert explanation.state == "active"
    assert "running" in {reason.kind for reason in explanation.reasons}


async def test_a_job_that_its_worker_left_is_lost(queue, redis):
    await redis.hset(queue.keys.jobs, "1", job_record())
    await redis.lpush(queue.keys.active, "1")
    assert (await reasons(queue, 1)).keys() == {"node-worker"}
    await redis.sadd(queue.keys.stalling, "1")
    assert (await reasons(queue, 1)).keys() == {"silent"}
    await redis.hset(queue.keys.claims, "1", "tok.1:2")
    assert (await reasons(queue, 1)).keys() == {"lost", "stalled-before"}


async def test_ends_and_what_is_left_of_them_are_said(queue, make_queue):
    worker = make_queue(remove_on_success=True)

    @worker.process
    async def handle(job):
        if job.data:
            raise Discard("no such film")

    good, bad = await queue.enqueue({}), await queue.enqueue({"bad": 1})
    await good.result(20_000)
    with pytest.raises(Exception, match="no such film"):
        await bad.result(20_000)
    assert "record was dropped" in (await reasons(queue, good.id))["succeeded"]
    assert "no such film" in " ".join((await queue.explain(bad.id)).sentences)
    job = await queue.enqueue({}, delay_until="1h")
    assert (await reasons(queue, job.id))["due"].startswith(("it is due in 59m", "it is due in 1h"))
    await job.cancel()
    assert (await reasons(queue, job.id)).keys() == {"cancelled"}
    await bad.remove()
    assert "removed" in (await reasons(queue, bad.id))["missing"]
    assert "no automatic id beyond 3" in (await reasons(queue, 4))["missing"]


async def test_odd_states_are_explained(queue, redis):
    records = {"odd": "{", "lost": job_record(), "twice": job_record("failed", trace="Error: x")}
    await redis.hset(queue.keys.jobs, mapping=records)
    await redis.lpush(queue.keys.waiting, "odd", "twice", "twice")
    await redis.sadd(queue.keys.failed, "twice")
    assert "unreadable" in await reasons(queue, "odd")
    assert (await reasons(queue, "lost")).keys() == {"nowhere"}
    twice = await reasons(queue, "twice")
    assert "waiting and failed and waiting again" in twice["several-places"]
    await queue.repair(await queue.diagnose())


async def test_a_paused_queue_says_so(queue, redis):
    job = await queue.enqueue({})
    await redis.set(queue.keys.paused, '{"since":1,"by":"ann@host","reason":"deploy"}')
    assert "by ann@host (deploy)" in (await reasons(queue, job.id))["paused"]


async def test_the_blocking_queue_explains_too(queue, valkey, queue_name):
    def look() -> str:
        with SyncQueue(queue_name, redis=valkey.url) as blocking:
            return blocking.explain("film").state

    assert await asyncio.to_thread(look) == "missing"
