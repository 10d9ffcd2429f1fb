"""Counts and times a worker's attempts, and makes their spans if tracing is on."""

import asyncio
from collections.abc import Iterable
from contextvars import Context
from time import monotonic
from typing import Any, Protocol

from beeq.errors import Postpone
from beeq.protocol.history import BOUNDS_MS, bucket_of
from beeq.protocol.options import first_due_ms_of
from beeq.protocol.outcome import Outcome
from beeq.telemetry.hooks import Telemetry

#: The end of the first bucket of durations: attempts this short take a faster path.
_SHORT_S = BOUNDS_MS[0] / 1000


class ReportedAttempt(Protocol):
    """The attributes of an attempt that are read and set here; see ``Attempt``."""

    job: Any
    deliveries: int
    task: asyncio.Task[None] | None
    timed_out: Any
    is_stopped: bool
    is_lost: bool
    is_given_up: bool
    span: Any
    started_s: float
    ran_s: float


class AttemptReport:
    """One worker's report. It always counts for the queue's history; all else only if asked for."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        work = telemetry.work
        self._waits, self._durations, self._ended = work.waits, work.durations, work.ended

    def begins(self, attempt: ReportedAttempt, options: dict[str, Any], variables: Context) -> None:
        """Report an attempt that is about to start in this context; the job has these options."""
        job, telemetry = attempt.job, self._telemetry
        attempt.started_s = monotonic()
        # It is unknown when a later attempt was due.
        if attempt.deliveries == 1 and job.status == "created":
            due_ms = first_due_ms_of(options)
            if due_ms:
                wait_ms = job.started_ms - due_ms
                self._waits[bucket_of(wait_ms)] += 1
                if telemetry.tally is not None:
                    telemetry.tally.waited(max(0, wait_ms) / 1000)
        if telemetry.tracing is not None:
            attempt.span = telemetry.tracing.begin(job.saved_id(), options, variables)

    def ends(self, attempt: ReportedAttempt, error: BaseException | None) -> None:
        """Report the end of an attempt: its handler's return or error, or its abandonment."""
        telemetry = self._telemetry
        if attempt.started_s:
            duration_s = attempt.ran_s = monotonic() - attempt.started_s
            attempt.started_s = 0.0
            self._durations[0 if duration_s < _SHORT_S else bucket_of(duration_s * 1000)] += 1
            if telemetry.tally is not None:
                telemetry.tally.ran(duration_s)
                if attempt.is_stopped and not attempt.is_lost:
                    telemetry.tally.ended("cancelled")
        if attempt.span is not None:
            if telemetry.tracing is not None:
                event = _event_of(attempt, error)
                telemetry.tracing.end(attempt.span, None if event else error, event=event)
            attempt.span = None

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Count the outcomes that Redis has recorded."""
        statuses = ["postponed" if outcome.is_postponed else outcome.status for outcome in outcomes]
        for status in set(statuses):
            self._ended[status] += statuses.count(status)
        if self._telemetry.tally is not None:
            for status in statuses:
                self._telemetry.tally.ended(status)


def _event_of(attempt: ReportedAttempt, error: BaseException | None) -> str:
    """Return how an attempt ended that neither succeeded nor failed; else ""."""
    if attempt.is_stopped:
        return "lost" if attempt.is_lost else "cancelled"
    was_stopped = attempt.task is not None and attempt.task.cancelling() > 0 and attempt.timed_out is None
    if attempt.is_given_up or (was_stopped and issubclass(type(error), asyncio.CancelledError)):
        return "handed back"  # by the end of its worker
    return "postponed" if issubclass(type(error), Postpone) else ""
