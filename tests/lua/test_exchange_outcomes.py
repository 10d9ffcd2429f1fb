"""The first half of a turn: each outcome, where it is recorded, and every order in which it must not be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from beeq.redis import scripts
from beeq.redis.scripts import Script
from tests.lua.bench import Bench, End

pytestmark = pytest.mark.fast

TTL_MS = 60_000


def settle(
    bench: Bench,
    *ends: End,
    free: int = 0,
    drop: str = "",
    is_silent: bool = False,
    script: Script = scripts.exchange,
) -> list[int]:
    """Record outcomes; return the facts."""
    facts, is_empty, jobs, _is_granted, *_counted = bench.run(
        script,
        events="" if is_silent else bench.keys.events,
        earlier_delayed=bench.keys.earlier_delayed,
        keep_ms=TTL_MS,
        drop_succeeded="1" if "succeeded" in drop else "",
        drop_failed="1" if "failed" in drop else "",
        outbox_limit="0",
        max_bytes=1_000_000,
        active_length="",
        is_mixed="",
        token="T",
        free=free,
        wanted_ahead=0,
        ahead_ms=60_000,
        fetched="",
        is_started="",
        outcomes=[end.arguments() for end in ends],
    )
    if not free:
        assert (is_empty, jobs) == (0, [])
    result: list[int] = facts
    return result


def running(bench: Bench, *job_ids: str, **more: object) -> None:
    """Put jobs where ``exchange`` has put them when their handlers run."""
    bench.put(
        jobs={job_id: f"{job_id} created" for job_id in job_ids},
        active=list(job_ids),
        claims=dict.fromkeys(job_ids, "t:1"),
        stalling=set(job_ids),
        **more,
    )


def test_a_success_is_recorded_published_and_kept(bench):
    running(bench, "1")
    assert settle(bench, End("1", keep="5:s1")) == [1]
    assert bench.snapshot() == {"jobs": {"1": "1 succeeded"}, "succeeded": {"1"}, "results": {"1": "5:s1"}}
    assert bench.heard() == [("events", "event 1")]


def test_a_success_without_a_result_keeps_none(bench):
    running(bench, "1")
    assert settle(bench, End("1")) == [1]
    assert bench.snapshot() == {"jobs": {"1": "1 succeeded"}, "succeeded": {"1"}}


def test_a_failure_is_recorded_published_and_kept(bench):
    running(bench, "1")
    assert settle(bench, End("1", "failed", keep="5:fno")) == [1]
    assert bench.snapshot() == {"jobs": {"1": "1 failed"}, "failed": {"1"}, "results": {"1": "5:fno"}}
    assert bench.heard() == [("events", "event 1")]


def test_a_failure_that_leaves_the_record_leaves_every_byte(bench):
    running(bench, "1")
    assert settle(bench, End("1", "failed", record="")) == [1]
    assert bench.snapshot() == {"jobs": {"1": "1 created"}, "failed": {"1"}}


@pytest.mark.parametrize("drop", ["", "failed"])
def test_an_unreadable_record_is_never_dropped(bench, drop):
    """A later reader must find it."""
    running(bench, "1")
    assert settle(bench, End("1", "failed", record=""), drop=drop) == [1]
    assert bench.snapshot() == {"jobs": {"1": "1 created"}, "failed": {"1"}}


def test_an_immediate_retry_goes_to_the_back(bench):
    running(bench, "1", waiting=["9", "8"])
    assert settle(bench, End("1", "retrying")) == [1]
    assert bench.snapshot() == {"jobs": {"1": "1 retrying"}, "waiting": ["1", "9", "8"]}
    assert bench.heard() == [("events", "event 1")]


def test_several_immediate_retries_keep_their_order(bench):
    running(bench, "1", "2", "3")
    assert settle(bench, End("1", "retrying"), End("2", "retrying"), End("3", "retrying")) == [1, 1, 1]
    assert bench.snapshot()["waiting"] == ["3", "2", "1"]


def test_a_delayed_retry_is_due_by_redis_clock_and_announced(bench):
    running(bench, "1")
    earliest = bench.now_ms() + 5000
    assert settle(bench, End("1", "retrying", delay_ms=5000)) == [1]
    latest = bench.now_ms() + 5000
    state = bench.snapshot()
    due_ms = state.pop("delayed")["1"]
    assert earliest <= due_ms <= latest
    assert state == {"jobs": {"1": "1 retrying"}}
    assert bench.heard() == [("earlierDelayed", str(due_ms)), ("events", "event 1")]


def test_a_delayed_retry_behind_another_is_not_announced(bench):
    """bee-queue wakes every activator at every retry."""
    running(bench, "1", delayed={"x": 5000})
    settle(bench, End("1", "retrying", delay_ms=5000))
    assert bench.heard() == [("events", "event 1")]


def test_of_several_delayed_retries_only_the_head_is_announced(bench):
    running(bench, "1", "2", "3")
    settle(
        bench,
        *(End(job_id, "retrying", delay_ms=ms) for job_id, ms in (("1", 9000), ("2", 5000), ("3", 7000))),
    )
    delayed = bench.snapshot()["delayed"]
    assert bench.heard() == [
        ("earlierDelayed", str(delayed["2"])),
        ("events", "event 1"),
        ("events", "event 2"),
        ("events", "event 3"),
    ]
    assert (delayed["1"] - delayed["2"], delayed["3"] - delayed["2"]) == (4000, 2000)


def test_a_retry_is_never_dropped(bench):
    running(bench, "1", "2")
    settle(bench, End("1", "retrying"), End("2", "retrying", delay_ms=5000), drop="succeeded failed")
    assert bench.snapshot()["jobs"] == {"1": "1 retrying", "2": "2 retrying"}


def test_without_events_nothing_is_published_but_due_times_are(bench):
    running(bench, "1", "2")
    settle(bench, End("1"), End("2", "retrying", delay_ms=5000), is_silent=True)
    (message,) = bench.heard()
    assert message[0] == "earlierDelayed"


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_dropped_record_leaves_only_a_result_with_a_due_time(bench, status):
    running(bench, "1")
    earliest = bench.now_ms() + TTL_MS
    assert settle(bench, End("1", status, keep="5:s1"), drop=status) == [1]
    latest = bench.now_ms() + TTL_MS
    ((job_id, (due_ms, text)),) = bench.passing().items()
    assert (job_id, text) == ("1", "5:s1")
    assert earliest <= due_ms <= latest
    assert len(bench.snapshot()) == 1
    assert bench.heard() == [("events", "event 1")]


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_dropped_record_without_a_result_leaves_nothing(bench, status):
    running(bench, "1")
    assert settle(bench, End("1", status), drop=status) == [1]
    assert bench.snapshot() == {}


def test_each_kind_of_record_is_dropped_by_its_own_setting(bench):
    running(bench, "1", "2")
    settle(bench, End("1"), End("2", "failed"), drop="succeeded")
    assert bench.snapshot() == {"jobs": {"2": "2 failed"}, "failed": {"2"}}


def test_all_kinds_of_outcomes_share_a_call(bench):
    running(bench, "1", "2", "3", "4")
    facts = settle(
        bench,
        End("1", keep="5:s1"),
        End("2", "failed", keep="5:f2"),
        End("3", "retrying"),
        End("4", "retrying", delay_ms=5000),
    )
    assert facts == [1, 1, 1, 1]
    state = bench.snapshot()
    assert state.pop("delayed").keys() == {"4"}
    assert state == {
        "jobs": {"1": "1 succeeded", "2": "2 failed", "3": "3 retrying", "4": "4 retrying"},
        "succeeded": {"1"},
        "failed": {"2"},
        "results": {"1": "5:s1", "2": "5:f2"},
        "waiting": ["3"],
    }
    assert [text for channel, text in bench.heard() if channel == "events"] == [
        f"event {n}" for n in range(1, 5)
    ]


@pytest.mark.parametrize(("status", "other"), [("succeeded", "failed"), ("failed", "succeeded")])
def test_an_id_is_never_in_both_sets(bench, status, other):
    running(bench, "1", **{other: {"1", "x"}})
    settle(bench, End("1", status))
    state = bench.snapshot()
    assert (state[status], state[other]) == ({"1"}, {"x"})


def test_only_the_own_jobs_claim_and_mark_go(bench):
    running(bench, "1", "2")
    settle(bench, End("2"))
    assert bench.snapshot() == {
        "jobs": {"1": "1 created", "2": "2 succeeded"},
        "active": ["1"],
        "claims": {"1": "t:1"},
        "stalling": {"1"},
        "succeeded": {"2"},
    }


NOT_OWNED: list[tuple[str, dict[str, object]]] = [
    ("stalled and queued again", {"jobs": {"1": "1 created"}, "waiting": ["1"], "claims": {"1": ":1"}}),
    ("queued again by a Node peer", {"jobs": {"1": "1 created"}, "waiting": ["1"], "claims": {"1": "t:1"}}),
    ("taken by another worker", {"jobs": {"1": "1 created"}, "active": ["1"], "claims": {"1": "u:2"}}),
    ("taken again by this worker", {"jobs": {"1": "1 created"}, "active": ["1"], "claims": {"1": "t:2"}}),
    ("taken by a Node worker after our stall check", {"jobs": {"1": "1 created"}, "active": ["1"], "claims": {"1": ":1"}}),
    ("finished by another", {"jobs": {"1": "1 other"}, "failed": {"1"}, "results": {"1": "5:fx"}}),
    ("finished by a Node worker", {"jobs": {"1": "1 other"}, "failed": {"1"}, "claims": {"1": "t:1"}}),
    ("waits for its next try elsewhere", {"jobs": {"1": "1 other"}, "delayed": {"1": 5000}}),
    ("removed", {}),
    ("removed and created anew", {"jobs": {"1": "1 created"}, "waiting": ["1"]}),
    ("removed, created anew and running", {"jobs": {"1": "1 created"}, "active": ["1"], "claims": {"1": "v:1"}}),
]  # fmt: skip


@pytest.mark.parametrize(
    "status", ["succeeded", "failed", "retrying", "retrying later", "unreadable", "dropped"]
)
@pytest.mark.parametrize(("order", "state"), NOT_OWNED, ids=[order for order, _ in NOT_OWNED])
def test_an_outcome_of_a_job_no_longer_owned_changes_nothing(bench, order, state, status):
    """bee-queue records it."""
    end = {
        "succeeded": End("1", keep="5:s1"),
        "failed": End("1", "failed", keep="5:f1"),
        "retrying": End("1", "retrying"),
        "retrying later": End("1", "retrying", delay_ms=5000),
        "unreadable": End("1", "failed", record=""),
        "dropped": End("1", keep="5:s1"),
    }[status]
    bench.put(**state)
    before = bench.snapshot()
    assert settle(bench, end, drop="succeeded" if status == "dropped" else "") == [0]
    assert bench.snapshot() == before
    assert bench.heard() == []


@pytest.mark.parametrize(
    "end",
    [End("1", keep="5:s1"), End("1", "failed"), End("1", "retrying"), End("1", "retrying", delay_ms=5000),
     End("1", "failed", record="")],
    ids=["succeeded", "failed", "retrying", "delayed", "unreadable"],
)  # fmt: skip
@pytest.mark.parametrize("drop", ["", "succeeded failed"])
def test_a_job_whose_record_is_gone_is_not_brought_back(bench, end, drop):
    """bee-queue's finish writes the record of a removed job again."""
    bench.put(active=["1"], claims={"1": "t:1"}, stalling={"1"})
    assert settle(bench, end, drop=drop) == [0]
    assert bench.snapshot() == {}
    assert bench.heard() == []


