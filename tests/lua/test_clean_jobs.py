"""Removing finished jobs by the hundred, each only if it is still what was read."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from beeq.redis import scripts
from tests.lua.bench import Bench

STATES = ("succeeded", "failed")


def clean(bench: Bench, state: str, *jobs: str, limit: str = "0") -> Any:
    """Remove jobs given as id, record, id, record, …"""
    pairs = zip(jobs[::2], jobs[1::2], strict=True)
    return bench.run(scripts.clean_jobs, state=state, outbox_limit=limit, jobs=pairs)


@pytest.mark.parametrize("state", STATES)
def test_cleaned_jobs_are_nowhere_and_all_others_stay(bench, state):
    others = {
        state: {"x"},
        "waiting": ["w"],
        "active": ["a"],
        "stalling": {"a"},
        "jobs": {"x": "r", "w": "r", "a": "r", "d": "r"},
        "delayed": {"d": 5000},
        "claims": {"a": "t:1"},
        "results": {"x": "5:s1"},
        "evenResults": {"gone": "9:5:s1"},
        "id": "9",
    }
    bench.put(**others)
    bench.put(
        **{state: {"1", "2"}},
        stalling={"1"},
        jobs={"1": "one", "2": "two"},
        claims={"1": ":1"},
        results={"1": "5:s1", "2": "5:fno"},
    )
    assert clean(bench, state, "1", "one", "2", "two") == [1, 1]
    assert bench.snapshot() == others
    assert bench.heard() == []


def test_a_job_that_is_in_both_sets_leaves_both(bench):
    bench.put(succeeded={"1"}, failed={"1"}, jobs={"1": "r"})
    assert clean(bench, "failed", "1", "r") == [1]
    assert bench.snapshot() == {}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "place",
    [
        {"jobs": {"1": "r"}, "waiting": ["1"]},
        {"jobs": {"1": "r"}, "delayed": {"1": 5000}},
        {"jobs": {"1": "r"}, "active": ["1"], "claims": {"1": "t:1"}},
        {"succeeded": {"1"}, "jobs": {"1": "newer"}, "results": {"1": "5:s1"}},
        {"failed": {"1"}, "jobs": {"1": "newer"}, "results": {"1": "5:fno"}},
        {"succeeded": {"1"}, "failed": {"1"}, "jobs": {"1": "r"}, "active": ["x", "1"], "claims": {"1": "t:1"}},
        {"succeeded": {"1"}, "failed": {"1"}, "jobs": {"1": "r"}, "delayed": {"1": 5000}},
        {"succeeded": {"1"}, "failed": {"1"}},
        {},
    ],
    ids=["waiting", "delayed", "running", "succeeded anew", "failed anew", "still listed and running", "still listed and delayed", "ghost", "gone"],
)  # fmt: skip
def test_a_job_that_is_not_what_was_read_any_more_stays_as_it_is(bench, state, place):
    bench.put(**place)
    assert clean(bench, state, "1", "r", limit="100") == [0]
    assert bench.snapshot() == place


@pytest.mark.parametrize(("state", "other"), [STATES, STATES[::-1]])
def test_a_job_of_the_other_set_stays(bench, state, other):
    bench.put(**{other: {"1"}}, jobs={"1": "r"})
    assert clean(bench, state, "1", "r") == [0]
    assert bench.snapshot() == {other: {"1"}, "jobs": {"1": "r"}}


def test_each_of_many_jobs_has_its_answer_and_counts_once(bench):
    bench.put(failed={"1", "2", "3"}, jobs={"1": "r", "2": "newer", "3": "r"})
    assert clean(bench, "failed", "1", "r", "2", "r", "3", "r", "1", "r") == [1, 0, 1, 0]
    assert bench.snapshot() == {"failed": {"2"}, "jobs": {"2": "newer"}}


def test_of_a_retry_and_a_cleaning_at_once_the_first_wins(bench):
    bench.put(failed={"1"}, jobs={"1": "old"})
    assert bench.run(scripts.retry_job, job_id="1", seen="old", record="new", outbox_limit="0") == 1
    assert clean(bench, "failed", "1", "old") == [0]
    assert bench.snapshot() == {"jobs": {"1": "new"}, "waiting": ["1"]}
    bench.drop("waiting")
    bench.put(failed={"1"})
    assert clean(bench, "failed", "1", "new") == [1]
    assert bench.run(scripts.retry_job, job_id="1", seen="new", record="newer", outbox_limit="0") == 0
    assert bench.snapshot() == {}


@pytest.mark.parametrize("count", [100, 500])
def test_hundreds_are_cleaned_by_one_call(bench, count):
    ids = [str(n) for n in range(count)]
    bench.put(succeeded=set(ids), jobs=dict.fromkeys(ids, "r"), results=dict.fromkeys(ids, "5:s1"))
    assert clean(bench, "succeeded", *(part for job_id in ids for part in (job_id, "r"))) == [1] * count
    assert bench.snapshot() == {}


@pytest.mark.parametrize("state", STATES)
def test_a_removed_job_is_noted_with_all_that_was_known(bench, state):
    """Its change may not have been mirrored yet."""
    bench.put(**{state: {"1", "2", "3"}}, jobs={"1": "r", "2": "r", "3": "newer"}, results={"1": "5:s1"})
    clean(bench, state, "1", "r", "2", "r", "3", "r", limit="100")
    assert bench.snapshot()["outbox"] == [
        {"id": "1", "state": state, "record": "r", "keep": "5:s1"},
        {"id": "2", "state": state, "record": "r", "keep": ""},
    ]


def test_an_outbox_that_refuses_keeps_no_job(bench):
    bench.put(failed={"1"}, jobs={"1": "r"}, outbox="text")
    assert clean(bench, "failed", "1", "r", limit="100") == [1]
    assert bench.snapshot() == {"outbox": "text"}


@pytest.mark.parametrize("wrong", ["succeeded", "active", "stalling", "delayed", "claims", "results"])
def test_where_a_key_is_of_the_wrong_type_nothing_is_removed(bench, wrong):
    bench.put(failed={"1"}, jobs={"1": "r"}, **{wrong: "of the wrong type"})
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        clean(bench, "failed", "1", "r")
    assert bench.snapshot() == before
