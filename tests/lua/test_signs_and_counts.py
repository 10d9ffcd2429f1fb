"""Progress, signs of life, counts, outcomes, and the sweeping up of what beeq keeps beside jobs."""

from __future__ import annotations

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

LIFETIME_MS = 30_000


def report(bench: Bench, claim: str, record: str = "new") -> int:
    heard: int = bench.run(
        scripts.report_progress,
        job_id="1",
        claim=claim,
        record=record,
        events=bench.keys.events,
        message="message",
    )
    return heard


class TestReportProgress:
    def test_the_worker_that_runs_the_job_publishes_and_keeps_it(self, bench):
        bench.put(jobs={"1": "old", "2": "r"}, active=["1"], claims={"1": "t:1"})
        assert report(bench, "t:1") == 1
        assert bench.snapshot() == {"jobs": {"1": "new", "2": "r"}, "active": ["1"], "claims": {"1": "t:1"}}
        assert bench.heard() == [("events", "message")]

    @pytest.mark.parametrize("claim", ["", "t:1"])
    @pytest.mark.parametrize("holder", ["u:1", ":1", "t:2"])
    def test_whoever_does_not_own_the_job_publishes_only(self, bench, claim, holder):
        """The record is the owner's."""
        bench.put(jobs={"1": "old"}, active=["1"], claims={"1": holder})
        before = bench.snapshot()
        assert report(bench, claim) == 1
        assert bench.snapshot() == before
        assert bench.heard() == [("events", "message")]

    @pytest.mark.parametrize("claim", ["", "t:1"])
    def test_a_job_without_a_claim_is_published_only(self, bench, claim):
        bench.put(jobs={"1": "old"}, succeeded={"1"})
        before = bench.snapshot()
        report(bench, claim)
        assert bench.snapshot() == before

    def test_a_job_whose_record_is_gone_is_not_brought_back(self, bench):
        bench.put(claims={"1": "t:1"})
        before = bench.snapshot()
        assert report(bench, "t:1") == 1
        assert bench.snapshot() == before
        assert bench.heard() == [("events", "message")]

    def test_it_says_how_many_heard_it(self, bench):
        with bench.redis.pubsub() as another:
            another.subscribe(bench.keys.events)
            assert another.get_message(timeout=5) is not None
            assert report(bench, "") == 2


def beat(bench: Bench, *jobs: tuple[str, str]) -> list[str]:
    cancelled: list[str] = bench.run(scripts.beat, worker="w", lifetime_ms=LIFETIME_MS, jobs=jobs)
    return cancelled


class TestBeat:
    def test_the_worker_is_on_the_register_and_its_jobs_are_safe(self, bench):
        bench.put(stalling={"1", "2", "x"})
        earliest = bench.now_ms()
        assert beat(bench, ("1", "t:1"), ("2", "t:1"), ("3", "t:2")) == []
        latest = bench.now_ms()
        state = bench.snapshot()
        assert earliest <= state.pop("workers")["w"] <= latest
        assert state == {"stalling": {"x"}}
        assert 0 < bench.redis.pttl(bench.keys.workers) <= LIFETIME_MS

    def test_an_idle_worker_beats_as_well(self, bench):
        bench.put(stalling={"x"})
        assert beat(bench) == []
        assert bench.snapshot().keys() == {"stalling", "workers"}

    def test_beating_again_is_the_same_worker_later(self, bench):
        bench.put(workers={"w": bench.now_ms() - 5000})
        earliest = bench.now_ms()
        beat(bench)
        ((worker, beat_ms),) = bench.snapshot()["workers"].items()
        assert (worker, beat_ms >= earliest) == ("w", True)

    def test_who_is_gone_is_forgotten(self, bench):
        now_ms = bench.now_ms()
        bench.put(
            workers={"gone": now_ms - LIFETIME_MS - 1000, "late": now_ms - LIFETIME_MS + 5000, "old": 0}
        )
        beat(bench)
        assert bench.snapshot()["workers"].keys() == {"late", "w"}

    def test_a_worker_with_many_jobs_beats_for_all_of_them(self, bench):
        ids = [str(n) for n in range(1000)]
        bench.put(stalling=set(ids))
        assert beat(bench, *((job_id, f"t-{job_id}:1") for job_id in ids)) == []
        assert bench.snapshot().keys() == {"workers"}

    def test_it_hears_which_of_its_jobs_were_cancelled(self, bench):
        bench.put(cancelled={"t:1": 5, "t:4": 6, "other:1": 7})
        assert beat(bench, ("1", "t:1"), ("2", "t:2"), ("1", "t:4")) == ["t:1", "t:4"]
        assert bench.snapshot()["cancelled"] == {"t:1": 5, "t:4": 6, "other:1": 7}


def count(bench: Bench) -> list[object]:
    """Count, and check that nothing was written."""
    before = bench.snapshot()
    earliest = bench.now_ms()
    counts: list[object]
    *counts, now_ms = bench.run(scripts.count_jobs, lifetime_ms=LIFETIME_MS)
    assert earliest <= int(now_ms) <= bench.now_ms()
    assert bench.snapshot() == before
    return counts


