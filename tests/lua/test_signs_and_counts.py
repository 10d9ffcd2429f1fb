"""Progress, signs of life, counts, outcomes, and the sweeping up of what beeq keeps beside jobs."""

from __future__ import annotations

import pytest
import redis

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


def beat(bench: Bench, *jobs: tuple[str, str], early: str = "") -> list[list[str]]:
    """Return the claims that were cancelled, and those that are lost."""
    cancelled, lost, living = bench.run(
        scripts.beat, worker="w", lifetime_ms=LIFETIME_MS, early=early, jobs=jobs
    )
    assert living == bench.redis.zcard(bench.keys.workers)
    return [cancelled, lost]


class TestBeat:
    def test_the_worker_is_on_the_register_and_its_jobs_are_safe(self, bench):
        bench.put(stalling={"1", "2", "x"}, claims={"1": "t.0:1", "2": "t.1:1", "3": "u.0:2", "x": "v.0:1"})
        earliest = bench.now_ms()
        assert beat(bench, ("1", "t.0:1"), ("2", "t.1:1"), ("3", "u.0:2")) == [[], []]
        latest = bench.now_ms()
        state = bench.snapshot()
        assert earliest <= state.pop("workers")["w"] <= latest
        assert state.pop("claims") == {"1": "t.0:1", "2": "t.1:1", "3": "u.0:2", "x": "v.0:1"}
        assert state == {"stalling": {"x"}}
        assert 0 < bench.redis.pttl(bench.keys.workers) <= LIFETIME_MS

    def test_an_idle_worker_beats_as_well(self, bench):
        bench.put(stalling={"x"})
        assert beat(bench) == [[], []]
        assert bench.snapshot().keys() == {"stalling", "workers"}

    def test_beating_again_is_the_same_worker_later(self, bench):
        bench.put(workers={"w": bench.now_ms() - 5000})
        earliest = bench.now_ms()
        beat(bench)
        ((worker, beat_ms),) = bench.snapshot()["workers"].items()
        assert (worker, beat_ms >= earliest) == ("w", True)

    def test_a_new_worker_is_named_to_the_others_once(self, bench):
        with bench.redis.pubsub(ignore_subscribe_messages=True) as ear:
            ear.subscribe(bench.keys.workers)
            while not bench.redis.pubsub_numsub(bench.keys.workers)[0][1]:
                pass
            beat(bench)
            beat(bench)
            bench.redis.publish(bench.keys.workers, "over")
            heard: list[str] = []
            while "over" not in heard:
                message = ear.get_message(timeout=5)
                heard += [message["data"]] if message else []
        assert heard == ["w", "over"]

    def test_who_is_gone_is_forgotten(self, bench):
        now_ms = bench.now_ms()
        bench.put(
            workers={"gone": now_ms - LIFETIME_MS - 1000, "late": now_ms - LIFETIME_MS + 5000, "old": 0}
        )
        beat(bench)
        assert bench.snapshot()["workers"].keys() == {"late", "w"}

    def test_a_worker_with_many_jobs_beats_for_all_of_them(self, bench):
        claims = {str(n): f"t-{n}:1" for n in range(1000)}
        bench.put(stalling=set(claims), claims=claims)
        assert beat(bench, *claims.items()) == [[], []]
        assert bench.snapshot().keys() == {"claims", "workers"}

    @pytest.mark.parametrize("holder", ["u.0:1", "t.0:2", ":1", None])
    def test_a_job_that_is_not_its_own_any_more_is_not_kept_alive(self, bench, holder):
        """Another worker has it, or this one again by another claim; it stalled; it ended, or was removed."""
        bench.put(stalling={"1", "2"}, claims={"2": "t.1:1"} | ({"1": holder} if holder else {}))
        claims = bench.snapshot()["claims"]
        assert beat(bench, ("1", "t.0:1"), ("2", "t.1:1")) == [[], ["t.0:1"]]
        state = bench.snapshot()
        assert (state["stalling"], state["claims"]) == ({"1"}, claims)

    @pytest.mark.parametrize(
        ("holder", "stalling"), [(None, set()), ("t.0:1", set()), ("u.0:1", {"1"}), (":1", {"1"})]
    )
    def test_an_early_start_is_safe_while_nobody_else_claims_it(self, bench, holder, stalling):
        bench.put(stalling={"1"}, claims={"x": "v.0:1"} | ({"1": holder} if holder else {}))
        assert beat(bench, ("1", "t.0:1"), early="t.0:1") == [[], []]
        assert bench.snapshot().get("stalling", set()) == stalling

    def test_only_the_early_start_itself_may_lack_its_claim(self, bench):
        bench.put(stalling={"1", "2"})
        assert beat(bench, ("1", "t.0:1"), ("2", "u.0:1"), early="u.0:1") == [[], ["t.0:1"]]
        assert bench.snapshot()["stalling"] == {"1"}

    def test_it_hears_which_of_its_jobs_were_cancelled(self, bench):
        """These are gone, too, and nobody has to hear it twice."""
        bench.put(cancelled={"t:1": 5, "t:4": 6, "other:1": 7}, claims={"2": "t:2"})
        assert beat(bench, ("1", "t:1"), ("2", "t:2"), ("1", "t:4")) == [["t:1", "t:4"], []]
        assert bench.snapshot()["cancelled"] == {"t:1": 5, "t:4": 6, "other:1": 7}

    def test_where_claims_are_of_the_wrong_type_nobody_is_judged(self, bench):
        bench.put(stalling={"1"}, claims="text")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            beat(bench, ("1", "t.0:1"))
        assert bench.snapshot()["stalling"] == {"1"}


