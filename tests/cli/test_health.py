"""``beeq health``: what a container's health check learns, from outside."""

from __future__ import annotations

import json
import socket
import time

import pytest
import redis

from beeq.protocol.keys import Keys
from tests.cli.command import Beeq
from tests.support.samples import job_record


@pytest.fixture
def keys(beeq: Beeq, queue_name: str) -> Keys:
    beeq.environment["BEEQ_PREFIX"] = "bq"
    return Keys("bq", queue_name)


def beat(client: redis.Redis, keys: Keys, *, ago_s: float = 0) -> None:
    seconds, micros = client.time()  # type: ignore[misc]  # a blocking client
    client.zadd(keys.workers, {"host:1:abc": (seconds - ago_s) * 1000 + micros / 1000})
    client.pexpire(keys.workers, 30_000)


def wait(client: redis.Redis, keys: Keys, job_id: str) -> None:
    client.hset(keys.jobs, job_id, job_record())
    client.lpush(keys.waiting, job_id)


def test_a_queue_with_a_worker_is_healthy(beeq: Beeq, keys: Keys, sync_redis: redis.Redis) -> None:
    beat(sync_redis, keys)
    assert beeq.ok("health", keys.queue_name) == f"ok: 1 beeq worker at {keys.queue_name}\n"
    assert beeq.ok("health", keys.queue_name, "-q") == ""
    sync_redis.set(keys.paused, "{}")
    assert beeq.ok("health", keys.queue_name).endswith(f"; paused: {keys.queue_name}\n")
    facts = {"workers": 1, "taking": 1, "nodeJobs": 0, "waiting": 0, "active": 0, "paused": True}
    assert json.loads(beeq.ok("health", keys.queue_name, "--json")) == {
        "healthy": True,
        "problem": None,
        "queues": {keys.queue_name: facts},
    }


def test_a_worker_that_takes_nothing_is_none(beeq: Beeq, keys: Keys, sync_redis: redis.Redis) -> None:
    beat(sync_redis, keys)
    notes = json.dumps({"version": "9", "places": 1, "busy": 0, "taking": False})
    running = keys.to_key("beeq:running:host:1:abc")
    sync_redis.hset(running, "process", notes)
    ran = beeq.run("health", keys.queue_name)
    sync_redis.delete(running)
    assert ran.returncode == 1
    assert "(1 beeq worker lives, about to stop, or handlers hang there; 0 jobs wait)" in ran.stderr


def test_without_a_worker_it_says_what_is_wrong(beeq: Beeq, keys: Keys, sync_redis: redis.Redis) -> None:
    beat(sync_redis, keys, ago_s=31)
    wait(sync_redis, keys, "1")
    ran = beeq.run("health", keys.queue_name)
    wrong = f"no worker is seen that takes jobs from {keys.queue_name} (1 job waits)"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"Error: {wrong}\n")
    ran = beeq.run("health", keys.queue_name, "--json")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["problem"] == wrong


def test_each_named_queue_needs_a_worker(beeq: Beeq, keys: Keys, sync_redis: redis.Redis) -> None:
    beat(sync_redis, keys)
    ran = beeq.run("health", keys.queue_name, "nobodys")
    assert ran.returncode == 1
    assert "takes jobs from nobodys (0 jobs wait)" in ran.stderr


def test_without_a_name_one_worker_is_enough(beeq: Beeq, keys: Keys, sync_redis: redis.Redis) -> None:
    beeq.environment["BEEQ_PREFIX"] = prefix = f"{keys.queue_name}[*]"
    others = [Keys(prefix, name) for name in ("mail", "films")]
    try:
        for each in others:
            wait(sync_redis, each, "1")
        ran = beeq.run("health")
        assert (ran.returncode, "from any queue (2 jobs wait)" in ran.stderr) == (1, True)
        beat(sync_redis, others[1])
        assert beeq.ok("health") == "ok: 1 beeq worker at films\n"
        sync_redis.lpush(others[0].succeeded, "a key of the wrong type")
        assert beeq.ok("health") == "ok: 1 beeq worker at films\n"
    finally:
        for each in others:
            sync_redis.delete(*each.every())


def test_a_node_worker_is_seen_by_the_jobs_it_runs(beeq: Beeq, keys: Keys, sync_redis: redis.Redis) -> None:
    sync_redis.hset(keys.jobs, "1", job_record())
    sync_redis.lpush(keys.active, "1")
    assert beeq.ok("health", keys.queue_name) == f"ok: Node workers at {keys.queue_name}\n"
    sync_redis.sadd(keys.stalling, "1")
    assert beeq.run("health", keys.queue_name).returncode == 1, "it gives no sign of life"
    sync_redis.srem(keys.stalling, "1")
    sync_redis.hset(keys.claims, "1", "a.1:1")
    assert beeq.run("health", keys.queue_name).returncode == 1, "a beeq worker's, which is gone"


def test_a_redis_that_does_not_answer_is_said(bare_beeq: Beeq) -> None:
    ran = bare_beeq.run("health", "-u", "redis://127.0.0.1:1", "--timeout", "300ms", "--json")
    assert ran.returncode == 3
    assert json.loads(ran.stdout)["healthy"] is False
    ran = bare_beeq.run("health", "-u", "redis://:secret@127.0.0.1:1", "--timeout", "300ms")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith("Error: ")
    assert "secret" not in ran.stderr


def test_it_takes_no_longer_than_it_may(bare_beeq: Beeq) -> None:
    """Who has a time of its own for it, as Docker has, would kill it before it has said what is wrong."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:  # takes connections, and says nothing
        began_s = time.monotonic()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        ran = bare_beeq.run("health", "-u", url, "--timeout", "100ms")
        took_s = time.monotonic() - began_s
    assert (ran.returncode, ran.stderr) == (3, "Error: Redis has not answered within 100 ms\n")
    began_s = time.monotonic()
    bare_beeq.run("health", "--help")
    assert took_s - (time.monotonic() - began_s) < 1.5