class TestCountJobs:
    def test_an_empty_queue_counts_nothing_and_is_not_created(self, bench):
        assert count(bench) == [0, 0, 0, 0, 0, "0", 0, "", -1]
        assert bench.snapshot() == {}

    def test_each_state_the_workers_and_the_oldest_job_are_told(self, bench):
        now_ms = bench.now_ms()
        bench.put(
            waiting=["c", "b", "a"],
            active=["d", "e"],
            succeeded={"f"},
            failed={"g", "h", "i", "j"},
            delayed={"k": 1, "l": 2, "m": 3, "n": 4, "o": 5},
            id="100000000000000",
            jobs={"a": "record of a", "b": "record of b"},
            workers={
                "alive": now_ms,
                "late": now_ms - LIFETIME_MS + 5000,
                "gone": now_ms - LIFETIME_MS - 1000,
            },
        )
        assert count(bench) == [3, 2, 1, 4, 5, "100000000000000", 2, "record of a", -1]

    def test_what_is_owed_to_the_mirror_is_told_where_there_is_one(self, bench):
        bench.redis.xadd(bench.keys.outbox, {"id": "1"})
        assert count(bench)[-1] == 1

    def test_a_ghost_at_the_front_has_no_record_to_tell(self, bench):
        bench.put(waiting=["b", "ghost"], jobs={"b": "record"})
        assert count(bench)[-2] == ""


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ({}, [None, None, 0, 0, 0]),
        ({"jobs": {"1": "r"}, "active": ["x", "1"]}, ["r", None, 0, 0, 1]),
        ({"jobs": {"1": "r"}, "waiting": ["1"]}, ["r", None, 0, 0, 0]),
        ({"jobs": {"1": "r"}, "succeeded": {"1"}, "results": {"1": "5:s1"}}, ["r", "5:s1", 1, 0, 0]),
        ({"jobs": {"1": "r"}, "failed": {"1"}, "results": {"1": "5:fx"}}, ["r", "5:fx", 0, 1, 0]),
        ({"results": {"1": "5:s1"}, "expiries": {"1": 5000}}, [None, "5:s1", 0, 0, 0]),
        (
            {"jobs": {"x": "r"}, "succeeded": {"x"}, "failed": {"x"}, "results": {"x": "5:s1"}},
            [None, None, 0, 0, 0],
        ),
    ],
)
def test_an_outcome_is_read_in_one_moment_and_nothing_is_written(bench, state, outcome):
    bench.put(**state)
    before = bench.snapshot()
    assert bench.run(scripts.read_outcome, job_id="1") == outcome
    assert bench.snapshot() == before


def sweep(bench: Bench, claims_cursor: str = "0", results_cursor: str = "0") -> list[str]:
    cursors: list[str] = bench.run(
        scripts.sweep, claims_cursor=claims_cursor, results_cursor=results_cursor, count=100
    )
    return cursors


class TestSweep:
    def test_claims_of_jobs_that_ended_or_went_are_dropped(self, bench):
        bench.put(
            jobs={"runs": "r", "waits": "r", "done": "r", "broke": "r"},
            succeeded={"done"},
            failed={"broke"},
            claims={"runs": "t:1", "waits": ":2", "done": "t:1", "broke": "t:1", "removed": "t:1"},
        )
        assert sweep(bench) == ["0", "0"]
        assert bench.snapshot()["claims"] == {"runs": "t:1", "waits": ":2"}

    @pytest.mark.parametrize("ended", ["succeeded", "failed"])
    def test_the_claim_of_an_id_that_has_ended_and_runs_again_stays(self, bench, ended):
        bench.put(jobs={"1": "r"}, active=["2", "1"], claims={"1": "t:1"}, **{ended: {"1"}})
        before = bench.snapshot()
        assert sweep(bench) == ["0", "0"]
        assert bench.snapshot() == before

    def test_results_of_removed_and_expired_jobs_are_dropped(self, bench):
        now_ms = bench.now_ms()
        bench.put(
            jobs={"kept": "r"},
            succeeded={"kept"},
            results={"kept": "5:s1", "removed": "5:s1", "dropped": "5:s1", "outdated": "5:s1"},
            expiries={"dropped": now_ms + 60_000, "outdated": now_ms - 1},
        )
        assert sweep(bench) == ["0", "0"]
        assert bench.snapshot() == {
            "jobs": {"kept": "r"},
            "succeeded": {"kept"},
            "results": {"kept": "5:s1", "dropped": "5:s1"},
            "expiries": {"dropped": now_ms + 60_000},
        }

    def test_a_result_stays_with_its_record_despite_a_reused_id(self, bench):
        bench.put(jobs={"1": "r"}, succeeded={"1"}, results={"1": "5:s1"}, expiries={"1": bench.now_ms() - 1})
        assert sweep(bench) == ["0", "0"]
        assert bench.snapshot()["results"] == {"1": "5:s1"}

    def test_an_empty_queue_is_swept_and_not_created(self, bench):
        assert sweep(bench) == ["0", "0"]
        assert bench.snapshot() == {}

    def test_it_goes_page_by_page_to_the_end(self, bench):
        bench.put(
            claims={f"{n}": "t:1" for n in range(3000)} | {"runs": "t:1"},
            results={f"{n}": "5:s1" for n in range(3000)} | {"runs": "5:s1"},
            jobs={"runs": "r"},
        )
        cursors, pages = ["0", "0"], 0
        while pages == 0 or cursors != ["0", "0"]:
            cursors = sweep(bench, *cursors)
            pages += 1
            assert pages < 1000
            left = len(bench.snapshot()["claims"])
            assert left >= 3001 - pages * 400, "a call stays bounded"
        state = bench.snapshot()
        assert (state["claims"], state["results"], state["jobs"]) == (
            {"runs": "t:1"},
            {"runs": "5:s1"},
            {"runs": "r"},
        )
        assert pages > 5
