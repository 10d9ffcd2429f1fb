"""The overview: every queue, the worst first, and one line that says whether an operator is needed."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import Response

from beeq.client.reader import Stats
from beeq.web.page import waits, words
from beeq.web.page.failures import FailureGroup, FailureSurvey
from beeq.web.page.look import ScreenRequest
from beeq.web.page.severity import FAILING, LATE, LOST, NEEDS_SOMEBODY, PAUSED, UNSERVED, worst_first
from beeq.web.page.sources.active_jobs import LostJobs
from beeq.web.page.store import QueueCounts

#: The queues on one page of the overview, and the most that need an operator.
A_PAGE, _MOST_NAMED = 100, 5
_LONGEST_ID = 40


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

    @property
    def queue(self) -> tuple[str, str]:
        """Prefix and name."""
        return self.counts.prefix, self.counts.name


async def show(look: ScreenRequest) -> Response:
    """Return the overview, in pages if there are very many queues, the worst first."""
    overview = await look.parts.store.overview()
    survey, losses = await asyncio.gather(
        look.parts.failures.look(wait_s=waits.OVERVIEWS_FAILURES_S),
        look.parts.active_jobs.survey(overview.queues, wait_s=waits.OVERVIEWS_LOSSES_S),
    )
    # Read now, for the weights: the surveys may end before this is written.
    are_failures_read, are_losses_known = survey.has_ended, losses.has_ended
    lost = {
        (each.prefix, each.name): found
        for each in overview.queues
        if each.stats is not None
        and each.stats.active
        and (found := losses.lost.get((each.prefix, each.name))) is not None
    }
    sorted_queues = worst_first(overview.queues, survey, lost)
    pages = max(1, math.ceil(len(sorted_queues) / A_PAGE))
    page = min(look.page, pages)
    shown = sorted_queues[(page - 1) * A_PAGE : page * A_PAGE]
    in_trouble = sum(weight >= NEEDS_SOMEBODY for weight, _ in sorted_queues)
    return look.screen(
        "overview.html",
        rows=[_row(look, counts, weight, survey, lost) for weight, counts in shown],
        trends=await look.parts.histories.trends([(each.prefix, each.name) for _, each in shown]),
        in_trouble=in_trouble,
        troubles=[
            _row(look, counts, weight, survey, lost)
            for weight, counts in sorted_queues[: min(in_trouble, _MOST_NAMED)]
        ],
        total=_total([each.stats for each in overview.queues if each.stats is not None]),
        overview=overview,
        are_all_looked_at=losses.is_whole,
        unread=_unread(
            are_counted=not overview.is_counting,
            are_failures_read=are_failures_read,
            are_losses_known=are_losses_known,
        ),
        first=(page - 1) * A_PAGE + 1,
        page=page,
        pages=pages,
        several=len(look.at.prefixes) > 1,
    )


def _unread(*, are_counted: bool, are_failures_read: bool, are_losses_known: bool) -> str:
    """Return what is not read yet, as a sentence without its full stop; "" if everything is."""
    if not are_counted:
        return "queues are still being counted"
    if not are_failures_read:
        return "failed jobs are still being read"
    return "" if are_losses_known else "active jobs are still being looked at"


def _row(
    look: ScreenRequest,
    counts: QueueCounts,
    weight: int,
    survey: FailureSurvey,
    losses: Mapping[tuple[str, str], LostJobs],
) -> Row:
    at = look.at.within(counts.prefix)
    stats, address, text = counts.stats, at.queue(counts.name), ""
    if stats is None:
        text = f"cannot be read: {counts.problem}"
    elif weight == PAUSED:
        text = f"paused, and {words.number(stats.waiting)} wait: {counts.pause}"
    elif weight == UNSERVED:
        waits = words.duration(stats.oldest_waiting_ms or 0)
        text = f"no worker takes its jobs; the next one has waited {waits}"
    elif FAILING <= weight < LOST:
        groups = survey.of(counts.prefix, counts.name)
        recent = survey.recent_of(counts.prefix, counts.name)
        text, address = (
            f"{words.number(recent)} failed in 10 min, {_most_of(look, groups)}",
            at.queue(counts.name, "failed"),
        )
    elif weight == LATE:
        text = f"the next job has waited {words.duration(stats.oldest_waiting_ms or 0)}"
    elif counts.pause is not None:
        text = f"paused {counts.pause}"
    if stats is not None and (lost := losses.get((counts.prefix, counts.name))) is not None:
        address = at.queue(counts.name, "active") if weight == LOST or not text else address
        text = f"{text}; {_text_of(lost)}" if text else _text_of(lost)
    return Row(counts, address, text, weight)


def _text_of(lost: LostJobs) -> str:
    job_id = words.cut(lost.job_id, _LONGEST_ID)
    if lost.count == 1:
        return f"active job {job_id}: {lost.reason}"
    return f"{words.number(lost.count)} active jobs have lost their worker, as {job_id}: {lost.reason}"


def _most_of(look: ScreenRequest, groups: list[FailureGroup]) -> str:
    top = max(groups, key=lambda group: group.recent)
    return f"{words.cut(look.error(top.text) or 'no error', 80)} {words.number(top.recent)}×"


def _total(all_stats: list[Stats]) -> dict[str, int]:
    names = ("waiting", "active", "delayed", "failed", "succeeded")
    return {name: sum(getattr(stats, name) for stats in all_stats) for name in names}
