"""How a queue opens: connecting, readiness, and what happens while Redis cannot be reached."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beeq import QueueClosed, RedisUnavailable
from tests.support.waiting import pause

pytestmark = pytest.mark.fast


async def test_a_queue_works_without_loading_its_scripts_first(make_queue, redis):
    await redis.script_flush()
    queue = make_queue(ensure_scripts=False)
    errors: list[Any] = []
    queue.on("error", errors.append)
    assert await queue.ready() is queue
    job = await queue.enqueue({"x": 1})
    assert await redis.hexists(queue.keys.jobs, job.id)
    assert errors == []


async def test_ready_gives_the_queue_to_whoever_awaits_it(make_queue):
    """bee-queue's callback form is the awaitable form."""
    queue = make_queue()
    assert await queue.ready() is queue
    assert await queue.ready() is queue


async def test_a_queue_is_running_until_it_is_closed(make_queue, eventually):
    queue = make_queue()
    assert queue.is_running()
    await queue.ready()
    assert queue.is_running()
    closing = asyncio.ensure_future(queue.close())
    await eventually(lambda: not queue.is_running())
    await closing
    assert not queue.is_running()


async def test_ready_is_emitted_once(make_queue):
    queue = make_queue()
    heard = asyncio.Event()
    count = []
    queue.on("ready", heard.set)
    queue.on("ready", lambda: count.append(1))
    await queue.connect()
    await asyncio.wait_for(heard.wait(), 30)
    await queue.connect()
    await queue.check_health()
    assert count == [1]


async def test_commands_given_before_the_queue_is_ready_wait_for_it(make_queue):
    """A queue connects by itself, at the first await."""
    queue = make_queue()
    health, job = await asyncio.gather(queue.check_health(), queue.enqueue({"x": 1}))
    assert health.newest_job in (0, 1)
    assert job.id == "1"


async def test_a_queue_told_not_to_connect_by_itself_waits_for_connect(make_queue):
    """bee-queue throws TypeErrors here."""
    queue = make_queue(auto_connect=False)
    with pytest.raises(RuntimeError, match="connect"):
        await queue.enqueue({})
    with pytest.raises(RuntimeError, match="connect"):
        await queue.ready()
    with pytest.raises(RuntimeError, match="connect"):
        await queue.check_health()
    assert await queue.connect() is True
    assert await queue.connect() is True
    assert (await queue.enqueue({})).id == "1"


async def test_a_queue_without_auto_connect_can_be_closed_unopened(make_queue):
    """bee-queue's close throws there."""
    queue = make_queue(auto_connect=False)
    await queue.close()
    with pytest.raises(QueueClosed, match="^closed$"):
        await queue.ready()


async def test_a_worker_without_auto_connect_takes_jobs_on_connect(make_queue):
    producer, worker = make_queue(), make_queue(auto_connect=False)
    job = await producer.enqueue({"x": 2})

    async def double(job):
        return job.data["x"] * 2

    worker.process(double)
    assert (await producer.check_health()).waiting == 1
    await worker.connect()
    assert await job.result(timeout=5000) == 4


async def test_connecting_many_times_makes_one_set_of_connections(make_queue, redis, eventually):
    """bee-queue opens a second set of clients."""
    before = len(await redis.client_list())
    queue = make_queue(is_worker=False, activate_delayed_jobs=False)
    await asyncio.gather(*(queue.connect() for _ in range(10)), *(queue.ready() for _ in range(10)))

    async def has_two_more():
        return len(await redis.client_list()) == before + 2  # commands, events

    await eventually(has_two_more)
    await queue.enqueue({})
    assert len(await redis.client_list()) == before + 2


async def test_a_failed_start_is_raised_and_the_next_ask_tries_again(own_valkey, make_queue):
    """bee-queue never recovers from it."""
    queue = make_queue(redis=own_valkey.url)
    own_valkey.stop()
    with pytest.raises(RedisUnavailable):
        await queue.ready()
    with pytest.raises(RedisUnavailable):
        await queue.enqueue({"x": 1})
    own_valkey.start()
    assert await queue.ready() is queue
    assert (await queue.enqueue({"x": 1})).id == "1"


async def test_an_unknown_host_fails_the_start_and_close_still_works(make_queue):
    queue = make_queue(redis="redis://nowhere.invalid:6379")
    with pytest.raises(RedisUnavailable):
        await asyncio.wait_for(queue.ready(), 10)
    await queue.close()
    assert not queue.is_running()
    with pytest.raises(QueueClosed):
        await queue.ready()


async def test_an_unawaited_failed_start_is_no_error_of_its_own(own_valkey, make_queue, eventually):
    """In bee-queue the unhandled rejection ends the process."""
    own_valkey.stop()
    queue = make_queue(redis=own_valkey.url)
    waiting = asyncio.ensure_future(queue.ready())
    await pause(0)  # it begins
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(RedisUnavailable):
        await queue.ready()


async def test_a_worker_started_without_redis_begins_when_it_is_back(own_valkey, make_queue):
    """A worker never starts dead, as bee-queue's does when its first stall check fails."""
    own_valkey.stop()
    worker = make_queue(redis=own_valkey.url, initial_redis_failure_retry_delay=20)
    failed = asyncio.Event()
    worker.on("error", lambda _error: failed.set())
    ran = asyncio.Event()

    @worker.process
    async def handler(_job):
        ran.set()

    await asyncio.wait_for(failed.wait(), 30)
    own_valkey.start()
    producer = make_queue(redis=own_valkey.url)
    await producer.enqueue({})
    await asyncio.wait_for(ran.wait(), 30)


async def test_entering_connects_and_leaving_closes(make_queue):
    async with make_queue() as queue:
        assert (await queue.enqueue({})).id == "1"
    assert not queue.is_running()
    with pytest.raises(QueueClosed, match="^closed$"):
        await queue.enqueue({})
