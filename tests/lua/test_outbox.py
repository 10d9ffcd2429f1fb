"""The outbox: each change of a job and the debt to mirror it are one step; and nothing is noted when it is off."""

from __future__ import annotations

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench, End

LIMIT = "1000"
RUNNING = {"jobs": {"1": "r", "2": "r"}, "active": ["1", "2"], "claims": {"1": "t:1", "2": "t:1"}}


def exchange(
    bench: Bench, *ends: End, free: int = 0, fetched: str = "", drop: str = "", limit: str = LIMIT
) -> None:
    bench.run(
        scripts.exchange,
        events=bench.keys.events,
        earlier_delayed=bench.keys.earlier_delayed,
        keep_ms=60_000,
        drop_succeeded=drop,
        drop_failed=drop,
        outbox_limit=limit,
        max_bytes=1_000_000,
        active_length="",
        is_mixed="",
        token="T",
        free=free,
        wanted_ahead=0,
        ahead_ms=60_000,
        fetched=fetched,
        is_started="",
        outcomes=[end.arguments() for end in ends],
    )


def cancel(bench: Bench, limit: str = LIMIT) -> None:
    bench.run(
        scripts.cancel_job,
        job_id="1",
        keep="5:cx",
        keep_ms=1000,
        memory_ms=1000,
        events=bench.keys.events,
        message="message",
        outbox_limit=limit,
    )


def add(bench: Bench, *jobs: tuple[str, str, str], limit: str = LIMIT) -> None:
    bench.run(scripts.add_jobs, earlier_delayed=bench.keys.earlier_delayed, outbox_limit=limit, jobs=jobs)


def noted(bench: Bench) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = bench.snapshot().get("outbox", [])
    return entries


def ids(*job_ids: str) -> list[dict[str, str]]:
    return [{"id": job_id} for job_id in job_ids]


def test_added_jobs_are_noted_and_one_whose_id_exists_is_not(bench):
    bench.put(jobs={"x": "r"})
    add(bench, ("", "r", ""), ("x", "r", ""), ("later", "r", "5000"))
    assert noted(bench) == ids("1", "later")


def test_jobs_that_are_handed_out_are_noted(bench):
    bench.put(jobs={"1": "r", "2": "r", "3": "r"}, waiting=["3", "ghost", "1"], active=["2"])
    exchange(bench, free=3, fetched="2")
    assert noted(bench) == ids("2", "1", "3")


@pytest.mark.parametrize("status", ["succeeded", "failed", "retrying"])
def test_only_an_outcome_that_is_recorded_is_noted(bench, status):
    bench.put(**RUNNING)
    exchange(bench, End("1", status=status), End("2", status=status, claim="other:1"))
    assert noted(bench) == ids("1")


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_of_a_dropped_record_the_outbox_has_all_the_mirror_needs(bench, status):
    bench.put(**RUNNING)
    exchange(bench, End("1", status=status, keep="5:s1"), drop="1")
    assert noted(bench) == [{"id": "1", "state": status, "record": f"1 {status}", "keep": "5:s1"}]


def test_jobs_that_are_handed_back_or_have_stalled_are_noted(bench):
    bench.put(**RUNNING, stalling={"2"})
    bench.run(scripts.give_back, outbox_limit=LIMIT, jobs=[("1", "t:1"), ("2", "other:1")])
    assert noted(bench) == ids("1")
    bench.put(stallBlock="t")
    bench.run(scripts.requeue_stalled, token="t", lease_ms=60_000, limit=100, outbox_limit=LIMIT)
    assert noted(bench) == ids("1", "2")


def test_a_manual_retry_is_noted(bench):
    bench.put(jobs={"1": "old"}, failed={"1"})
    bench.run(scripts.retry_job, job_id="1", seen="old", record="new", outbox_limit=LIMIT)
    assert noted(bench) == ids("1")


@pytest.mark.parametrize("script", [scripts.cancel_job, scripts.remove_job])
def test_an_unfinished_removed_job_is_noted_as_cancelled(bench, script):
    bench.put(jobs={"1": "r"}, waiting=["1"])
    if script is scripts.cancel_job:
        cancel(bench)
    else:
        bench.run(scripts.remove_job, job_id="1", outbox_limit=LIMIT)
    keep = {} if script is scripts.cancel_job else {"keep": ""}
    assert noted(bench) == [{"id": "1", "state": "cancelled", "record": "r", **keep}]


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_job_removed_after_its_end_is_noted_with_all_known(bench, state):
    """Its change may not have been mirrored yet."""
    bench.put(jobs={"1": "r"}, results={"1": "5:s1"}, **{state: {"1"}})
    bench.run(scripts.remove_job, job_id="1", outbox_limit=LIMIT)
    assert noted(bench) == [{"id": "1", "state": state, "record": "r", "keep": "5:s1"}]


def test_a_failed_job_that_node_requeued_is_cancelled_by_removal(bench):
    bench.put(jobs={"1": "r"}, failed={"1"}, waiting=["1"])
    bench.run(scripts.remove_job, job_id="1", outbox_limit=LIMIT)
    assert [entry["state"] for entry in noted(bench)] == ["cancelled"]


def test_removing_what_never_was_is_nothing_to_mirror(bench):
    bench.put(waiting=["1"])
    bench.run(scripts.remove_job, job_id="1", outbox_limit=LIMIT)
    assert noted(bench) == []


def test_the_outbox_is_bounded(bench):
    for _ in range(30):
        add(bench, *[("", "r", "")] * 100, limit="100")
    assert 100 <= len(noted(bench)) <= 300


def test_switched_off_it_does_not_exist(bench):
    add(bench, ("", "r", ""), limit="0")
    exchange(bench, free=1, limit="0")
    exchange(bench, End("1", claim="T.0:1"), limit="0")
    assert "outbox" not in bench.snapshot()


def test_an_outbox_that_refuses_costs_no_job(bench):
    """Of the wrong type, say. The mirror looks for itself as well."""
    bench.put(outbox="text")
    add(bench, ("", "r", ""))
    exchange(bench, free=1)
    exchange(bench, End("1", claim="T.0:1"))
    assert bench.snapshot()["succeeded"] == {"1"}
