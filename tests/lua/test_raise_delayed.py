"""Raising due jobs: how many, in what order, and when to look again."""

from __future__ import annotations

import pytest
import redis

from beeq.redis import scripts
from tests.lua.bench import Bench

FAR_MS = 4_000_000_000_000


def raise_due(bench: Bench, *, debounce_ms: int = 0, limit: int = 1000) -> tuple[int, int]:
    """Return how many were raised, and when to look again."""
    earliest = bench.now_ms()
    raised, next_ms, now_ms, is_any_hidden = bench.run(
        scripts.raise_delayed, debounce_ms=debounce_ms, limit=limit
    )
    assert earliest <= int(now_ms) <= bench.now_ms()
    assert is_any_hidden == 0
    return raised, int(next_ms)


def test_without_delayed_jobs_there_is_nothing_to_look_for(bench):
    assert raise_due(bench) == (0, -1)
    assert bench.snapshot() == {}


def test_due_jobs_go_to_the_back_the_earliest_first(bench):
    bench.put(delayed={"c": 3000, "a": 1000, "b": 2000}, waiting=["y", "x"])
    assert raise_due(bench) == (3, -1)
    assert bench.snapshot() == {"waiting": ["c", "b", "a", "y", "x"]}


def test_of_equal_due_times_the_first_id_by_text_is_raised_first(bench):
    bench.put(delayed={"b": 1000, "a": 1000})
    raise_due(bench)
    assert bench.snapshot() == {"waiting": ["b", "a"]}


def test_due_now_is_due_and_due_later_is_not(bench):
    now_ms = bench.now_ms()
    bench.put(delayed={"now": now_ms, "later": now_ms + 60_000, "zero": 0})
    assert raise_due(bench) == (2, now_ms + 60_000)
    assert bench.snapshot() == {"waiting": ["now", "zero"], "delayed": {"later": now_ms + 60_000}}


def test_only_one_page_is_raised_and_the_next_time_has_passed(bench):
    bench.put(delayed={f"{n:02}": 1000 + n for n in range(10)})
    assert raise_due(bench, limit=4) == (4, 1004)
    assert bench.snapshot()["waiting"] == ["03", "02", "01", "00"]
    assert raise_due(bench, limit=4) == (4, 1008)
    assert raise_due(bench, limit=4) == (2, -1)
    assert bench.snapshot() == {"waiting": [f"{n:02}" for n in range(9, -1, -1)]}


def test_a_call_of_the_largest_size_is_one_step(bench):
    bench.put(delayed={str(n): n for n in range(1500)})
    assert raise_due(bench, limit=1000) == (1000, 1000)
    state = bench.snapshot()
    assert (len(state["waiting"]), len(state["delayed"])) == (1000, 500)


@pytest.mark.parametrize(
    ("debounce_ms", "next_ms"),
    [
        (0, FAR_MS),
        (99, FAR_MS),
        (100, FAR_MS + 100),
        (199, FAR_MS + 100),
        (250, FAR_MS + 250),
        (10**6, FAR_MS + 1000),
    ],
)
def test_the_next_look_is_at_the_last_due_time_near_the_first(bench, debounce_ms, next_ms):
    bench.put(delayed={"a": FAR_MS, "b": FAR_MS + 100, "c": FAR_MS + 250, "d": FAR_MS + 1000})
    assert raise_due(bench, debounce_ms=debounce_ms) == (0, next_ms)
    assert "waiting" not in bench.snapshot()


def test_the_debounce_counts_from_the_first_that_is_left(bench):
    bench.put(delayed={"due": 1000, "a": FAR_MS, "b": FAR_MS + 50})
    assert raise_due(bench, debounce_ms=100) == (1, FAR_MS + 50)


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.999])
def test_a_fraction_of_a_millisecond_is_looked_at_after_it(bench, fraction):
    """A foreign producer may write one."""
    bench.redis.zadd(bench.keys.delayed, {"a": FAR_MS + fraction})
    assert raise_due(bench) == (0, FAR_MS + 1)


@pytest.mark.parametrize("due_ms", [10**14, 10**15, 2**53])
def test_the_next_time_is_a_whole_number_however_large(bench, due_ms):
    bench.put(delayed={"a": due_ms})
    assert raise_due(bench) == (0, due_ms)


@pytest.mark.parametrize("score", ["inf", "1e308", "1.7976931348623157e308", "1e16"])
@pytest.mark.parametrize("debounce_ms", [0, 1000, 2**53 - 1])
def test_what_is_never_due_is_looked_for_at_a_finite_time(bench, score, debounce_ms):
    bench.redis.zadd(bench.keys.delayed, {"never": score, "due": 1000})
    assert raise_due(bench, debounce_ms=debounce_ms) == (1, 2**53)
    assert raise_due(bench, debounce_ms=debounce_ms) == (0, 2**53)
    bench.redis.zadd(bench.keys.delayed, {"far": FAR_MS})
    assert raise_due(bench, debounce_ms=0) == (0, FAR_MS)
    assert bench.redis.zscore(bench.keys.delayed, "never") == float(score)
    bench.drop("delayed")


@pytest.mark.parametrize("score", ["-inf", "-1e308", "-0.5"])
def test_below_zero_nothing_is_due_and_nothing_is_hidden(bench, score):
    bench.redis.zadd(bench.keys.delayed, {"odd": score})
    assert raise_due(bench) == (0, -1)
    bench.redis.zadd(bench.keys.delayed, {"due": 1000, "far": FAR_MS})
    assert raise_due(bench) == (1, FAR_MS)
    bench.drop("delayed")


def test_ids_are_raised_whatever_they_consist_of(bench):
    odd_ids = [b"", b"\xff\x00\r\n", b"no record", "ä".encode()]
    bench.redis.zadd(bench.keys.delayed, dict.fromkeys(odd_ids, 1000))
    assert raise_due(bench) == (4, -1)
    waiting = bench.redis.execute_command("LRANGE", bench.keys.waiting, 0, -1, NEVER_DECODE=True)
    assert sorted(waiting) == sorted(odd_ids)
    bench.drop("waiting")


def test_a_negative_time_is_nobodys_and_stays(bench):
    bench.put(delayed={"odd": -5, "due": 1000, "far": FAR_MS})
    assert raise_due(bench) == (1, FAR_MS)
    assert bench.snapshot() == {"waiting": ["due"], "delayed": {"odd": -5, "far": FAR_MS}}


def test_records_and_everything_else_stay_as_they_are(bench):
    bench.put(jobs={"a": "record"}, delayed={"a": 1000}, claims={"a": ":1"}, id="1")
    raise_due(bench)
    assert bench.snapshot() == {"jobs": {"a": "record"}, "waiting": ["a"], "claims": {"a": ":1"}, "id": "1"}
    assert bench.heard() == []


def test_waiting_of_the_wrong_type_leaves_the_jobs_delayed(bench):
    bench.put(delayed={"a": 1000}, waiting="of the wrong type")
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        raise_due(bench)
    assert bench.snapshot() == before


def test_that_ids_are_hidden_is_said_and_they_stay(bench):
    bench.put(delayed={"a": 1000}, hidden=["y", "x"])
    assert bench.run(scripts.raise_delayed, debounce_ms=0, limit=10)[::3] == [1, 1]
    assert bench.snapshot() == {"waiting": ["a"], "hidden": ["y", "x"]}
