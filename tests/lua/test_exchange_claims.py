"""The second half of a turn: which jobs are handed out, in what order, and what becomes of ghosts."""

from __future__ import annotations

import pytest
import redis

from beeq.redis import scripts
from tests.lua.bench import Bench, End

pytestmark = pytest.mark.fast


def take(
    bench: Bench,
    free: int,
    *,
    fetched: str = "",
    is_started: bool = False,
    token: str = "T",
    end: End | None = None,
    max_bytes: int = 1_000_000,
) -> tuple[int, list[tuple[str, str, int]]]:
    """Ask for jobs; return how many ids left waiting, and id, record, deliveries of each job."""
    waited = waits(bench) + (end is not None and end.status == "retrying")
    facts, flags, flat, is_granted, ahead, *_counted = bench.run(
        scripts.exchange,
        events=bench.keys.events,
        earlier_delayed=bench.keys.earlier_delayed,
        keep_ms=60_000,
        drop_succeeded="",
        drop_failed="",
        outbox_limit="0",
        max_bytes=max_bytes,
        active_length="",
        is_mixed="",
        token=token,
        free=free,
        wanted_ahead=0,
        ahead_ms=60_000,
        fetched=fetched,
        is_started="1" if is_started else "",
        outcomes=[end.arguments()] if end else [],
    )
    assert facts == ([1] if end else [])
    assert is_granted == (is_started and flat[:1] == [fetched])
    taken = waited - waits(bench)
    assert (flags, ahead) == (int(taken < free and not waits(bench)), 0)
    return taken, list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))


def waits(bench: Bench) -> int:
    """Return how many ids wait."""
    waiting = bench.key("waiting")
    length: int = bench.redis.llen(waiting) if bench.redis.type(waiting) == "list" else 0
    return length


def records(*job_ids: str) -> dict[str, str]:
    return {job_id: f"record {job_id}" for job_id in job_ids}


def test_an_empty_queue_gives_nothing(bench):
    assert take(bench, 5) == (0, [])
    assert bench.snapshot() == {}


def test_the_job_that_waited_longest_is_handed_out_and_claimed(bench):
    bench.put(jobs=records("1", "2"), waiting=["2", "1"])
    assert take(bench, 1) == (1, [("1", "record 1", 1)])
    assert bench.snapshot() == {
        "jobs": records("1", "2"),
        "waiting": ["2"],
        "active": ["1"],
        "claims": {"1": "T.0:1"},
    }
    assert bench.heard() == []


def test_several_are_handed_out_in_order_newest_claim_at_left(bench):
    bench.put(jobs=records("1", "2", "3", "4"), waiting=["4", "3", "2", "1"], active=["0"])
    assert take(bench, 3) == (3, [("1", "record 1", 1), ("2", "record 2", 1), ("3", "record 3", 1)])
    assert bench.snapshot() == {
        "jobs": records("1", "2", "3", "4"),
        "waiting": ["4"],
        "active": ["3", "2", "1", "0"],
        "claims": {"1": "T.0:1", "2": "T.1:1", "3": "T.2:1"},
    }


@pytest.mark.parametrize("free", [3, 4, 500])
def test_where_more_is_asked_for_than_waits_all_is_handed_out(bench, free):
    bench.put(jobs=records("1", "2", "3"), waiting=["3", "2", "1"])
    taken, jobs = take(bench, free)
    assert (taken, [job_id for job_id, _, _ in jobs]) == (3, ["1", "2", "3"])
    assert bench.snapshot()["active"] == ["3", "2", "1"]
    assert "waiting" not in bench.snapshot()


@pytest.mark.parametrize("free", [0, -1])
def test_without_a_free_place_nothing_is_handed_out(bench, free):
    bench.put(jobs=records("1"), waiting=["1"])
    before = bench.snapshot()
    assert take(bench, free) == (0, [])
    assert bench.snapshot() == before


def test_a_full_batch_is_handed_out_whole(bench):
    ids = [str(n) for n in range(600)]
    bench.put(jobs=records(*ids), waiting=ids[::-1])
    taken, jobs = take(bench, 500)
    assert (taken, [job_id for job_id, _, _ in jobs]) == (500, ids[:500])
    assert bench.snapshot()["waiting"] == ids[:499:-1]


