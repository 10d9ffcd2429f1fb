"""``beeq pause`` and ``resume``, and a burst on a paused queue, from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from beeq.protocol.keys import Keys
from tests.cli.command import Beeq
from tests.cli.shop import Shop

APP = """
from beeq import Queue
mail, free = Queue("mail"), Queue("free")
for queue in (mail, free):
    queue.process(lambda job: job.id)
queues = [mail, free]
"""


@pytest.fixture
def shop(sync_redis: redis.Redis, queue_name: str, beeq: Beeq) -> Iterator[Shop]:
    beeq.environment["BEEQ_PREFIX"] = queue_name
    yield Shop(sync_redis, queue_name)
    for key in sync_redis.scan_iter(match=f"{queue_name}:*", count=1000):
        sync_redis.delete(key)


def written(shop: Shop) -> Any:
    text = shop.redis.get(shop.keys.paused)
    return None if text is None else json.loads(str(text))


def test_a_queue_is_paused_for_a_while_and_resumed(beeq: Beeq, shop: Shop) -> None:
    said = beeq.ok("pause", "mail", "--for", "10m", "--reason", "it \x1b[31m moves")
    assert said.startswith("paused mail until 20")
    assert said.endswith(": 0 workers, 0 jobs running, 2 waiting\n")
    assert written(shop)["reason"] == "it \x1b[31m moves"
    assert 500_000 < int(shop.redis.pttl(shop.keys.paused)) <= 600_000  # type: ignore[arg-type]  # a blocking client
    ran = beeq.run("pause", "mail", "--json")
    assert ran.stderr.startswith("mail was paused already: by ")
    assert ran.stderr.endswith("ago (it \\x1b[31m moves)\n"), "escaped for a terminal"
    facts = json.loads(ran.stdout)
    assert facts == {"queue": "mail", **written(shop), "workers": 0, "active": 0, "waiting": 2}
    assert (facts["until"], facts["everyone"], facts["reason"]) == (None, False, "")
    resumed = beeq.ok("resume", "mail")
    assert resumed.startswith(f"resumed mail, which was paused by {facts['by']} ")
    assert written(shop) is None
    ran = beeq.run("resume", "mail")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "mail was not paused\n")


def test_several_are_named_and_one_that_is_unknown_is_said(beeq: Beeq, shop: Shop) -> None:
    ran = beeq.run("pause", "mail", "mial", "mail", "--json")
    assert ran.stderr == "mial has no jobs and no workers: is that its name?\n"
    assert [json.loads(line)["queue"] for line in ran.stdout.splitlines()] == ["mail", "mial"]
    ended = [json.loads(line) for line in beeq.ok("resume", "mail", "mial", "other", "--json").splitlines()]
    assert [(each["queue"], each["was"] is None) for each in ended] == [
        ("mail", False),
        ("mial", False),
        ("other", True),
    ]
    assert beeq.ok("pause", "mail", "-q") == ""
    assert beeq.ok("resume", "mail", "-q") == ""


def test_an_odd_queue_keeps_no_other_from_its_pause(beeq: Beeq, shop: Shop, queue_name: str) -> None:
    shop.redis.set(Keys(queue_name, "odd").waiting, "no list")
    ran = beeq.run("pause", "odd", "mail")
    assert (ran.returncode, ran.stdout[:11]) == (1, "paused mail")
    assert "Error: odd is paused, and its jobs cannot be counted: WRONGTYPE" in ran.stderr
    assert shop.redis.exists(Keys(queue_name, "odd").paused, shop.keys.paused) == 2
    assert beeq.run("resume", "odd", "mail").stdout.count("resumed") == 2


def test_for_everyone_a_worker_has_to_be_there(beeq: Beeq, shop: Shop) -> None:
    ran = beeq.run("pause", "mail", "--everyone")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("Error: queue mail was not paused: no beeq worker works on it")
    seconds = shop.redis.time()[0]  # type: ignore[index]  # a blocking client
    shop.redis.zadd(shop.keys.workers, {"host:1:abc": seconds * 1000})
    assert ": 1 worker, 0 jobs running, 2 waiting" in beeq.ok("pause", "mail", "--everyone")
    assert shop.redis.lrange(shop.keys.hidden, 0, -1) == ["21", "20"]
    assert [line.split()[0] for line in beeq.ok("jobs", "mail", "--state", "waiting").splitlines()] == [
        "20",
        "21",
    ]
    beeq.ok("resume", "mail")
    assert shop.where()["waiting"] == ["20", "21"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("pause",), "Missing argument 'QUEUE...'"),
        (("pause", "mail", ""), "QUEUE is empty"),
        (("resume", ""), "QUEUE is empty"),
        (("pause", "mail", "--for", "10"), "has no unit"),
        (("pause", "mail", "--for", "0"), "for_ must be at least 1"),
        (("pause", "mail", "--reason", "x" * 501), "reason must have at most 500 characters"),
    ],
)
def test_a_wrong_usage_pauses_nothing(beeq: Beeq, shop: Shop, words: tuple[str, ...], complaint: str) -> None:
    ran = beeq.run(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert complaint in ran.stderr
    assert written(shop) is None


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_burst_leaves_the_jobs_of_a_paused_queue(beeq: Beeq, shop: Shop, processes: str) -> None:
    """And does those of the others."""
    beeq.app(APP)
    beeq.ok("pause", "mail", "--reason", "deploy")
    beeq.ok("enqueue", "free", "-q")
    ran = beeq.run("worker", "--app", "app:queues", "-p", shop.keys.prefix, "--burst", "-w", processes)
    assert (ran.returncode, ran.stdout) == (5, "")
    assert "mail: the burst ends here: 2 jobs wait" in ran.stderr
    assert ran.stderr.count("until somebody resumes it: deploy\n") == int(processes)
    assert shop.where()["waiting"] == ["20", "21"]
    assert beeq.stats("free")["succeeded"] == 1
