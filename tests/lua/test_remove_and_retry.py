"""Removing a job from everywhere, and queueing a failed one again."""

from __future__ import annotations

import pytest
import redis

from beeq.redis import scripts

EVERYWHERE = {
    "succeeded": {"1", "x"},
    "failed": {"1", "x"},
    "waiting": ["1", "x", "1"],
    "active": ["x", "1", "1"],
    "stalling": {"1", "x"},
    "jobs": {"1": "r", "x": "r"},
    "delayed": {"1": 5000, "x": 5000},
    "claims": {"1": "t:1", "x": "t:1"},
    "results": {"1": "5:s1", "x": "5:s1"},
    "evenResults": {"1": "9:5:s1", "x": "9:5:s1"},
    "oddResults": {"1": "9:5:s1", "x": "9:5:s1"},
}
ELSEWHERE = {
    "succeeded": {"x"},
    "failed": {"x"},
    "waiting": ["x"],
    "active": ["x"],
    "stalling": {"x"},
    "jobs": {"x": "r"},
    "delayed": {"x": 5000},
    "claims": {"x": "t:1"},
    "results": {"x": "5:s1"},
    "evenResults": {"x": "9:5:s1"},
    "oddResults": {"x": "9:5:s1"},
}


def test_a_removed_job_is_nowhere_and_all_others_stay(bench):
    bench.put(**EVERYWHERE, id="1")
    assert bench.run(scripts.remove_job, job_id="1", outbox_limit="0") == 1
    assert bench.snapshot() == ELSEWHERE | {"id": "1"}
    assert bench.heard() == []


@pytest.mark.parametrize("place", sorted(EVERYWHERE.keys() - {"jobs"}))
def test_a_ghost_is_removed_from_wherever_it_is(bench, place):
    """bee-queue leaves it where it is finished and queued at once."""
    value = EVERYWHERE[place]
    bench.put(**{place: value})
    assert bench.run(scripts.remove_job, job_id="1", outbox_limit="0") == 0
    assert bench.snapshot() == {place: ELSEWHERE[place]}


def test_removing_twice_is_fine(bench):
    bench.put(jobs={"1": "r"}, waiting=["1"])
    assert [bench.run(scripts.remove_job, job_id="1", outbox_limit="0") for _ in range(2)] == [1, 0]
    assert bench.snapshot() == {}


def test_a_failed_job_is_queued_again_at_the_back_as_if_new(bench):
    bench.put(failed={"1", "x"}, jobs={"1": "old"}, waiting=["9"], claims={"1": ":4"}, results={"1": "5:fno"})
    assert bench.run(scripts.retry_job, job_id="1", seen="old", record="new", outbox_limit="0") == 1
    assert bench.snapshot() == {"failed": {"x"}, "jobs": {"1": "new"}, "waiting": ["1", "9"]}
    assert bench.heard() == []


def test_of_two_retries_at_once_one_queues_the_job(bench):
    """In bee-queue the job is then there twice."""
    bench.put(failed={"1"}, jobs={"1": "old"})
    assert [
        bench.run(scripts.retry_job, job_id="1", seen="old", record="new", outbox_limit="0") for _ in range(2)
    ] == [1, 0]
    assert bench.snapshot() == {"jobs": {"1": "new"}, "waiting": ["1"]}


@pytest.mark.parametrize(
    "state",
    [
        {"jobs": {"1": "old"}, "waiting": ["1"]},
        {"jobs": {"1": "old"}, "active": ["1"], "claims": {"1": "t:1"}},
        {"jobs": {"1": "old"}, "delayed": {"1": 5000}},
        {"jobs": {"1": "old"}, "succeeded": {"1"}, "results": {"1": "5:s1"}},
        {"failed": {"x"}, "jobs": {"x": "old"}},
        {"failed": {"1"}},
        {},
    ],
    ids=["waiting", "active", "delayed", "succeeded", "never was", "ghost", "empty"],
)
def test_what_is_no_failed_job_is_not_queued(bench, state):
    bench.put(**state)
    before = bench.snapshot()
    assert bench.run(scripts.retry_job, job_id="1", seen="old", record="new", outbox_limit="0") == 0
    assert bench.snapshot() == before


def test_a_record_that_changed_since_is_not_overwritten(bench):
    bench.put(failed={"1"}, jobs={"1": "newer"}, results={"1": "5:fno"})
    before = bench.snapshot()
    assert bench.run(scripts.retry_job, job_id="1", seen="old", record="new", outbox_limit="0") == 2
    assert bench.snapshot() == before


def test_where_waiting_is_of_the_wrong_type_the_job_stays_failed(bench):
    bench.put(failed={"1"}, jobs={"1": "old"}, waiting="of the wrong type", claims={"1": ":1"})
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        bench.run(scripts.retry_job, job_id="1", seen="old", record="new", outbox_limit="0")
    assert bench.snapshot() == before


@pytest.mark.parametrize("wrong", ["claims", "results"])
def test_a_side_key_of_the_wrong_type_leaves_the_job_failed(bench, wrong):
    bench.put(failed={"1"}, jobs={"1": "old"}, **{wrong: "of the wrong type"})
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        bench.run(scripts.retry_job, job_id="1", seen="old", record="new", outbox_limit="0")
    assert bench.snapshot() == before
