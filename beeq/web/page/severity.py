"""How badly each queue needs an operator, as a weight. Pure."""

from collections.abc import Iterable, Mapping

from beeq.client.reader import Stats
from beeq.web.page.failures import FailureSurvey
from beeq.web.page.sources.active_jobs import LostJobs
from beeq.web.page.store import QueueCounts

#: How long the next job may have waited before the queue counts as late.
LONG_WAIT_MS = 300_000
#: How long jobs wait before a queue without workers counts as unserved.
UNSERVED_MS = 30_000
#: From this weight on, a queue needs an operator.
UNREADABLE, UNSERVED, LOST, FAILING, PAUSED, LATE, NEEDS_SOMEBODY = 5000, 4000, 3950, 3000, 2500, 2000, 1000


def weight_of(counts: QueueCounts, survey: FailureSurvey | None, lost: LostJobs | None = None) -> int:
    """Return a queue's weight: its class, plus the number of recent failures in a failing queue.

    Active jobs that have ``lost`` their worker count only if no stall check will queue them again.
    """
    stats = counts.stats
    if stats is None:
        return UNREADABLE
    if counts.pause is not None and stats.waiting:
        return PAUSED
    if is_unserved(stats) or (lost is not None and lost.needs_somebody):
        return UNSERVED if is_unserved(stats) else LOST
    recent = 0 if survey is None else survey.recent_of(counts.prefix, counts.name)
    if recent:
        return FAILING + min(recent, 900)
    if stats.oldest_waiting_ms is not None and stats.oldest_waiting_ms > LONG_WAIT_MS:
        return LATE
    return 950 if counts.pause is not None or lost is not None else min(stats.failed, 900)


def is_unserved(stats: Stats) -> bool:
    """Return whether jobs wait for a worker of any kind: nothing runs, and no beeq worker is alive."""
    waits = stats.oldest_waiting_ms is not None and stats.oldest_waiting_ms > UNSERVED_MS
    return waits and not stats.active and not stats.workers


def worst_first(
    queues: Iterable[QueueCounts],
    survey: FailureSurvey | None,
    losses: Mapping[tuple[str, str], LostJobs] | None = None,
) -> list[tuple[int, QueueCounts]]:
    """Return the queues with their weights, the heaviest first, else by name.

    ``losses`` has, by prefix and name, the active jobs that have lost their worker.
    """
    weighed = [
        (weight_of(counts, survey, (losses or {}).get((counts.prefix, counts.name))), counts)
        for counts in queues
    ]
    return sorted(weighed, key=lambda each: (-each[0], each[1].prefix, each[1].name))
