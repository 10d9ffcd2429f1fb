"""Workers: beeq's processes with what they run, and the jobs that Node's run, as far as they can be seen."""

import asyncio

from starlette.responses import Response

from beeq.errors import RedisRefused
from beeq.operations.diagnosis.server import MOST_SKEW_MS
from beeq.operations.explanation.reasons import LATE_BEAT_MS
from beeq.operations.live_workers import Activity
from beeq.web.page.look import ScreenRequest
from beeq.web.page.store import QueueCounts, in_time

#: Queues that are looked into: those with workers or running jobs.
_MOST_QUEUES = 200
#: Jobs of one worker that are shown.
_MOST_JOBS = 20


async def show(look: ScreenRequest) -> Response:
    """Return the workers of every queue."""
    queues = [
        each
        for each in (await look.parts.store.overview()).queues
        if each.stats is not None and (each.stats.workers or each.stats.active)
    ]
    async with in_time():
        found = await asyncio.gather(*(_activity(look, each) for each in queues[:_MOST_QUEUES]))
    rows = [
        (counts, look.at.within(counts.prefix), activity)
        for counts, activity in zip(queues, found, strict=False)
        if activity is not None
    ]
    rows.sort(key=lambda row: (-max((each.longest_ms for each in row[2].workers), default=0), row[0].name))
    return look.screen(
        "workers.html",
        rows=rows,
        late_ms=LATE_BEAT_MS,
        most_skew_ms=MOST_SKEW_MS,
        most_jobs=_MOST_JOBS,
        left_out=max(0, len(queues) - _MOST_QUEUES),
    )


async def _activity(look: ScreenRequest, counts: QueueCounts) -> Activity | None:
    try:
        return await look.parts.store.activity(counts.prefix, counts.name)
    except RedisRefused:
        return None
