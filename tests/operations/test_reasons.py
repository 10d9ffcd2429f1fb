"""Why a job is where it is: the sentences that follow from what Redis says. No Redis is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from beeq.operations.explanation.reasons import JobFacts, Owner, explain, reason_of_loss
from beeq.protocol.pauses import Pause
from beeq.settings import show_duration

pytestmark = pytest.mark.fast
NOW = 1_000_000_000
PAUSE = Pause(NOW - 300_000, "ann@host", "deploy", None, everyone=False)


def reasons(state: str, job_id: str = "7", **facts: Any) -> dict[str, str]:
    given = {
        "workers": 1,
        "taking": 1,
        "checkers": 1,
        "status": "created",
        "options": {"retries": 2},
        **facts,
    }
    found = explain(job_id, "mail", JobFacts(NOW, 5000, state, **given))
    assert found.state == (state or "missing")
    return {reason.kind: reason.text for reason in found.reasons}


@pytest.mark.parametrize(
    ("facts", "kind", "text"),
    [
        ({"ahead": 0}, "next", "it is the next to run"),
        ({"ahead": 1}, "ahead", "1 job runs before it"),
        (
            {"ahead": 1200, "rate": 20.0},
            "ahead",
            "1200 jobs run before it, about 1m 0s at 20 jobs/s, which is the rate just now",
        ),
        ({"ahead": None}, "ahead", "more jobs run before it than were counted"),
        (
            {"ahead": 0, "workers": 0},
            "no-worker",
            (
                "no worker is seen that takes jobs from mail: no beeq worker has beaten in 30 s, and no Node worker"
                " runs a job (an idle one cannot be seen)"
            ),
        ),
        (
            {"ahead": 0, "taking": 0},
            "not-taking",
            "the one worker of mail takes no jobs: about to stop, or too many handlers hang there",
        ),
        (
            {"ahead": 0, "slots": 4, "taken": 4},
            "places-taken",
            "all 4 places of the one worker are taken: the next one that is free is for it",
        ),
        (
            {"ahead": 2, "slots": 8, "taken": 8, "workers": 2},
            "places-taken",
            "all 8 places of the 2 workers are taken",
        ),
        (
            {"ahead": 0, "pause": PAUSE},
            "paused",
            "mail was paused 5m 0s ago by ann@host (deploy), for beeq's workers: beeq resume mail ends it",
        ),
        (
            {"ahead": 0, "pause": replace(PAUSE, until_ms=NOW + 60_000, by="", reason="", everyone=True)},
            "paused",
            "mail was paused 5m 0s ago, for Node workers, too; it ends in 1m 0s",
        ),
        (
            {"ahead": 0, "is_hidden": True, "pause": replace(PAUSE, everyone=True)},
            "hidden",
            "it is hidden from Node workers until then, and Node's remove does not find it",
        ),
        (
            {"ahead": 0, "is_hidden": True},
            "hidden",
            "it is still hidden from Node workers by a pause that is over: the next beeq worker repairs that",
        ),
        (
            {"ahead": 0, "status": "retrying", "errors": ("ValueError: no\n  at x", "before")},
            "retry",
            "its last attempt failed with ValueError: no, of 2 that failed; 2 retries are left",
        ),
        (
            {"ahead": 0, "problem": "not JSON"},
            "unreadable",
            "its record cannot be read (not JSON): a beeq worker that takes it fails it",
        ),
        (
            {"ahead": 0, "places": ("waiting", "failed")},
            "several-places",
            "its id is in several places, waiting and failed: beeq doctor --fix leaves one",
        ),
    ],
)
def test_a_job_waits_for_a_reason(facts, kind, text):
    assert reasons("waiting", **facts)[kind] == text


def test_nobody_guesses_while_a_queue_is_paused():
    assert reasons("waiting", ahead=5, rate=10.0, pause=PAUSE)["ahead"] == "5 jobs run before it"
    assert "no-worker" not in reasons("waiting", ahead=0, workers=0, sees_node=True)


@pytest.mark.parametrize(
    ("facts", "kind", "text"),
    [
        (
            {"owner": Owner("host:1:abc", NOW - 60_000, NOW - 2000)},
            "running",
            "its worker's last beat was 2.0s ago",
        ),
        (
            {"owner": Owner("host:1:abc", None, NOW - 20_000), "is_marked": True, "check_ms": 3000},
            "silent",
            "its worker's last beat was 20s ago: it is queued again in about 3.0s, unless a sign of life comes",
        ),
        (
            {"owner": Owner("host:1:abc", None, None), "check_ms": 3000},
            "lost",
            "its worker's beats have stopped: it is queued again in about 8.0s, unless a sign of life comes",
        ),
        (
            {"claim": "tok.1:1", "workers": 0, "checkers": 0},
            "lost",
            (
                "a beeq worker has taken it, and no living one says that it runs it: stall"
                " checks queue it again, which workers make, and none lives"
            ),
        ),
        (
            {"claim": ":2", "is_marked": True},
            "silent",
            (
                "no beeq worker has claimed it, and no sign of life came since the last stall check: it is queued"
                " again in about 0ms, unless a sign of life comes"
            ),
        ),
        (
            {"claim": "tok.1:1"},
            "running",
            "a beeq worker has taken it just now, or has died since the last stall check",
        ),
        ({}, "node-worker", "no beeq worker has claimed it: a Node worker runs it, or took it and is gone"),
        ({"deliveries": 3}, "stalled-before", "beeq workers have taken it 3 times, and lost it 2 times"),
    ],
)
def test_a_job_runs_somewhere(facts, kind, text):
    assert reasons("active", **facts)[kind] == text


@pytest.mark.parametrize(
    ("facts", "kind", "text"),
    [
        ({"due_ms": NOW + 90_000.0}, "due", "it is due in 1m 30s"),
        ({"due_ms": NOW - 10.0}, "due", "it is due just now"),
        ({"due_ms": float("inf")}, "due", "it is never due: its due time is infinite"),
        (
            {"due_ms": NOW - 60_000.0},
            "overdue",
            (
                "it has been due for 1m 0s, and nobody raises it: a beeq worker does, or a Node queue with"
                " activateDelayedJobs"
            ),
        ),
        ({"due_ms": 1e300}, "due", "it is never due: its due time is 1e+300 ms"),
        (
            {"due_ms": float("-inf")},
            "overdue",
            (
                f"it has been due for {show_duration(NOW)}, and nobody raises it: a beeq worker does, or a Node queue"
                " with activateDelayedJobs"
            ),
        ),
        (
            {"due_ms": NOW + 1.0, "options": {"beeq": {"postponed": 5000}}},
            "postponed",
            "its handler has put it off, for 5.0s in all",
        ),
        ({"due_ms": NOW + 1.0, "options": {"beeq": {"postponed": "x"}}}, "due", "it is due in 1ms"),
    ],
)
def test_a_delayed_job_has_a_due_time(facts, kind, text):
    assert reasons("delayed", **facts)[kind] == text


def test_a_job_that_has_ended_says_how():
    failed = explain("7", "mail", JobFacts(NOW, 5000, "failed", options={}, errors=("b", "a"), error="b"))
    assert failed.sentences == [
        "it failed for good after 2 failed attempts: b",
        "it stays as it is until somebody retries it (beeq retry 7) or removes it",
    ]
    assert reasons("failed", options=None)["failed"] == "it failed for good: the error was not kept"
    assert reasons("succeeded")["succeeded"] == "it has succeeded"
    assert "its result is kept" in reasons("succeeded", options=None)["succeeded"]
    assert reasons("cancelled") == {"cancelled": "it was cancelled"}
    assert "beeq doctor --fix" in reasons("nowhere")["nowhere"]


@pytest.mark.parametrize(
    ("job_id", "text"),
    [
        ("8", "mail has given out no automatic id beyond 7, and nobody saved this one"),
        ("8" * 5000, "mail has given out no automatic id beyond 7, and nobody saved this one"),
        (
            "7",
            (
                "mail has given out the id 7, and nothing is left of it: it was removed, or has ended and its record"
                " was dropped"
            ),
        ),
        (
            "film",
            "mail has nothing of film: it was never saved, it was removed, or has ended and its record was dropped",
        ),
    ],
)
def test_a_job_that_is_not_there_may_have_been(job_id, text):
    assert reasons("", job_id, counter=7) == {"missing": text}


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"owner": Owner("host:1:abc", NOW - 9000, NOW - 2000)}, None),
        ({"owner": Owner("host:1:abc", NOW - 90_000, NOW - 20_000), "is_marked": True}, "silent"),
        ({"owner": Owner("host:1:abc", NOW - 90_000, NOW - 20_000), "claim": ":1"}, None),
        ({"owner": Owner("host:1:abc", NOW - 90_000, NOW - 20_000), "claim": ""}, None),
        ({"claim": ""}, None),
        ({"claim": ":3", "is_marked": True, "workers": 0, "checkers": 0}, None),
        ({"workers": 0, "checkers": 0}, "lost"),
        ({"workers": 0, "checkers": 0, "check_ms": 4000}, None),
        ({"workers": 0, "checkers": 0, "check_ms": 400, "is_marked": True}, "lost"),
        ({"is_marked": True, "check_ms": 4000}, None),
        ({"is_marked": True, "check_ms": 400}, "lost"),
    ],
)
def test_a_loss_is_said_only_where_it_is_sure(facts, kind):
    loss = reason_of_loss(
        JobFacts(NOW, 5000, "active", **{"workers": 1, "checkers": 1, "claim": "t.1:1", **facts})
    )
    assert (None if loss is None else loss.kind) == kind
