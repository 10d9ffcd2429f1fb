"""``beeq watch``: a job's progress and end, from outside."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from typing import Any

import pytest
import redis

from beeq.protocol.keys import Keys
from tests.cli.command import Beeq, eventually
from tests.support.samples import job_record

pytestmark = pytest.mark.usefixtures("mail")


@pytest.fixture
def mail(sync_redis: redis.Redis, queue_name: str) -> Keys:
    """Job 17 of the queue waits, 18 has succeeded, and 19 has failed, with a text that would ring a bell."""
    keys = Keys("bq", queue_name)
    records = {
        "17": job_record(),
        "18": job_record("succeeded"),
        "19": job_record("failed", trace="Error: no\x07\n at"),
    }
    sync_redis.hset(keys.jobs, mapping=records)
    sync_redis.lpush(keys.waiting, "17")
    sync_redis.sadd(keys.succeeded, "18")
    sync_redis.sadd(keys.failed, "19")
    return keys


def tell(client: redis.Redis, keys: Keys, event: str, data: Any, *, job_id: str = "17") -> None:
    """Publish an event of the job, once somebody hears it."""
    message = json.dumps({"id": job_id, "event": event, "data": data})
    eventually(lambda: client.publish(keys.events, message))


def test_progress_and_end_are_lines(beeq: Beeq, mail: Keys, sync_redis: redis.Redis) -> None:
    watching = beeq.start("watch", "17", "--queue", mail.queue_name, "--timeout", "30s")
    assert watching.first_output() == f"job 17 of {mail.queue_name}: waiting: 0 jobs run before it\n"
    tell(sync_redis, mail, "progress", {"step": "\x1b[2J"})
    tell(sync_redis, mail, "retrying", "late")
    tell(sync_redis, mail, "succeeded", [1])
    assert watching.ended() == 0
    assert [line.partition(": ")[2] for line in watching.stdout.splitlines()[1:]] == [
        "active",
        'progress: {"step":"\\u001b[2J"}',
        "retrying: late",
        "succeeded: [1]",
    ]


def test_each_event_is_an_object(beeq: Beeq, mail: Keys, sync_redis: redis.Redis) -> None:
    watching = beeq.start("watch", "17", "--queue", mail.queue_name, "--json")
    first = json.loads(watching.first_output())
    assert first.pop("time") > 1_000_000_000_000
    assert first == {"id": "17", "queue": mail.queue_name, "event": "waiting", "value": 0}
    tell(sync_redis, mail, "failed", "no")
    assert watching.ended() == 1
    last = json.loads(watching.stdout.splitlines()[-1])
    assert (last["event"], last["value"]) == ("failed", "no")


def test_a_job_that_has_ended_has_its_code(beeq: Beeq, mail: Keys) -> None:
    where = ("--queue", mail.queue_name)
    assert beeq.ok("watch", "18", *where).endswith(": succeeded\n")
    failed = beeq.run("watch", "19", *where)
    assert (failed.returncode, failed.stdout.partition(": ")[2]) == (1, "failed: Error: no\\x07\n")
    missing = beeq.run("watch", "20", *where)
    assert (missing.returncode, missing.stderr) == (1, "Error: there is no job 20\n")
    late = beeq.run("watch", "17", *where, "--timeout", "100ms", "-q")
    assert (late.returncode, late.stdout) == (1, "")
    assert late.stderr == "Error: Job 17 did not end within 100 ms\n"


def test_an_interrupt_leaves_the_job(beeq: Beeq, mail: Keys, sync_redis: redis.Redis) -> None:
    watching = beeq.start("watch", "17", "--queue", mail.queue_name)
    watching.first_output()
    watching.signal(signal.SIGINT)
    assert watching.ended() == 1
    assert watching.stderr == f"job 17 is left in {mail.queue_name}; no longer watching it"
    assert sync_redis.llen(mail.waiting) == 1


def test_a_terminal_sees_a_bar(beeq: Beeq, mail: Keys, sync_redis: redis.Redis) -> None:
    person, terminal = pty.openpty()
    command = [*beeq.python, "-m", "beeq_cli", "watch", "17", "--queue", mail.queue_name]
    environment = {**beeq.environment, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        command, cwd=beeq.folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        seen = b""

        def has(text: bytes) -> bool:
            nonlocal seen
            try:
                seen += os.read(person, 4096)
            except OSError:  # the command has ended
                return text in seen
            return text in seen

        eventually(lambda: has(b"waiting"))
        tell(sync_redis, mail, "progress", 40)
        eventually(lambda: has(b"40 %"))
        tell(sync_redis, mail, "succeeded", "[red]made\x1b[2J")
        eventually(lambda: has(b'succeeded: "[red]made\\u001b[2J"'))
        assert process.wait(30) == 0
    os.close(person)
