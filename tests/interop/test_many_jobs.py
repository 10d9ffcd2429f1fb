"""Jobs that Node made, failed and removes: found, retried and inspected by Python."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio

from beeq import Queue
from tests.support.node_bee import NodeBee

MakeQueue = Callable[..., Queue]
MakeNode = Callable[..., Awaitable[NodeBee]]
Redis = redis.asyncio.Redis


async def test_jobs_that_node_failed_are_found_and_retried(
    make_queue: MakeQueue, make_node: MakeNode
) -> None:
    queue = make_queue(is_worker=False)
    await queue.ready()
    worker = await make_node(concurrency=2)
    for town in ("Ys", "Ur"):
        await queue.enqueue({"act": "throw", "value": f"no {town}", "town": town})
    await worker.until("failed:fatal", 2)
    (found,) = [each async for each in queue.find_jobs(state="failed", error="no ys")]
    assert (found.job.data["town"], found.error) == ("Ys", "Error: no Ys")
    details = await queue.inspect_job(found.job.saved_id())
    assert details is not None
    assert (details.state, details.attempts) == ("failed", []), "Node notes none"
    assert details.ended is not None
    assert str(details.ended.error).startswith("Error: no Ys\n"), "the trace tells"
    counts = await queue.retry_many(where={"data.town": "Ys"})
    assert (counts.seen, counts.done) == (2, 1)
    await worker.until("failed:fatal", 3)


async def test_a_job_that_node_removed_leaves_no_attempts(
    make_queue: MakeQueue, make_node: MakeNode, redis: Redis, eventually: Any
) -> None:
    queue = make_queue(stall_interval=200)

    @queue.process
    async def handler(_job: Any) -> None:
        raise ValueError("no")

    await queue.enqueue({}, id="mine")

    async def has_attempts() -> bool:
        return bool(await redis.hexists(queue.keys.attempts, "mine"))  # type: ignore[misc]

    await eventually(has_attempts)
    node = await make_node(isWorker=False)
    await node.call("removeJob", id="mine")

    async def has_none() -> bool:
        return not await has_attempts()

    await eventually(has_none)