def count(bench: Bench, *, with_oldest: str = "1") -> list[object]:
    """Count, and check that nothing was written."""
    before = bench.snapshot()
    earliest = bench.now_ms()
    counts: list[object]
    *counts, now_ms = bench.run(scripts.count_jobs, lifetime_ms=LIFETIME_MS, with_oldest=with_oldest)
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
                "gone before the clock went back": now_ms + LIFETIME_MS + 10_000,
            },
        )
        counts = [3, 2, 1, 4, 5, "100000000000000", 2, "record of a", -1]
        assert count(bench) == counts
        counts[-2] = ""
        assert count(bench, with_oldest="") == counts

    def test_what_is_owed_to_the_mirror_is_told_where_there_is_one(self, bench):
        bench.redis.xadd(bench.keys.outbox, {"id": "1"})
        assert count(bench)[-1] == 1

    def test_a_ghost_at_the_front_has_no_record_to_tell(self, bench):
        bench.put(waiting=["b", "ghost"], jobs={"b": "record"})
        assert count(bench)[-2] == ""


LATER_MS = 9_000_000_000_000


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ({}, [0, None, 0, 0, None, 0]),
        ({"jobs": {"1": "r"}, "active": ["x", "1"]}, [1, None, 0, 0, "r", 1]),
        ({"jobs": {"1": "r"}, "waiting": ["1"]}, [1, None, 0, 0, "r", 0]),
        ({"jobs": {"1": "r"}, "waiting": ["1"], "results": {"1": "5:s1"}}, [1, None, 0, 0, "r", 0]),
        ({"jobs": {"1": "r"}, "succeeded": {"1"}, "results": {"1": "5:s1"}}, [1, "5:s1", 1, 0, "r", 0]),
        ({"jobs": {"1": "r"}, "failed": {"1"}, "results": {"1": "5:fx"}}, [1, "5:fx", 0, 1, "r", 0]),
        ({"evenResults": {"1": f"{LATER_MS}:5:s1"}}, [0, "5:s1", 0, 0, None, 0]),
        ({"oddResults": {"1": f"{LATER_MS}:5:s1"}}, [0, "5:s1", 0, 0, None, 0]),
        ({"oddResults": {"1": "1000:5:s1"}}, [0, None, 0, 0, None, 0]),  # it has outlived its time
        ({"oddResults": {"1": "nonsense"}}, [0, None, 0, 0, None, 0]),
        (
            {"jobs": {"x": "r"}, "succeeded": {"x"}, "failed": {"x"}, "results": {"x": "5:s1"}},
            [0, None, 0, 0, None, 0],
        ),
    ],
)
def test_an_outcome_is_read_in_one_moment_and_nothing_is_written(bench, state, outcome):
    bench.put(**state)
    before = bench.snapshot()
    assert bench.run(scripts.read_outcome, job_id="1", longest=1000, with_record="1") == outcome
    assert bench.run(scripts.read_outcome, job_id="1", longest=1000, with_record="") == [
        *outcome[:4],
        None,
        0,
    ]
    assert bench.snapshot() == before


def sweep(bench: Bench, *, count: int = 100) -> int:
    goes_on: int = bench.run(scripts.sweep, count=count, lifetime_ms=60_000)
    return goes_on