def test_beside_a_refused_outcome_the_others_are_recorded(bench):
    running(bench, "1", "3")
    bench.put(waiting=["2"])
    assert settle(bench, End("1"), End("2"), End("3", "failed")) == [1, 0, 1]
    assert bench.snapshot() == {
        "jobs": {"1": "1 succeeded", "3": "3 failed"},
        "waiting": ["2"],
        "succeeded": {"1"},
        "failed": {"3"},
    }
    assert bench.heard() == [("events", "event 1"), ("events", "event 3")]


@pytest.mark.parametrize(
    "end",
    [
        End("1", keep="5:s1"),
        End("1", "failed", keep="5:f1"),
        End("1", "retrying"),
        End("1", "retrying", delay_ms=5000),
    ],
    ids=["succeeded", "failed", "retrying", "delayed"],
)
def test_the_same_outcome_again_is_known_and_changes_nothing(bench, end):
    """The reply to the first call was lost."""
    running(bench, "1")
    assert settle(bench, end) == [1]
    bench.heard()
    before = bench.snapshot()
    assert settle(bench, end) == [2]
    assert bench.snapshot() == before
    assert bench.heard() == []


def test_a_repeated_outcome_of_a_retry_that_runs_is_refused(bench):
    running(bench, "1")
    settle(bench, End("1", "retrying"))
    bench.drop("waiting")
    bench.put(active=["1"], claims={"1": "u:1"})
    before = bench.snapshot()
    assert settle(bench, End("1", "retrying")) == [0]
    assert bench.snapshot() == before


