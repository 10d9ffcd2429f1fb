"""``beeq jobs``, ``show``, ``retry``, ``remove``, ``run``, ``cancel`` and ``purge``, from outside."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from beeq.protocol.keys import Keys
from tests.cli.command import Beeq
from tests.cli.shop import Shop, record


@pytest.fixture
def shop(sync_redis: redis.Redis, queue_name: str, beeq: Beeq) -> Iterator[Shop]:
    beeq.environment["BEEQ_PREFIX"] = queue_name
    yield Shop(sync_redis, queue_name)
    for key in sync_redis.scan_iter(match=f"{queue_name}:*", count=1000):
        sync_redis.delete(key)


def objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_jobs_are_listed_a_line_each(beeq: Beeq, shop: Shop) -> None:
    lines = beeq.ok("jobs", "mail").splitlines()
    assert sorted(line.split("  ")[0] for line in lines) == ["17", "18", "19", "20", "21"]
    assert re.search(r"^17  failed  .* ago  TimeoutError: late$", "\n".join(lines), re.MULTILINE)
    assert any("no \\x1b[31m" in line for line in lines), "escaped for a terminal"
    assert any(line.startswith("19  delayed  due 2") for line in lines)


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (("--state", "failed"), ["17", "18"]),
        (("--state", "waiting", "--state", "delayed"), ["19", "20", "21"]),
        (("--error", "TIMEOUT"), ["17"]),
        (("--where", "data.user=7", "--state", "waiting"), ["20"]),
        (("--where", 'data.user:="7"'), []),
        (("--since", "1h", "--state", "failed"), ["17"]),
        (("--older-than", "1d"), ["18"]),
        (("--state", "waiting", "--limit", "1"), ["20"]),
    ],
)
def test_filters_choose_among_the_jobs(
    beeq: Beeq, shop: Shop, filters: tuple[str, ...], ids: list[str]
) -> None:
    found = objects(beeq.ok("jobs", "mail", "--json", *filters))
    assert sorted(each["id"] for each in found) == ids
    assert {each["queue"] for each in found} <= {"mail"}


def test_a_long_list_says_that_there_is_more(beeq: Beeq, shop: Shop) -> None:
    for n in range(200):
        shop.redis.hset(shop.keys.jobs, f"n{n}", record(1))
        shop.redis.lpush(shop.keys.waiting, f"n{n}")
    ran = beeq.run("jobs", "mail", "--state", "waiting")
    assert len(ran.stdout.splitlines()) == 100
    assert ran.stderr == "These are the first 100; --limit shows more\n"
    assert beeq.run("jobs", "mail", "-q").stderr == ""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("jobs", "mail", "--state", "lost"), "'lost' is not one of"),
        (("jobs", "mail", "--where", "data.user"), "write data.user=7"),
        (("jobs", "mail", "--where", "user=7"), "a path begins with data"),
        (("jobs", "mail", "--where", "data.user:=x"), "not JSON"),
        (("jobs", "mail", "--since", "soon"), "duration"),
        (("jobs", "mail", "--limit", "0"), "--limit"),
        (("jobs", ""), "QUEUE is empty"),
        (("show", ""), "ID is empty"),
        (("show", "17", "--queue", ""), "QUEUE is empty"),
        (("retry", "mail", "films", "--state", "failed"), "of one QUEUE"),
        (("remove", "mail", "--limit", "1", "--yes"), "--state has to be named"),
        (("retry", "mail", "--state", "waiting"), "'waiting' is not"),
        (("purge", "mail"), "--state"),
        (("purge", "mail", "--state", "active"), "'active' is not one of"),
        (("retry", "mail", "--state", "failed"), "add --yes, or --dry-run"),
        (("purge", "mail", "--state", "failed"), "add --yes, or --dry-run"),
        (("cancel", "mail", "--where", "data.user=7"), "add --yes, or --dry-run"),
        (("jbos", "mail"), "Did you mean jobs"),
        (("retyr", "17"), "Did you mean retry"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    beeq: Beeq, shop: Shop, words: tuple[str, ...], complaint: str
) -> None:
    before = shop.where()
    ran = beeq.run(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert complaint in ran.stderr
    assert shop.where() == before


def test_a_job_is_shown_with_all_that_is_known(beeq: Beeq, shop: Shop) -> None:
    text = beeq.ok("show", "17")
    assert text.startswith("job 17 of mail: failed\ncreated    20")
    assert re.search(r'^options    \{"retries":0\}$', text, re.MULTILINE)
    assert '  "user": 7\n' in text
    assert re.search(r"^  20\S+ \S+  after 1\.5s  host:1:abc  TimeoutError: late$", text, re.MULTILINE)
    assert text.endswith("newest trace:\n  TimeoutError: late\n    at x\n")
    shown = beeq.ok("show", "21")
    assert "\x1b" not in shown
    assert "ahead      1 jobs" in shown
    (job,) = objects(beeq.ok("show", "17", "--json"))
    assert (job["id"], job["queue"], job["state"], job["data"]) == ("17", "mail", "failed", {"user": 7})
    assert [each["error"] for each in job["attempts"]] == ["TimeoutError: late"]
    missing = beeq.run("show", "99")
    assert (missing.returncode, missing.stderr) == (1, "Error: there is no job 99\n")


def test_a_cancelled_job_is_shown_as_such(beeq: Beeq, shop: Shop) -> None:
    assert beeq.ok("cancel", "20") == "20\n"
    assert "job 20 of mail: cancelled\nerror      Job 20 was cancelled\n" in beeq.ok("show", "20")


def test_an_id_of_several_queues_needs_its_queue(beeq: Beeq, shop: Shop, queue_name: str) -> None:
    films = Keys(queue_name, "films")
    shop.redis.hset(films.jobs, "17", record(1, "failed"))
    shop.redis.sadd(films.failed, "17")
    for command in ("show", "retry", "remove"):
        ran = beeq.run(command, "17")
        assert ran.returncode == 2
        assert "several queues have a job 17: films, mail; say which one is meant (--queue)" in ran.stderr
    assert beeq.ok("retry", "17", "--queue", "films") == "17\n"
    assert beeq.ok("retry", "17", "--json") == '{"id":"17","queue":"mail"}\n', "only one has failed now"


def test_an_id_of_very_many_queues_opens_none(beeq: Beeq, shop: Shop, queue_name: str) -> None:
    for number in range(60):
        shop.redis.hset(Keys(queue_name, f"q{number:02}").jobs, "17", record(1, "failed"))
    ran = beeq.run("retry", "17")
    assert ran.returncode == 2
    named = ", ".join(f"q{number:02}" for number in range(9))
    assert f"several queues have a job 17: mail, {named} and 51 more; say which one" in ran.stderr


def test_what_is_done_by_id_is_done_to_each(beeq: Beeq, shop: Shop) -> None:
    ran = beeq.run("retry", "17", "20", "18", "99")
    assert (ran.returncode, ran.stdout) == (1, "17\n18\n")
    assert ran.stderr.splitlines() == [
        "Error: no job 20 has failed (it is waiting in mail)",
        "Error: no job 99 has failed",
    ]
    assert shop.where()["waiting"] == ["20", "21", "17", "18"]
    assert objects(beeq.ok("run", "19", "--json")) == [{"id": "19", "queue": "mail"}]
    assert beeq.ok("remove", "17", "19", "--dry-run") == "17\n19\n"
    assert beeq.ok("remove", "17", "19") == "17\n19\n"
    assert beeq.ok("cancel", "20", "18") == "20\n18\n"
    assert shop.where() == {"waiting": ["21"]}


def test_many_are_acted_on_and_counted(beeq: Beeq, shop: Shop) -> None:
    assert beeq.ok("retry", "mail", "--error", "timeout", "--yes") == "retried 1 of 1 job of mail\n"
    assert beeq.ok("run", "mail", "--state", "delayed", "--yes", "-q") == ""
    (counts,) = objects(beeq.ok("cancel", "mail", "--where", "data.user=7", "--yes", "--json"))
    assert counts == {"queue": "mail", "matched": 3, "cancelled": 3, "moved": 0, "unreadable": 0}
    assert beeq.ok("remove", "mail", "--state", "waiting", "--yes") == "removed 1 of 1 job of mail\n"
    assert beeq.ok("purge", "mail", "--state", "failed", "--older-than", "3d", "--yes") == (
        "removed 0 of 0 jobs of mail\n"
    )
    assert beeq.ok("purge", "mail", "--state", "failed", "--yes") == "removed 1 of 1 job of mail\n"
    assert shop.where() == {}
    assert shop.redis.exists(shop.keys.jobs, shop.keys.attempts) == 0


def test_a_dry_run_shows_the_jobs_and_leaves_them(beeq: Beeq, shop: Shop) -> None:
    before = shop.where()
    for words, done in (
        (("retry", "mail", "--state", "failed"), "2 jobs of mail would be retried"),
        (("cancel", "mail", "--state", "waiting", "--limit", "1"), "1 job of mail would be cancelled"),
        (("purge", "mail", "--state", "delayed"), "1 job of mail would be removed"),
    ):
        ran = beeq.run(*words, "--dry-run", "--json")
        assert (ran.returncode, ran.stderr) == (0, f"{done}\n")
        assert len(objects(ran.stdout)) == int(done[0])
    assert shop.where() == before


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1)])
def test_a_person_is_asked_with_the_number(beeq: Beeq, shop: Shop, answer: bytes, code: int) -> None:
    leader, follower = pty.openpty()
    command = [*beeq.python, "-m", "beeq_cli", "purge", "mail", "--state", "failed"]
    with subprocess.Popen(
        command, cwd=beeq.folder, env=beeq.environment, stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        seen = b""
        while b"[y/N]" not in seen:
            seen += os.read(leader, 1000)
        assert b"purge 2 jobs of mail?" in seen
        os.write(leader, answer)
        try:
            while more := os.read(leader, 1000):
                seen += more
        except OSError:
            pass  # that is how a terminal ends
        os.close(leader)
        assert process.wait(30) == code
    assert ("failed" in shop.where()) is (code == 1)
