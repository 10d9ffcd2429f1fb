"""Workers: beeq's processes with their jobs, and the jobs on Node's workers, as far as they can be seen."""

import math

from starlette.responses import Response

from beeq.operations.diagnosis.server import MOST_SKEW_MS
from beeq.operations.explanation.reasons import LATE_BEAT_MS
from beeq.web.page.look import ScreenRequest

#: Queues of one page: those with workers or running jobs.
_A_PAGE = 50
#: Workers of one queue, and jobs of one worker, that are shown.
_MOST_WORKERS, _MOST_JOBS = 100, 20


async def show(look: ScreenRequest) -> Response:
    """Return the workers of every queue, in pages if there are very many queues."""
    overview = await look.parts.store.overview()
    queues = [
        each
        for each in overview.queues
        if each.stats is not None and (each.stats.workers or each.stats.active)
    ]
    queues.sort(key=lambda each: (each.prefix, each.name))
    pages = max(1, math.ceil(len(queues) / _A_PAGE))
    page = min(look.page, pages)
    shown = queues[(page - 1) * _A_PAGE : page * _A_PAGE]
    found = await look.parts.store.activities([(each.prefix, each.name) for each in shown])
    rows = [
        (counts, look.at.within(counts.prefix), found[counts.prefix, counts.name])
        for counts in shown
        if (counts.prefix, counts.name) in found
    ]
    rows.sort(key=lambda row: (-max((each.longest_ms for each in row[2].workers), default=0), row[0].name))
    return look.screen(
        "workers.html",
        rows=rows,
        late_ms=LATE_BEAT_MS,
        most_skew_ms=MOST_SKEW_MS,
        most_workers=_MOST_WORKERS,
        most_jobs=_MOST_JOBS,
        is_counting=overview.is_counting,
        missing=len(shown) - len(rows),
        page=page,
        pages=pages,
        count=len(queues),
    )
