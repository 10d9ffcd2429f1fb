"""What acts on many jobs at once: pages of ids, retries, jobs run early, jobs withdrawn."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast
LISTS = ("waiting", "active")


def page(bench: Bench, state: str, *anchors: str, count: int = 3, offset: int = 0, due: str = "0") -> Any:
    return bench.run(
        scripts.page_ids,
        state=state,
        count=count,
        offset=offset,
        due=due,
        anchors=[(anchor,) for anchor in anchors],
    )


@pytest.mark.parametrize("state", LISTS)
def test_a_list_is_read_in_the_order_in_which_it_runs(bench, state):
    bench.put(**{state: list("gfedcba")})
    assert page(bench, state) == [0, ["a", "b", "c"]]
    assert page(bench, state, "c", "b", "a", offset=3) == [3, ["d", "e", "f"]]
    assert page(bench, state, "f", "e", "d", offset=6) == [6, ["g"]]
    assert page(bench, state, "g", "f", "e", offset=7) == [7, []]
    assert bench.heard() == []


@pytest.mark.parametrize("state", LISTS)
def test_a_page_begins_behind_the_last_one_that_is_there(bench, state):
    bench.put(**{state: list("gfedcba")})
    bench.redis.rpop(bench.key(state), 2)
    assert page(bench, state, "c", "b", "a", offset=3) == [1, ["d", "e", "f"]]
    bench.redis.lrem(bench.key(state), 0, "d")
    assert page(bench, state, "d", "c", offset=4) == [1, ["e", "f", "g"]], "the next to last is there"
    bench.redis.rpush(bench.key(state), "z", "y")
    assert page(bench, state, "c", offset=3) == [3, ["e", "f", "g"]], "some were put in front"
    assert page(bench, state, "a", "b", offset=3) == [0, ["y", "z", "c"]], "all that was read is gone"


def test_an_anchor_far_from_its_place_is_searched(bench):
    ids = [str(n) for n in range(5000)]
    bench.put(waiting=ids[::-1])
    bench.redis.rpop(bench.key("waiting"), 2000)
    assert page(bench, "waiting", "3999", "3998", offset=4000) == [2000, ["4000", "4001", "4002"]]


def test_delayed_jobs_are_read_with_their_times(bench):
    bench.put(delayed={"a": 1, "b": 2, "c": 2, "d": 2, "e": 3})
    assert page(bench, "delayed") == [0, ["a", "1", "b", "2", "c", "2"]]
    assert page(bench, "delayed", "c", "b", "a", due="2") == [3, ["d", "2", "e", "3"]]
    bench.redis.zrem(bench.key("delayed"), "c")
    assert page(bench, "delayed", "c", "b", due="2") == [2, ["d", "2", "e", "3"]]
    bench.redis.zrem(bench.key("delayed"), "a", "b")
    assert page(bench, "delayed", "c", "b", "a", due="2") == [0, ["d", "2", "e", "3"]]
    assert page(bench, "delayed", "e", due="3") == [2, []]


def retry(bench: Bench, *jobs: tuple[str, str, str], limit: str = "0") -> Any:
    return bench.run(scripts.retry_jobs, outbox_limit=limit, jobs=jobs)


def test_failed_jobs_wait_again_without_claim_and_result(bench):
    bench.put(
        failed={"1", "2", "3"},
        jobs={"1": "one", "2": "other", "3": "three", "4": "four"},
        claims={"1": ":3"},
        results={"1": "f", "3": "f"},
    )
    jobs = [("1", "one", "ONE"), ("2", "two", "TWO"), ("4", "four", "FOUR"), ("5", "five", "FIVE")]
    assert retry(bench, *jobs, limit="10") == [1, 0, 0, 0]
    assert bench.snapshot() == {
        "failed": {"2", "3"},
        "waiting": ["1"],
        "jobs": {"1": "ONE", "2": "other", "3": "three", "4": "four"},
        "results": {"3": "f"},
        "outbox": [{"id": "1"}],
    }


def test_a_retry_sent_again_says_that_it_was_done(bench):
    bench.put(failed={"1"}, jobs={"1": "one"})
    assert retry(bench, ("1", "one", "ONE")) == [1]
    assert retry(bench, ("1", "one", "ONE")) == [1]
    assert bench.snapshot() == {"waiting": ["1"], "jobs": {"1": "ONE"}}


def test_jobs_run_early_keep_their_order(bench):
    bench.put(delayed={"a": 5, "b": 6, "ghost": 7}, waiting=["w"], jobs={"a": "r", "b": "r", "w": "r"})
    assert bench.run(scripts.run_jobs, ids=[("a",), ("w",), ("b",), ("ghost",), ("a",)]) == [1, 0, 1, 0, 0]
    assert bench.snapshot() == {"waiting": ["b", "a", "w"], "jobs": {"a": "r", "b": "r", "w": "r"}}


def withdraw(
    bench: Bench, state: str, *jobs: tuple[str, str, str, str], start: int = 0, limit: str = "0"
) -> Any:
    return bench.run(
        scripts.withdraw_jobs,
        state=state,
        start=start,
        span=len(jobs),
        keep_ms=60_000,
        memory_ms=60_000,
        events=bench.keys.events,
        outbox_limit=limit,
        jobs=jobs,
    )


def removal(job_id: str) -> tuple[str, str, str, str]:
    return job_id, "r", "", ""


def cancellation(job_id: str) -> tuple[str, str, str, str]:
    return job_id, "r", f"1:c{job_id}", f"event {job_id}"


def put_into(bench: Bench, state: str, *ids: str) -> None:
    inside: Any = {job_id: n for n, job_id in enumerate(ids)} if state == "delayed" else list(reversed(ids))
    bench.put(**{state: inside}, jobs=dict.fromkeys(ids, "r"))


@pytest.mark.parametrize("state", [*LISTS, "delayed"])
def test_removed_jobs_are_nowhere_and_others_stay(bench, state):
    put_into(bench, state, "a", "b", "c", "d", "e")
    bench.put(claims={"b": ":1"}, results={"b": "old"}, stalling={"d", "e"}, succeeded={"b"})
    assert withdraw(bench, state, removal("b"), removal("d"), removal("x"), limit="9") == [1, 1, 0]
    after = bench.snapshot()
    assert after.pop("outbox") == [{"id": i, "state": "cancelled", "record": "r"} for i in "bd"]
    left = {"a": 0, "c": 2, "e": 4} if state == "delayed" else ["e", "c", "a"]
    assert after == {state: left, "jobs": dict.fromkeys("ace", "r"), "stalling": {"e"}}
    assert bench.heard() == []


@pytest.mark.parametrize("state", [*LISTS, "delayed"])
def test_cancelled_jobs_are_told_and_kept_for_a_while(bench, state):
    put_into(bench, state, "a", "b")
    bench.put(claims={"b": "token.0:1"} if state == "active" else {"b": ":1"})
    assert withdraw(bench, state, cancellation("b")) == [1]
    assert bench.heard() == [("events", "event b")]
    ((job_id, (_due, text)),) = bench.passing().items()
    assert (job_id, text) == ("b", "1:cb")
    assert ("token.0:1" in bench.snapshot().get("cancelled", {})) is (state == "active")


def test_a_job_that_changed_or_runs_is_left_alone(bench):
    put_into(bench, "waiting", "a", "b", "c")
    bench.put(active=["c"], claims={"c": "token.0:1"})
    bench.redis.hset(bench.key("jobs"), "a", "newer")
    before = bench.snapshot()
    assert withdraw(bench, "waiting", cancellation("a"), cancellation("c")) == [0, 0]
    assert bench.snapshot() == before
    assert bench.heard() == []


@pytest.mark.real_redis("so long a list takes seconds there")
@pytest.mark.parametrize("moved", [0, 100, 5000])
@pytest.mark.parametrize("start", [100, 15_000])
def test_jobs_in_the_middle_of_a_long_list_are_found(bench, start, moved):
    """Also where a worker has taken many in front of them."""
    ids = [str(n) for n in range(20_000)]
    put_into(bench, "waiting", *ids)
    gone = min(moved, start)
    if gone:
        bench.redis.rpop(bench.key("waiting"), gone)
    chosen = ids[start : start + 20 : 2]
    assert withdraw(bench, "waiting", *map(removal, chosen), start=start) == [1] * 10
    left = [job_id for job_id in ids[gone:] if job_id not in chosen]
    assert bench.redis.lrange(bench.key("waiting"), 0, -1) == left[::-1]


@pytest.mark.real_redis("so long a list takes seconds there")
def test_a_long_search_is_left_for_another_call(bench):
    ids = [str(n) for n in range(200_000)]
    put_into(bench, "waiting", *ids)
    chosen = ids[150_000:150_010]
    facts = withdraw(bench, "waiting", *map(removal, chosen), start=0)
    assert facts == [1, 1]
    assert withdraw(bench, "waiting", *map(removal, chosen[2:]), start=150_000) == [1] * 8


@pytest.mark.parametrize("wrong", ["stalling", "claims", "results", "cancelled"])
def test_with_a_key_of_the_wrong_type_nothing_is_withdrawn(bench, wrong):
    put_into(bench, "waiting", "a")
    bench.put(**{wrong: "of the wrong type"})
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        withdraw(bench, "waiting", cancellation("a"))
    assert bench.snapshot() == before
