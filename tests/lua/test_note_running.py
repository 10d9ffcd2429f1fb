"""What a worker process notes of its jobs: what is new and what is gone, until nobody beats any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast
LIFETIME_MS = 30_000
WORKER = "host:1:ab"


@pytest.fixture(autouse=True)
def worker(bench: Bench) -> None:
    bench.keys = replace(bench.keys, worker=WORKER)


def note(bench: Bench, *jobs: tuple[str, object], begins: str = "", process: str = "{}") -> object:
    return bench.run(scripts.note_running, lifetime_ms=LIFETIME_MS, begins=begins, process=process, jobs=jobs)


def test_jobs_are_noted_with_their_start_and_forgotten(bench: Bench) -> None:
    now_ms = bench.now_ms()
    assert note(bench, ("a", 5000), ("ü:\n", 700), process="1") == 4
    assert note(bench, ("b", 600), ("a", ""), process="2") == 4
    state = bench.snapshot()
    assert state.keys() == {f"running:{WORKER}"}
    (noted,) = state.values()
    assert noted.pop("process") == "2"
    assert now_ms <= int(noted.pop("noted")) <= bench.now_ms()
    assert noted.keys() == {"job:ü:\n", "job:b"}
    assert 0 <= int(noted["job:ü:\n"]) - (now_ms - 700) < 5000
    assert 0 < bench.redis.pttl(bench.keys.running) <= LIFETIME_MS


def test_a_new_begin_forgets_what_was_noted(bench: Bench) -> None:
    note(bench, ("a", 5000))
    assert note(bench, ("b", 600), begins="1") == 3
    assert bench.redis.hkeys(bench.keys.running) == ["process", "noted", "job:b"]


def test_a_job_that_runs_again_has_its_later_start(bench: Bench) -> None:
    note(bench, ("a", 5000))
    assert note(bench, ("a", ""), ("a", 600)) == 3
    assert bench.now_ms() - int(bench.redis.hget(bench.keys.running, "job:a") or 0) < 5000


def test_without_a_change_the_note_lives_on(bench: Bench) -> None:
    note(bench, ("a", 5000))
    bench.redis.pexpire(bench.keys.running, 1000)
    assert note(bench) == 3
    assert bench.redis.pttl(bench.keys.running) > 1000
