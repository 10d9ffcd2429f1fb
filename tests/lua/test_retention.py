"""Ended jobs that are dropped in time: when they are noted, which go, and what a note must not do."""

from __future__ import annotations

from typing import Any

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench, End

pytestmark = [pytest.mark.fast, pytest.mark.real_redis("fakeredis has no redis.sha1hex")]
DAY_MS = 24 * 3600 * 1000
STATES = ("succeeded", "failed")
SEEN = {"succeeded": "seenSuccess", "failed": "seenFailure"}


def settle(bench: Bench, *ends: End, drop: str = "later") -> Any:
    """Record outcomes, of workers that drop ended jobs ``later`` unless said otherwise."""
    facts, *_ = bench.run(
        scripts.exchange,
        events="",
        earlier_delayed=bench.keys.earlier_delayed,
        keep_ms=60_000,
        drop_succeeded=drop,
        drop_failed=drop,
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


def end(bench: Bench, state: str, *ids: str, record: str | None = None) -> None:
    """Let a worker run the jobs and record how they ended."""
    bench.put(active=list(ids), claims=dict.fromkeys(ids, "t:1"))
    bench.put(jobs=dict.fromkeys(ids, "created"))
    ends = [End(id_, state, keep="5:s1", record=record or f"{id_} {state}") for id_ in ids]
    assert settle(bench, *ends) == [1] * len(ids)


def age(bench: Bench, name: str, by_ms: int) -> None:
    """Make the notes older, by a little more, and keep their marks."""
    notes: Any = bench.redis.zrange(bench.key(name), 0, -1, withscores=True)
    for job_id, score in notes:
        bench.redis.zadd(bench.key(name), {job_id: score - by_ms - 5})


def drop(bench: Bench, state: str, **more: Any) -> list[int]:
    arguments = {
        "age_ms": "", "count": "", "is_own": "", "limit": 250, "max_bytes": 1_000_000, "outbox_limit": "0",
    } | more  # fmt: skip
    reply: list[int] = bench.run(scripts.drop_finished, state=state, **arguments)
    return reply


def see(bench: Bench, state: str, cursor: str = "0", count: int = 100) -> Any:
    return bench.run(scripts.note_finished, state=state, cursor=cursor, count=count)


def noted(bench: Bench, name: str) -> set[str]:
    return set(bench.redis.zrange(bench.key(name), 0, -1))  # type: ignore[arg-type]


# Noting.


@pytest.mark.parametrize("state", STATES)
def test_an_end_is_noted_by_redis_clock(bench, state):
    before_ms = bench.now_ms()
    end(bench, state, "1", "2")
    after = bench.snapshot()
    assert set(after) == {"jobs", state, "results", f"{state}At"}
    assert all(before_ms <= at <= bench.now_ms() for at in after[f"{state}At"].values())


@pytest.mark.parametrize("drops", ["", "1"])
def test_who_keeps_all_or_drops_at_once_notes_nothing(bench, drops):
    bench.put(active=["1"], claims={"1": "t:1"}, jobs={"1": "r"})
    assert settle(bench, End("1"), drop=drops) == [1]
    assert "succeededAt" not in bench.snapshot()


def test_retries_and_refused_outcomes_note_nothing(bench):
    bench.put(active=["1", "2"], claims={"1": "t:1", "2": "other:1"}, jobs={"1": "r", "2": "r"})
    assert settle(bench, End("1", "retrying"), End("2")) == [1, 0]
    assert not {"succeededAt", "failedAt"} & set(bench.snapshot())


def test_a_note_that_is_refused_costs_no_job(bench):
    bench.put(succeededAt="text")
    end(bench, "succeeded", "1")
    assert bench.snapshot()["succeeded"] == {"1"}


def test_an_unreadable_record_that_stays_is_noted(bench):
    bench.put(active=["1"], claims={"1": "t:1"}, jobs={"1": "no record"})
    assert settle(bench, End("1", "failed", record="")) == [1]
    age(bench, "failedAt", DAY_MS)
    assert drop(bench, "failed", age_ms=DAY_MS) == [1, 0]
    assert bench.snapshot() == {}


# Dropping.


@pytest.mark.parametrize("state", STATES)
def test_what_ended_too_long_ago_goes_with_all_it_has(bench, state):
    end(bench, state, "old", "older")
    bench.put(attempts={"old": "line"}, stalling={"old"})
    age(bench, f"{state}At", DAY_MS)
    end(bench, state, "new")
    assert drop(bench, state, age_ms=DAY_MS) == [2, 0]
    after = bench.snapshot()
    assert after.pop(f"{state}At").keys() == {"new"}
    assert after == {"jobs": {"new": f"new {state}"}, state: {"new"}, "results": {"new": "5:s1"}}
    assert drop(bench, state, age_ms=DAY_MS) == [0, 0]
    assert bench.heard() == []


@pytest.mark.parametrize("state", STATES)
def test_of_too_many_the_oldest_go(bench, state):
    for n in range(5):
        age(bench, f"{state}At", 10)
        end(bench, state, str(n))
    assert drop(bench, state, count=2) == [3, 0]
    assert bench.snapshot()[state] == {"3", "4"}
    assert drop(bench, state, count=2, age_ms=DAY_MS) == [0, 0]
    assert drop(bench, state, count=0) == [2, 0]
    assert bench.snapshot() == {}


def test_neither_age_nor_count_drops_nothing(bench):
    end(bench, "succeeded", "1")
    age(bench, "succeededAt", 400 * DAY_MS)
    assert drop(bench, "succeeded") == [0, 0]


def test_a_call_looks_at_so_many_and_says_that_there_are_more(bench):
    end(bench, "succeeded", *map(str, range(25)))
    age(bench, "succeededAt", DAY_MS)
    replies = [drop(bench, "succeeded", age_ms=DAY_MS, limit=10) for _ in range(3)]
    assert replies == [[10, 1], [10, 1], [5, 0]]


def test_a_call_drops_so_many_bytes_but_one_job_at_least(bench):
    for n in range(3):
        end(bench, "succeeded", str(n), record="x" * 6000)
        age(bench, "succeededAt", DAY_MS)
    assert drop(bench, "succeeded", age_ms=DAY_MS, max_bytes=100) == [1, 1]
    assert drop(bench, "succeeded", age_ms=DAY_MS, max_bytes=100_000) == [2, 0]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("size", [10, 5000])
@pytest.mark.parametrize(
    "place",
    ["record", "gone", "other set", "waiting", "hidden", "active", "delayed", "claimed", "far waiting"],
)
def test_a_job_that_is_not_as_it_ended_stays(bench, state, size, place):
    """The id was retried, saved again, removed or is run by others since: an old note says nothing of it."""
    record = "x" * size
    end(bench, state, "1", record=record)
    age(bench, f"{state}At", DAY_MS)
    other = "failed" if state == "succeeded" else "succeeded"
    match place:
        case "record":
            bench.redis.hset(bench.key("jobs"), "1", record + "y")
        case "gone":
            bench.drop("jobs")
        case "other set":
            bench.drop(state)
            bench.put(**{other: {"1"}})
        case "far waiting":
            bench.put(waiting=[*(f"w{n}" for n in range(5000)), "1"])
        case "delayed":
            bench.put(delayed={"1": 5000})
        case "claimed":
            bench.put(claims={"1": "t:2"})
        case _:
            bench.put(**{place: ["1"]})
    before = bench.snapshot()
    assert drop(bench, state, age_ms=DAY_MS) == [0, 0]
    del before[f"{state}At"]
    assert bench.snapshot() == before


def test_a_claim_without_a_worker_is_none(bench):
    end(bench, "failed", "1")
    bench.put(claims={"1": ":2"})
    assert drop(bench, "failed", count=0) == [1, 0]
    assert bench.snapshot() == {}


def test_dropped_jobs_are_noted_for_the_mirror(bench):
    end(bench, "succeeded", "1", "2")
    bench.drop("results")
    bench.put(results={"1": "5:s1"})
    assert drop(bench, "succeeded", count=0, outbox_limit="100") == [2, 0]
    assert bench.snapshot()["outbox"] == [
        {"id": "1", "state": "succeeded", "record": "1 succeeded", "keep": "5:s1"},
        {"id": "2", "state": "succeeded", "record": "2 succeeded", "keep": ""},
    ]


def test_a_mirror_that_is_far_behind_comes_first(bench):
    end(bench, "succeeded", "1")
    for n in range(6):
        bench.redis.xadd(bench.key("outbox"), {"id": str(n)})
    assert drop(bench, "succeeded", count=0, outbox_limit="10") == [0, 0]
    assert drop(bench, "succeeded", count=0, outbox_limit="12") == [1, 0]


@pytest.mark.parametrize(
    "key", ["succeeded", "failed", "stalling", "results", "attempts", "claims", "delayed"]
)
def test_a_key_of_the_wrong_type_changes_nothing(bench, key):
    end(bench, "succeeded", "1")
    bench.drop(key)
    bench.put(**{key: "text"})
    before = bench.snapshot()
    with pytest.raises(Exception, match="WRONGTYPE"):
        drop(bench, "succeeded", count=0)
    assert bench.snapshot() == before


# What others have finished.


@pytest.mark.parametrize("state", STATES)
def test_what_nobody_noted_is_noted_when_it_is_seen(bench, state):
    end(bench, state, "own")
    bench.put(**{state: {"node", "ghost"}}, jobs={"node": "n"})
    before_ms = bench.now_ms()
    assert see(bench, state) == ["0", 1, 1]
    seen = bench.snapshot()[SEEN[state]]
    assert seen.keys() == {"node"}
    assert before_ms <= seen["node"] <= bench.now_ms()
    assert see(bench, state) == ["0", 0, 1]
    assert bench.snapshot()[SEEN[state]] == seen


def test_a_large_set_is_seen_in_pages(bench):
    ids = [f"job-{n}" for n in range(2000)]
    bench.put(failed=set(ids), jobs=dict.fromkeys(ids, "r"))
    cursor, pages = "0", 0
    while cursor != "0" or not pages:
        cursor, count, _missing = see(bench, "failed", cursor, 250)
        assert count < 400
        pages += 1
    assert noted(bench, "seenFailure") == set(ids)
    assert pages > 5


@pytest.mark.parametrize("state", STATES)
def test_seen_jobs_go_with_own_ones_in_one_order(bench, state):
    end(bench, state, "a")
    age(bench, f"{state}At", 3000)
    bench.put(**{state: {"b"}}, jobs={"b": "b"})
    see(bench, state)
    age(bench, SEEN[state], 2000)
    end(bench, state, "c")
    assert drop(bench, state, age_ms=2500) == [1, 0]
    assert bench.snapshot()[state] == {"b", "c"}
    assert drop(bench, state, count=1) == [1, 0]
    assert bench.snapshot()[state] == {"c"}


@pytest.mark.parametrize("state", STATES)
def test_own_retention_leaves_what_was_seen(bench, state):
    bench.put(**{state: {"node"}}, jobs={"node": "n"})
    see(bench, state)
    age(bench, SEEN[state], 400 * DAY_MS)
    end(bench, state, "own")
    assert drop(bench, state, count=1, age_ms=DAY_MS, is_own="1") == [0, 0]
    assert drop(bench, state, count=0, is_own="1") == [1, 0]
    assert bench.snapshot()["jobs"] == {"node": "n"}


def test_a_job_that_ended_here_since_was_not_seen_before(bench):
    end(bench, "failed", "1", record="same")
    age(bench, "failedAt", -1000)
    own = bench.redis.zscore(bench.keys.failed_at, "1")
    bench.redis.zadd(bench.keys.seen_failure, {"1": own - DAY_MS})
    assert drop(bench, "failed", age_ms=DAY_MS - 5000) == [0, 0]
    assert bench.snapshot()["failedAt"].keys() == {"1"}
    assert "seenFailure" not in bench.snapshot()


# Notes of what is gone.


@pytest.mark.parametrize("kind", ["own", "seen"])
@pytest.mark.parametrize("state", STATES)
def test_notes_of_jobs_that_are_gone_or_retried_are_swept(bench, state, kind):
    name = f"{state}At" if kind == "own" else SEEN[state]
    bench.put(**{name: {"kept": 1, "gone": 2, "retried": 3, "kept too": 4}})
    bench.put(
        **{state: {"kept", "gone", "kept too"}}, jobs=dict.fromkeys(["kept", "retried", "kept too"], "r")
    )
    start = bench.run(scripts.sweep_finished, state=state, kind=kind, start=0, count=3)
    assert start == 1
    assert bench.run(scripts.sweep_finished, state=state, kind=kind, start=start, count=3) == 0
    assert bench.snapshot()[name].keys() == {"kept", "kept too"}
    assert bench.run(scripts.sweep_finished, state=state, kind=kind, start=9, count=3) == 0


@pytest.mark.parametrize("state", STATES)
def test_who_removes_or_cleans_a_job_drops_its_note(bench, state):
    end(bench, state, "1", "2", "3")
    assert bench.run(scripts.remove_job, job_id="1", outbox_limit="0") == 1
    assert bench.run(scripts.clean_jobs, state=state, outbox_limit="0", jobs=[("2", f"2 {state}")]) == [1]
    assert noted(bench, f"{state}At") == {"3"}


def test_who_retries_a_job_drops_its_note(bench):
    end(bench, "failed", "1", "2", "3")
    assert bench.run(scripts.retry_job, job_id="1", seen="1 failed", record="r", outbox_limit="0") == 1
    assert bench.run(scripts.retry_jobs, outbox_limit="0", jobs=[("2", "2 failed", "r")]) == [1]
    assert noted(bench, "failedAt") == {"3"}


# Turns.


def begin(bench: Bench, kept: str) -> Any:
    return bench.run(scripts.begin_retention, kept=kept, interval_ms=10_000, notes_ms=DAY_MS)


def test_of_workers_that_keep_the_same_one_looks_in_an_interval(bench):
    assert [begin(bench, "a"), begin(bench, "a")] == [1, 0]
    assert 0 < bench.redis.pttl(bench.keys.retention) <= 10_000
    assert [begin(bench, "b"), begin(bench, "a")] == [1, 1]


def test_a_look_keeps_the_notes_alive_for_a_while(bench):
    names = ("succeededAt", "failedAt", "seenSuccess", "seenFailure")
    bench.put(**{name: {"1": 1} for name in names})
    assert begin(bench, "a") == 1
    assert all(0 < bench.redis.pttl(bench.key(name)) <= DAY_MS for name in names)


def test_who_comes_out_of_turn_keeps_them_alive_too(bench):
    assert begin(bench, "a") == 1
    bench.put(succeededAt={"1": 1})
    assert begin(bench, "a") == 0
    assert 0 < bench.redis.pttl(bench.key("succeededAt")) <= DAY_MS


def test_a_look_begins_whatever_stands_in_the_key(bench):
    bench.put(retention=["odd"])
    assert begin(bench, "a") == 1
