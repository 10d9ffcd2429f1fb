"""Which queues are in trouble, and which of them most. Pure."""

from collections.abc import Iterable

from beeq.client.reader import Stats
from beeq.web.page.failures import FailureSurvey
from beeq.web.page.store import QueueCounts

#: A queue whose next job has waited so long waits too long.
LONG_WAIT_MS = 300_000
#: Without any worker, jobs that have waited so long wait for one.
UNSERVED_MS = 30_000
#: From this weight on, a queue needs somebody.
UNREADABLE, UNSERVED, FAILING, PAUSED, LATE, NEEDS_SOMEBODY = 5000, 4000, 3000, 2500, 2000, 1000


def weight_of(counts: QueueCounts, survey: FailureSurvey | None) -> int:
    """Return how much trouble a queue is in: the class of it, and of failing queues the number besides."""
    stats = counts.stats
    if stats is None:
        return UNREADABLE
    if counts.pause is not None and stats.waiting:
        return PAUSED
    if is_unserved(stats):
        return UNSERVED
    recent = 0 if survey is None else survey.recent_of(counts.prefix, counts.name)
    if recent:
        return FAILING + min(recent, 900)
    if stats.oldest_waiting_ms is not None and stats.oldest_waiting_ms > LONG_WAIT_MS:
        return LATE
    return 950 if counts.pause is not None else min(stats.failed, 900)


def is_unserved(stats: Stats) -> bool:
    """Return whether jobs wait for a worker of any kind: nothing runs, and no beeq worker is alive."""
    waits = stats.oldest_waiting_ms is not None and stats.oldest_waiting_ms > UNSERVED_MS
    return waits and not stats.active and not stats.workers


def worst_first(queues: Iterable[QueueCounts], survey: FailureSurvey | None) -> list[tuple[int, QueueCounts]]:
    """Return the queues with their weights, the heaviest first, else by name."""
    weighed = [(weight_of(counts, survey), counts) for counts in queues]
    return sorted(weighed, key=lambda each: (-each[0], each[1].prefix, each[1].name))
