"""Tells of a worker's attempts: counts and times them, and where somebody asked makes their spans."""

import asyncio
import time
from collections.abc import Iterable
from contextvars import Context
from typing import Any, Protocol

from beeq.errors import Postpone
from beeq.protocol.history import BOUNDS_MS, bucket_of
from beeq.protocol.options import first_due_ms_of
from beeq.protocol.outcome import Outcome
from beeq.telemetry.hooks import Telemetry

#: The first bucket of durations ends here; the end of an attempt as short as that is not to take longer.
_SHORT_S = BOUNDS_MS[0] / 1000


class ReportedAttempt(Protocol):
    """What is read and noted of an attempt; ``Attempt`` says what each is."""

    job: Any
    deliveries: int
    task: asyncio.Task[None] | None
    timed_out: Any
    is_cancelled: bool
    is_lost: bool
    is_given_up: bool
    span: Any
    started_s: float
    ran_s: float


class AttemptReport:
    """One worker's. The queue's history wants to know all but spans; for the rest nothing is done unasked."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._work = telemetry.work

    def begins(self, attempt: ReportedAttempt, options: dict[str, Any], variables: Context) -> None:
        """Tell of an attempt that is about to start in this context; the job has these options."""
        job, tally, tracing = attempt.job, self._telemetry.tally, self._telemetry.tracing
        attempt.started_s = time.monotonic()
        # Of a later attempt nobody knows when it was due.
        if attempt.deliveries == 1 and job.status == "created":
            due_ms = first_due_ms_of(options)
            if due_ms:
                wait_ms = max(0, job.started_ms - due_ms)
                self._work.waits[bucket_of(wait_ms)] += 1
                if tally is not None:
                    tally.waited(wait_ms / 1000)
        if tracing is not None:
            attempt.span = tracing.begin(job.saved_id(), options, variables)

    def ends(self, attempt: ReportedAttempt, error: BaseException | None) -> None:
        """Tell of the end of an attempt, by its handler's return or error, or by being given up."""
        tally, tracing = self._telemetry.tally, self._telemetry.tracing
        if attempt.started_s:
            duration_s = attempt.ran_s = time.monotonic() - attempt.started_s
            at = 0 if duration_s < _SHORT_S else bucket_of(duration_s * 1000)
            self._work.durations[at] += 1
            if tally is not None:
                tally.ran(duration_s)
                if attempt.is_cancelled and not attempt.is_lost:
                    tally.ended("cancelled")
        if attempt.span is not None and tracing is not None:
            event = _event_of(attempt, error)
            tracing.end(attempt.span, None if event else error, event=event)
        attempt.span, attempt.started_s = None, 0.0

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Count the outcomes that Redis has recorded."""
        tally, ended = self._telemetry.tally, self._work.ended
        for outcome in outcomes:
            status = "postponed" if outcome.is_postponed else outcome.status
            ended[status] += 1
            if tally is not None:
                tally.ended(status)


def _event_of(attempt: ReportedAttempt, error: BaseException | None) -> str:
    """Return how an attempt ended that neither succeeded nor failed; else ""."""
    if attempt.is_cancelled:
        return "lost" if attempt.is_lost else "cancelled"
    was_stopped = attempt.task is not None and attempt.task.cancelling() > 0 and attempt.timed_out is None
    if attempt.is_given_up or (was_stopped and issubclass(type(error), asyncio.CancelledError)):
        return "handed back"  # by the end of its worker
    return "postponed" if issubclass(type(error), Postpone) else ""
