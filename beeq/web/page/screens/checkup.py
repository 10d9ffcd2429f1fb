"""The doctor's findings: a quick check by a few commands, and on request a check of every job's id."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from starlette.responses import Response

from beeq.errors import RedisRefused
from beeq.operations.diagnosis.findings import Finding
from beeq.operations.diagnosis.quick import quick_findings
from beeq.operations.diagnosis.server import look_at_server
from beeq.process import now_ms
from beeq.protocol.keys import Keys
from beeq.web.page import rendering
from beeq.web.page.addresses import Addresses
from beeq.web.page.look import ScreenRequest
from beeq.web.page.sources.checkups import MOST_IDS, QueueFinding
from beeq.web.page.store import QueueCounts

#: Queues that a quick look goes into: those with workers or delayed jobs.
_MOST_QUEUES = 200


class ShownFinding(NamedTuple):
    """A finding with the addresses of its subjects."""

    finding: Finding
    queue_name: str
    at: Addresses


async def quick(look: ScreenRequest) -> list[ShownFinding]:
    """Return the quick findings on Redis, and on each queue. Raises RedisError."""
    home = await look.parts.store.home(look.prefix)
    queues = [
        each
        for each in (await look.parts.store.overview()).queues
        if each.stats is not None and (each.stats.workers or each.stats.delayed)
    ]
    of_server = await look_at_server(home.pipeline, now_ms=now_ms)
    of_queues = await asyncio.gather(*(_quick(look, each) for each in queues[:_MOST_QUEUES]))
    found = [QueueFinding(look.prefix, "", each) for each in of_server]
    return shown(look, [*found, *(each for some in of_queues for each in some)])


async def _quick(look: ScreenRequest, counts: QueueCounts) -> list[QueueFinding]:
    home = await look.parts.store.home(counts.prefix)
    try:
        found = await quick_findings(home.pipeline, Keys(counts.prefix, counts.name))
    except RedisRefused as refused:
        found = [Finding("not-looked-at", f"not all could be looked at: {refused}", is_problem=False)]
    return [QueueFinding(counts.prefix, counts.name, each) for each in found]


def shown(look: ScreenRequest, found: Sequence[QueueFinding]) -> list[ShownFinding]:
    """Return findings for a screen, problems first."""
    order = sorted(found, key=lambda each: not each.finding.is_problem)
    return [ShownFinding(each.finding, each.queue_name, look.at.within(each.prefix)) for each in order]


async def show(look: ScreenRequest) -> Response:
    """Return the findings of the newest full check so far; begin one if there is none, or on request."""
    check_up = look.parts.checkups.newest
    if look.asked("again"):
        await look.parts.checkups.begin()
        return rendering.redirect(look.at.to("/system/checkup"))
    if check_up is None or not check_up.has_ended:
        check_up = await look.parts.checkups.begin()
    return look.screen(
        "checkup.html",
        check_up=check_up,
        findings=shown(look, check_up.found),
        most_ids=MOST_IDS,
        now_ms=now_ms(),
    )