def test_one_entry_of_active_goes_with_one_outcome(bench):
    """The same id twice in active: the older entry, at the right, is the one that ran first."""
    bench.put(jobs={"1": "1 created"}, active=["1", "2", "1"], claims={"1": "t:1"})
    assert settle(bench, End("1")) == [1]
    assert bench.snapshot()["active"] == ["1", "2"]


@pytest.mark.parametrize(
    "active",
    [
        ["6", "5", "4", "3", "2", "1"],
        ["o", "6", "5", "4", "3", "2", "1"],
        ["6", "5", "4", "o", "3", "2", "1"],
        ["6", "5", "4", "3", "2", "1", "o"],
        ["1", "2", "3", "4", "5", "6", "o", "p"],
    ],
    ids=["alone", "newer", "between", "older", "the other way round"],
)
def test_a_batch_leaves_the_jobs_of_others_in_active(bench, active):
    ids = [str(n) for n in range(1, 7)]
    running(bench, *ids)
    bench.drop("active")
    bench.put(active=active)
    assert settle(bench, *map(End, ids)) == [1] * 6
    others = [job_id for job_id in active if job_id not in ids]
    assert bench.snapshot().get("active", []) == others


def test_in_a_batch_only_jobs_that_are_there_are_recorded(bench):
    """One was removed, one has another owner, one stalled; none of their records comes back."""
    ids = [str(n) for n in range(1, 8)]
    running(bench, *ids)
    bench.redis.hdel(bench.key("jobs"), "2")
    bench.put(claims={"4": "other:2"})
    bench.redis.lrem(bench.key("active"), 1, "6")
    facts = settle(bench, *map(End, ids))
    assert facts == [1, 0, 1, 0, 1, 0, 1]
    state = bench.snapshot()
    assert state["jobs"] == {n: f"{n} {'created' if n in '46' else 'succeeded'}" for n in ids if n != "2"}
    assert state["succeeded"] == {"1", "3", "5", "7"}
    assert state["active"] == ["4"]


