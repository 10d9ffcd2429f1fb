"""Reports how attempts ended: to the queue's listeners, and to the log where a failure has no listener."""

import logging
from collections.abc import Iterable

from beeq.client.context import QueueContext
from beeq.job import Job
from beeq.logs.records import log_job, log_outcome, logger, logs_all
from beeq.protocol.outcome import Outcome


def report_outcomes(context: QueueContext, outcomes: Iterable[Outcome]) -> None:
    """Emit the events of outcomes that were recorded, in bee-queue's order, and log the failures."""
    emit, is_debug = context.emit, logger.isEnabledFor(logging.DEBUG)
    heard = context.heard()  # a listener may add others
    for outcome in outcomes:
        if outcome.error is None and not is_debug and "succeeded" not in heard:
            continue
        detail = outcome.result if outcome.error is None else outcome.error
        is_heard = False
        for event in outcome.local_events:
            is_heard |= emit(event, outcome.job, detail)
        if outcome.error is not None or is_debug:
            log_outcome(context.name, outcome, is_heard=is_heard)


def report_cancelled(context: QueueContext, job: Job) -> None:
    """Emit ``cancelled`` of a job that ran here, or log it."""
    if not context.emit("cancelled", job) or logs_all():
        log_job(logging.INFO, "was cancelled", context.name, job)
