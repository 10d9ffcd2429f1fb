"""Failed attempts: noted with the failure, bounded, gone with the job."""

from __future__ import annotations

from typing import Any

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench, End

pytestmark = pytest.mark.fast
DAY_MS = 24 * 3600 * 1000


def settle(bench: Bench, *ends: End, drop: str = "") -> Any:
    facts, *_ = bench.run(
        scripts.exchange,
        events="",
        earlier_delayed=bench.keys.earlier_delayed,
        keep_ms=60_000,
        drop_succeeded="1" if "succeeded" in drop else "",
        drop_failed="1" if "failed" in drop else "",
        outbox_limit="0",
        max_bytes=1_000_000,
        active_length="",
        is_mixed="",
        token="T",
        free=0,
        wanted_ahead=0,
        ahead_ms=60_000,
        fetched="",
        is_started="",
        outcomes=[end.arguments() for end in ends],
    )
    return facts


def running(bench: Bench, *ids: str, **more: Any) -> None:
    bench.put(active=list(ids), jobs=dict.fromkeys(ids, "r"), claims=dict.fromkeys(ids, "t:1"), **more)


@pytest.mark.parametrize(("status", "delay_ms"), [("failed", 0), ("retrying", 0), ("retrying", 5000)])
def test_a_failure_is_noted_in_front_of_earlier_ones(bench, status, delay_ms):
    running(bench, "1", attempts={"1": "second\nfirst", "2": "other"})
    assert settle(bench, End("1", status, delay_ms=delay_ms, attempt="third:[1,2]")) == [1]
    after = bench.snapshot()
    assert after["attempts"] == {"1": "third:[1,2]\nsecond\nfirst", "2": "other"}
    assert 29 * DAY_MS < bench.redis.pttl(bench.keys.attempts) <= 30 * DAY_MS
    assert ("delayed" in after) is bool(delay_ms)


def test_no_more_than_twenty_are_kept(bench):
    lines = [f"line {n}" for n in range(25)]
    running(bench, "1", attempts={"1": "\n".join(lines)})
    settle(bench, End("1", "failed", attempt="newest"))
    assert bench.snapshot()["attempts"]["1"].split("\n") == ["newest", *lines[:19]]
    bench.put(active=["1"], claims={"1": "t:1"})
    settle(bench, End("1", "failed", attempt="newer"))
    assert bench.snapshot()["attempts"]["1"].split("\n") == ["newer", "newest", *lines[:18]]


def test_a_success_notes_nothing_and_leaves_the_history(bench):
    running(bench, "1", "2", attempts={"1": "first"})
    assert settle(bench, End("1"), End("2")) == [1, 1]
    assert bench.snapshot()["attempts"] == {"1": "first"}


def test_a_refused_outcome_notes_nothing(bench):
    running(bench, "1")
    bench.redis.hset(bench.key("claims"), "1", "another:1")
    assert settle(bench, End("1", "failed", attempt="a")) == [0]
    assert "attempts" not in bench.snapshot()


def test_attempts_of_the_wrong_type_cost_no_job(bench):
    running(bench, "1", "2", attempts="text")
    assert settle(bench, End("1", "failed", attempt="a"), End("2"), drop="succeeded") == [1, 1]
    assert bench.snapshot() == {"attempts": "text", "failed": {"1"}, "jobs": {"1": "1 failed"}}


@pytest.mark.parametrize("status", ["failed", "succeeded"])
def test_they_go_where_the_outcome_drops_the_record(bench, status):
    running(bench, "1", attempts={"1": "first", "2": "other"})
    attempt = "last" if status == "failed" else ""
    assert settle(bench, End("1", status, attempt=attempt), drop="failed succeeded") == [1]
    assert bench.snapshot() == {"attempts": {"2": "other"}}


def test_they_go_with_a_job_however_it_goes(bench):
    calls: dict[str, Any] = {
        "remove_job": {"job_id": "1"},
        "cancel_job": {
            "job_id": "1",
            "keep": "1:c",
            "keep_ms": 60_000,
            "memory_ms": 60_000,
            "events": "e",
            "message": "m",
        },
        "clean_jobs": {"state": "failed", "jobs": [("1", "r")]},
        "withdraw_jobs": {
            "state": "waiting",
            "start": 0,
            "span": 1,
            "keep_ms": 60_000,
            "memory_ms": 60_000,
            "events": "e",
            "jobs": [("1", "r", "", "")],
        },
    }
    for name, arguments in calls.items():
        place: Any = {"failed": {"1"}} if name == "clean_jobs" else {"waiting": ["1"]}
        bench.put(jobs={"1": "r"}, attempts={"1": "first", "2": "other"}, **place)
        bench.run(getattr(scripts, name), outbox_limit="0", **arguments)
        after = bench.snapshot()
        assert after["attempts"] == {"2": "other"}, name
        bench.drop(*after)


