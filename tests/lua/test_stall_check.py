"""The stall check in its parts: one check for all, who is queued again, and who has to beat."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast

#: The token of the check that goes on, unless a test says otherwise.
MINE = "mine"


def begin(bench: Bench, token: str = MINE, *, lease_ms: int = 60_000) -> int:
    entries: int = bench.run(scripts.begin_stall_check, token=token, lease_ms=lease_ms)
    return entries


def requeue(
    bench: Bench, *, token: str = MINE, limit: int = 500, lease_ms: int = 60_000
) -> tuple[int, int, list[str]]:
    holds, seen, ids = bench.run(
        scripts.requeue_stalled, token=token, lease_ms=lease_ms, limit=limit, outbox_limit="0"
    )
    return holds, seen, ids


def mark(
    bench: Bench, start: int = 0, *, token: str = MINE, limit: int = 1000, interval_ms: int = 60_000
) -> int:
    position: int = bench.run(
        scripts.mark_stalling, token=token, lease_ms=90_000, interval_ms=interval_ms, start=start, limit=limit
    )
    return position


def requeue_all(bench: Bench, token: str = MINE, *, limit: int = 500) -> list[str]:
    """Make the first half of a check; return the ids that went back."""
    left, found = begin(bench, token), list[str]()
    while left > 0:
        holds, seen, ids = requeue(bench, token=token, limit=min(limit, left))
        assert holds
        found += ids
        left -= seen or left
    return found


def mark_all(bench: Bench, token: str = MINE) -> int:
    position = 0
    while position >= 0:
        position = mark(bench, position, token=token)
    return position


def gate(bench: Bench) -> tuple[str, int]:
    """Return who holds the gate, and for how long."""
    return str(bench.redis.get(bench.keys.stall_block)), int(bench.redis.pttl(bench.keys.stall_block))


def without_gate(bench: Bench) -> dict[str, Any]:
    """Return every key but those of the check that goes on."""
    state = bench.snapshot()
    assert state.pop("stallBlock") == MINE
    state.pop("requeued", None)
    return state


class TestGate:
    def test_an_empty_queue_is_checked_and_its_gate_held(self, bench):
        assert begin(bench) == 0
        assert bench.snapshot() == {"stallBlock": MINE}
        assert 59_000 < gate(bench)[1] <= 60_000
        assert mark(bench) == -1
        assert bench.snapshot() == {"stallBlock": "1"}, "as Node writes it"

    def test_while_another_check_holds_the_gate_nothing_happens(self, bench):
        bench.put(stallBlock="1", stalling={"1"}, active=["1"], jobs={"1": "r"}, claims={"1": "t:1"})
        before = bench.snapshot()
        assert begin(bench) == -1
        assert bench.snapshot() == before

    def test_of_two_checks_at_once_one_passes(self, bench):
        assert [begin(bench, token) for token in ("a", "b", "c")] == [0, -1, -1]
        assert gate(bench)[0] == "a"

    def test_a_call_whose_reply_was_lost_passes_again(self, bench):
        bench.put(stalling={"1"}, active=["2", "1"])
        assert [begin(bench) for _ in range(2)] == [2, 2]

    def test_the_gate_is_held_from_each_call_on(self, bench):
        """A check may take longer than an interval: meanwhile no other one may come."""
        bench.put(stalling={"1"}, active=["1"], jobs={"1": "r"})
        for call in (requeue, requeue, lambda bench: mark(bench, limit=0)):
            bench.redis.set(bench.keys.stall_block, MINE, px=1000)
            call(bench)
            assert gate(bench)[0] == MINE
            assert 59_000 < gate(bench)[1] <= 90_000

    @pytest.mark.parametrize("other", ["1", "another beeq check's", None, ["wrong type"]])
    def test_without_its_token_a_check_does_nothing_more(self, bench, other):
        """What stalling holds then are another check's marks, which healthy workers had no time to take out."""
        bench.put(stalling={"1"}, active=["2", "1"], jobs={"1": "r", "2": "r"}, claims={"1": "t:1"})
        if other is not None:
            bench.put(stallBlock=other)
        before = bench.snapshot()
        assert requeue(bench) == (0, 0, [])
        assert mark(bench) == -2
        assert mark(bench, 1) == -2
        assert bench.snapshot() == before

    def test_a_token_goes_by_itself_when_no_call_comes(self, bench):
        bench.put(stalling={"1"}, active=["1"], jobs={"1": "r"})
        assert begin(bench, lease_ms=1) == 1
        while bench.redis.exists(bench.keys.stall_block):
            pass
        assert requeue(bench) == (0, 0, [])
        assert mark(bench) == -2
        assert begin(bench, "next") == 1

    def test_after_its_last_mark_a_check_has_ended(self, bench):
        bench.put(active=["1"], jobs={"1": "r"})
        begin(bench)
        assert mark(bench) == -1
        assert requeue(bench) == (0, 0, [])
        assert bench.snapshot() == {
            "stallBlock": "1",
            "stalling": {"1"},
            "active": ["1"],
            "jobs": {"1": "r"},
        }

    @pytest.mark.parametrize("interval_ms", [0, -1])
    def test_an_interval_of_nothing_is_refused(self, bench, interval_ms):
        with pytest.raises(redis.ResponseError, match="invalid expire"):
            begin(bench, lease_ms=interval_ms)
        assert bench.snapshot() == {}
        bench.put(stallBlock=MINE)
        with pytest.raises(redis.ResponseError, match="invalid expire"):
            mark(bench, interval_ms=interval_ms)
        assert bench.snapshot() == {"stallBlock": MINE}

    def test_a_check_that_is_refused_takes_no_gate(self, bench):
        bench.put(stalling="of the wrong type")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            begin(bench)
        assert bench.snapshot() == {"stalling": "of the wrong type"}

    def test_a_gate_of_the_wrong_type_lets_nobody_in(self, bench):
        bench.put(stallBlock={"not": "text"})
        assert begin(bench) == -1


