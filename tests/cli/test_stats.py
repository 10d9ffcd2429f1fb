"""``beeq stats``."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess

import pytest

from tests.cli.command import Beeq
from tests.support.server import Server

EMPTY = {
    "waiting": 0,
    "active": 0,
    "succeeded": 0,
    "failed": 0,
    "delayed": 0,
    "newestJob": 0,
    "workers": 0,
    "oldestWaiting": None,
}


def test_the_four_queues_are_shown_unless_named(beeq: Beeq, own_valkey: Server) -> None:
    shown = json.loads(beeq.ok("stats", "--json", "-u", own_valkey.url))
    assert shown == dict.fromkeys(
        ("ai-generation", "media-processing", "video-assembly", "webhook-processing"), EMPTY
    )


def test_the_numbers_are_those_of_the_queue(beeq: Beeq, queue_name: str) -> None:
    beeq.ok("enqueue", queue_name)
    beeq.ok("enqueue", queue_name, "--delay", "1h")
    numbers = beeq.stats(queue_name)
    assert 0 <= numbers.pop("oldestWaiting") < 60_000
    assert numbers == {
        **{k: v for k, v in EMPTY.items() if k != "oldestWaiting"},
        "waiting": 1,
        "delayed": 1,
        "newestJob": 2,
    }


def test_looking_writes_nothing(beeq: Beeq, own_valkey: Server) -> None:
    with own_valkey.sync_client() as client:
        client.zadd("bq:media-processing:delayed", {"1": 1})  # due long ago
        client.hset("bq:media-processing:jobs", "1", "{}")
        before = client.info("stats")
        dirty = client.info("persistence")["rdb_changes_since_last_save"]
        beeq.ok("stats", "-u", own_valkey.url)
        assert client.info("persistence")["rdb_changes_since_last_save"] == dirty
        assert client.info("stats")["total_commands_processed"] > before["total_commands_processed"]
        assert client.zcard("bq:media-processing:delayed") == 1


def test_in_a_pipe_the_columns_line_up_and_split(beeq: Beeq, queue_name: str) -> None:
    beeq.ok("enqueue", queue_name)
    head, row = beeq.ok("stats", queue_name).splitlines()
    assert len(head) == len(row)
    assert head.split()[:3] == ["queue", "waiting", "active"]
    assert row.split()[:3] == [queue_name, "1", "0"]
    assert len(head.split()) == len(row.split())


def test_a_person_gets_a_table(beeq: Beeq, queue_name: str) -> None:
    master, terminal = pty.openpty()
    with os.fdopen(master, "rb") as screen:
        subprocess.run(
            [*beeq.python, "-m", "beeq_cli", "stats", queue_name],
            cwd=beeq.folder,
            env={**beeq.environment, "COLUMNS": "120", "TERM": "xterm"},
            stdin=terminal,
            stdout=terminal,
            check=True,
            timeout=60,
        )
        os.close(terminal)
        shown = os.read(screen.fileno(), 1 << 16).decode()
    assert "\x1b[" in shown
    assert "─" in shown
    assert queue_name in shown


def test_a_name_cannot_move_the_cursor(beeq: Beeq) -> None:
    assert "evil\\x1b[2J" in beeq.ok("stats", "evil\x1b[2J")


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        (["waiting>1"], 1),
        (["waiting>2"], 0),
        (["workers=0"], 1),
        (["oldest<1h"], 1),
        (["oldest>1h"], 0),
        (["failed>0", "waiting==2"], 1),
    ],
)
def test_a_condition_that_is_true_exits_with_1(
    beeq: Beeq, queue_name: str, conditions: list[str], code: int
) -> None:
    beeq.ok("enqueue", queue_name)
    beeq.ok("enqueue", queue_name)
    options = [word for condition in conditions for word in ("--fail-if", condition)]
    ran = beeq.run("stats", queue_name, "--json", *options)
    assert ran.returncode == code
    assert json.loads(ran.stdout)[queue_name]["waiting"] == 2
    assert (queue_name in ran.stderr) == bool(code)


def test_the_line_of_a_true_condition_names_queue_and_value(beeq: Beeq, queue_name: str) -> None:
    beeq.ok("enqueue", queue_name)
    ran = beeq.run("stats", "other", queue_name, "--fail-if", "waiting>0")
    assert ran.stderr == f"{queue_name}: waiting is 1 (waiting>0)\n"


@pytest.mark.parametrize("condition", ["waiting", "jobs>1", "waiting>many"])
def test_a_bad_condition_exits_with_2(beeq: Beeq, condition: str) -> None:
    ran = beeq.run("stats", "--fail-if", condition)
    assert ran.returncode == 2
    assert ran.stdout == ""


def test_with_i_it_looks_again_one_object_a_line(beeq: Beeq, queue_name: str) -> None:
    watching = beeq.start("stats", queue_name, "--json", "-i", "0.1", "--fail-if", "waiting>0")
    beeq.ok("enqueue", queue_name)
    assert watching.ended() == 1
    lines = [json.loads(line)[queue_name]["waiting"] for line in watching.stdout.splitlines()]
    assert lines[-1] == 1
    assert set(lines[:-1]) <= {0}


def test_an_interrupt_ends_the_watch_quietly(beeq: Beeq, queue_name: str) -> None:
    watching = beeq.start("stats", queue_name, "--json", "-i", "0.1")
    watching.first_output()
    watching.signal(signal.SIGINT)
    assert watching.ended() in (0, -signal.SIGINT)
    assert "Traceback" not in watching.stderr
