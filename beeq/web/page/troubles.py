"""Which queues are in trouble, and which of them most. Pure."""

from collections.abc import Iterable, Mapping

from beeq.client.reader import Stats
from beeq.web.page.failures import FailureSurvey
from beeq.web.page.sources.active_jobs import LostJobs
from beeq.web.page.store import QueueCounts

#: A queue whose next job has waited so long waits too long.
LONG_WAIT_MS = 300_000
#: Without any worker, jobs that have waited so long wait for one.
UNSERVED_MS = 30_000
#: From this weight on, a queue needs somebody.
UNREADABLE, UNSERVED, LOST, FAILING, PAUSED, LATE, NEEDS_SOMEBODY = 5000, 4000, 3950, 3000, 2500, 2000, 1000


def weight_of(counts: QueueCounts, survey: FailureSurvey | None, lost: LostJobs | None = None) -> int:
    """Return how much trouble a queue is in: the class of it, and of failing queues the number besides.

    Active jobs that have ``lost`` their worker need somebody only where no stall check queues them again.
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
