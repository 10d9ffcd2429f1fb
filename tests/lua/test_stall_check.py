"""The stall check in its two halves: who is queued again, who has to beat, and one check for all."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast


def requeue(
    bench: Bench, *, first: bool = True, limit: int = 100, interval_ms: int = 60_000
) -> tuple[int, int, list[str]]:
    passed, more, ids = bench.run(
        scripts.requeue_stalled,
        interval_ms=interval_ms,
        first="1" if first else "",
        limit=limit,
        outbox_limit="0",
    )
    return passed, more, ids


def mark(bench: Bench, start: int = 0, *, limit: int = 1000, interval_ms: int = 60_000) -> int:
    position: int = bench.run(scripts.mark_stalling, interval_ms=interval_ms, start=start, limit=limit)
    return position


def gate_ms(bench: Bench) -> int:
    """Return for how long the gate is held."""
    return int(bench.redis.pttl(bench.keys.stall_block))


def without_gate(bench: Bench) -> dict[str, Any]:
    state = bench.snapshot()
    assert state.pop("stallBlock") == "1"
    return state


def test_an_empty_queue_is_checked_and_its_gate_held(bench):
    assert requeue(bench) == (1, 0, [])
    assert bench.snapshot() == {"stallBlock": "1"}
    assert 59_000 < gate_ms(bench) <= 60_000


def test_while_another_check_holds_the_gate_nothing_happens(bench):
    bench.put(stallBlock="1", stalling={"1"}, active=["1"], jobs={"1": "r"}, claims={"1": "t:1"})
    before = bench.snapshot()
    assert requeue(bench) == (0, 0, [])
    assert bench.snapshot() == before


def test_of_two_checks_at_once_one_passes(bench):
    assert [requeue(bench)[0] for _ in range(2)] == [1, 0]


def test_a_check_goes_on_behind_its_own_gate(bench):
    bench.put(stallBlock="1", stalling={"1"}, active=["1"], jobs={"1": "r"})
    assert requeue(bench, first=False) == (1, 0, ["1"])


def test_a_silent_job_goes_to_the_back_with_its_count_unclaimed(bench):
    """So a late outcome is refused, and deliveries go on counting."""
    bench.put(
        stalling={"1"},
        active=["2", "1"],
        waiting=["9"],
        jobs={"1": "r", "2": "r"},
        claims={"1": "t:3", "2": "t:1"},
    )
    assert requeue(bench) == (1, 0, ["1"])
    assert without_gate(bench) == {
        "active": ["2"],
        "waiting": ["1", "9"],
        "jobs": {"1": "r", "2": "r"},
        "claims": {"1": ":3", "2": "t:1"},
    }
    assert bench.heard() == []


def test_a_job_of_a_node_worker_has_no_claim_and_gets_none(bench):
    bench.put(stalling={"1"}, active=["1"], jobs={"1": "r"})
    assert requeue(bench) == (1, 0, ["1"])
    assert without_gate(bench) == {"waiting": ["1"], "jobs": {"1": "r"}}


def test_a_job_that_is_not_active_any_more_is_forgotten(bench):
    bench.put(
        stalling={"1", "2"}, jobs={"1": "r", "2": "r"}, succeeded={"1"}, waiting=["2"], claims={"2": "t:1"}
    )
    assert requeue(bench) == (1, 0, [])
    assert without_gate(bench) == {
        "jobs": {"1": "r", "2": "r"},
        "succeeded": {"1"},
        "waiting": ["2"],
        "claims": {"2": "t:1"},
    }


def test_an_id_without_a_record_is_dropped(bench):
    """In bee-queue it goes round for ever."""
    bench.put(stalling={"g", "1"}, active=["g", "1"], jobs={"1": "r"}, claims={"g": "t:1", "1": "t:1"})
    assert requeue(bench) == (1, 0, ["1"])
    assert without_gate(bench) == {"waiting": ["1"], "jobs": {"1": "r"}, "claims": {"1": ":1"}}


def test_an_id_that_is_active_twice_is_queued_once(bench):
    bench.put(stalling={"1"}, active=["1", "2", "1"], jobs={"1": "r"})
    assert requeue(bench) == (1, 0, ["1"])
    assert without_gate(bench) == {"active": ["2"], "waiting": ["1"], "jobs": {"1": "r"}}


def test_a_call_looks_at_a_page_and_says_whether_there_is_more(bench):
    """A long script call would block every client."""
    ids = [str(n) for n in range(25)]
    bench.put(stalling=set(ids), active=ids, jobs=dict.fromkeys(ids, "r"), claims=dict.fromkeys(ids, "t:1"))
    pages, more, first = [], 1, True
    while more:
        passed, more, page = requeue(bench, first=first, limit=10)
        assert passed == 1
        pages.append(page)
        first = False
    assert [len(page) for page in pages] == [10, 10, 5]
    assert sorted(job_id for page in pages for job_id in page) == sorted(ids)
    state = without_gate(bench)
    assert sorted(state.pop("waiting")) == sorted(ids)
    assert state == {"jobs": dict.fromkeys(ids, "r"), "claims": dict.fromkeys(ids, ":1")}


def test_a_page_of_ids_that_are_not_active_is_passed_over(bench):
    bench.put(stalling={f"gone {n}" for n in range(20)} | {"1"}, active=["1"], jobs={"1": "r"})
    found, more, first = [], 1, True
    for _ in range(10):
        _, more, page = requeue(bench, first=first, limit=5)
        found, first = found + page, False
        if not more:
            break
    assert (found, more) == (["1"], 0)
    assert without_gate(bench) == {"waiting": ["1"], "jobs": {"1": "r"}}


def test_the_longer_active_is_the_fewer_ids_a_call_looks_for(bench):
    """Each is searched for, so a call stays short."""
    ids = [str(n) for n in range(2500)]
    bench.put(stalling=set(ids), active=ids, jobs=dict.fromkeys(ids, "r"))
    pages = []
    more = 1
    while more:
        _, more, page = requeue(bench, first=not pages, limit=1000)
        pages.append(len(page))
    assert pages[0] == 100
    assert pages == sorted(pages)
    assert max(pages) <= 1000
    assert sum(pages) == len(without_gate(bench)["waiting"]) == 2500


@pytest.mark.parametrize("wrong", ["waiting", "jobs", "claims"])
def test_after_a_refusal_the_ids_are_active_and_still_unchecked(bench, wrong):
    state = {"stalling": {"1"}, "active": ["1"], "jobs": {"1": "r"}, "claims": {"1": "t:1"}}
    bench.put(
        **{name: value for name, value in state.items() if name != wrong}, **{wrong: "of the wrong type"}
    )
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        requeue(bench)
    assert without_gate(bench) == before
    bench.drop(wrong)
    if wrong in state:
        bench.put(**{wrong: state[wrong]})
    assert requeue(bench, first=False) == (1, 0, ["1"])


@pytest.mark.parametrize("interval_ms", [0, -1])
def test_an_interval_of_nothing_is_refused(bench, interval_ms):
    with pytest.raises(redis.ResponseError, match="invalid expire"):
        requeue(bench, interval_ms=interval_ms)
    with pytest.raises(redis.ResponseError, match="invalid expire"):
        mark(bench, interval_ms=interval_ms)
    assert bench.snapshot() == {}


def test_every_active_id_is_asked_for_a_sign_of_life(bench):
    bench.put(active=["3", "2", "1"], stalling={"0"})
    assert mark(bench) == -1
    assert without_gate(bench) == {"active": ["3", "2", "1"], "stalling": {"0", "1", "2", "3"}}
    assert bench.heard() == []


def test_with_nothing_active_nobody_is_asked(bench):
    assert mark(bench) == -1
    assert bench.snapshot() == {"stallBlock": "1"}


def test_marking_holds_the_gate_for_a_whole_interval_from_now(bench):
    """A check that comes sooner would not have left a healthy worker the time to beat."""
    bench.put(active=["1"])
    bench.redis.set(bench.keys.stall_block, "1", px=1000)
    mark(bench)
    assert 59_000 < gate_ms(bench) <= 60_000


def test_marking_goes_page_by_page(bench):
    ids = [str(n) for n in range(25)]
    bench.put(active=ids)
    positions = [mark(bench, limit=10)]
    while positions[-1] != -1:
        assert len(bench.snapshot()["stalling"]) == positions[-1]
        positions.append(mark(bench, positions[-1], limit=10))
    assert positions == [10, 20, -1]
    assert bench.snapshot()["stalling"] == set(ids)


def test_a_page_that_ends_with_the_list_precedes_an_empty_one(bench):
    bench.put(active=["2", "1"])
    assert mark(bench, limit=2) == 2
    assert mark(bench, 2, limit=2) == -1
    assert bench.snapshot()["stalling"] == {"1", "2"}


def test_two_checks_take_a_dead_workers_job_but_no_living_ones(bench):
    bench.put(
        active=["dead", "alive"], jobs={"dead": "r", "alive": "r"}, claims={"dead": "t:1", "alive": "u:1"}
    )
    assert requeue(bench) == (1, 0, [])
    mark(bench)
    bench.redis.srem(bench.keys.stalling, "alive")
    bench.drop("stallBlock")  # the interval is over
    assert requeue(bench) == (1, 0, ["dead"])
    mark(bench)
    assert without_gate(bench) == {
        "active": ["alive"],
        "waiting": ["dead"],
        "stalling": {"alive"},
        "jobs": {"dead": "r", "alive": "r"},
        "claims": {"dead": ":1", "alive": "u:1"},
    }
