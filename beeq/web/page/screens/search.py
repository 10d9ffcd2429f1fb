"""Search: an id leads to its job in whichever queue; text is looked for in errors and data, for some time."""

import asyncio
import time

from starlette.responses import Response

from beeq.errors import RedisRefused
from beeq.job import Job
from beeq.operations.job_filter import State
from beeq.operations.many import FoundJob
from beeq.web.page import rendering, words
from beeq.web.page.look import ScreenRequest

#: In all queues together.
_LONGEST_S = 2.0
_MOST_FOUND = 100
_LONGEST_ID = 500


async def show(look: ScreenRequest) -> Response:
    """Return the jobs of an id, or those that have the text."""
    wanted = look.asked("q").strip()
    homes = await _homes(look, wanted) if wanted and len(wanted) <= _LONGEST_ID else []
    if len(homes) == 1:
        return rendering.redirect(homes[0][2])
    found: list[tuple[str, FoundJob[Job], str, str]] = []
    passed: list[str] = []
    if wanted and not homes and not look.hides_data:
        await _search(look, wanted, found, passed)
    return look.screen("search.html", q=wanted, homes=homes, found=found, passed=passed, limit=_MOST_FOUND)


async def _homes(look: ScreenRequest, job_id: str) -> list[tuple[str, str, str]]:
    """Return prefix, queue and address of each job of that id."""
    homes = []
    for prefix in look.at.prefixes:
        at = look.at.within(prefix)
        names = await look.parts.store.queues_having(prefix, job_id)
        homes += [(prefix, name, at.job(name, job_id)) for name in names]
    return homes


async def _search(
    look: ScreenRequest, text: str, found: list[tuple[str, FoundJob[Job], str, str]], passed: list[str]
) -> None:
    """Add each job that has the text: queue, job, address, line; and the queues that took too long."""
    ends_s = time.monotonic() + _LONGEST_S
    queues = [each for each in (await look.parts.store.overview()).queues if each.stats is not None]
    for number, counts in enumerate(queues):
        share_s = max(0.0, ends_s - time.monotonic()) / (len(queues) - number)
        at = look.at.within(counts.prefix)
        try:
            async with asyncio.timeout(share_s), look.parts.store.queue(counts.prefix, counts.name) as queue:
                states: tuple[State, ...] = ("failed", "active", "waiting", "delayed", "succeeded")
                async for each in queue.find_jobs(text=text, state=states, limit=_MOST_FOUND - len(found)):
                    line = look.error(each.error) or words.preview(each.job.data)
                    found.append(
                        (counts.name, each, at.job(counts.name, each.job.id or ""), words.cut(line, 200))
                    )
        except (TimeoutError, RedisRefused):
            passed.append(counts.name)
        if len(found) >= _MOST_FOUND:
            return
