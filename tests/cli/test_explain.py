"""``beeq explain``, from outside."""

from __future__ import annotations

import json

import redis

from beeq.protocol.keys import Keys
from tests.cli.command import Beeq
from tests.support.samples import job_record


def test_a_job_is_explained_in_sentences(beeq: Beeq, sync_redis: redis.Redis, queue_name: str) -> None:
    keys = Keys("bq", queue_name)
    sync_redis.hset(keys.jobs, mapping={"17": job_record(), "18": job_record()})
    sync_redis.lpush(keys.waiting, "17", "18")
    sync_redis.set(keys.paused, '{"since":1,"by":"ann@host","reason":"\\u001b[2J"}')
    lines = beeq.ok("explain", "18", "--queue", queue_name).splitlines()
    assert lines[0] == f"job 18 of {queue_name}: waiting"
    assert " by ann@host (\\x1b[2J), for beeq's workers" in lines[1]
    assert lines[-1] == "  1 job runs before it"
    found = json.loads(beeq.ok("explain", "17", "--queue", queue_name, "--json"))
    assert (found["id"], found["queue"], found["state"]) == ("17", queue_name, "waiting")
    assert [each["kind"] for each in found["reasons"]] == ["paused", "no-worker", "next"]


def test_a_job_that_is_not_there_fails(beeq: Beeq, sync_redis: redis.Redis, queue_name: str) -> None:
    ran = beeq.run("explain", "99", "--queue", queue_name)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "no automatic id beyond 0" in ran.stdout
    for name in ("mail", "films"):
        sync_redis.set(Keys(queue_name, name).id, "9")
        sync_redis.hset(Keys(queue_name, name).jobs, "1", job_record())
        sync_redis.lpush(Keys(queue_name, name).waiting, "1")
    try:
        ran = beeq.run("explain", "9", "-p", queue_name)
        assert ran.returncode == 1
        assert "no queue has a job 9: films, mail have given out this id" in ran.stderr
        sync_redis.delete(Keys(queue_name, "films").id)
        ran = beeq.run("explain", "9", "-p", queue_name)
        assert (ran.returncode, ran.stderr) == (1, "")
        assert "mail has given out the id 9, and nothing is left of it" in ran.stdout
    finally:
        sync_redis.delete(*Keys(queue_name, "mail").every(), *Keys(queue_name, "films").every())
    ran = beeq.run("explain", "no-such-job")
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: no queue has a job no-such-job")
