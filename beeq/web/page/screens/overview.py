"""The overview: every queue, those in trouble first, and the one line that says whether anybody is needed."""

import math
from dataclasses import dataclass

from starlette.responses import Response

from beeq.client.reader import Stats
from beeq.web.page import waits, words
from beeq.web.page.failures import FailureGroup, FailureSurvey
from beeq.web.page.look import ScreenRequest
from beeq.web.page.store import QueueCounts
from beeq.web.page.troubles import FAILING, LATE, NEEDS_SOMEBODY, PAUSED, UNSERVED, worst_first

#: Queues of one page of the overview, and of those that need somebody.
A_PAGE, _MOST_NAMED = 100, 5


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
    """Return the overview: of very many queues a page, those in trouble first."""
    overview = await look.parts.store.overview()
    survey = await look.parts.failures.look(wait_s=waits.OVERVIEWS_FAILURES_S)
    are_failures_read = survey.has_ended  # as the weights know them: it may end before this is written
    sorted_queues = worst_first(overview.queues, survey)
    pages = max(1, math.ceil(len(sorted_queues) / A_PAGE))
    page = min(look.page, pages)
    shown = sorted_queues[(page - 1) * A_PAGE : page * A_PAGE]
    in_trouble = sum(weight >= NEEDS_SOMEBODY for weight, _ in sorted_queues)
    return look.screen(
        "overview.html",
        rows=[_row(look, counts, weight, survey) for weight, counts in shown],
        trends=await look.parts.histories.trends([(each.prefix, each.name) for _, each in shown]),
        in_trouble=in_trouble,
        troubles=[
            _row(look, counts, weight, survey)
            for weight, counts in sorted_queues[: min(in_trouble, _MOST_NAMED)]
        ],
        total=_total([each.stats for each in overview.queues if each.stats is not None]),
        overview=overview,
        are_failures_read=are_failures_read,
        first=(page - 1) * A_PAGE + 1,
        page=page,
        pages=pages,
        several=len(look.at.prefixes) > 1,
    )


def _row(look: ScreenRequest, counts: QueueCounts, weight: int, survey: FailureSurvey) -> Row:
    at = look.at.within(counts.prefix)
    stats, address, text = counts.stats, at.queue(counts.name), ""
    if stats is None:
        text = f"cannot be read: {counts.problem}"
    elif weight == PAUSED:
        text = f"paused, and {words.number(stats.waiting)} wait: {counts.pause}"
    elif weight == UNSERVED:
        waits = words.duration(stats.oldest_waiting_ms or 0)
        text = f"no worker takes its jobs; the next one has waited {waits}"
    elif weight >= FAILING:
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
    return Row(counts, address, text, weight)


def _most_of(look: ScreenRequest, groups: list[FailureGroup]) -> str:
    top = max(groups, key=lambda group: group.recent)
    return f"{words.cut(look.error(top.text) or 'no error', 80)} {words.number(top.recent)}×"


def _total(all_stats: list[Stats]) -> dict[str, int]:
    names = ("waiting", "active", "delayed", "failed", "succeeded")
    return {name: sum(getattr(stats, name) for stats in all_stats) for name in names}
