"""Outcomes on their way to Redis: which of them keep the next call from asking for jobs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from beeq.errors import RedisUnavailable
from beeq.protocol.outcome import Outcome
from beeq.worker.scheduling.actions import Failure, PendingOutcome
from beeq.worker.scheduling.pending_outcomes import PendingOutcomes

LARGE = b"x" * 100_000


@pytest.mark.fast
@pytest.mark.parametrize(("status", "may_ask"), [("retrying", False), ("succeeded", True), ("failed", True)])
def test_a_large_retry_of_which_no_reply_came_keeps_jobs_off(status: str, may_ask: bool):
    """Redis may have recorded it: its job waits again, and claimed here it would have another claim."""
    outcomes = PendingOutcomes()
    job = cast("Any", SimpleNamespace())
    sent = PendingOutcome(b"1", b"token.0:1", Outcome(job, status, LARGE, b""))
    outcomes.waiting.append(sent)
    outcomes.failed(outcomes.take(alone=True), 1, Failure.REPLY_LOST, RedisUnavailable("gone"))
    assert sent.is_lonely
    assert outcomes.allow_asking([]) is may_ask
    outcomes.retry_lonely()
    assert outcomes.answered(outcomes.take(alone=True), [1], b"") == ([sent], [])
    assert outcomes.allow_asking([])
