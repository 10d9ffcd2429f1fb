"""Sentinel, and a cluster of real nodes: a queue finds its master, or the owner of its slot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from beeq import Queue
from beeq.operations.queue_names import find_queue_names
from tests.support.topologies import Cluster, Sentinel

pytestmark = pytest.mark.external


@pytest.fixture
def sentinel(valkey, tmp_path) -> Iterator[Sentinel]:
    with Sentinel(tmp_path, valkey) as started:
        yield started


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as started:
        yield started


async def test_a_sentinel_url_leads_to_the_master(sentinel, queue_name):
    async with Queue(queue_name, redis=sentinel.url) as queue:

        @queue.process
        async def add(job):
            return job.data + 1

        assert await (await queue.enqueue(41)).result(timeout=5000) == 42


async def is_hidden(queue, job_id) -> bool:
    hidden = await queue.pipeline.call("LRANGE", queue.keys.hidden, 0, -1)
    return bool(hidden == [job_id.encode()])


@pytest.mark.parametrize("tag", ["a", "b", "c", "d"])
async def test_a_queue_in_a_cluster_works_wherever_its_slot_lives(cluster, tag, eventually):
    """Each queue gets one node only, which need not own its slot."""
    url = f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}"
    async with Queue("sums", redis=url, prefix=f"{{{tag}}}") as queue:

        @queue.process(concurrency=3)
        async def add(job):
            return job.data + 1

        jobs = [await queue.enqueue(n) for n in range(1, 20)]
        assert [await job.result(timeout=5000) for job in jobs] == list(range(2, 21))
        assert (await queue.check_health()).succeeded == 19
        await queue.pause(everyone=True)
        await eventually(lambda: queue.worker_health().is_queue_paused)
        job = await queue.enqueue(20)
        await eventually(lambda: is_hidden(queue, job.id))
        await queue.resume()
        assert await job.result(timeout=5000) == 21
        assert await queue.destroy() > 0


async def test_in_a_cluster_a_tags_queues_and_workers_are_known(cluster, eventually):
    url = f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}"
    async with Queue("{b}sums", redis=url) as queue:
        end = asyncio.Event()

        @queue.process
        async def wait(_job):
            await end.wait()

        job = await queue.enqueue({})

        async def is_known() -> bool:
            names, _ = await find_queue_names(queue.pipeline, "bq", registry=queue.keys.queues)
            workers = await queue.workers()
            ids = [each.id for worker in workers for each in worker.jobs]
            return names == ["{b}sums"] and ids == [job.id]

        await eventually(is_known, 20)
        assert [reason.kind for reason in (await queue.explain(job.id)).reasons] == ["running", "running"]
        assert await queue.diagnose() == []
        await queue.pipeline.call("LPUSH", queue.keys.waiting, "ghost")
        assert await queue.repair(await queue.diagnose()) == 1
        assert isinstance(await queue.diagnose_server(), list)
        end.set()
        await job.result(timeout=5000)
        await queue.destroy()
        registered = await queue.pipeline.call("ZRANGE", "bq:beeq:queues:{b}", 0, -1)
        assert registered == []


async def test_a_queue_follows_its_slot_to_another_node(cluster):
    slot = key_slot(b"a")
    owner = cluster.owner(slot)
    other = next(node for node in cluster.nodes if node is not owner)
    async with Queue("sums", redis=f"redis+cluster://127.0.0.1:{owner.port}", prefix="{a}") as queue:
        await queue.enqueue(1)
        await queue.destroy()
        cluster.move(slot, other)
        job = await queue.enqueue(2)
        with other.sync_client() as client:
            assert client.hexists("{a}:sums:jobs", job.id)
        await queue.destroy()


async def test_a_cluster_queue_without_a_hash_tag_is_refused():
    with pytest.raises(ValueError, match="hash tag"):
        Queue("sums", redis="redis+cluster://127.0.0.1:7000")
