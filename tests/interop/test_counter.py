"""One counter of automatic ids, counted on by both sides."""

from __future__ import annotations

import pytest

from beeq import RedisRefused
from tests.support.node_bee import NodeError


@pytest.mark.parametrize("counter", ["-3", pytest.param("41", marks=pytest.mark.external), str(10**14 - 3)])
async def test_both_sides_count_on_from_any_number(make_queue, node, redis, counter):
    queue = make_queue(is_worker=False)
    await redis.set(queue.keys.id, counter)
    ids = [(await queue.enqueue({})).id, await node.save({})]
    assert ids == [str(int(counter) + 1), str(int(counter) + 2)]
    assert await redis.lrange(queue.keys.waiting, 0, -1) == ids[::-1]


@pytest.mark.parametrize("counter", ["text", "1.5", str(2**63 - 1)])
async def test_both_sides_refuse_what_is_no_counter(make_queue, node, redis, counter):
    queue = make_queue(is_worker=False)
    await redis.set(queue.keys.id, counter)
    with pytest.raises(RedisRefused, match="cannot count"):
        await queue.enqueue({})
    with pytest.raises(NodeError, match="not an integer|overflow"):
        await node.save({})
    assert await redis.keys(queue.to_key("*")) == [queue.keys.id]


async def test_node_counts_on_behind_imported_ids(make_queue, node, redis):
    queue = make_queue(is_worker=False)
    imported = {str(n): "imported" for n in range(1, 3001)}
    await redis.hset(queue.keys.jobs, mapping=imported)
    assert (await queue.enqueue({})).id == "3001"
    assert await node.save({}) == "3002"
    await redis.hdel(queue.keys.jobs, *imported)  # they are in no list