@pytest.mark.parametrize(
    ("before", "deliveries"), [(":1", 2), (":9", 10), ("old:2", 3), ("odd", 1), (":", 1)]
)
def test_deliveries_are_counted_on_whoever_had_the_job_before(bench, before, deliveries):
    """How often decides whether the job may run at all."""
    bench.put(jobs=records("1"), waiting=["1"], claims={"1": before})
    assert take(bench, 1) == (1, [("1", "record 1", deliveries)])
    assert bench.snapshot()["claims"] == {"1": f"T.0:{deliveries}"}


def test_a_fresh_claim_need_not_beat_before_the_next_check(bench):
    bench.put(jobs=records("1", "2"), waiting=["2", "1"], stalling={"1", "x"})
    take(bench, 2)
    assert bench.snapshot()["stalling"] == {"x"}


def test_ids_without_a_record_are_dropped_and_never_handed_out(bench):
    """In bee-queue it goes round for ever."""
    bench.put(
        jobs=records("2"), waiting=["g3", "2", "g1"], claims={"g1": ":3", "g3": "old:1"}, stalling={"g1"}
    )
    assert take(bench, 3) == (3, [("2", "record 2", 1)])
    assert bench.snapshot() == {"jobs": records("2"), "active": ["2"], "claims": {"2": "T.0:1"}}


def test_a_queue_of_ghosts_is_emptied(bench):
    bench.put(waiting=["g2", "g1"])
    assert take(bench, 1) == (1, [])
    assert take(bench, 5) == (1, [])
    assert bench.snapshot() == {}


def test_an_id_that_a_blocking_fetch_moved_is_claimed(bench):
    bench.put(jobs=records("1"), active=["1"], stalling={"1"})
    assert take(bench, 0, fetched="1") == (0, [("1", "record 1", 1)])
    assert bench.snapshot() == {"jobs": records("1"), "active": ["1"], "claims": {"1": "T.0:1"}}


def test_a_fetched_id_comes_first(bench):
    bench.put(jobs=records("1", "2", "3"), active=["1"], waiting=["3", "2"])
    assert take(bench, 2, fetched="1") == (
        2,
        [("1", "record 1", 1), ("2", "record 2", 1), ("3", "record 3", 1)],
    )
    assert bench.snapshot()["active"] == ["3", "2", "1"]


def test_a_fetched_id_that_was_lost_before_is_called_so(bench):
    """Its delivery counts on."""
    bench.put(jobs=records("1"), active=["1"], claims={"1": ":2"})
    assert take(bench, 0, fetched="1") == (0, [("1", "record 1", 3)])


@pytest.mark.parametrize(
    "state", [{"waiting": ["1"]}, {}, {"succeeded": {"1"}}], ids=["queued again", "removed", "finished"]
)
def test_an_id_that_left_active_meanwhile_is_not_claimed(bench, state):
    bench.put(jobs=records("1"), **state)
    before = bench.snapshot()
    assert take(bench, 0, fetched="1") == (0, [])
    assert bench.snapshot() == before


def test_a_job_that_was_started_is_claimed_like_others(bench):
    bench.put(jobs=records("1"), active=["1"], stalling={"1"})
    assert take(bench, 0, fetched="1", is_started=True) == (0, [("1", "record 1", 1)])
    assert bench.snapshot() == {"jobs": records("1"), "active": ["1"], "claims": {"1": "T.0:1"}}


@pytest.mark.parametrize("claim", ["other.0:2", ":1"], ids=["taken again", "lost again"])
def test_a_fetched_job_claimed_meanwhile_is_left_as_it_is(bench, claim):
    """It stalled while the call was on its way, and was queued again. Its place is given to no other job."""
    bench.put(jobs=records("1", "2"), active=["1"], waiting=["2"], claims={"1": claim})
    assert take(bench, 1, fetched="1", is_started=True) == (1, [("2", "record 2", 1)])
    assert bench.snapshot() == {
        "jobs": records("1", "2"),
        "active": ["2", "1"],
        "claims": {"1": claim, "2": "T.1:1"},
    }