def test_in_a_batch_an_id_is_never_in_both_sets(bench):
    ids = [str(n) for n in range(1, 12)]
    running(bench, *ids, failed={"3", "11", "x"})
    settle(bench, *map(End, ids))
    state = bench.snapshot()
    assert (state["failed"], state["succeeded"]) == ({"x"}, set(ids))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("keep", ["", "5:s1"])
def test_successes_need_the_keys_up_to_ahead_only(bench, count, keep):
    """What is recorded, refused, and recorded before; then jobs are handed out, and a ghost is dropped."""
    ids = [str(n) for n in range(count)]
    running(bench, *ids, "lost", failed={"0"}, waiting=["new", "ghost"])
    bench.put(jobs={"new": "new created"}, claims={"lost": "other:1"})
    script = replace(scripts.exchange, keys=scripts.exchange.keys[: scripts.exchange.keys.index("ahead") + 1])
    ends = [End(job_id, keep=keep) for job_id in [*ids, "lost"]]
    assert settle(bench, *ends, free=2, script=script) == [1] * count + [0]
    assert bench.snapshot()["active"] == ["new", "lost"]
    assert settle(bench, *ends, script=script) == [2] * count + [0]
    assert bench.snapshot()["succeeded"] == set(ids)


def test_the_largest_batch_is_recorded_whole(bench):
    ids = [str(n) for n in range(500)]
    running(bench, *ids)
    assert settle(bench, *(End(job_id, keep="5:s1") for job_id in ids)) == [1] * 500
    state = bench.snapshot()
    assert state.keys() == {"jobs", "succeeded", "results"}
    assert len(bench.heard()) == 500


