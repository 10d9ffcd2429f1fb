"""``beeq ps`` and ``beeq stats`` over every queue, from outside: fleets as they have left their notes in Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from beeq import Stats
from beeq.protocol.keys import Keys, registry_key
from beeq.protocol.running import ProcessFacts, encode_facts
from beeq_cli.commands.rates import Rate, rate_between
from tests.cli.command import Beeq

MINUTE_MS = 60_000


class Fleet:
    """Queues under a prefix of their own: ``mail`` has two workers, ``films`` one of Node's, ``idle`` nothing."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self.redis = client
        self.prefix = prefix
        self.now_ms = int(client.time()[0]) * 1000  # type: ignore[index]  # a blocking client
        for worker, minutes in (("a:1:ab", {"short": 1}), ("b:2:cd", {"long": 9, "\x1b[2J": 5, "x": 3})):
            self.work("mail", worker, minutes)
        client.hset(Keys(prefix, "mail").claims, "just", "token.0:1")
        client.lpush(Keys(prefix, "mail").active, "just")
        films = Keys(prefix, "films")
        client.lpush(films.active, "n1", "n2")
        client.sadd(films.stalling, "n2")
        client.hset(films.jobs, mapping={"n1": "{}", "n2": "{}"})
        client.zadd(registry_key(prefix), {"mail": self.now_ms, "idle": self.now_ms})

    def work(self, queue_name: str, worker: str, minutes: dict[str, int]) -> None:
        """Let a worker run jobs for so many minutes."""
        keys = Keys(self.prefix, queue_name, worker=worker)
        facts = ProcessFacts("1.2.3", self.now_ms - 60 * MINUTE_MS, self.now_ms, 4, len(minutes), True, 5000)
        noted: dict[Any, Any] = {"process": encode_facts(facts), "noted": self.now_ms}
        noted |= {f"job:{job_id}": self.now_ms - many * MINUTE_MS for job_id, many in minutes.items()}
        self.redis.hset(keys.running, mapping=noted)
        self.redis.zadd(keys.workers, {worker: self.now_ms - 2000})
        for job_id in minutes:
            self.redis.lpush(keys.active, job_id)
            self.redis.hset(keys.jobs, job_id, '{"data":{},"options":{},"status":"created"}')
            self.redis.hset(keys.claims, job_id, "token.0:1")


@pytest.fixture
def fleet(sync_redis: redis.Redis, queue_name: str, beeq: Beeq) -> Iterator[Fleet]:
    beeq.environment["BEEQ_PREFIX"] = queue_name
    yield Fleet(sync_redis, queue_name)
    for key in sync_redis.scan_iter(match=f"{queue_name}:*", count=1000):
        sync_redis.delete(key)


def state_of(fleet: Fleet) -> dict[str, Any]:
    return {key: fleet.redis.dump(key) for key in fleet.redis.scan_iter(match=f"{fleet.prefix}:*")}


@pytest.mark.no_audit("what no worker of ours has made")
def test_workers_are_shown_the_longest_handlers_first(beeq: Beeq, fleet: Fleet) -> None:
    before = state_of(fleet)
    head, *lines = beeq.ok("ps", "--limit", "2").splitlines()
    assert head.split() == ["queue", "worker", "busy", "beat", "up", "version"]
    assert [line.split()[:3] for line in lines if not line.startswith(" ")] == [
        ["mail", "b:2:cd", "3/4"],
        ["mail", "a:1:ab", "1/4"],
        ["films", "(Node's)", "2"],
        ["mail", "(unknown)", "1"],
    ]
    assert [line.strip().partition("  ")[0] for line in lines if line.startswith(" ")] == [
        "long",
        "\\x1b[2J",
        "and 1 more",
        "short",
        "n1",
        "n2",
        "just begun, or taken by a worker that is gone or notes nothing",
    ]
    assert "  9m " in lines[1]
    assert state_of(fleet) == before, "looking writes nothing"


