"""Outcomes on their way to Redis: how many one call carries, and which of them keep it from asking for jobs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from beeq.errors import RedisUnavailable
from beeq.protocol.outcome import Outcome
from beeq.worker.scheduling.actions import MAX_BATCH, MAX_BATCH_BYTES, Failure, PendingOutcome
from beeq.worker.scheduling.pending_outcomes import PendingOutcomes

LARGE = b"x" * 100_000


def pending(status: str, record: bytes) -> PendingOutcome:
    job = cast("Any", SimpleNamespace())
    return PendingOutcome(b"1", b"token.0:1", Outcome(job, status, record, b""))


@pytest.mark.fast
@pytest.mark.parametrize(("status", "may_ask"), [("retrying", False), ("succeeded", True), ("failed", True)])
def test_a_large_retry_without_a_reply_keeps_jobs_off(status: str, may_ask: bool):
    """Redis may have recorded it: its job waits again, and claimed here it would have another claim."""
    outcomes = PendingOutcomes()
    sent = pending(status, LARGE)
    outcomes.waiting.append(sent)
    outcomes.failed(outcomes.take(alone=True), 1, Failure.REPLY_LOST, RedisUnavailable("gone"))
    assert sent.is_lonely
    assert outcomes.allow_asking([]) is may_ask
    outcomes.retry_lonely()
    assert outcomes.answered(outcomes.take(alone=True), [1], b"") == ([sent], [])
    assert outcomes.allow_asking([])


@pytest.mark.fast
@pytest.mark.parametrize("record", [LARGE, LARGE * 15, b"x"])
def test_a_call_carries_no_more_bytes_than_its_limit(record: bytes):
    """Of outcomes that are larger than the limit, one."""
    outcomes = PendingOutcomes()
    outcomes.waiting += [pending("succeeded", record) for _ in range(2 * MAX_BATCH)]
    most = min(MAX_BATCH, max(1, MAX_BATCH_BYTES // len(record)))
    sent = 0
    while outcomes.waiting:
        taken = outcomes.take(alone=False)
        sent += len(taken)
        assert len(taken) == most or not outcomes.waiting
    assert sent == 2 * MAX_BATCH


@pytest.mark.fast
@pytest.mark.parametrize("failure", [Failure.REPLY_LOST, Failure.REFUSED])
def test_after_each_failure_calls_carry_half_down_to_one(failure: Failure):
    outcomes = PendingOutcomes()
    outcomes.waiting += [pending("succeeded", b"x") for _ in range(64)]
    carried = []
    while len(taken := outcomes.take(alone=False)) > 1:
        carried.append(len(taken))
        outcomes.failed(taken, 0, failure, RedisUnavailable("gone"))
        assert len(outcomes.waiting) == 64, "one of them is lost"
    assert carried == [64, 32, 16, 8, 4, 2]
    assert outcomes.answered(taken, [1], b"") == (taken, [])
    assert len(outcomes.take(alone=False)) == 2, "after a success calls grow again"
