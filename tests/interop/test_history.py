"""The history of a queue on which Node works: by what has grown between two samples."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from beeq import Queue
from beeq.client.history_note import HistoryNote
from beeq.redis import scripts
from tests.support.history import let_minutes_pass, wait_for_a_minute_with
from tests.support.node_bee import NodeBee

Redis = redis.asyncio.Redis


async def sample(queue: Queue) -> None:
    """Do what the page does once a minute."""
    call = HistoryNote(queue.keys).packed()
    assert call is not None
    await queue.pipeline.run(scripts.note_history, call)


@pytest.mark.parametrize("has_own_ids", [False, True])
async def test_what_node_works_off_is_in_the_history(
    make_queue: Callable[..., Queue],
    make_node: Callable[..., Awaitable[NodeBee]],
    redis: Redis,
    has_own_ids: bool,
) -> None:
    queue = make_queue(is_worker=False)
    worker = await make_node(concurrency=5)
    wait_for_a_minute_with(10)
    made: dict[str, Any] = {"id": "first"} if has_own_ids else {}
    await queue.enqueue({"act": "return"}, delay_until="1h", **made)
    await sample(queue)
    await let_minutes_pass(redis, queue.keys)
    for n in range(6):
        own = {"id": f"own-{n}"} if has_own_ids else {}
        await queue.enqueue({"act": "throw" if n == 5 else "return"}, **own)
    await worker.until("succeeded", 5)
    await worker.until("failed", 1)
    await sample(queue)
    await let_minutes_pass(redis, queue.keys, 2)
    history = await queue.history("10m")
    total = history.total
    assert (total.added, total.succeeded, total.failed) == (6, 5, 1)
    assert total.uncounted == 6, "an estimate, all of it"
    assert (total.delayed, total.waits.total) == (1.0, 0)
    assert [point.ended for point in history.points if point.minutes] == [6, 0]
