"""Cancelling a job wherever it is, and keeping the record of one that runs."""

from __future__ import annotations

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

KEEP_MS, MEMORY_MS = 600_000, 60_000
OTHERS = {"jobs": {"x": "r"}, "claims": {"x": "t:9"}}


def cancel(bench: Bench, job_id: str = "1") -> object:
    return bench.run(
        scripts.cancel_job,
        job_id=job_id,
        keep="5:ccancelled",
        keep_ms=KEEP_MS,
        memory_ms=MEMORY_MS,
        events=bench.keys.events,
        message="message",
        outbox_limit="0",
    )


def assert_only_the_outcome_is_left(bench: Bench, earliest_ms: int) -> None:
    latest_ms = bench.now_ms()
    due_ms, text = bench.passing()["1"]
    assert earliest_ms + KEEP_MS <= due_ms <= latest_ms + KEEP_MS
    assert text == "5:ccancelled"
    state = bench.snapshot()
    for name in ("evenResults", "oddResults", "cancelled"):
        state.pop(name, None)
    for name, members in OTHERS.items():
        assert state.pop(name) == members
    assert set(state) <= {"waiting", "active", "stalling"}
    for members in state.values():
        assert set(members) == {"x"}


@pytest.mark.parametrize(
    "place",
    [
        {"waiting": ["x", "1"]},
        {"delayed": {"1": 5000}},
        {"waiting": ["1", "x", "1"], "failed": {"1"}},  # after a Node peer's manual retry
        {"waiting": ["1"], "claims": {"1": ":2"}},
        {},  # in no list at all: stranded by a Node process that died
    ],
    ids=lambda place: "-".join(place) or "nowhere",
)
def test_a_job_that_has_not_ended_is_gone_but_for_its_outcome(bench, place):
    bench.put(**OTHERS)
    bench.put(jobs={"1": "r"}, **place)
    earliest_ms = bench.now_ms()
    assert cancel(bench) == 1
    assert_only_the_outcome_is_left(bench, earliest_ms)
    assert bench.heard() == [("events", "message")]
    assert bench.redis.exists(bench.keys.cancelled) == 0


def test_who_runs_it_is_told_at_once_and_can_look_it_up(bench):
    bench.put(**OTHERS)
    bench.put(jobs={"1": "r"}, active=["x", "1"], stalling={"x", "1"}, claims={"1": "t:2"})
    earliest_ms = bench.now_ms()
    bench.put(cancelled={"old:1": earliest_ms - MEMORY_MS - 1000, "late:1": earliest_ms - 1000})
    with bench.redis.pubsub() as worker:
        worker.subscribe(bench.keys.cancelled)
        assert worker.get_message(timeout=5) is not None
        assert cancel(bench) == 1
        message = worker.get_message(timeout=5)
        assert message is not None
        assert message["data"] == "t:2"
    cancelled = bench.snapshot()["cancelled"]
    assert cancelled.keys() == {"late:1", "t:2"}
    assert earliest_ms <= cancelled["t:2"] <= bench.now_ms()
    assert 0 < bench.redis.pttl(bench.keys.cancelled) <= MEMORY_MS
    assert_only_the_outcome_is_left(bench, earliest_ms)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"jobs": {"1": "r"}, "succeeded": {"1"}, "results": {"1": "5:s1"}},
        {"jobs": {"1": "r"}, "failed": {"1"}},
        {"waiting": ["1"]},  # a ghost: it has no record, and no worker will run it
    ],
    ids=["unknown", "succeeded", "failed", "ghost"],
)
def test_a_job_that_has_ended_or_never_was_is_left_alone(bench, state):
    bench.put(**state)
    assert cancel(bench) == 0
    assert bench.snapshot() == state
    assert bench.heard() == []


@pytest.mark.parametrize("key", ["results", "evenResults", "oddResults", "cancelled"])
def test_a_wrong_typed_key_is_met_before_a_job_leaves_its_list(bench, key):
    bench.put(jobs={"1": "r"}, active=["1"], claims={"1": "t:1"})
    bench.put(**{key: "text"})
    with pytest.raises(Exception, match="WRONGTYPE"):
        cancel(bench)
    state = bench.snapshot()
    assert (state["active"], state["jobs"], state["claims"]) == (["1"], {"1": "r"}, {"1": "t:1"})


def test_a_record_is_kept_while_the_claim_stands(bench):
    state = {"jobs": {"1": "old", "x": "r"}, "claims": {"1": "t:1"}, "active": ["1"]}
    bench.put(**state)
    assert bench.run(scripts.keep_record, job_id="1", claim="t:1", record="new") == 1
    assert bench.snapshot() == state | {"jobs": {"1": "new", "x": "r"}}
    assert bench.heard() == []


@pytest.mark.parametrize(
    "state",
    [
        {"jobs": {"1": "old"}, "claims": {"1": "other:2"}},
        {"jobs": {"1": "old"}, "waiting": ["1"]},
        {"claims": {"1": "t:1"}},
    ],
    ids=["another has it", "it was given back", "it was removed"],
)
def test_a_record_of_someone_elses_job_is_not_touched(bench, state):
    bench.put(**state)
    assert bench.run(scripts.keep_record, job_id="1", claim="t:1", record="new") == 0
    assert bench.snapshot() == state