PLACES = ("waiting", "active", "delayed", "succeeded", "failed")
MIXED = (
    End("1", keep="5:s1"),
    End("2", "failed", keep="5:f2"),
    End("3", "retrying"),
    End("4", "retrying", delay_ms=600_000),
)


@pytest.mark.parametrize(
    "wrong", ["jobs", "succeeded", "failed", "delayed", "results", "waiting", "stalling", "claims"]
)
@pytest.mark.parametrize(
    "ends", [*([end] for end in MIXED), MIXED], ids=["succeeded", "failed", "retrying", "delayed", "mixed"]
)
def test_after_a_refusal_nothing_moved_and_a_repeat_succeeds(bench, wrong, ends):
    """What is in two places may run twice."""
    ids = [end.job_id for end in ends]
    running(bench, *ids)
    kept = bench.snapshot().get(wrong)
    bench.drop(wrong)
    bench.put(**{wrong: "of the wrong type"})
    before = {name: sorted(ids) for name, ids in bench.snapshot().items() if name in PLACES}
    try:
        facts = settle(bench, *ends)
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error)  # noqa: PT017 - a key that this outcome does not need may be wrong
        after = {name: sorted(ids) for name, ids in bench.snapshot().items() if name in PLACES}
        assert after == before
        assert bench.heard() == []
        bench.drop(wrong)
        if kept is not None:
            bench.put(**{wrong: kept})
        facts = settle(bench, *ends)
    else:
        bench.drop(wrong)
    assert facts == [1] * len(ends)
    state = bench.snapshot()
    assert "active" not in state
    assert "claims" not in state
    places = [job_id for name in PLACES for job_id in state.get(name, ())]
    assert sorted(places) == ids


def test_after_refused_records_jobs_to_be_dropped_stay_active(bench):
    running(bench, "1", "2")
    bench.drop("jobs")
    bench.put(jobs="of the wrong type")
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        settle(bench, End("1", keep="5:s1"), End("2"), drop="succeeded")
    after = bench.snapshot()
    assert sorted(after.pop("active")) == sorted(before.pop("active"))
    assert after == before


@pytest.mark.parametrize("wrong", ["results", "evenResults", "oddResults"])
def test_after_a_refusal_of_its_result_the_record_still_stands(bench, wrong):
    running(bench, "1", **{wrong: "of the wrong type"})
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        settle(bench, End("1", keep="5:s1"), drop="succeeded")
    state = bench.snapshot()
    assert (state["jobs"], state["active"], state["claims"]) == ({"1": "1 created"}, ["1"], {"1": "t:1"})
    bench.drop(wrong)
    assert settle(bench, End("1", keep="5:s1"), drop="succeeded") == [1]
    assert bench.passing()["1"][1] == "5:s1"