def test_a_fetched_id_with_a_dead_workers_claim_is_claimed(bench):
    """Node's stall check queues a job again and leaves the claim, of which it knows nothing."""
    bench.put(jobs=records("1"), active=["1"], claims={"1": "dead.0:1"})
    assert take(bench, 0, fetched="1") == (0, [("1", "record 1", 2)])
    assert bench.snapshot() == {"jobs": records("1"), "active": ["1"], "claims": {"1": "T.0:2"}}


def test_a_lost_fetch_does_not_stop_others_being_handed_out(bench):
    bench.put(jobs=records("1", "2"), waiting=["1", "2"])
    assert take(bench, 1, fetched="1") == (1, [("2", "record 2", 1)])
    assert bench.snapshot()["waiting"] == ["1"]


def test_a_fetched_id_without_a_record_is_dropped(bench):
    bench.put(active=["g"], claims={"g": ":1"})
    assert take(bench, 0, fetched="g") == (0, [])
    assert bench.snapshot() == {}


def test_a_turn_records_first_and_then_hands_out(bench):
    bench.put(jobs=records("1", "2"), active=["1"], waiting=["2"], claims={"1": "t:1"})
    assert take(bench, 1, end=End("1")) == (1, [("2", "record 2", 1)])
    assert bench.snapshot() == {
        "jobs": {"1": "1 succeeded", "2": "record 2"},
        "succeeded": {"1"},
        "active": ["2"],
        "claims": {"2": "T.0:1"},
    }


def test_a_retried_job_is_handed_out_at_once_with_a_fresh_count(bench):
    bench.put(jobs=records("1"), active=["1"], claims={"1": "t:1"})
    assert take(bench, 1, end=End("1", "retrying")) == (1, [("1", "1 retrying", 1)])
    assert bench.snapshot() == {"jobs": {"1": "1 retrying"}, "active": ["1"], "claims": {"1": "T.0:1"}}


@pytest.mark.parametrize("wrong", ["waiting", "active", "jobs", "claims", "stalling"])
@pytest.mark.parametrize("free", [1, 2])
def test_after_a_refusal_ids_still_wait_and_are_handed_out_later(bench, wrong, free):
    """bee-queue does not look at the replies in its transaction."""
    state = {"jobs": records("1", "2"), "waiting": ["2", "1"]}
    bench.put(
        **{name: value for name, value in state.items() if name != wrong}, **{wrong: "of the wrong type"}
    )
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        take(bench, free)
    assert bench.snapshot() == before
    bench.drop(wrong)
    if wrong in state:
        bench.put(**{wrong: state[wrong]})
    taken, jobs = take(bench, free)
    assert (taken, len(jobs)) == (free, free)


@pytest.mark.parametrize(
    ("max_bytes", "handed_out"),
    [(0, ["1"]), (99, ["1"]), (199, ["1"]), (200, ["1", "2"]), (299, ["1", "2"]), (300, ["1", "2", "3"])],
)
def test_of_long_records_no_more_than_the_limit_are_handed_out(bench, max_bytes, handed_out):
    long = {job_id: job_id * 99 for job_id in ("1", "2", "3")}  # and the id itself
    bench.put(jobs=long, waiting=["3", "2", "1"])
    taken, jobs = take(bench, 3, max_bytes=max_bytes)
    assert (taken, [job_id for job_id, _, _ in jobs]) == (len(handed_out), handed_out)
    assert set(bench.snapshot()["claims"]) == set(handed_out)
    for _ in range(3 - len(handed_out)):
        jobs += take(bench, 3, max_bytes=max_bytes)[1]
    assert [job_id for job_id, _, _ in jobs] == ["1", "2", "3"]


@pytest.mark.parametrize(("max_bytes", "count"), [(100, 1), (199, 1), (200, 2)])
def test_a_fetched_record_counts_as_well(bench, max_bytes, count):
    bench.put(jobs={"1": "1" * 99, "2": "2" * 99}, waiting=["2"], active=["1"])
    _, jobs = take(bench, 1, fetched="1", max_bytes=max_bytes)
    assert [job_id for job_id, _, _ in jobs] == ["1", "2"][:count]


