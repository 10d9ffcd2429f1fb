"""``beeq doctor``, from outside: what it says, asks and repairs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from beeq.media.errors import MediaFailed
from beeq.media.sandbox.confinement import Confinement
from beeq.protocol.keys import Keys
from beeq_cli.commands.diagnose import machine
from tests.cli.command import Beeq
from tests.support.samples import job_record


@pytest.fixture
def mail(beeq: Beeq, sync_redis: redis.Redis, queue_name: str) -> Iterator[Keys]:
    """A queue in which 17 waits and 18 and 19 have no record; its prefix has another, which is in order."""
    beeq.environment["BEEQ_PREFIX"] = queue_name
    keys, films = Keys(queue_name, "mail"), Keys(queue_name, "films")
    for each in (keys, films):
        sync_redis.hset(each.jobs, "17", job_record())
        sync_redis.lpush(each.waiting, "17")
    sync_redis.lpush(keys.waiting, "18", "19\x1b[2J")
    yield keys
    sync_redis.delete(*keys.every(), *films.every())


def objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def problems_of(ran: subprocess.CompletedProcess[str]) -> list[Any]:
    return [each for each in objects(ran.stdout) if each.get("problem") and each["about"] != "Redis"]


def test_it_says_what_is_wrong_and_changes_nothing(beeq: Beeq, mail: Keys, sync_redis: redis.Redis) -> None:
    ran = beeq.run("doctor", "mail")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "mail: 2 ids have no record, in waiting: 19\\x1b[2J, 18\n  --fix takes them out\n" in ran.stdout
    assert "--fix repairs " in ran.stdout.splitlines()[-1]
    assert sync_redis.llen(mail.waiting) == 3
    ran = beeq.run("doctor", "--json")
    (ghosts,) = problems_of(ran)
    assert ghosts == {
        "about": "mail",
        "kind": "ghosts",
        "problem": True,
        "text": "2 ids have no record, in waiting: 19\x1b[2J, 18",
        "fix": "takes them out",
        "count": 2,
        "ids": ["19\x1b[2J", "18"],
    }
    assert "\x1b" not in ran.stdout


def test_it_mends_once_that_was_agreed(beeq: Beeq, mail: Keys, sync_redis: redis.Redis) -> None:
    ran = beeq.run("doctor", "mail", "--fix")
    assert ran.returncode == 2
    assert "add --yes, or leave --fix out" in ran.stderr
    assert sync_redis.llen(mail.waiting) == 3
    ran = beeq.run("doctor", "mail", "films", "--fix", "--yes", "--json")
    fixed = [each for each in objects(ran.stdout) if each["about"] == "mail"][1:]
    assert fixed == [{"about": "mail", "kind": "ghosts", "fixed": 2}]
    assert sync_redis.lrange(mail.waiting, 0, -1) == ["17"]
    assert problems_of(beeq.run("doctor", "mail", "--json")) == []


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 3), (b"y\n", 1)])
def test_a_person_is_asked(beeq: Beeq, mail: Keys, sync_redis: redis.Redis, answer: bytes, left: int) -> None:
    leader, follower = pty.openpty()
    command = [*beeq.python, "-m", "beeq_cli", "doctor", "mail", "--fix"]
    with subprocess.Popen(
        command, cwd=beeq.folder, env=beeq.environment, stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        os.write(leader, answer)
        seen = b""
        while True:
            try:
                seen += os.read(leader, 4096)
            except OSError:
                break
        process.wait(60)
    os.close(leader)
    assert b"of these?" in seen
    assert sync_redis.llen(mail.waiting) == left


def test_redis_without_eviction_and_disk_is_looked_at(bare_beeq: Beeq) -> None:
    """The embedded server is in order."""
    ran = bare_beeq.run("doctor", "--json")
    assert ran.returncode == 0, ran.stdout
    assert [each for each in objects(ran.stdout) if each["problem"]] == []
    assert bare_beeq.run("doctor", "--yes").returncode == 2


# This machine.


def confinement(version: str, **missing: str) -> Any:
    held = tuple(step for step in ("network", "landlock", "seccomp") if step not in missing)
    return Confinement(SimpleNamespace(path="/usr/bin/ffmpeg"), version, held, missing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "kind", "is_problem", "text"),
    [
        (MediaFailed("ffmpeg was not found"), "ffmpeg", False, "no media jobs can run here: ffmpeg was not"),
        (MediaFailed("ffmpeg 4.0 is too old"), "ffmpeg", True, "ffmpeg 4.0 is too old"),
        (confinement("4.4.2"), "ffmpeg", False, "ffmpeg 4.4.2 is older than 5.1"),
        (confinement("7.1", landlock="the kernel has none"), "sandbox", False, "(the kernel has none)"),
    ],
)
async def test_what_this_machine_lacks_is_said(
    monkeypatch: pytest.MonkeyPatch, found: Any, kind: str, is_problem: bool, text: str
) -> None:
    async def confinement_of(_path: str) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(machine, "find_ffmpeg", lambda: "/usr/bin/ffmpeg")
    monkeypatch.setattr(machine, "confinement_of", confinement_of)
    (finding,) = await machine.check_machine()
    assert (finding.kind, finding.is_problem, finding.fix) == (kind, is_problem, "")
    assert text in finding.text


async def test_a_machine_in_order_has_no_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    async def confinement_of(_path: str) -> Any:
        return confinement("7.1")

    monkeypatch.setattr(machine, "find_ffmpeg", lambda: "/usr/bin/ffmpeg")
    monkeypatch.setattr(machine, "confinement_of", confinement_of)
    assert await machine.check_machine() == []