class TestSweep:
    def test_claims_of_jobs_that_ended_or_went_are_dropped(self, bench):
        bench.put(
            jobs={"runs": "r", "waits": "r", "done": "r", "broke": "r"},
            succeeded={"done"},
            failed={"broke"},
            claims={"runs": "t:1", "waits": ":2", "done": "t:1", "broke": "t:1", "removed": "t:1"},
        )
        assert sweep(bench) == 0
        assert bench.snapshot()["claims"] == {"runs": "t:1", "waits": ":2"}

    @pytest.mark.parametrize("ended", ["succeeded", "failed"])
    def test_the_claim_of_an_id_that_has_ended_and_runs_again_stays(self, bench, ended):
        bench.put(jobs={"1": "r"}, active=["2", "1"], claims={"1": "t:1"}, **{ended: {"1"}})
        before = bench.snapshot()
        assert sweep(bench) == 0
        assert bench.snapshot() == before

    def test_results_of_removed_jobs_are_dropped(self, bench):
        dropped = {"dropped": f"{bench.now_ms() + 60_000}:5:s1"}
        bench.put(
            jobs={"kept": "r"},
            succeeded={"kept"},
            results={"kept": "5:s1", "removed": "5:s1"},
            evenResults=dropped,
        )
        assert sweep(bench) == 0
        assert bench.snapshot() == {
            "jobs": {"kept": "r"},
            "succeeded": {"kept"},
            "results": {"kept": "5:s1"},
            "evenResults": dropped,
        }

    def test_an_empty_queue_is_swept_and_not_created(self, bench):
        assert sweep(bench) == 0
        assert bench.snapshot() == {}

    def test_it_goes_page_by_page_to_the_end(self, bench):
        bench.put(
            claims={f"{n}": "t:1" for n in range(3000)} | {"runs": "t:1"},
            results={f"{n}": "5:s1" for n in range(3000)} | {"runs": "5:s1"},
            jobs={"runs": "r"},
        )
        pages = 1
        while sweep(bench):
            pages += 1
            assert pages < 1000
            for name in ("claims", "results"):
                assert len(bench.snapshot()[name]) >= 3001 - pages * 400, "a call stays bounded"
        while "swept" in bench.snapshot():  # one hash may end before the other
            sweep(bench)
        state = bench.snapshot()
        assert (state["claims"], state["results"], state["jobs"]) == (
            {"runs": "t:1"},
            {"runs": "5:s1"},
            {"runs": "r"},
        )
        assert pages > 5

    def test_processes_share_its_cursors(self, bench):
        """Each goes on where another one stopped; with nobody left they are forgotten."""
        bench.put(claims={f"{n}": "t:1" for n in range(3000)})
        assert sweep(bench) == 1
        (first,) = bench.snapshot()["swept"].items()
        assert sweep(bench) == 1
        (second,) = bench.snapshot()["swept"].items()
        assert first[0] == second[0] == "claims"
        assert first[1] != second[1]
        assert 0 < bench.redis.pttl(bench.keys.swept) <= 60_000

    @pytest.mark.parametrize("cursor", ["nonsense", "", "-1"])
    def test_a_cursor_that_is_none_begins_again(self, bench, cursor):
        bench.put(claims={"gone": "t:1"}, swept={"claims": cursor})
        assert sweep(bench) == 0
        assert bench.snapshot() == {}

    def test_with_no_more_claims_than_running_jobs_it_rests(self, bench):
        """Else each check would look at each claim of a healthy fleet."""
        ids = [f"{n}" for n in range(1000)]
        bench.put(active=ids, claims=dict.fromkeys(ids, "t:1"), jobs=dict.fromkeys(ids, "r"))
        assert sweep(bench) == 0
        assert "claims" in bench.snapshot()["swept"], "the next check goes on from there"
        bench.put(claims={f"gone {n}": "t:1" for n in range(100)})  # more than one call meets, in any order
        assert sweep(bench) == 1

    @pytest.mark.real_redis("fakeredis counts no commands")
    def test_large_results_are_not_read(self, bench):
        """Three hundred of a megabyte took a script more than a second."""
        bench.put(succeeded={"1"}, jobs={"1": "r"}, results={"1": "x" * 1_000_000, "gone": "5:s1"})
        bench.redis.config_resetstat()
        assert sweep(bench, count=300) == 0
        assert bench.redis.hkeys(bench.keys.results) == ["1"]
        stats = bench.redis.info("commandstats")
        assert stats["cmdstat_hscan"]["calls"] == 1, "that of the claims"
        assert stats.keys().isdisjoint({f"cmdstat_{name}" for name in ("hgetall", "hvals", "hmget")})

    def test_with_few_results_without_jobs_it_rests(self, bench):
        ids = [f"{n}" for n in range(1000)]
        bench.put(succeeded=set(ids), results=dict.fromkeys(ids, "5:s1"), jobs=dict.fromkeys(ids, "r"))
        assert sweep(bench) == 0
        bench.put(results={"gone": "5:s1"})
        assert sweep(bench) == 0
        bench.put(results={f"gone {n}": "5:s1" for n in range(1000)})
        assert sweep(bench) == 1

    @pytest.mark.real_redis("fakeredis searches a long list a hundred times slower")
    def test_searches_in_a_long_active_are_bounded(self, bench):
        """What a call has no time for stays for a later pass."""
        runs, ended = [f"runs {n}" for n in range(5000)], [f"{n}" for n in range(30)]
        bench.redis.rpush(bench.keys.active, *runs)
        bench.put(claims=dict.fromkeys(ended, "t:1"), jobs=dict.fromkeys(ended, "r"), succeeded=set(ended))
        sizes = []
        for _ in range(3):
            sizes.append(len(bench.snapshot()["claims"]))
            sweep(bench)
        assert sizes == [30, 20, 10]
        assert "claims" not in bench.snapshot()
