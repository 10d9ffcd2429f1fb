"""A wrong Redis URL: a cluster without hash tags is a usage error, a missing password is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Beeq
from tests.support.server import Server
from tests.support.topologies import Cluster

COMMANDS = {
    "worker": ("worker", "webhook-processing"),
    "all queues' worker": ("worker",),
    "enqueue": ("enqueue", "own", "a=b"),
    "bulk": ("enqueue", "own", "--bulk", "-"),
    "cancel": ("cancel", "1"),
    "stats": ("stats",),
    "web": ("web", "--port", "0"),
    "mirror": ("mirror", "--mongo-url", "mongodb://127.0.0.1:1"),
    "mirror's check": ("mirror", "--check", "--mongo-url", "mongodb://127.0.0.1:1"),
}
APP = """
from beeq import Queue
queue = Queue("{own}")

@queue.process
async def handle(job):
    return 42
"""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "url", ["redis+cluster://:hunter2@127.0.0.1:1", "rediss+cluster://:hunter2@127.0.0.1:1"]
)
def test_a_missing_hash_tag_is_a_wrong_command(bare_beeq: Beeq, command: str, url: str) -> None:
    ran = bare_beeq.run(*COMMANDS[command], "-u", url)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "in a cluster the prefix or the queue's name needs a hash tag, such as {bq}" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "hunter2" not in ran.stderr


def test_an_apps_queue_without_a_hash_tag_is_a_wrong_command(bare_beeq: Beeq) -> None:
    bare_beeq.app(APP.replace("{own}", "own"))
    ran = bare_beeq.run("worker", "--app", "app:queue", "-u", "redis+cluster://127.0.0.1:1")
    assert ran.returncode == 2
    assert "needs a hash tag" in ran.stderr


@pytest.fixture
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a password."""
    with Server(tmp_path_factory.mktemp("locked")) as server:
        with server.sync_client() as client:
            client.config_set("requirepass", "word")
        yield server
        with server.sync_client(password="word") as client:
            client.config_set("requirepass", "")


@pytest.mark.parametrize("command", ["worker", "enqueue", "cancel", "stats"])
@pytest.mark.parametrize("credentials", ["", ":wrong@"])
def test_a_missing_password_is_no_connection_as_a_wrong_one(
    bare_beeq: Beeq, locked: Server, command: str, credentials: str
) -> None:
    ran = bare_beeq.run(*COMMANDS[command], "-u", f"redis://{credentials}127.0.0.1:{locked.port}")
    assert ran.returncode == 3
    assert ran.stderr.count("cannot connect to Redis: ") == 1
    assert "password" in ran.stderr


@pytest.mark.external
def test_an_apps_worker_in_a_cluster_wants_its_own_queues_only(bare_beeq: Beeq, tmp_path: Path) -> None:
    bare_beeq.app(APP.replace("{own}", "{own}"))
    with Cluster(tmp_path) as cluster:
        url = f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}"
        bare_beeq.ok("enqueue", "{own}", "-u", url, "-q")
        ran = bare_beeq.run("worker", "--app", "app:queue", "--burst", "-u", url)
        assert ran.returncode == 0, ran.stderr
        counts = json.loads(bare_beeq.ok("stats", "--json", "{own}", "-u", url))
        assert counts["{own}"]["succeeded"] == 1
        ran = bare_beeq.run("worker", "webhook-processing", "--app", "app:queue", "--burst", "-u", url)
        assert ran.returncode == 2
        ran = bare_beeq.run("stats", "-u", f"redis://127.0.0.1:{cluster.nodes[0].port}")
        assert ran.returncode == 3
        assert "is a node of a cluster: write redis+cluster://" in ran.stderr
