"""The mirror through the commands: workers write it, ``beeq mirror`` does so alone, ``--check`` compares."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bson import ObjectId

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cli"))

from tests.cli.command import Beeq, eventually  # noqa: E402 - after the path
from tests.support.mongo import MongoServer  # noqa: E402 - after the path
from tests.support.server import Server  # noqa: E402 - after the path
from tests.support.warm_start import WarmStart  # noqa: E402 - after the path

#: It is refused at once: the address is private.
WEBHOOK = ("webhookUrl=http://127.0.0.1:1/", "payload:={}", "projectId=p-1")


@pytest.fixture
def beeq(
    tmp_path: Path, valkey: Server, mongo: MongoServer, queue_name: str, warm_start: WarmStart
) -> Iterator[Beeq]:
    command = Beeq(
        tmp_path,
        warm_start,
        BEEQ_REDIS_URL=valkey.url,
        BEEQ_PREFIX=queue_name,
        MONGODB_URI=mongo.url(queue_name),
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
    assert "BEEQ_WEBHOOK_PORTS" in document["error"]
    assert json.loads(beeq.ok("stats", "--json"))["webhook-processing"]["owed"] == 0


def test_check_says_what_differs_and_what_does_not(beeq: Beeq, queue_name: str) -> None:
    job_id = beeq.ok("enqueue", "webhook-processing", *WEBHOOK, MONGODB_URI="mongodb://127.0.0.1:1").strip()
    ran = beeq.run("mirror", "--check")
    assert ran.returncode == 1
    assert ran.stdout == (
        f"webhook-processing {job_id}: in Redis queued, in the mirror nothing\n1 jobs differ\n"
    )
    reported = beeq.run("mirror", "--check", "--json").stdout
    assert json.loads(reported) == {
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


def test_a_repair_converts_what_changes_no_more(beeq: Beeq, mongo: MongoServer, queue_name: str) -> None:
    digits = "0123456789abcdef01234567"
    beeq.ok("enqueue", "webhook-processing", *WEBHOOK, f"projectId={digits}")
    assert beeq.run("worker", "--burst", "--mongo-project-id", "text").returncode == 0
    assert [document["projectId"] for document in mongo.documents(queue_name)] == [digits]
    assert beeq.ok("mirror", "--repair") == "1 documents repaired\n"
    assert [document["projectId"] for document in mongo.documents(queue_name)] == [ObjectId(digits)]
    assert beeq.ok("mirror", "--repair") == "there was nothing to repair\n"
    assert beeq.ok("mirror", "--repair", BEEQ_MONGO_PROJECT_ID="text") == "1 documents repaired\n"
    assert [document["projectId"] for document in mongo.documents(queue_name)] == [digits]


@pytest.mark.parametrize("command", ["mirror", "worker", "web"])
def test_a_bad_type_of_project_ids_is_a_usage_error(beeq: Beeq, command: str) -> None:
    for value in ("", "uuid"):
        ran = beeq.run(command, BEEQ_MONGO_PROJECT_ID=value)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "BEEQ_MONGO_PROJECT_ID" in ran.stderr


def test_a_repair_without_mongodb_says_so(beeq: Beeq) -> None:
    ran = beeq.run("mirror", "--repair", MONGODB_URI="mongodb://127.0.0.1:1/x")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "MongoDB" in ran.stderr
    assert beeq.run("mirror", "--repair", "--check").returncode == 2
