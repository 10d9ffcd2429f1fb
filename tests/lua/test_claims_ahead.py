"""exchange: jobs claimed ahead; return_overdue: those that have not begun in time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

AHEAD_MS = 50


def call(bench: Bench, free: int, ahead: int, **changed: Any) -> tuple[list[str], list[str]]:
    """Ask for jobs; return the ids of those for free places, and of those claimed ahead."""
    asked = {"free": free, "wanted_ahead": ahead, "ahead_ms": AHEAD_MS}
    _, flags, flat, _, count, *_ = bench.exchange(**{**asked, **changed})
    assert bool(flags & 2) == bool(bench.redis.exists(bench.keys.ahead))
    ids = flat[::3]
    return ids[: len(ids) - count], ids[len(ids) - count :]


def give_back(bench: Bench, *, outbox_limit: str = "0", limit: int = 100) -> tuple[int, int]:
    given_back, left = bench.run(scripts.return_overdue, outbox_limit=outbox_limit, limit=limit)
    return given_back, left


def wait_until_overdue(bench: Bench) -> None:
    while bench.redis.zcount(bench.keys.ahead, bench.now_ms(), "+inf"):
        time.sleep(0.005)


def jobs(count: int) -> dict[str, Any]:
    """Return what Redis holds of so many waiting jobs, the first of which is next."""
    ids = [str(n) for n in range(1, count + 1)]
    return {"jobs": {job_id: f"record {job_id}" for job_id in ids}, "waiting": ids[::-1]}


class TestClaims:
    def test_they_follow_those_for_free_places(self, bench: Bench) -> None:
        bench.put(**jobs(10))
        before_ms = bench.now_ms()
        assert call(bench, 2, 3) == (["1", "2"], ["3", "4", "5"])
        after_ms = bench.now_ms()
        kept = bench.snapshot()
        assert kept["active"] == ["5", "4", "3", "2", "1"]
        assert kept["claims"] == {str(n): f"T.{n - 1}:1" for n in range(1, 6)}
        ahead: Any = bench.redis.zrange(bench.keys.ahead, 0, -1, withscores=True)
        assert [member for member, _ in ahead] == ["T.2:1 3", "T.3:1 4", "T.4:1 5"]
        for _, due_ms in ahead:
            assert before_ms + AHEAD_MS <= due_ms <= after_ms + AHEAD_MS + 1

    @pytest.mark.parametrize(
        ("waiting", "free", "ahead", "is_empty"),
        [
            (0, 0, 5, True),
            (1, 0, 5, False),
            (0, 0, 0, False),
            (1, 1, 5, False),
            (0, 1, 5, True),
            (1, 2, 5, True),
        ],
    )
    def test_whether_the_queue_is_empty_is_said(
        self, bench: Bench, waiting: int, free: int, ahead: int, is_empty: bool
    ) -> None:
        """Also of a worker without a free place, or it would have to ask again before it waits for a job."""
        bench.put(**jobs(waiting))
        flags = bench.exchange(free=free, wanted_ahead=ahead, ahead_ms=AHEAD_MS)[1]
        assert bool(flags & 1) is is_empty

    @pytest.mark.parametrize(
        ("waiting", "free", "claimed"), [(1, 0, 0), (2, 0, 1), (3, 1, 1), (9, 0, 4), (2, 2, 0), (1, 2, 0)]
    )
    def test_at_most_half_of_what_waits_is_taken(
        self, bench: Bench, waiting: int, free: int, claimed: int
    ) -> None:
        bench.put(**jobs(waiting))
        at_once, ahead = call(bench, free, 64)
        assert (len(at_once), len(ahead)) == (min(free, waiting), claimed)

    def test_one_that_was_handed_out_before_goes_to_a_free_place(self, bench: Bench) -> None:
        bench.put(**jobs(20), claims={"4": ":1"})
        assert call(bench, 1, 5) == (["1"], ["2", "3"])
        assert call(bench, 0, 5) == ([], [])
        assert call(bench, 2, 5) == (["4", "5"], [])

    def test_none_is_taken_behind_a_fetched_one_of_before(self, bench: Bench) -> None:
        bench.put(**jobs(20))
        bench.put(active=["f"], claims={"f": ":1"})
        bench.redis.hset(bench.keys.jobs, "f", "record f")
        assert call(bench, 0, 5, fetched="f") == (["f"], [])

    def test_long_records_wait_for_another_call(self, bench: Bench) -> None:
        bench.put(**jobs(20))
        assert call(bench, 1, 5, max_bytes=30) == (["1"], ["2", "3"])
        assert bench.snapshot()["waiting"][-1] == "4"

    def test_ids_without_a_record_are_dropped(self, bench: Bench) -> None:
        bench.put(**jobs(20))
        bench.redis.hdel(bench.keys.jobs, "1", "3")
        assert call(bench, 2, 3) == (["2"], ["4", "5"])
        assert bench.redis.zrange(bench.keys.ahead, 0, -1) == ["T.1:1 4", "T.2:1 5"]

    def test_with_a_wrong_key_none_is_taken(self, bench: Bench) -> None:
        bench.put(**jobs(20))
        bench.redis.set(bench.keys.ahead, "x")
        assert call(bench, 1, 5) == (["1"], [])
        assert bench.snapshot()["claims"] == {"1": "T.0:1"}


class TestReturn:
    def test_before_its_time_nothing_goes_back(self, bench: Bench) -> None:
        bench.put(**jobs(10))
        call(bench, 0, 4, ahead_ms=60_000)
        before = bench.snapshot()
        assert give_back(bench) == (0, 4)
        assert bench.snapshot() == before

    def test_late_ones_go_to_the_front_in_their_order(self, bench: Bench) -> None:
        bench.put(**jobs(30))
        waiting = bench.snapshot()["waiting"]
        call(bench, 0, 12)
        wait_until_overdue(bench)
        assert give_back(bench) == (12, 0)
        assert bench.snapshot() == {**jobs(30), "waiting": waiting}

    def test_what_has_begun_stays(self, bench: Bench) -> None:
        bench.put(**jobs(10))
        call(bench, 0, 3)
        bench.redis.zrem(bench.keys.ahead, "T.0:1 1")
        wait_until_overdue(bench)
        assert give_back(bench) == (2, 0)
        assert bench.snapshot()["claims"] == {"1": "T.0:1"}
        assert bench.snapshot()["active"] == ["1"]

    @pytest.mark.parametrize("claim", [":1", "U.0:2", None])
    def test_what_somebody_else_has_stays(self, bench: Bench, claim: str | None) -> None:
        bench.put(**jobs(10))
        call(bench, 0, 1)
        if claim is None:
            bench.redis.hdel(bench.keys.claims, "1")
        else:
            bench.redis.hset(bench.keys.claims, "1", claim)
        before = bench.snapshot()
        wait_until_overdue(bench)
        assert give_back(bench) == (0, 0)
        before.pop("ahead", None)
        assert bench.snapshot() == before

    def test_a_removed_one_is_dropped(self, bench: Bench) -> None:
        bench.put(**jobs(4))
        call(bench, 0, 1)
        bench.redis.hdel(bench.keys.jobs, "1")
        wait_until_overdue(bench)
        assert give_back(bench) == (0, 0)
        kept = bench.snapshot()
        assert (kept["waiting"], kept.get("active"), kept.get("claims")) == (["4", "3", "2"], None, None)

    def test_one_call_looks_at_so_many(self, bench: Bench) -> None:
        bench.put(**jobs(20))
        call(bench, 0, 5)
        wait_until_overdue(bench)
        assert give_back(bench, limit=2) == (2, 3)
        assert give_back(bench, limit=2) == (2, 1)

    def test_hidden_ones_stay_behind_it(self, bench: Bench) -> None:
        bench.put(**jobs(10))
        call(bench, 0, 1)
        bench.redis.rename(bench.keys.waiting, bench.keys.hidden)
        wait_until_overdue(bench)
        assert give_back(bench) == (1, 0)
        assert bench.redis.lrange(bench.keys.hidden, -2, -1) == ["2", "1"]

    def test_the_mirror_hears_of_it(self, bench: Bench) -> None:
        bench.put(**jobs(10))
        call(bench, 0, 2)
        wait_until_overdue(bench)
        give_back(bench, outbox_limit="100")
        changes: Any = bench.redis.xrange(bench.keys.outbox)
        assert [fields["id"] for _, fields in changes] == ["2", "1"]
