"""The overview: every queue, those in trouble first, and the one line that says whether anybody is needed."""

from dataclasses import dataclass

from starlette.responses import Response

from beeq.client.reader import Stats
from beeq.web.page import words
from beeq.web.page.failures import FailureGroup, FailureSurvey
from beeq.web.page.look import ScreenRequest
from beeq.web.page.store import QueueCounts

#: A queue whose next job has waited so long waits too long.
LONG_WAIT_MS = 300_000
#: Without any worker, jobs that have waited so long wait for one.
UNSERVED_MS = 30_000


@dataclass(frozen=True, slots=True)
class Row:
    """A queue on the overview.

    Attributes:
        trouble: what is wrong; "" if nothing is.
        weight: the larger, the further up the row is.
    """

    counts: QueueCounts
    address: str
    trouble: str
    weight: int


async def show(look: ScreenRequest) -> Response:
    """Return the overview."""
    overview = await look.parts.store.overview()
    survey = await look.parts.failures.look()
    rows = [_row(look, counts, survey) for counts in overview.queues]
    rows.sort(key=lambda row: (-row.weight, row.counts.prefix, row.counts.name))
    total = _total([row.counts.stats for row in rows if row.counts.stats is not None])
    return look.screen(
        "overview.html",
        rows=rows,
        troubles=[row for row in rows if row.weight >= 1000],  # noqa: PLR2004 - see _row
        total=total,
        is_complete=overview.is_complete,
        several=len(look.at.prefixes) > 1,
    )


def _row(look: ScreenRequest, counts: QueueCounts, survey: FailureSurvey) -> Row:
    at = look.at.within(counts.prefix)
    stats, address = counts.stats, at.queue(counts.name)
    if stats is None:
        return Row(counts, address, f"cannot be read: {counts.problem}", 5000)
    if counts.pause is not None and stats.waiting:
        return Row(counts, address, f"paused, and {words.number(stats.waiting)} wait: {counts.pause}", 2500)
    if is_unserved(stats):
        waits = words.duration(stats.oldest_waiting_ms or 0)
        return Row(counts, address, f"no worker takes its jobs; the next one has waited {waits}", 4000)
    groups = survey.of(counts.prefix, counts.name)
    recent = sum(group.recent for group in groups)
    if recent:
        text = f"{words.number(recent)} failed in 10 min, {_most_of(look, groups)}"
        return Row(counts, at.queue(counts.name, "failed"), text, 3000 + min(recent, 900))
    if stats.oldest_waiting_ms is not None and stats.oldest_waiting_ms > LONG_WAIT_MS:
        waits = words.duration(stats.oldest_waiting_ms)
        return Row(counts, address, f"the next job has waited {waits}", 2000)
    text = "" if counts.pause is None else f"paused {counts.pause}"
    return Row(counts, address, text, 950 if text else min(stats.failed, 900))


def _most_of(look: ScreenRequest, groups: list[FailureGroup]) -> str:
    top = max(groups, key=lambda group: group.recent)
    return f"{words.cut(look.error(top.kind) or 'no error', 80)} {words.number(top.recent)}×"


def is_unserved(stats: Stats) -> bool:
    """Return whether jobs wait for a worker of any kind: nothing runs, and no beeq worker is alive."""
    waits = stats.oldest_waiting_ms is not None and stats.oldest_waiting_ms > UNSERVED_MS
    return waits and not stats.active and not stats.workers


def _total(all_stats: list[Stats]) -> dict[str, int]:
    names = ("waiting", "active", "delayed", "failed", "succeeded")
    return {name: sum(getattr(stats, name) for stats in all_stats) for name in names}