@pytest.mark.parametrize("drop", ["", "succeeded"])
@pytest.mark.parametrize("wrong", ["waiting", "active"])
def test_an_outcome_recorded_in_a_refused_call_is_not_lost(bench, drop, wrong):
    """The refusal came when jobs were asked for; the caller sends the call again."""
    running(bench, "1")
    if wrong == "active":
        bench.put(waiting=["8", "9"])
    bench.drop(wrong)
    bench.put(**{wrong: "of the wrong type"})
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        settle(bench, End("1", keep="5:s1"), free=2, drop=drop)
    bench.drop(wrong)
    if wrong == "active":
        bench.put(active=["1"])
    assert settle(bench, End("1", keep="5:s1"), free=2, drop=drop)[0] in (1, 2)


def crowd(bench: Bench, size: int, ids: list[str], *, at: int) -> None:
    """Let these jobs run among so many others of the fleet; the first is at this place of ``active``."""
    others = [f"other {n}" for n in range(size)]
    running(bench, *ids)
    bench.drop("active")
    bench.put(active=others[:at] + ids + others[at:])


@pytest.mark.real_redis("so long a list takes seconds there")
def test_in_a_long_active_a_call_records_what_it_can_reach(bench):
    ids = [str(n) for n in range(10)]
    crowd(bench, 60_000, ids, at=30_000)
    assert settle(bench, *(End(job_id) for job_id in ids)) == [1] * 4
    assert bench.snapshot()["succeeded"] == set(ids[:4])
    assert set(bench.snapshot()["claims"]) == set(ids[4:])
    assert bench.redis.llen(bench.key("active")) == 60_006
    assert settle(bench, *(End(job_id) for job_id in ids[4:])) == [1] * 4


def test_a_call_that_records_some_hands_out_as_many_jobs_fewer(bench):
    ids = [str(n) for n in range(10)]
    crowd(bench, 60_000, ids, at=30_000)
    bench.put(waiting=[f"w{n}" for n in range(20)])
    bench.redis.hset(bench.key("jobs"), mapping={f"w{n}": "record" for n in range(20)})
    assert settle(bench, *(End(job_id) for job_id in ids), free=10) == [1] * 4
    assert sum(claim.startswith("T.") for claim in bench.snapshot()["claims"].values()) == 4


@pytest.mark.real_redis("so long a list takes seconds there")
@pytest.mark.parametrize("at", [0, 500, 99_500, 100_000])
def test_near_an_end_of_a_long_active_all_is_recorded_at_once(bench, at):
    ids = [str(n) for n in range(100)]
    crowd(bench, 100_000, ids, at=at)
    assert settle(bench, *(End(job_id) for job_id in ids)) == [1] * 100
    assert bench.redis.llen(bench.key("active")) == 100_000


@pytest.mark.real_redis("so long a list takes seconds there")
def test_in_the_longest_active_one_outcome_is_recorded(bench):
    crowd(bench, 600_000, ["1", "2"], at=300_000)
    assert settle(bench, End("1"), End("2")) == [1]


@pytest.mark.parametrize(
    ("keep", "left", "fact"),
    [
        pytest.param("", {}, 0, id="nothing is left of it"),
        pytest.param("5:s1", {}, 0, id="its result would be there"),
        pytest.param("5:s1", {"results": {"1": "5:s1"}}, 2, id="its result is there"),
        pytest.param("5:s1", {"results": {"1": "5:s2"}}, 0, id="another result is there"),
        pytest.param(
            "5:s1", {"jobs": {"1": "1 succeeded"}, "results": {"1": "5:s2"}}, 0, id="another worker's"
        ),
        pytest.param("5:s1", {"jobs": {"1": "1 succeeded"}, "results": {"1": "5:s1"}}, 2, id="all is there"),
        pytest.param("", {"jobs": {"1": "1 succeeded"}}, 2, id="its record is there"),
        pytest.param("", {"jobs": {"1": "another record"}}, 0, id="the id is used again"),
    ],
)
@pytest.mark.parametrize("drop", ["", "succeeded"])
def test_what_is_left_tells_whether_an_outcome_was_recorded(bench, keep, left, fact, drop):
    bench.put(**left)
    assert settle(bench, End("1", keep=keep), drop=drop) == [fact]
    assert bench.snapshot() == left