@pytest.mark.no_audit("what no worker of ours has made")
def test_an_object_a_line_has_all_that_is_known(beeq: Beeq, fleet: Fleet) -> None:
    fleet.redis.set(Keys(fleet.prefix, "mail").paused, "{}")
    workers = [
        json.loads(line) for line in beeq.ok("ps", "mail", "films", "idle", "--json", "-q").splitlines()
    ]
    first, second, begun, node = workers
    assert (first["queue"], first["worker"], first["host"], first["pid"]) == ("mail", "b:2:cd", "b", 2)
    assert (first["places"], first["busy"], first["taking"], first["version"]) == (4, 3, True, "1.2.3")
    assert [job["id"] for job in first["jobs"]] == ["long", "\x1b[2J", "x"]
    assert 2000 <= first["beatAge"] < MINUTE_MS
    assert 9 * MINUTE_MS <= first["jobs"][0]["ran"] < 11 * MINUTE_MS
    assert first["up"] >= 60 * MINUTE_MS
    assert second["worker"] == "a:1:ab"
    assert [each["paused"] for each in workers] == [True, True, True, False]
    assert (begun["queue"], begun["worker"], begun["claimed"], begun["jobs"]) == ("mail", None, 1, [])
    silent = {job["id"]: job["silent"] for job in node["jobs"]}
    assert (node["queue"], node["node"], silent) == ("films", 2, {"n1": False, "n2": True})


def test_who_has_no_worker_is_told_so(beeq: Beeq, queue_name: str) -> None:
    ran = beeq.run("ps", queue_name)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr == f"{queue_name}: no beeq worker has beaten within the last 30 s\n"


@pytest.mark.no_audit("what no worker of ours has made")
def test_stats_has_every_queue_that_redis_holds(beeq: Beeq, fleet: Fleet) -> None:
    mail = Keys(fleet.prefix, "mail")
    fleet.redis.set(mail.paused, json.dumps({"since": fleet.now_ms, "by": "ann", "reason": "a \x1b[1m"}))
    fleet.redis.hset(mail.jobs, "odd", "{")
    fleet.redis.lpush(mail.waiting, "odd")
    shown = json.loads(beeq.ok("stats", "--json"))
    assert shown.keys() == {"films", "mail"}, "a name without a key is nothing"
    assert (shown["mail"]["active"], shown["mail"]["workers"], shown["films"]["active"]) == (5, 2, 2)
    assert shown["mail"]["oldestWaiting"] is None, "its record does not say so"
    assert shown["mail"]["paused"]["by"] == "ann"
    assert "paused" not in shown["films"]
    *_, paused = beeq.ok("stats").splitlines()
    assert paused == "mail is paused by ann, until somebody resumes it: a \\x1b[1m"


@pytest.mark.no_audit("what no worker of ours has made")
def test_a_queue_of_strangers_hides_no_other_one(beeq: Beeq, fleet: Fleet) -> None:
    fleet.redis.hset(Keys(fleet.prefix, "evil\n").jobs, "1", "{}")
    fleet.redis.set(Keys(fleet.prefix, "evil\n").waiting, "no list")
    ran = beeq.run("stats", "--json")
    assert json.loads(ran.stdout).keys() == {"films", "mail"}
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith("evil\\n: WRONGTYPE")


def test_the_second_look_has_rates(beeq: Beeq, queue_name: str) -> None:
    watching = beeq.start("stats", queue_name, "--json", "-i", "0.1", "--fail-if", "waiting>0")
    first = json.loads(watching.first_output())[queue_name]
    beeq.ok("enqueue", queue_name)
    assert watching.ended() == 1
    last = json.loads(watching.stdout.splitlines()[-1])[queue_name]
    assert "inPerSecond" not in first
    assert last["inPerSecond"] > 0
    assert last["outPerSecond"] == 0


def stats(*, waiting: int = 0, ended: int = 0, newest: int = 0) -> Stats:
    return Stats(waiting, 0, ended, 0, 0, newest, 0, None)


@pytest.mark.parametrize(
    ("before", "after", "came", "left"),
    [
        (stats(), stats(), 0, 0),
        (stats(waiting=5, newest=5), stats(waiting=5, newest=25), 20, 20),  # dropped at their end
        (stats(waiting=5), stats(waiting=10, ended=15), 20, 15),  # chosen ids
        (stats(waiting=5, ended=50), stats(waiting=15, ended=40), 10, 0),  # retried by hand
        (stats(ended=50), stats(ended=5), 0, 0),  # cleaned
        (stats(waiting=10, ended=9, newest=19), stats(), 0, 10),  # destroyed
    ],
)
def test_rates_are_told_by_counts(before: Stats, after: Stats, came: int, left: int) -> None:
    assert rate_between(before, after, 2.0) == Rate(came / 2, left / 2)
