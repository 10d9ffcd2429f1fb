"""Watching and explaining jobs that only npm's bee-queue works on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from beeq import Queue
from beeq.operations.signs import workers_seen
from tests.support.node_bee import NodeBee

MakeQueue = Callable[..., Queue]
MakeNode = Callable[..., Awaitable[NodeBee]]


async def test_what_a_node_worker_does_is_told(make_queue: MakeQueue, make_node: MakeNode) -> None:
    queue = make_queue(is_worker=False)
    good = await queue.enqueue({"act": "return", "value": {"sum": 3}})
    bad = await queue.enqueue({"act": "throw", "value": "no such film"})
    async with aclosing(queue.watch_job(good.saved_id(), "20s")) as news:
        assert (await anext(news)).event == "waiting"
        await make_node(concurrency=1)
        reported = [(each.event, each.value) async for each in news]
    assert reported[-1] == ("succeeded", {"sum": 3})
    reported = [(each.event, each.value) async for each in queue.watch_job(bad.saved_id(), "20s")]
    assert reported[-1][0] == "failed"
    assert "no such film" in str(reported[-1][1])


async def test_a_job_of_a_node_worker_is_explained(make_queue: MakeQueue, make_node: MakeNode) -> None:
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({"act": "hang"})
    node = await make_node(concurrency=1)
    await node.until("handling")
    (reason,) = (await queue.explain(job.saved_id())).reasons
    assert reason.kind == "node-worker"
    seen = await workers_seen(queue.pipeline, queue.keys, await queue.stats())
    assert (len(seen.living), seen.is_any) == (0, True)
    assert await queue.diagnose() == []
    await queue.remove_job(job.saved_id())
