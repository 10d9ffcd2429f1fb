"""Putting jobs into a queue: ids, many at once, and what cannot be written."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from beeq import RedisUnavailable
from beeq.redis.connection import Connection

pytestmark = pytest.mark.fast


def circular():
    data: dict[str, Any] = {}
    data["self"] = data
    return data


async def test_a_record_is_under_the_queues_hash_as_the_job_says(make_queue, redis, queue_name):
    queue = make_queue(is_worker=False)
    job = await queue.create_job({"foo": "bar"}).retries(1).save()
    raw = await redis.hget(f"bq:{queue_name}:jobs", job.id)
    timestamp = job.options["timestamp"]
    assert raw == (
        f'{{"data":{{"foo":"bar"}},"options":{{"timestamp":{timestamp},"stacktraces":[],"retries":1}},'
        '"status":"created","progress":0}'
    )


async def test_jobs_saved_together_are_all_stored(make_queue, redis):
    queue = make_queue(is_worker=False)
    jobs = [queue.create_job({"n": 1}).set_id("first"), queue.create_job({"n": 2}).set_id("second")]
    assert await queue.save_all(jobs) == {}
    assert [job.id for job in jobs] == ["first", "second"]
    assert json.loads(await redis.hget(queue.keys.jobs, "first"))["data"] == {"n": 1}
    assert json.loads(await redis.hget(queue.keys.jobs, "second"))["data"] == {"n": 2}
    assert await redis.lrange(queue.keys.waiting, 0, -1) == ["second", "first"]


async def test_jobs_saved_together_run_in_order_however_many(make_queue, redis):
    """Many calls of bounded size, one order."""
    queue = make_queue(is_worker=False)
    jobs = [queue.create_job({"n": n}) for n in range(1700)]
    assert await queue.save_all(jobs) == {}
    assert [job.id for job in jobs] == [str(n) for n in range(1, 1701)]
    assert await redis.lrange(queue.keys.waiting, -3, -1) == ["3", "2", "1"]


async def test_saving_none_is_fine(make_queue):
    assert await make_queue(is_worker=False).save_all([]) == {}


async def test_circular_payloads_are_reported_and_the_others_are_saved(make_queue):
    queue = make_queue(is_worker=False)
    jobs = [queue.create_job(circular()), queue.create_job(circular()), queue.create_job({"fine": True})]
    errors = await queue.save_all(jobs)
    assert list(errors) == jobs[:2]
    for error in errors.values():
        assert isinstance(error, TypeError)
        assert "circular" in str(error)
    assert jobs[2].id == "1"
    assert (await queue.check_health()).waiting == 1


async def test_a_payload_that_json_cannot_hold_is_refused_unsent(make_queue, redis):
    queue = make_queue(is_worker=False)
    for data in (circular(), {"x": object()}, {1, 2}, b"bytes", {("a", "tuple"): 1}):
        with pytest.raises(TypeError):
            await queue.enqueue(data)
    assert await redis.exists(*queue.keys.every()) == 0


ODD_DELAYS = ["tomorrow", math.inf, math.nan, -1, True, [1]]


async def test_odd_delays_are_reported_and_the_others_are_saved(make_queue, redis):
    queue = make_queue(is_worker=False)
    odd = [queue.create_job({}).set_id(f"odd{n}") for n in range(len(ODD_DELAYS) + 1)]
    for job, delay in zip(odd, ODD_DELAYS, strict=False):
        job.options["delay"] = delay
    odd[-1].options = None
    fine = [queue.create_job({"n": n}) for n in range(len(odd))]
    errors = await queue.save_all([job for pair in zip(fine, odd, strict=True) for job in pair])
    assert list(errors) == odd
    for job in odd[:-1]:
        with pytest.raises(ValueError, match="the option delay is"):
            raise errors[job]
    assert isinstance(errors[odd[-1]], TypeError)
    ids = [job.id for job in fine]
    assert await redis.lrange(queue.keys.waiting, 0, -1) == ids[::-1]
    assert sorted(await redis.hkeys(queue.keys.jobs)) == sorted(ids)
    assert await redis.exists(queue.keys.delayed) == 0


async def test_an_odd_delay_fails_no_save_of_the_same_batch(make_queue, redis):
    queue = make_queue(is_worker=False)
    await queue.ready()
    jobs = [queue.create_job({}) for _ in range(2 * len(ODD_DELAYS))]
    for job, delay in zip(jobs[::2], ODD_DELAYS, strict=True):
        job.set_id(f"odd{delay}").options["delay"] = delay
    done = await asyncio.gather(*(job.save() for job in jobs), return_exceptions=True)
    assert [type(end) for end in done[::2]] == [ValueError] * len(ODD_DELAYS)
    assert done[1::2] == jobs[1::2]
    assert await redis.lrange(queue.keys.waiting, 0, -1) == [job.id for job in jobs[::-2]]
    assert not any(queue.event_hub.has(job.id) for job in jobs[::2])


async def test_a_delay_of_digits_is_a_time(make_queue, redis):
    """As in bee-queue, which hands the option to Redis unchanged."""
    queue = make_queue(is_worker=False, activate_delayed_jobs=True)
    job = queue.create_job({})
    job.options["delay"] = "4000000000000"
    await job.save()
    assert await redis.zscore(queue.keys.delayed, job.id) == 4_000_000_000_000


async def test_scripts_that_redis_forgot_are_loaded_again_on_save(make_queue, redis):
    """bee-queue fails until the process is restarted."""
    queue = make_queue(is_worker=False)
    await queue.ready()
    await redis.script_flush()
    jobs = [queue.create_job({}) for _ in range(3)]
    assert await queue.save_all(jobs) == {}
    await redis.script_flush()
    assert (await queue.enqueue({})).id == "4"
    await redis.script_flush()
    assert (await queue.check_health()).waiting == 4


async def test_a_script_forgotten_just_after_its_load_is_loaded_again(make_queue, redis, monkeypatch):
    queue = make_queue(is_worker=False)
    await queue.ready()
    load, loads = Connection.load, []

    async def load_in_vain(connection, script):
        await load(connection, script)
        loads.append(script)
        if len(loads) < 4:
            await redis.script_flush()

    monkeypatch.setattr(Connection, "load", load_in_vain)
    await redis.script_flush()
    assert (await queue.enqueue({})).id == "1"
    assert len(loads) >= 4


async def test_saving_many_while_redis_is_away_raises(own_valkey, make_queue):
    queue = make_queue(redis=own_valkey.url, is_worker=False)
    queue.on("error", lambda _error: None)
    await queue.ready()
    own_valkey.stop()
    with pytest.raises(RedisUnavailable):
        await asyncio.wait_for(queue.save_all([queue.create_job({}) for _ in range(3)]), 10)
    with pytest.raises(RedisUnavailable):
        await asyncio.wait_for(queue.enqueue({}), 10)


async def test_an_id_that_exists_writes_nothing_and_the_job_has_no_id(make_queue, redis):
    queue = make_queue(is_worker=False)
    await queue.enqueue({"n": 1}, id="same")
    before = await redis.hgetall(queue.keys.jobs)
    again = await queue.create_job({"n": 2}).set_id("same").save()
    assert (again.id, again.is_new) == (None, False)
    jobs = [queue.create_job({"n": n}).set_id("same") for n in range(2)]
    assert await queue.save_all(jobs) == {}
    assert [job.id for job in jobs] == [None, None]
    assert await redis.hgetall(queue.keys.jobs) == before
    assert await redis.lrange(queue.keys.waiting, 0, -1) == ["same"]


async def test_two_producers_with_one_id_make_one_job(make_queue, redis):
    queues = [make_queue(is_worker=False) for _ in range(4)]
    jobs = await asyncio.gather(*(queue.enqueue({}, id="same") for queue in queues))
    assert sorted(job.is_new for job in jobs) == [False, False, False, True]
    assert {job.id for job in jobs} == {"same"}
    assert await redis.llen(queues[0].keys.waiting) == 1


async def test_an_automatic_id_passes_over_those_that_users_took(make_queue):
    """bee-queue reports the job as saved, and it does not exist."""
    queue = make_queue(is_worker=False)
    await queue.enqueue({"mine": True}, id="2")
    jobs = [await queue.enqueue({"n": n}) for n in range(3)]
    assert [job.id for job in jobs] == ["1", "3", "4"]
    assert (await queue.check_health()).waiting == 4
    assert (await queue.get_job("2")).data == {"mine": True}


async def test_ids_stay_whole_numbers_beyond_ten_to_the_fourteenth(make_queue, redis):
    """bee-queue writes 1e+14 for every further job."""
    queue = make_queue(is_worker=False)
    await redis.set(queue.keys.id, 10**14 - 1)
    jobs = [await queue.enqueue({}) for _ in range(3)]
    assert [job.id for job in jobs] == ["100000000000000", "100000000000001", "100000000000002"]
    await redis.set(queue.keys.id, 2**53 - 2)
    assert (await queue.enqueue({})).id == str(2**53 - 1)


@pytest.mark.parametrize("job_id", [None, "", 0])
async def test_an_id_that_javascript_calls_falsy_asks_for_the_counter(make_queue, job_id):
    assert (await make_queue(is_worker=False).create_job({}).set_id(job_id).save()).id == "1"


@pytest.mark.parametrize("job_id", [True, 1.5, b"bytes", ["list"], "\ud800"])
def test_an_id_that_is_no_text_is_refused(make_queue, job_id):
    """Ids must be text."""
    with pytest.raises((TypeError, ValueError), match="job id"):
        make_queue(is_worker=False).create_job({}).set_id(job_id)


async def test_saves_that_happen_together_keep_their_order(make_queue, redis):
    queue = make_queue(is_worker=False)
    jobs = await asyncio.gather(*(queue.enqueue({"n": n}) for n in range(200)))
    assert [job.id for job in jobs] == [str(n) for n in range(1, 201)]
    order = [
        json.loads(raw)["data"]["n"]
        for raw in await redis.hmget(queue.keys.jobs, *(str(n) for n in range(1, 201)))
    ]
    assert order == list(range(200))


async def test_a_producer_that_is_cancelled_while_saving_harms_nobody(make_queue):
    queue = make_queue(is_worker=False)
    await queue.ready()
    saves = [asyncio.ensure_future(queue.enqueue({"n": n})) for n in range(10)]
    await queue.check_health()
    saves[3].cancel()
    done = await asyncio.gather(*saves, return_exceptions=True)
    assert sum(not isinstance(job, BaseException) for job in done) >= 9


async def test_a_job_refused_for_a_wrong_typed_key_leaves_no_record(make_queue, redis):
    """Nothing half done."""
    queue = make_queue(is_worker=False)
    await redis.set(queue.keys.waiting, "no list")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await queue.enqueue({})
    assert await redis.hlen(queue.keys.jobs) == 0
    await redis.delete(queue.keys.waiting)
