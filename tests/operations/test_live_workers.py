"""Who works on a queue: beeq's workers of all versions, Node's as far as they are seen, and the dead."""

from __future__ import annotations

import asyncio
import os

import pytest

import beeq
from beeq import sync

pytestmark = pytest.mark.fast
SOON_S = 20.0


@pytest.fixture
async def looker(make_queue):
    return await make_queue(is_worker=False).ready()


async def now_ms(redis) -> int:
    return int((await redis.time())[0]) * 1000


@pytest.mark.real_redis("the many scripts take seconds there")
async def test_a_worker_tells_its_places_and_its_jobs_oldest_first(make_queue, looker, eventually):
    worker, end = make_queue(), asyncio.Event()

    @worker.process(concurrency=3)
    async def handler(_job):
        await end.wait()

    for job_id in ("first", "second"):
        await looker.enqueue(id=job_id)
        await eventually(lambda: worker.worker_health().running, SOON_S)

    async def seen():
        found = await looker.workers()
        return found if found and len(found[0].jobs) == 2 else None

    (found,) = await eventually(seen, SOON_S)
    assert found.id == f"{found.host}:{os.getpid()}:{found.id[-8:]}"
    assert (found.version, found.places, found.busy, found.is_taking) == (beeq.__version__, 3, 2, True)
    assert [job.id for job in found.jobs] == ["first", "second"]
    assert 400 < found.longest_ms < 20_000
    assert found.beat_age_ms < 10_000
    assert 0 < found.up_ms < 60_000
    assert abs(found.clock_skew_ms) < 5000
    end.set()

    async def has_none():
        return not (await looker.workers())[0].jobs

    await eventually(has_none, SOON_S)
    await worker.close()
    assert await looker.workers() == []


async def test_short_jobs_leave_no_note(make_queue, looker):
    worker = make_queue()
    worker.process(lambda job: job.data)
    await asyncio.gather(*[job.result(timeout=9000) for job in [await looker.enqueue(n) for n in range(9)]])
    (found,) = await looker.workers()
    assert found.jobs == ()


async def test_jobs_that_nobody_claims_are_nodes(looker, redis):
    keys = looker.keys
    await redis.lpush(keys.active, "1", "2", "3", "4")
    await redis.hset(keys.jobs, mapping=dict.fromkeys("1234", '{"data":{},"options":{},"status":"created"}'))
    await redis.sadd(keys.stalling, "2", "3")
    await redis.hset(keys.claims, mapping={"1": "token.0:1", "2": ":1"})
    others = (await looker.activity()).others
    assert (others.node, others.node_count, others.silent) == (("2", "3", "4"), 3, {"2", "3"})
    assert (others.claimed, others.is_complete) == (1, True)
    await looker.destroy()


async def test_a_worker_of_an_earlier_beeq_is_told_by_its_beat(looker, redis):
    now = await now_ms(redis)
    beats = {"a:b:17:0123abcd": now - 2000, "odd": now - 5000, "gone:1:ab": now - 40_000}
    await redis.zadd(looker.keys.workers, beats)
    first, second = await looker.workers()
    assert (first.id, first.host, first.pid) == ("a:b:17:0123abcd", "a:b", 17)
    assert (first.version, first.places, first.is_taking, first.jobs) == ("", None, None, ())
    assert (second.id, second.pid) == ("odd", None)
    assert 2000 <= first.beat_age_ms < second.beat_age_ms


async def test_a_stranger_among_the_workers_hides_none(looker, redis):
    now = await now_ms(redis)
    await redis.zadd(looker.keys.workers, {"h:1:ab": now, f"h:{'7' * 5000}:x": now})
    assert [worker.pid for worker in await looker.workers()] == [1, None]


@pytest.mark.real_redis("fakeredis has another code for a key of another type")
async def test_strangers_keys_hide_no_worker(looker, redis):
    now = await now_ms(redis)
    await redis.zadd(looker.keys.workers, {"h:1:ab": now, "h:2:cd": now})
    await redis.set(looker.keys.to_key("beeq:running:h:1:ab"), "no hash", px=30_000)
    noted = {"process": "[", "job:x\x1b": str(now - 9000), "job:y": "soon"}
    await redis.hset(looker.keys.to_key("beeq:running:h:2:cd"), mapping=noted)
    first, second = await looker.workers()
    assert (first.id, [job.id for job in first.jobs]) == ("h:2:cd", ["x\x1b"])
    assert (second.id, second.jobs) == ("h:1:ab", ())
    await looker.destroy()
    assert await redis.keys(looker.to_key("*")) == []


async def test_looking_writes_nothing(looker, redis):
    await looker.activity()
    assert await redis.keys(looker.to_key("*")) == []


@pytest.mark.real_redis("a blocking queue's loop")
async def test_the_blocking_queue_tells_the_same(valkey, looker, redis):
    now = await now_ms(redis)
    await redis.zadd(looker.keys.workers, {"h:1:ab": now})

    def look():
        with sync.Queue(looker.name, redis=valkey.url) as queue:
            return queue.workers(), queue.activity()

    workers, activity = await asyncio.to_thread(look)
    assert [worker.id for worker in workers] == [worker.id for worker in activity.workers] == ["h:1:ab"]
