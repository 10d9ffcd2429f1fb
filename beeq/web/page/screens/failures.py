"""Failures: the errors of all queues' failed jobs, those of one kind together."""

from starlette.responses import Response

from beeq.process import now_ms
from beeq.web.page import waits
from beeq.web.page.charts.panels import failures_by_hour
from beeq.web.page.look import ScreenRequest

#: Groups that are shown.
_MOST_GROUPS = 200


async def show(look: ScreenRequest) -> Response:
    """Return the groups, as far as they are counted."""
    survey = await look.parts.failures.look(wait_s=waits.FAILURES_S)
    groups = [
        (group, look.at.within(group.prefix), look.error(group.text), failures_by_hour(group.by_hour))
        for group in survey.first_groups(_MOST_GROUPS)
    ]
    return look.screen("failures.html", survey=survey, groups=groups, now_ms=now_ms(), here=look.here)