class TestRequeue:
    def test_a_silent_job_goes_to_the_back_with_its_count_unclaimed(self, bench):
        """So a late outcome is refused, and deliveries go on counting."""
        bench.put(
            stalling={"1"},
            active=["2", "1"],
            waiting=["9"],
            jobs={"1": "r", "2": "r"},
            claims={"1": "t:3", "2": "t:1"},
        )
        assert requeue_all(bench) == ["1"]
        assert without_gate(bench) == {
            "active": ["2"],
            "waiting": ["1", "9"],
            "jobs": {"1": "r", "2": "r"},
            "claims": {"1": ":3", "2": "t:1"},
        }
        assert bench.heard() == []

    def test_a_job_of_a_node_worker_has_no_claim_and_gets_none(self, bench):
        bench.put(stalling={"1"}, active=["1"], jobs={"1": "r"})
        assert requeue_all(bench) == ["1"]
        assert without_gate(bench) == {"waiting": ["1"], "jobs": {"1": "r"}}

    @pytest.mark.parametrize("claim", ["", "nonsense", ":", "t:", "t:x", "\x00"])
    def test_a_claim_that_nobody_can_read_counts_from_zero(self, bench, claim):
        """One odd claim must not end each check."""
        bench.put(stalling={"1"}, active=["1"], jobs={"1": "r"}, claims={"1": claim})
        assert requeue_all(bench) == ["1"]
        assert without_gate(bench)["claims"] == {"1": ":0"}

    def test_a_job_that_is_not_active_any_more_is_forgotten(self, bench):
        bench.put(
            stalling={"1", "2"},
            jobs={"1": "r", "2": "r"},
            succeeded={"1"},
            waiting=["2"],
            claims={"2": "t:1"},
        )
        assert requeue_all(bench) == []
        assert mark_all(bench) == -1
        assert bench.snapshot() == {
            "stallBlock": "1",
            "jobs": {"1": "r", "2": "r"},
            "succeeded": {"1"},
            "waiting": ["2"],
            "claims": {"2": "t:1"},
        }

    def test_an_id_without_a_record_is_dropped(self, bench):
        """In bee-queue it goes round for ever."""
        bench.put(stalling={"g", "1"}, active=["g", "1"], jobs={"1": "r"}, claims={"g": "t:1", "1": "t:1"})
        assert requeue_all(bench) == ["1"]
        assert without_gate(bench) == {"waiting": ["1"], "jobs": {"1": "r"}, "claims": {"1": ":1"}}

    def test_oldest_claims_run_first_again(self, bench):
        bench.put(stalling=set("123"), active=list("3x2y1"), waiting=["9"], jobs=dict.fromkeys("123xy", "r"))
        assert requeue_all(bench, limit=2) == ["1", "2", "3"]
        state = without_gate(bench)
        assert (state["waiting"], state["active"]) == (["3", "2", "1", "9"], ["x", "y"])

    def test_a_call_looks_at_a_page_of_active(self, bench):
        """A long script call would block every client."""
        ids = [str(n) for n in range(25)]
        bench.put(
            stalling=set(ids), active=ids, jobs=dict.fromkeys(ids, "r"), claims=dict.fromkeys(ids, "t:1")
        )
        assert begin(bench) == 25
        pages = [requeue(bench, limit=limit) for limit in (10, 10, 5, 10)]
        assert [(holds, seen, len(page)) for holds, seen, page in pages] == [
            (1, 10, 10),
            (1, 10, 10),
            (1, 5, 5),
            (1, 0, 0),
        ]
        assert without_gate(bench) == {
            "waiting": ids,
            "jobs": dict.fromkeys(ids, "r"),
            "claims": dict.fromkeys(ids, ":1"),
        }

    @pytest.mark.parametrize("limit", [1, 7, 100])
    def test_who_is_alive_keeps_its_place_in_active(self, bench, limit):
        ids = [str(n) for n in range(60)]
        silent = {job_id for job_id in ids if int(job_id) % 7 == 3}
        bench.put(active=ids, stalling=silent, jobs=dict.fromkeys(ids, "r"))
        assert requeue_all(bench, limit=limit) == sorted(silent, key=int, reverse=True)
        assert without_gate(bench)["active"] == [job_id for job_id in ids if job_id not in silent]

    def test_who_ends_or_begins_between_two_calls_hides_nobody(self, bench):
        ids = [str(n) for n in range(40)]
        silent = {job_id for job_id in ids if int(job_id) % 4 == 0}
        bench.put(active=ids, stalling=silent, jobs=dict.fromkeys(ids, "r"))
        left, found, new = begin(bench), list[str](), 0
        while left > 0:
            _, seen, page = requeue(bench, limit=3)
            found, left, new = found + page, left - seen, new + 1
            healthy = [job_id for job_id in bench.snapshot()["active"] if job_id not in silent]
            bench.redis.lrem(bench.keys.active, -1, healthy[-1])
            bench.redis.lpush(bench.keys.active, f"new {new}")
        assert sorted(found) == sorted(silent)

    def test_a_beat_between_two_calls_is_in_time(self, bench):
        bench.put(active=["2", "1"], stalling={"1", "2"}, jobs={"1": "r", "2": "r"})
        assert begin(bench) == 2
        assert requeue(bench, limit=1) == (1, 1, ["1"])
        bench.redis.srem(bench.keys.stalling, "2")
        assert requeue(bench, limit=1) == (1, 1, [])
        assert without_gate(bench)["active"] == ["2"]

    @pytest.mark.parametrize("wrong", ["waiting", "jobs", "claims", "requeued"])
    def test_after_a_refusal_the_ids_are_active_and_still_unchecked(self, bench, wrong):
        state = {"stalling": {"1"}, "active": ["1"], "jobs": {"1": "r"}, "claims": {"1": "t:1"}}
        begin(bench)
        bench.put(**{name: value for name, value in state.items() if name != wrong}, **{wrong: "wrong"})
        before = bench.snapshot()
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            requeue(bench)
        assert bench.snapshot() == before
        bench.drop(wrong)
        if wrong in state:
            bench.put(**{wrong: state[wrong]})
        assert requeue(bench) == (1, 1, ["1"])


