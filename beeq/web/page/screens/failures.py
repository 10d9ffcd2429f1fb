"""Failures: the errors of all queues' failed jobs, those of one kind together."""

from starlette.responses import Response

from beeq.process import now_ms
from beeq.web.page.look import ScreenRequest


async def show(look: ScreenRequest) -> Response:
    """Return the groups, as far as they are counted."""
    survey = await look.parts.failures.look()
    groups = [
        (group, look.at.within(group.prefix), look.error(group.kind)) for group in survey.sorted_groups()
    ]
    return look.screen("failures.html", survey=survey, groups=groups, now_ms=now_ms(), here=look.here)
