"""A handler that puts its job off: what is written, what is not, and when that ends."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import pytest

from beeq import Postpone
from beeq.protocol.backoff import MAX_DELAY_MS, builtin_strategies
from beeq.protocol.outcome import MAX_POSTPONED_MS, MIN_POSTPONED_MS, Outcome, fail
from tests.support.samples import make_job

pytestmark = pytest.mark.fast


def postponed(options: dict[str, Any], after: Any = 5000, reason: str = "busy") -> Outcome:
    return fail(make_job(options), Postpone(after, reason), builtin_strategies())


def options_of(outcome: Outcome) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(outcome.record)["options"]
    return options


def test_a_postponement_uses_no_retry_and_leaves_no_trace() -> None:
    backoff = {"strategy": "exponential", "delay": 100}
    outcome = postponed({"retries": 2, "backoff": dict(backoff)})

    assert (outcome.status, outcome.is_postponed, outcome.delay_ms) == ("retrying", True, 5000)
    assert outcome.message == b'{"id":"7","event":"postponed","data":"busy"}'
    assert outcome.keep == b""
    options = options_of(outcome)
    assert (options["retries"], options["backoff"], options["stacktraces"]) == (2, backoff, [])
    assert options["beeq"] == {"postponed": 5000}
    assert json.loads(outcome.record)["status"] == "created"


def test_a_job_without_retries_may_be_postponed() -> None:
    assert postponed({}).is_postponed


def test_postponements_add_up_beside_what_was_remembered() -> None:
    outcome = postponed({"beeq": {"memory": {"a": 1}, "postponed": 1000}}, timedelta(seconds=2))
    assert options_of(outcome)["beeq"] == {"memory": {"a": 1}, "postponed": 3000}


@pytest.mark.parametrize("total", ["soon", -5, True, None, [], math.nan])
def test_a_senseless_sum_begins_from_zero(total: Any) -> None:
    assert options_of(postponed({"beeq": {"postponed": total}}))["beeq"]["postponed"] == 5000


def test_a_room_that_is_no_object_is_replaced() -> None:
    assert options_of(postponed({"beeq": "mine"}))["beeq"] == {"postponed": 5000}


@pytest.mark.parametrize("after", [0, -1, 1, timedelta(0), timedelta(days=-1)])
def test_a_job_is_never_postponed_to_the_same_moment(after: Any) -> None:
    assert postponed({}, after).delay_ms == MIN_POSTPONED_MS


def test_after_a_day_in_all_the_job_fails() -> None:
    last = postponed({"retries": 5, "beeq": {"postponed": MAX_POSTPONED_MS - 5000}})
    assert last.is_postponed

    outcome = postponed({"retries": 5, "beeq": {"postponed": MAX_POSTPONED_MS - 4999, "memory": {"a": 1}}})
    assert (outcome.status, outcome.is_postponed) == ("failed", False)
    assert json.loads(outcome.message)["data"] == "busy; the job was postponed for a day in all"
    options = options_of(outcome)
    assert options["beeq"] == {"memory": {"a": 1}}  # queued again by hand, it may wait again
    assert len(options["stacktraces"]) == 1


@pytest.mark.parametrize(
    "after", [math.inf, 10**400, MAX_DELAY_MS, timedelta(days=2)], ids=lambda x: repr(x)[:6]
)
def test_a_postponement_beyond_a_day_fails_the_job(after: Any) -> None:
    assert postponed({}, after).status == "failed"


@pytest.mark.parametrize(
    ("after", "delay_ms"), [(1500.2, 1501), ("30s", 30_000), (timedelta(seconds=2), 2000)], ids=str
)
def test_a_time_is_ms_a_timedelta_or_a_text(after: Any, delay_ms: int) -> None:
    assert postponed({}, after).delay_ms == delay_ms


@pytest.mark.parametrize("after", [None, math.nan, object()], ids=lambda x: repr(x)[:6])
def test_a_bad_time_fails_the_job_with_that_error(after: Any) -> None:
    outcome = postponed({"retries": 3}, after)
    assert outcome.status == "failed"
    assert not isinstance(outcome.error, Postpone)


def test_what_json_has_no_word_for_fails_the_job() -> None:
    job = make_job({})
    job.data = {"a": object()}
    outcome = fail(job, Postpone(5), {})
    assert outcome.status == "failed"
    assert "cannot be written as JSON" in str(outcome.error)