class TestTwiceActive:
    """An id that Node has pushed twice: each copy is taken out, and one goes back."""

    @pytest.mark.parametrize("limit", [1, 2, 100])
    def test_it_is_queued_once(self, bench, limit):
        bench.put(stalling={"1"}, active=["1", "2", "1", "1"], jobs={"1": "r", "2": "r"})
        assert requeue_all(bench, limit=limit) == ["1"]
        assert without_gate(bench) == {"active": ["2"], "waiting": ["1"], "jobs": {"1": "r", "2": "r"}}

    @pytest.mark.parametrize("claims", [{}, {"1": "t.0:2"}])
    @pytest.mark.parametrize("copies", [1, 2, 3])
    def test_the_claim_of_a_worker_that_has_taken_it_since_stays(self, bench, claims, copies):
        """A Node worker has no claim."""
        bench.put(stalling={"1"}, active=["1"] * copies + ["1"], jobs={"1": "r"})
        begin(bench)
        assert requeue(bench, limit=1) == (1, 1, ["1"])
        bench.redis.lmove(bench.keys.waiting, bench.keys.active, "RIGHT", "LEFT")
        if claims:
            bench.put(claims=claims)
        for _ in range(copies + 1):
            requeue(bench, limit=1)
        assert without_gate(bench) == {"active": ["1"], "jobs": {"1": "r"}} | (
            {"claims": claims} if claims else {}
        )

    def test_copies_in_one_page_are_not_all_surplus(self, bench):
        bench.put(stalling={"1"}, active=["1", "1", "1", "2"], jobs={"1": "r", "2": "r"})
        bench.put(requeued={"1"}, stallBlock=MINE, claims={"1": "t.0:2"})
        bench.drop("stalling")
        assert requeue(bench) == (1, 4, [])
        assert without_gate(bench)["active"] == ["1", "2"]

    @pytest.mark.parametrize(
        "end", [{"succeeded": {"1"}}, {"failed": {"1"}}, {"delayed": {"1": 5}}, {"jobs": {"2": "r"}}]
    )
    def test_a_copy_of_a_job_that_has_ended_since_is_taken_out(self, bench, end):
        bench.put(stalling={"1"}, active=["1", "2", "1"], jobs={"1": "r", "2": "r"})
        begin(bench)
        assert requeue(bench, limit=1) == (1, 1, ["1"])
        bench.drop("waiting", *end)
        bench.put(**end)
        assert requeue(bench, limit=2) == (1, 2, [])
        assert without_gate(bench)["active"] == ["2"]

    @pytest.mark.real_redis("fakeredis searches a long list a hundred times slower")
    def test_a_search_for_copies_is_bounded(self, bench):
        """The more there is to search the fewer entries a call looks at."""
        ids = [f"{n}" for n in range(2000)]
        bench.put(
            active=ids, jobs=dict.fromkeys(ids, "r"), claims=dict.fromkeys(ids, "t:1"), requeued=set(ids)
        )
        bench.put(stallBlock=MINE)
        _, seen, _ = requeue(bench)
        assert 20 <= seen <= 30
        assert without_gate(bench)["active"] == ids[-seen:] + ids[:-seen]


