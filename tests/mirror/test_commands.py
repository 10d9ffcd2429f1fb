"""The mirror through the commands: workers write it, ``beeq mirror`` does so alone, ``--check`` compares."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cli"))

from tests.cli.command import Beeq, eventually  # noqa: E402 - after the path
from tests.support.mongo import MongoServer  # noqa: E402 - after the path
from tests.support.server import Server  # noqa: E402 - after the path

#: It is refused at once: the address is private.
WEBHOOK = ("webhookUrl=http://127.0.0.1:1/", "payload:={}", "projectId=p-1")


@pytest.fixture
def beeq(tmp_path: Path, valkey: Server, mongo: MongoServer, queue_name: str) -> Iterator[Beeq]:
    command = Beeq(
        tmp_path, BEEQ_REDIS_URL=valkey.url, BEEQ_PREFIX=queue_name, MONGODB_URI=mongo.url(queue_name)
    )
    yield command
    command.end()
    with valkey.sync_client() as client:
        for key in client.scan_iter(match=f"{queue_name}:*"):
            client.delete(key)


def test_a_burst_ends_with_its_changes_written(beeq: Beeq, mongo: MongoServer, queue_name: str) -> None:
    job_id = beeq.ok("enqueue", "webhook-processing", *WEBHOOK).strip()
    ran = beeq.run("worker", "--burst")
    assert ran.returncode == 0
    (document,) = mongo.documents(queue_name)
    assert (document["jobId"], document["status"], document["projectId"]) == (job_id, "failed", "p-1")
    assert "BEEQ_WEBHOOK_ALLOW_HOSTS" in document["error"]
    assert json.loads(beeq.ok("stats", "--json"))["webhook-processing"]["owed"] == 0


def test_check_says_what_differs_and_what_does_not(beeq: Beeq, queue_name: str) -> None:
    job_id = beeq.ok("enqueue", "webhook-processing", *WEBHOOK, MONGODB_URI="mongodb://127.0.0.1:1").strip()
    ran = beeq.run("mirror", "--check")
    assert ran.returncode == 1
    assert ran.stdout == (
        f"webhook-processing {job_id}: in Redis queued, in the mirror nothing\n1 jobs differ\n"
    )
    told = beeq.run("mirror", "--check", "--json").stdout
    assert json.loads(told) == {
        "queue": "webhook-processing",
        "id": job_id,
        "redis": "queued",
        "mirror": None,
    }


def test_mirror_writes_alone_until_told_to_stop(beeq: Beeq, mongo: MongoServer, queue_name: str) -> None:
    mirror = beeq.start("mirror")
    mirror.until("Mirror started")
    beeq.ok("enqueue", "webhook-processing", *WEBHOOK)
    eventually(lambda: [document["status"] for document in mongo.documents(queue_name)] == ["queued"])
    assert beeq.ok("mirror", "--check") == "the mirror is as it should be\n"
    mirror.signal(signal.SIGTERM)
    assert mirror.ended() == 0


@pytest.mark.parametrize("url", ["", "redis://x", "mongodb://"])
def test_a_bad_url_is_a_usage_error(beeq: Beeq, url: str) -> None:
    for command in ("mirror", "worker"):
        ran = beeq.run(command, "--mongo-url", url)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "--mongo-url" in ran.stderr


def test_without_a_url_there_is_nothing_to_mirror(tmp_path: Path, valkey: Server) -> None:
    ran = Beeq(tmp_path, BEEQ_REDIS_URL=valkey.url).run("mirror")
    assert ran.returncode == 2
    assert "MONGODB_URI" in ran.stderr


def test_without_mongodb_a_worker_works_and_hides_its_password(beeq: Beeq) -> None:
    url = "mongodb://user:hunter2@127.0.0.1:1/x"
    beeq.ok("enqueue", "webhook-processing", *WEBHOOK, MONGODB_URI=url)
    ran = beeq.run("worker", "--burst", MONGODB_URI=url)
    assert ran.returncode == 0
    assert "the mirror is behind" in ran.stderr
    assert "hunter2" not in ran.stderr
    numbers = json.loads(beeq.ok("stats", "--json", MONGODB_URI=url))["webhook-processing"]
    assert (numbers["failed"], numbers["owed"]) == (1, 3)
