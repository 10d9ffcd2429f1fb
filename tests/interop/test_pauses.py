"""A queue that is paused for everyone, with Node's workers beside beeq's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from beeq import Queue
from tests.support.node_bee import NodeBee

MakeQueue = Callable[..., Queue]
MakeNode = Callable[..., Awaitable[NodeBee]]


async def at_work(queue: Queue, redis: redis.asyncio.Redis, eventually: Any) -> list[str]:
    """Let the queue work; return the ids of what it runs, as it comes."""
    ran: list[str] = []

    @queue.process
    async def handler(job: Any) -> None:
        ran.append(job.id)

    async def is_known() -> bool:
        return bool(await redis.zcard(queue.keys.workers))

    await eventually(is_known)
    return ran


async def hidden(redis: redis.asyncio.Redis, queue: Queue, count: int) -> bool:
    has_left = not await redis.exists(queue.keys.waiting)
    return has_left and await redis.llen(queue.keys.hidden) == count


@pytest.mark.no_audit("of a job that Node has removed the id stays in active, until a beeq worker meets it")
async def test_node_takes_none_of_the_hidden_jobs_until_resumed(
    make_queue: MakeQueue, make_node: MakeNode, redis: redis.asyncio.Redis, eventually: Any
) -> None:
    operator, worker = make_queue(is_worker=False), make_queue()
    ran = await at_work(worker, redis, eventually)
    await operator.pause(everyone=True)
    await eventually(lambda: worker.worker_health().is_queue_paused)
    ids = [(await operator.enqueue({"n": n})).id for n in range(4)]
    await eventually(lambda: hidden(redis, operator, 4))
    node = await make_node(concurrency=1)
    assert (await node.call("checkHealth"))["waiting"] == 0
    assert (await operator.check_health()).waiting == 4
    await node.call("removeJob", id=ids[0])  # it finds the record, not the id among the hidden ones
    await asyncio.sleep(0.5)  # nothing shall happen
    assert (node.of("handling"), ran) == ([], [])
    await worker.close()
    await operator.resume()
    await node.until("handling", 3)  # which slept at an empty list, and is woken by the renaming
    assert [job["id"] for (job,) in node.of("handling")] == ids[1:]
    assert ran == []


async def test_jobs_hidden_by_who_was_killed_come_back(
    make_queue: MakeQueue, make_node: MakeNode, redis: redis.asyncio.Redis, eventually: Any
) -> None:
    """The pause ends with no beeq process alive; a Node worker works on, and the next beeq worker repairs it."""
    operator = make_queue(is_worker=False, activate_delayed_jobs=False)
    doomed = make_queue(activate_delayed_jobs=False)
    await at_work(doomed, redis, eventually)
    await operator.pause(everyone=True, for_="1500ms")
    await eventually(lambda: doomed.worker_health().is_queue_paused)
    first = [(await operator.enqueue({"n": n})).id for n in range(3)]
    await eventually(lambda: hidden(redis, operator, 3))
    with contextlib.suppress(TimeoutError):
        await doomed.close(timeout=1)
    await eventually(lambda: is_over(redis, operator))
    node = await make_node(concurrency=1)
    seen_by_node = await operator.enqueue({"n": 3})
    await node.until("handling")
    assert [job["id"] for (job,) in node.of("handling")] == [seen_by_node.id]
    await node.end()
    ran = await at_work(make_queue(), redis, eventually)
    await eventually(lambda: len(ran) == 3)
    assert ran == first


async def is_over(redis: redis.asyncio.Redis, queue: Queue) -> bool:
    return not await redis.exists(queue.keys.paused)
