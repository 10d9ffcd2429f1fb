"""Which queues a Redis holds, and which of them have a job of some id."""

from __future__ import annotations

import pytest

from beeq import RedisRefused
from beeq.operations import queue_names
from beeq.operations.queue_names import find_queue_names, queues_with

pytestmark = pytest.mark.fast


@pytest.fixture
async def pipeline(make_queue):
    queue = make_queue(is_worker=False)
    await queue.ready()
    return queue.pipeline


@pytest.fixture
async def prefix(queue_name, redis):
    """A prefix that a pattern could take for another one; its keys go with the test."""
    prefix = f"{queue_name}[a]*"
    yield prefix
    names = [key async for key in redis.scan_iter(count=1000) if key.startswith(queue_name)]
    if names:
        await redis.delete(*names)


async def test_every_queue_with_jobs_is_found_by_its_name(pipeline, prefix, redis):
    for name in ("mail", "a:b", "größe", "x y"):
        await redis.hset(f"{prefix}:{name}:jobs", "1", "{}")
    await redis.hset(f"{prefix.replace('*', 'Z')}:other:jobs", "1", "{}")
    await redis.set(f"{prefix}:empty:id", "5")
    await redis.set(f"{prefix}:jobs", "not a queue's")
    assert await find_queue_names(pipeline, prefix) == (["a:b", "größe", "mail", "x y"], True)


async def test_who_saves_or_works_notes_the_queue_till_its_end(
    make_queue, pipeline, prefix, redis, eventually, queue_name
):
    registry = f"{prefix}:beeq:queues"
    looking = make_queue(prefix=prefix, is_worker=False)
    await looking.stats()
    assert await redis.exists(registry) == 0, "who only looks writes nothing"
    producer = make_queue("films", prefix=prefix, is_worker=False)
    await producer.enqueue({})
    assert await redis.zrange(registry, 0, -1) == ["films"]
    worker = make_queue("a:b", prefix=prefix)
    worker.process(lambda _job: None)

    async def is_noted() -> bool:
        return (await find_queue_names(pipeline, prefix))[0] == ["a:b", "films"]

    await eventually(is_noted)
    await worker.close()
    await producer.destroy()
    assert (await find_queue_names(pipeline, prefix))[0] == ["a:b"]
    await producer.enqueue({})
    assert (await find_queue_names(pipeline, prefix))[0] == ["a:b", "films"], "it is in use again"
    await producer.destroy()


async def test_a_registry_of_another_type_hides_no_queue(make_queue, pipeline, prefix, redis):
    await redis.set(f"{prefix}:beeq:queues", "a stranger's")
    await redis.set(f"{prefix}:strange:jobs", "no hash")
    producer = make_queue("films", prefix=prefix, is_worker=False)
    await producer.enqueue({})
    assert await find_queue_names(pipeline, prefix) == (["films"], True)
    await producer.destroy()


async def test_a_search_ends_at_its_bound_and_says_so(pipeline, prefix, redis, monkeypatch):
    monkeypatch.setattr(queue_names, "MOST_KEYS", 1000)
    await redis.mset({f"{prefix}:{n}:id": "1" for n in range(3000)})
    names, is_complete = await find_queue_names(pipeline, prefix)
    assert (names, is_complete) == ([], False)


async def test_only_queues_that_have_the_job_are_told(pipeline, prefix, redis):
    await redis.hset(f"{prefix}:mail:jobs", "7", "{}")
    await redis.hset(f"{prefix}:films:beeq:evenResults", "7", "1:1:s5")
    names = ["mail", "films", "music", "mail"]
    assert await queues_with(pipeline, prefix, names, "7") == ["mail"]
    assert await queues_with(pipeline, prefix, names, "7", is_gone_too=True) == ["mail", "films"]
    assert await queues_with(pipeline, prefix, names, "8", is_gone_too=True) == []


@pytest.mark.real_redis("fakeredis has another code for a key of another type")
async def test_an_odd_key_of_one_queue_hides_no_jobs_of_others(pipeline, prefix, redis):
    await redis.hset(f"{prefix}:mail:jobs", "7", "{}")
    await redis.set(f"{prefix}:odd:beeq:evenResults", "no hash")
    assert await queues_with(pipeline, prefix, ["odd", "mail"], "7", is_gone_too=True) == ["mail"]
    with pytest.raises(RedisRefused, match="WRONGTYPE"):
        await queues_with(pipeline, prefix, ["odd"], "7", is_gone_too=True)


@pytest.mark.more_rights("a user of its own")
@pytest.mark.real_redis("fakeredis has no users")
async def test_a_user_who_may_not_scan_finds_those_that_are_noted(
    make_queue, valkey, redis, queue_name, prefix
):
    await redis.execute_command(
        "ACL", "SETUSER", queue_name, "reset", "on", ">pw", "~*", "&*", "+@all", "-scan"
    )
    url = f"redis://{queue_name}:pw@127.0.0.1:{valkey.port}"
    try:
        await redis.hset(f"{prefix}:mail:jobs", "1", "{}")
        queue = make_queue("films", redis=url, prefix=prefix, is_worker=False)
        assert await find_queue_names((await queue.ready()).pipeline, prefix) == ([], False)
        await queue.enqueue({})
        assert await find_queue_names(queue.pipeline, prefix) == (["films"], False)
        await queue.destroy()
        await queue.close()
    finally:
        await redis.execute_command("ACL", "DELUSER", queue_name)
