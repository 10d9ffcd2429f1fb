"""What a heartbeat notes of running jobs: changes only, no short ones, and a bounded number of bytes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import hiredis
import pytest

from beeq.protocol.keys import Keys
from beeq.worker.running_notes import RunningNotes, WorkerLook, looking_at

pytestmark = pytest.mark.fast
NOW_MS = 1_000_000


class Notes:
    """Notes with a stopped clock, and the fields that Redis would have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms = NOW_MS
        monkeypatch.setattr("beeq.worker.running_notes.now_ms", lambda: self.now_ms)
        self.running: list[tuple[bytes, int]] = []
        self.fields: dict[bytes, int] = {}
        self.notes = RunningNotes(
            Keys("bq", "q", worker="w"),
            stall_interval_ms=5000,
            look=lambda: WorkerLook(10, True, self.running),
        )

    def take(self, *, is_beat: bool = True) -> list[dict[bytes, bytes]]:
        """Carry the calls out as Redis would; return the jobs that each has named."""
        calls = []
        for packed in self.notes.calls(is_beat=is_beat):
            reader = hiredis.Reader()
            reader.feed(packed)
            words: list[Any] = reader.gets()
            _key, _lifetime, begins, _process, *jobs = words[3:]
            if begins:
                self.fields = {}
            pairs = list(zip(jobs[::2], jobs[1::2], strict=True))
            for raw_id, ran_ms in pairs:
                if not ran_ms:
                    self.fields.pop(raw_id, None)
            for raw_id, ran_ms in pairs:
                if ran_ms:
                    self.fields[raw_id] = self.now_ms - int(ran_ms)
            self.notes.answered(len(self.fields) + 2)
            calls.append(dict(pairs))
        return calls


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    return Notes(monkeypatch)


def test_only_jobs_that_have_run_for_half_a_second_are_noted(notes: Notes) -> None:
    notes.running = [(b"short", NOW_MS - 499), (b"long", NOW_MS - 500)]
    assert notes.take() == [{b"long": b"500"}]
    assert notes.take(is_beat=False) == []
    notes.now_ms += 1
    assert notes.take(is_beat=False) == [{b"short": b"500"}]
    notes.running = [(b"long", NOW_MS - 500)]
    assert notes.take(is_beat=False) == [{b"short": b""}]
    assert notes.take() == [{}], "a beat keeps the note alive"


def test_a_job_that_runs_again_here_is_noted_again(notes: Notes) -> None:
    notes.running = [(b"1", NOW_MS - 5000)]
    notes.take()
    notes.running = [(b"1", NOW_MS - 600)]
    notes.take()
    assert notes.fields == {b"1": NOW_MS - 600}


@pytest.mark.parametrize("has_failed", [True, False])
def test_what_redis_may_have_lost_is_noted_again(notes: Notes, has_failed: bool) -> None:
    notes.running = [(b"1", NOW_MS - 5000)]
    notes.take()
    notes.fields = {}
    notes.notes.failed() if has_failed else notes.notes.answered(0)
    notes.take()
    assert notes.fields == {b"1": NOW_MS - 5000}


def test_ten_thousand_long_ids_are_noted_in_bounded_calls(notes: Notes) -> None:
    notes.running = [(b"%d" % n + b"x" * 512, NOW_MS - 10_000 - n) for n in range(10_000)]
    calls = notes.take()
    assert max(sum(map(len, jobs)) for jobs in calls) < 21_000
    assert max(map(len, calls)) <= 500
    assert 900_000 < sum(len(raw_id) for raw_id in notes.fields) < 1_010_000
    assert min(NOW_MS - since for since in notes.fields.values()) > 18_000, "the oldest are there"
    notes.running = notes.running[5000:9000]
    notes.take()
    notes.take()
    assert notes.fields.items() <= dict(notes.running).items()
    assert len(notes.fields) > 1800


class Busy:
    """A worker, as far as it is looked at."""

    is_paused = False
    is_stopping = False

    def running_since(self) -> list[tuple[bytes, int]]:
        return [(b"1", 5)]


def test_who_looks_keeps_no_worker_in_memory() -> None:
    worker = Busy()
    look: Callable[[], WorkerLook | None] = looking_at(worker, places=3, ahead=[b"2"])
    assert look() == WorkerLook(3, True, [(b"1", 5)], 1)
    worker.is_paused = True
    assert look() == WorkerLook(3, False, [(b"1", 5)], 1)
    del worker
    gc.collect()
    assert look() is None