class TestMark:
    def test_every_active_id_is_asked_for_a_sign_of_life(self, bench):
        bench.put(stallBlock=MINE, active=["3", "2", "1"])
        assert mark(bench) == -1
        assert bench.snapshot() == {
            "stallBlock": "1",
            "active": ["3", "2", "1"],
            "stalling": {"1", "2", "3"},
        }
        assert bench.heard() == []

    def test_an_id_that_is_not_active_is_forgotten(self, bench):
        bench.put(stallBlock=MINE, active=["1"], stalling={"0"}, requeued={"0"})
        assert mark(bench) == -1
        assert bench.snapshot() == {"stallBlock": "1", "active": ["1"], "stalling": {"1"}}

    def test_the_last_mark_holds_the_gate_for_a_whole_interval(self, bench):
        """A check that comes sooner would not have left a healthy worker the time to beat."""
        bench.put(active=["1"])
        bench.redis.set(bench.keys.stall_block, MINE, px=1000)
        mark(bench)
        assert 59_000 < gate(bench)[1] <= 60_000

    def test_marking_goes_page_by_page(self, bench):
        ids = [str(n) for n in range(25)]
        bench.put(stallBlock=MINE, active=ids)
        positions = [mark(bench, limit=10)]
        while positions[-1] != -1:
            assert len(bench.snapshot()["stalling"]) == positions[-1]
            assert gate(bench)[0] == MINE
            positions.append(mark(bench, positions[-1], limit=10))
        assert positions == [10, 20, -1]
        assert bench.snapshot()["stalling"] == set(ids)

    def test_new_claims_between_two_pages_hide_nobody(self, bench):
        ids = [str(n) for n in range(25)]
        bench.put(stallBlock=MINE, active=ids)
        position = mark(bench, limit=10)
        while position >= 0:
            bench.redis.lpush(bench.keys.active, *[f"new {position} {n}" for n in range(5)])
            position = mark(bench, position, limit=10)
        assert bench.snapshot()["stalling"] >= set(ids)

    def test_a_page_that_ends_with_the_list_precedes_an_empty_one(self, bench):
        bench.put(stallBlock=MINE, active=["2", "1"])
        assert mark(bench, limit=2) == 2
        assert mark(bench, 2, limit=2) == -1
        assert bench.snapshot()["stalling"] == {"1", "2"}


def test_two_checks_take_a_dead_workers_job_but_no_living_ones(bench):
    bench.put(
        active=["dead", "alive"], jobs={"dead": "r", "alive": "r"}, claims={"dead": "t:1", "alive": "u:1"}
    )
    assert requeue_all(bench) == []
    mark_all(bench)
    bench.redis.srem(bench.keys.stalling, "alive")
    bench.drop("stallBlock")  # the interval is over
    assert requeue_all(bench) == ["dead"]
    mark_all(bench)
    assert bench.snapshot() == {
        "stallBlock": "1",
        "active": ["alive"],
        "waiting": ["dead"],
        "stalling": {"alive"},
        "jobs": {"dead": "r", "alive": "r"},
        "claims": {"dead": ":1", "alive": "u:1"},
    }
