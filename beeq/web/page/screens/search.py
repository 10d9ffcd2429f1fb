"""Search: an id leads to its job in whichever queue; text is looked for in errors and data, for some time.

Where there is a mirror, it is searched too: it also has the jobs that Redis has forgotten.
"""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime

from starlette.responses import Response

from beeq.errors import RedisRefused
from beeq.job import Job
from beeq.mirror.history import MirroredJob
from beeq.operations.job_filter import State
from beeq.operations.many import FoundJob
from beeq.process import now_ms
from beeq.web.page import rendering, words
from beeq.web.page.addresses import Addresses
from beeq.web.page.look import ScreenRequest
from beeq.web.responses import Refusal, status_object

#: In all queues together.
_LONGEST_S = 2.0
_MOST_FOUND = 100
_LONGEST_ID = 500


@dataclass(frozen=True, slots=True)
class MirrorHit:
    """A job that the mirror has.

    Attributes:
        line: its error, or the first words of its data.
    """

    job: MirroredJob
    address: str
    updated_ms: int
    line: str


@dataclass(slots=True)
class MirrorFound:
    """What the mirror has: the jobs, how far back it was looked at, and where that goes on."""

    hits: list[MirrorHit] = field(default_factory=list)
    looked_at: int = 0
    back_to_ms: int = 0
    further: str = ""
    problem: str = ""


async def show(look: ScreenRequest) -> Response:
    """Return the jobs of an id, or those that have the text."""
    wanted, before = look.asked("q").strip(), look.asked("before")
    is_id = bool(wanted) and len(wanted) <= _LONGEST_ID and not before
    homes = await _homes(look, wanted) if is_id else []
    if is_id and not homes:
        homes = await _homes_in_mirror(look, wanted)
    if len(homes) == 1:
        return rendering.redirect(homes[0][2])
    found: list[tuple[str, FoundJob[Job], str, str]] = []
    passed: list[str] = []
    history: MirrorFound | None = None
    if wanted and not homes and not look.hides_data:
        in_redis = [] if before else [_search(look, wanted, found, passed)]
        history, *_ = await asyncio.gather(_search_mirror(look, wanted, before), *in_redis)
    return look.screen(
        "search.html",
        q=wanted,
        homes=homes,
        found=found,
        passed=passed,
        limit=_MOST_FOUND,
        history=history,
        is_further=bool(before),
        now_ms=now_ms(),
    )


async def _homes(look: ScreenRequest, job_id: str) -> list[tuple[str, str, str]]:
    """Return prefix, queue and address of each job of that id."""
    homes = []
    for prefix in look.at.prefixes:
        at = look.at.within(prefix)
        names = await look.parts.store.queues_having(prefix, job_id)
        homes += [(prefix, name, at.job(name, job_id)) for name in names]
    return homes


async def _homes_in_mirror(look: ScreenRequest, job_id: str) -> list[tuple[str, str, str]]:
    """Return the same of jobs that only the mirror knows."""
    at = look.at.within(look.at.prefixes[0])
    seen = await look.parts.mirror.find(job_id)
    return [(at.prefix, job.queue_name, at.job(job.queue_name, job.job_id)) for job in seen.jobs]


async def _search_mirror(look: ScreenRequest, text: str, before: str) -> MirrorFound | None:
    """Return jobs of the mirror that have the text; None without one."""
    if not look.parts.mirror.is_there:
        return None
    at = look.at.within(look.at.prefixes[0])
    try:
        page, problem = await look.parts.mirror.search(
            text, most=_MOST_FOUND, longest_s=_LONGEST_S, before=before
        )
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    if page is None:
        return MirrorFound(problem=problem)
    further = at.to("/search", q=text, before=page.before) if page.before else ""
    back_to_ms = 0 if page.back_to is None else round(page.back_to.timestamp() * 1000)
    hits = [_hit(at, job) for job in page.found]
    return MirrorFound(hits, page.looked_at, back_to_ms, further)


def _hit(at: Addresses, job: MirroredJob) -> MirrorHit:
    document = status_object(job.document)
    error, updated = document["error"], job.document.get("updatedAt")
    line = error if isinstance(error, str) and error else words.preview(document["jobData"])
    return MirrorHit(
        job,
        at.job(job.queue_name, job.job_id),
        round(updated.timestamp() * 1000) if isinstance(updated, datetime) else 0,
        words.cut(line.partition("\n")[0], 200),
    )


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
