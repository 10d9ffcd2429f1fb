"""Giving jobs back: to the front, as if never taken, and only by who has them."""

from __future__ import annotations

import pytest
import redis

from beeq.redis import scripts
from tests.lua.bench import Bench


def hand_back(bench: Bench, *claims: tuple[str, str]) -> int:
    """Return how many jobs went back; all were looked at."""
    waiting = bench.key("waiting")
    before = bench.redis.llen(waiting) if bench.redis.type(waiting) == "list" else 0
    assert bench.run(scripts.give_back, outbox_limit="0", jobs=claims) == len(claims)
    after: int = bench.redis.llen(waiting)
    return after - before


def test_a_job_goes_to_the_front_as_if_never_taken(bench):
    bench.put(jobs={"1": "r", "2": "r"}, waiting=["2"], active=["1"], claims={"1": "t:1"}, stalling={"1"})
    assert hand_back(bench, ("1", "t:1")) == 1
    assert bench.snapshot() == {"jobs": {"1": "r", "2": "r"}, "waiting": ["2", "1"]}
    assert bench.heard() == []


def test_of_several_the_last_is_the_next_to_run(bench):
    bench.put(jobs={"1": "r", "2": "r"}, active=["2", "1"], claims={"1": "t:1", "2": "t:1"}, waiting=["9"])
    assert hand_back(bench, ("2", "t:1"), ("1", "t:1")) == 2
    assert bench.snapshot() == {"jobs": {"1": "r", "2": "r"}, "waiting": ["9", "2", "1"]}


def test_earlier_deliveries_still_count(bench):
    bench.put(jobs={"1": "r"}, active=["1"], claims={"1": "t:3"})
    hand_back(bench, ("1", "t:3"))
    assert bench.snapshot() == {"jobs": {"1": "r"}, "waiting": ["1"], "claims": {"1": ":2"}}


def test_an_id_that_nobody_claimed_yet_goes_back(bench):
    bench.put(jobs={"1": "r"}, active=["1"], stalling={"1"})
    assert hand_back(bench, ("1", "")) == 1
    assert bench.snapshot() == {"jobs": {"1": "r"}, "waiting": ["1"]}


def test_an_unclaimed_id_keeps_its_count_of_deliveries(bench):
    bench.put(jobs={"1": "r"}, active=["1"], claims={"1": ":2"})
    assert hand_back(bench, ("1", "")) == 1
    assert bench.snapshot() == {"jobs": {"1": "r"}, "waiting": ["1"], "claims": {"1": ":2"}}


def test_an_unclaimed_id_that_was_claimed_since_is_left_alone(bench):
    """The call is repeated when its reply is lost."""
    bench.put(jobs={"1": "r"}, active=["1"], claims={"1": "another:1"})
    before = bench.snapshot()
    assert hand_back(bench, ("1", "")) == 0
    assert bench.snapshot() == before


@pytest.mark.parametrize("claim", ["t:1", ""])
@pytest.mark.parametrize(
    "state",
    [
        {"waiting": ["1"], "claims": {"1": ":1"}},
        {"succeeded": {"1"}},
        {"waiting": ["1"], "claims": {"1": "t:1"}},
    ],
    ids=["stalled", "finished", "queued again by a Node peer"],
)
def test_a_job_that_is_not_active_is_left_alone(bench, claim, state):
    bench.put(jobs={"1": "r"}, **state)
    before = bench.snapshot()
    assert hand_back(bench, ("1", claim)) == 0
    assert bench.snapshot() == before


@pytest.mark.parametrize("holder", ["u:2", ":1", "t:2"])
def test_a_job_of_another_owner_is_left_alone(bench, holder):
    bench.put(jobs={"1": "r"}, active=["1"], claims={"1": holder}, stalling={"1"})
    before = bench.snapshot()
    assert hand_back(bench, ("1", "t:1")) == 0
    assert bench.snapshot() == before


def test_a_job_that_has_no_claim_any_more_is_left_alone(bench):
    bench.put(jobs={"1": "r"}, active=["1"])
    before = bench.snapshot()
    assert hand_back(bench, ("1", "t:1")) == 0
    assert bench.snapshot() == before


@pytest.mark.parametrize(("claim", "holder"), [("t:4", "t:4"), ("", ":4")])
def test_a_job_without_a_record_is_dropped(bench, claim, holder):
    """In bee-queue it goes round for ever."""
    bench.put(active=["1"], claims={"1": holder}, stalling={"1"})
    assert hand_back(bench, ("1", claim)) == 0
    assert bench.snapshot() == {}


def test_giving_back_twice_is_giving_back_once(bench):
    bench.put(jobs={"1": "r"}, active=["1"], claims={"1": "t:2"})
    assert hand_back(bench, ("1", "t:2"), ("1", "t:2")) == 1
    assert hand_back(bench, ("1", "t:2")) == 0
    assert bench.snapshot() == {"jobs": {"1": "r"}, "waiting": ["1"], "claims": {"1": ":1"}}


def test_beside_one_that_is_left_alone_the_others_go_back(bench):
    bench.put(
        jobs={"1": "r", "2": "r", "3": "r"},
        active=["3", "2", "1"],
        claims={"1": "t:1", "2": "u:1", "3": "t:1"},
    )
    assert hand_back(bench, ("3", "t:1"), ("2", "t:1"), ("1", "t:1")) == 2
    assert bench.snapshot() == {
        "jobs": {"1": "r", "2": "r", "3": "r"},
        "active": ["2"],
        "waiting": ["3", "1"],
        "claims": {"2": "u:1"},
    }


@pytest.mark.parametrize("wrong", ["waiting", "stalling", "jobs"])
def test_after_a_refusal_the_job_is_active_and_goes_back_later(bench, wrong):
    state = {"jobs": {"1": "r"}, "active": ["1"], "claims": {"1": "t:1"}}
    bench.put(
        **{name: value for name, value in state.items() if name != wrong}, **{wrong: "of the wrong type"}
    )
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        hand_back(bench, ("1", "t:1"))
    assert bench.snapshot() == before
    bench.drop(wrong)
    if wrong in state:
        bench.put(**{wrong: state[wrong]})
    assert hand_back(bench, ("1", "t:1")) == 1


def test_in_a_long_active_a_call_looks_at_some_and_says_how_many(bench):
    ids = [str(n) for n in range(10)]
    bench.put(jobs=dict.fromkeys(ids, "r"), claims=dict.fromkeys(ids, "t:1"))
    bench.put(active=[f"other {n}" for n in range(60_000)] + ids)
    jobs = [(job_id, "t:1") for job_id in ids]
    assert bench.run(scripts.give_back, outbox_limit="0", jobs=jobs) == 4
    assert bench.snapshot()["waiting"] == ids[:4]
    assert set(bench.snapshot()["claims"]) == set(ids[4:])