def test_an_id_that_waits_twice_is_handed_out_once(bench):
    bench.put(jobs=records("1", "2"), waiting=["1", "2", "1", "1"])
    assert take(bench, 4) == (4, [("1", "record 1", 1), ("2", "record 2", 1)])
    assert bench.snapshot()["active"] == ["2", "1"]


@pytest.mark.parametrize("free", [1, 2])
def test_an_id_that_waits_while_its_job_runs_is_dropped(bench, free):
    bench.put(jobs=records("1"), waiting=["1"] * free, active=["1"], claims={"1": "t.0:1"})
    assert take(bench, free) == (free, [])
    assert bench.snapshot() == {"jobs": records("1"), "active": ["1"], "claims": {"1": "t.0:1"}}


@pytest.mark.parametrize("is_started", [False, True])
def test_an_id_that_is_fetched_while_its_job_runs_is_dropped(bench, is_started):
    bench.put(jobs=records("1"), active=["1", "1"], claims={"1": "t.0:1"})
    assert take(bench, 0, fetched="1", is_started=is_started) == (0, [])
    assert bench.snapshot() == {"jobs": records("1"), "active": ["1"], "claims": {"1": "t.0:1"}}


def test_an_id_that_is_fetched_and_waits_is_handed_out_once(bench):
    bench.put(jobs=records("1"), active=["1"], waiting=["1"])
    assert take(bench, 1, fetched="1") == (1, [("1", "record 1", 1)])
    assert bench.snapshot() == {"jobs": records("1"), "active": ["1"], "claims": {"1": "T.0:1"}}


def test_an_id_that_waits_while_a_node_worker_runs_it_is_dropped(bench):
    bench.put(jobs=records("1", "2"), waiting=["2", "1"], active=["1"])
    assert take(bench, 2) == (2, [("2", "record 2", 1)])
    assert bench.snapshot()["active"] == ["2", "1"]


def test_what_bee_queue_requeued_is_claimed_over_the_old_claim(bench):
    bench.put(jobs=records("1"), waiting=["1"], claims={"1": "dead.0:1"})
    assert take(bench, 1) == (1, [("1", "record 1", 2)])
    assert bench.snapshot()["claims"] == {"1": "T.0:2"}


def test_an_id_that_is_fetched_while_node_runs_it_is_dropped(bench):
    bench.put(jobs=records("1"), active=["1", "2", "1"])
    assert take(bench, 0, fetched="1") == (0, [])
    assert bench.snapshot()["active"] == ["2", "1"]


def test_the_search_for_jobs_that_run_is_bounded(bench):
    """Node has queued jobs of a dead worker again, whose claims are left, and many others run."""
    ids = [str(n) for n in range(10)]
    bench.put(jobs=records(*ids), waiting=ids[::-1], claims=dict.fromkeys(ids, "dead.0:1"))
    bench.put(active=[f"other {n}" for n in range(60_000)])
    assert take(bench, 10) == (4, [(job_id, f"record {job_id}", 2) for job_id in ids[:4]])
    assert bench.snapshot()["waiting"] == ids[:3:-1]


@pytest.mark.parametrize(("active_length", "counted"), [("", [[2, 1]]), (5, [])])
def test_running_jobs_are_counted_when_asked_for(bench, active_length, counted):
    bench.put(active=["1", "2"], claims={"1": "t.0:1"})
    reply = bench.run(
        scripts.exchange,
        events="",
        earlier_delayed="",
        keep_ms=1000,
        drop_succeeded="",
        drop_failed="",
        outbox_limit="0",
        max_bytes=1000,
        active_length=active_length,
        is_mixed="",
        token="T",
        free=0,
        wanted_ahead=0,
        ahead_ms=60_000,
        fetched="",
        is_started="",
        outcomes=[],
    )
    assert reply == [[], 0, [], 0, 0, *counted]
