"""The counter of automatic ids, whatever it holds: a clear error or a number, and no job lost or left behind."""

from __future__ import annotations

import asyncio

import pytest

from beeq import RedisRefused

pytestmark = [pytest.mark.fast, pytest.mark.real_redis("fakeredis cannot return an error inside a list")]

LAST = 2**53 - 1
ODD_COUNTERS = ["text", "1.5", "", str(LAST), str(LAST + 1), str(2**63 - 1), str(-(2**63))]


@pytest.fixture
async def queue(make_queue):
    return await make_queue(is_worker=False).ready()


@pytest.mark.parametrize("counter", ODD_COUNTERS)
async def test_a_save_says_that_the_counter_cannot_count(queue, redis, counter):
    await redis.set(queue.keys.id, counter)
    job = queue.create_job({})
    with pytest.raises(
        RedisRefused, match=f"^ERR the counter of automatic ids, {queue.keys.id}, cannot count"
    ):
        await job.save()
    assert job.id is None
    assert await redis.keys(queue.to_key("*")) == [queue.keys.id]
    assert await redis.get(queue.keys.id) == counter
    await redis.set(queue.keys.id, 7)
    assert (await job.save()).id == "8"


@pytest.mark.parametrize("counter", ODD_COUNTERS)
async def test_many_saves_fail_one_by_one_and_others_go_on(queue, redis, counter):
    await redis.set(queue.keys.id, counter)
    jobs = [queue.create_job({"n": n}).set_id(f"own {n}" if n % 3 else None) for n in range(1200)]
    errors = await queue.save_all(jobs)
    assert list(errors) == jobs[::3]
    assert {type(error) for error in errors.values()} == {RedisRefused}
    assert {job.id for job in errors} == {None}
    assert await redis.hlen(queue.keys.jobs) == await redis.llen(queue.keys.waiting) == 800
    assert await redis.get(queue.keys.id) == counter


async def test_saves_that_share_a_call_fail_each_for_itself(queue, redis):
    await redis.set(queue.keys.id, "text")
    jobs = [queue.create_job({}).set_id(job_id) for job_id in ("a", None, "b", None)]
    ends = await asyncio.gather(*(job.save() for job in jobs), return_exceptions=True)
    assert [isinstance(end, RedisRefused) for end in ends] == [False, True, False, True]
    assert [job.id for job in jobs] == ["a", None, "b", None]
    assert await redis.lrange(queue.keys.waiting, 0, -1) == ["b", "a"]


@pytest.mark.parametrize("left", [0, 1, 7, 499, 500, 700])
async def test_the_last_numbers_are_used_up(queue, redis, left):
    """Beyond 2^53 a script would write one number for two."""
    await redis.set(queue.keys.id, LAST - left)
    jobs = [queue.create_job({"n": n}) for n in range(1001)]
    errors = await queue.save_all(jobs)
    saved = [job for job in jobs if job not in errors]
    assert [job.id for job in saved] == [str(LAST - left + n) for n in range(1, left + 1)]
    assert set(await redis.hkeys(queue.keys.jobs)) == {job.id for job in saved}
    assert int(await redis.get(queue.keys.id)) == LAST
    assert (await queue.check_health()).newest_job == LAST


@pytest.mark.parametrize("counter", ["text", "", "1.5"])
async def test_a_counter_that_is_no_number_counts_as_none(queue, redis, counter):
    await redis.set(queue.keys.id, counter)
    assert (await queue.check_health()).newest_job == 0


async def test_saves_go_on_behind_a_hundred_thousand_imported_ids(queue, redis):
    imported = {str(n): "imported" for n in range(1, 100_001)}
    await redis.hset(queue.keys.jobs, mapping=imported)
    assert (await queue.enqueue({})).id == "100001"
    jobs = [queue.create_job({}) for _ in range(1000)]
    assert await queue.save_all(jobs) == {}
    assert [job.id for job in jobs] == [str(100_001 + n) for n in range(1, 1001)]
    await redis.hdel(queue.keys.jobs, *imported)  # they are in no list