def test_a_new_job_of_the_id_has_none(bench):
    bench.put(attempts={"1": "first", "2": "other"})
    bench.run(scripts.add_jobs, earlier_delayed="c", outbox_limit="0", jobs=[("1", "r", "")])
    assert bench.snapshot()["attempts"] == {"2": "other"}


def test_the_sweep_drops_those_of_jobs_that_node_removed(bench):
    ids = [str(n) for n in range(500)]
    bench.put(attempts=dict.fromkeys(ids, "a"), jobs=dict.fromkeys(ids[:50], "r"))
    while bench.run(scripts.sweep, count=100, lifetime_ms=60_000):
        assert len(bench.snapshot()["attempts"]) >= 50
    for _ in range(200):  # the last few are drawn by and by
        bench.run(scripts.sweep, count=100, lifetime_ms=60_000)
    assert set(bench.snapshot()["attempts"]) == set(ids[:50])


def test_a_survey_tells_records_and_last_failures(bench):
    bench.put(
        jobs={"1": "one", "2": "two", "3": "x" * 100},
        attempts={"1": '[5,10,20,"w","e"]\n[5,1,2,"w","e"]', "2": "nonsense"},
    )
    ids = [("1",), ("2",), ("4",), ("3",), ("1",)]
    found = bench.run(scripts.survey_jobs, max_bytes=100, longest=100, ids=ids)
    assert found == ["one", "20", "two", "", None, ""]
    assert bench.run(scripts.survey_jobs, max_bytes=100, longest=100, ids=ids[3:]) == ["x" * 100, ""]
    found = bench.run(scripts.survey_jobs, max_bytes=100, longest=99, ids=ids)
    assert found == ["one", "20", "two", "", None, "", 100, "", "one", "20"], "too long: its length"


def test_lines_longer_than_beeq_writes_are_not_read(bench):
    bench.put(jobs={"1": "r"}, attempts={"1": "[5,10,20]" + "x" * 100_000}, failed={"1"})
    assert bench.run(scripts.survey_jobs, max_bytes=100, longest=100, ids=[("1",)]) == ["r", ""]
    assert bench.run(scripts.inspect_job, job_id="1", longest=100)[3] is None


@pytest.mark.parametrize("kept_in", ["results", "evenResults", "oddResults"])
def test_a_record_or_result_too_long_is_only_measured(bench, kept_in):
    bench.put(jobs={"1": "r" * 50}, failed={"1"}, results={"x": "5:f"})
    bench.redis.hset(bench.key(kept_in), "1", "9999999999999:f" + "x" * 50)
    long = bench.run(scripts.inspect_job, job_id="1", longest=49)
    assert long == ["failed", None, None, None, None, None, 50, 65]
    assert bench.run(scripts.inspect_job, job_id="1", longest=64)[1::5] == ["r" * 50, 50]
    assert bench.run(scripts.inspect_job, job_id="1", longest=65)[6:] == [50, 0]


@pytest.mark.parametrize(
    ("place", "state", "where"),
    [
        ({"waiting": ["c", "1", "a", "b"]}, "waiting", 2),
        ({"active": ["1"]}, "active", None),
        ({"delayed": {"1": 77}}, "delayed", "77"),
        ({"failed": {"1"}}, "failed", None),
        ({"succeeded": {"1"}}, "succeeded", None),
        ({"failed": {"1"}, "active": ["1"]}, "active", None),
        ({}, "", None),
    ],
)
def test_an_inspected_job_is_where_it_is(bench, place, state, where):
    bench.put(jobs={"1": "r"}, claims={"1": ":3"}, results={"1": "5:f"}, attempts={"1": "a"}, **place)
    before = bench.snapshot()
    found = bench.run(scripts.inspect_job, job_id="1", longest=100)
    assert found == [state, "r", "5:f", "a", ":3", where, 1, 0]
    assert bench.snapshot() == before
    missing = bench.run(scripts.inspect_job, job_id="2", longest=100)
    assert missing == ["", None, None, None, None, None, 0, 0]
