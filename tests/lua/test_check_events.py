"""Telling whether messages of the events channel are of this database's jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast

RECORD = '{"data":{},"options":{"timestamp":5,"stacktraces":[]},"status":"created","progress":0}'
RETRYING = RECORD.replace("created", "retrying")


def judge(bench: Bench, *events: tuple[str, str, object], walk: int = 10, read: int = 1000) -> Any:
    """Return the verdicts; a message's data is its value as JSON, or ``...`` for a text that is not known."""
    return verdicts_and_marks(bench, *events, walk=walk, read=read)[::2]


def verdicts_and_marks(bench, *events, walk=10, read=1000):
    asked = []
    for job_id, event, value in events:
        data = "" if value is ... else json.dumps(value, separators=(",", ":"))
        asked.append((job_id, event, data))
    before = bench.snapshot()
    reply = bench.run(scripts.check_events, read_bytes=read, longest_walk=walk, events=asked)
    assert bench.snapshot() == before
    assert bench.heard() == []
    return reply


def test_nothing_counts_of_a_job_that_only_waits(bench):
    bench.put(jobs={"1": RECORD}, waiting=["1"], id="1")
    names = ("succeeded", "failed", "retrying", "progress")
    assert judge(bench, *(("1", name, "x") for name in names)) == [0, 0, 0, 0]


def test_an_end_counts_if_the_job_has_ended_in_that_way(bench):
    bench.put(jobs={"1": RECORD, "2": RECORD}, succeeded={"1"}, failed={"2"})
    events = [(job_id, name, "x") for job_id in "12" for name in ("succeeded", "failed")]
    assert judge(bench, *events) == [1, 0, 0, 1]


@pytest.mark.parametrize(("kind", "event"), [("s", "succeeded"), ("f", "failed")])
def test_an_end_counts_only_with_the_outcome_that_is_kept(bench, kind, event):
    bench.put(jobs={"1": RECORD}, results={"1": f'5:{kind}"own"'}, **{event: {"1"}})
    assert judge(
        bench, ("1", event, "own"), ("1", event, "odd"), ("1", event, "longer"), ("1", event, ...)
    ) == [
        1,
        0,
        0,
        0,
    ]


def test_what_an_earlier_job_has_left_says_nothing(bench):
    bench.put(jobs={"1": RECORD}, results={"1": '4:s"earlier"'}, succeeded={"1"})
    assert judge(bench, ("1", "succeeded", "later")) == [1]


def test_a_long_result_is_read_only_where_the_message_is_as_long(bench):
    bench.put(jobs={"1": RECORD}, results={"1": f'5:s"{"x" * 500}"'}, succeeded={"1"})
    assert judge(bench, ("1", "succeeded", "x" * 500), ("1", "succeeded", "x"), read=100) == [1, 0]


def test_a_dropped_jobs_end_counts_with_the_outcome_that_is_kept(bench):
    due_ms = bench.now_ms() + 60_000
    bench.put(
        evenResults={"1": f'{due_ms}:5:s"own"'}, oddResults={"2": f'{due_ms}:5:c"gone"', "3": '1:5:s"own"'}
    )
    events = [
        ("1", "succeeded", "own"),
        ("1", "succeeded", "odd"),
        ("1", "failed", "own"),
        ("1", "progress", 5),
    ]
    assert judge(bench, *events) == [1, 0, 0, 1]
    assert judge(bench, ("2", "failed", "gone"), ("2", "failed", "odd"), ("3", "succeeded", "own")) == [
        1,
        0,
        2,
    ]


def test_of_a_job_that_left_nothing_only_the_counter_knows(bench):
    assert judge(bench, ("1", "succeeded", 1), ("own", "failed", "x")) == [2, 2]
    bench.put(id="7")
    ids = ("7", "8", "07", "own", "-1", "9" * 20)
    assert judge(bench, *((job_id, "succeeded", 1) for job_id in ids)) == [1, 2, 2, 2, 2, 2]


def test_progress_counts_of_a_job_that_has_begun(bench):
    bench.put(
        jobs=dict.fromkeys(("claimed", "active", "ended", "waits", "far"), RECORD) | {"again": RETRYING},
        claims={"claimed": "t-1.0:1", "waits": ":2"},
        active=["active", *"abcdefghij", "far"],
        failed={"ended"},
    )
    ids = ("claimed", "active", "ended", "again", "waits", "far")
    assert judge(bench, *((job_id, "progress", 5) for job_id in ids)) == [1, 1, 1, 1, 0, 0]


def test_a_retry_counts_if_the_record_knows_of_one(bench):
    bench.put(jobs={"1": RETRYING, "2": RECORD, "3": RECORD}, succeeded={"3"})
    assert judge(bench, *((job_id, "retrying", "x") for job_id in "123")) == [1, 0, 1]
    assert judge(bench, ("2", "retrying", "x"), read=10) == [1], "a long record is not read"


def test_an_event_of_another_name_counts_where_the_job_is(bench):
    bench.put(jobs={"1": RECORD})
    assert judge(bench, ("1", "custom", 1), ("2", "custom", 1)) == [1, 2]


def test_the_mark_is_another_one_for_another_run(bench):
    marks = []
    for record in (RECORD, RETRYING, "x" * 2000, "x" * 2001):
        bench.put(jobs={"1": record}, succeeded={"1"})
        marks.append(verdicts_and_marks(bench, ("1", "succeeded", 1))[1])
    bench.drop("jobs", "succeeded")
    for due_ms in (bench.now_ms() + 60_000, bench.now_ms() + 60_001):
        bench.put(evenResults={"1": f"{due_ms}:5:s1"})
        marks.append(verdicts_and_marks(bench, ("1", "succeeded", 1))[1])
    assert len(set(marks)) == 6
    assert all(marks)
    bench.drop("evenResults")
    assert verdicts_and_marks(bench, ("1", "succeeded", 1)) == [2, ""]


def test_no_events_have_no_verdicts(bench):
    assert judge(bench) == []
