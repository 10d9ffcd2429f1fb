"""Search: an id leads to its job in any queue; text is searched for in errors and data, for a limited time.

Where there is a mirror, it is searched too: it also has the jobs that Redis has forgotten.
"""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from starlette.responses import Response

from beeq.errors import RedisRefused
from beeq.mirror.history import MirroredJob
from beeq.operations.job_filter import State
from beeq.process import now_ms
from beeq.web.page import rendering, words
from beeq.web.page.addresses import Addresses
from beeq.web.page.look import ScreenRequest
from beeq.web.page.searches import LONGEST_S, Search
from beeq.web.page.store import LONGEST_LISTED, QueueCounts
from beeq.web.responses import Refusal, status_object

_MOST_FOUND = 100
_LONGEST_ID = 500
#: Queues whose names have the text.
_MOST_NAMED = 50
_LONGEST_STATUS = 40
#: The longest look into the mirror.
_MIRROR_S = 2.0
_STATES: tuple[State, ...] = ("failed", "active", "waiting", "delayed", "succeeded")


@dataclass(frozen=True, slots=True)
class FoundLine:
    """A job that has the text."""

    queue_name: str
    job_id: str
    state: str
    address: str
    line: str


@dataclass(frozen=True, slots=True)
class MirrorHit:
    """A job that the mirror has; without its document, because searches are remembered.

    Attributes:
        line: its error, or the first words of its data.
    """

    queue_name: str
    job_id: str
    status: str
    address: str
    updated_ms: int
    line: str


@dataclass(slots=True)
class MirrorFound:
    """The mirror's jobs, how far back it was searched, and where the search goes on, if it does."""

    hits: list[MirrorHit] = field(default_factory=list)
    looked_at: int = 0
    back_to_ms: int = 0
    further: str = ""
    is_whole: bool = False
    problem: str = ""


async def show(look: ScreenRequest) -> Response:
    """Return the jobs of an id, or those that have the text, and queues of such a name."""
    wanted, before = look.asked("q").strip(), look.asked("before")
    search = Search(has_ended=True)
    if wanted:
        key = ("", look.at.base, wanted, before)
        search = await look.parts.searches.look(
            key, partial(_search, look, wanted, before), reader=look.reader
        )
    if search.has_ended and len(search.homes) == 1:
        ((prefix, name),) = search.homes
        return rendering.redirect(look.at.within(prefix).job(name, wanted))
    return look.screen(
        "search.html",
        q=wanted,
        search=search,
        homes=[
            (prefix, name, look.at.within(prefix).job(name, wanted))
            for prefix, name in search.homes[:_MOST_FOUND]
        ],
        named=await _named(look, wanted) if wanted and not before else [],
        limit=_MOST_FOUND,
        has_mirror=look.parts.mirror.is_there,
        history=search.history,
        is_further=bool(before),
        now_ms=now_ms(),
    )


async def _named(look: ScreenRequest, text: str) -> list[tuple[str, str, str]]:
    """Return prefix, name and address of queues whose names have the text."""
    wanted = text.casefold()
    found: list[tuple[str, str, str]] = []
    for prefix in look.at.prefixes:
        names, _ = await look.parts.store.names(prefix)
        at = look.at.within(prefix)
        found += [(prefix, name, at.queue(name)) for name in names if wanted in name.casefold()]
    return found[:_MOST_NAMED]


async def _search(look: ScreenRequest, wanted: str, before: str, search: Search) -> None:
    """Look in each queue and the mirror for a job of that id; else search all jobs for the text."""
    if len(wanted) <= _LONGEST_ID and not before:
        for prefix in look.at.prefixes:
            await look.parts.store.find_queues_having(prefix, wanted, search)
        if not search.homes:
            search.homes += await _queues_in_mirror(look, wanted)
    if search.homes or look.hides_data:
        return
    in_redis = [] if before else [_search_texts(look, wanted, search)]
    await asyncio.gather(_search_mirror(look, wanted, before, search), *in_redis)


async def _queues_in_mirror(look: ScreenRequest, job_id: str) -> list[tuple[str, str]]:
    """Return prefix and queue of jobs that only the mirror knows."""
    seen = await look.parts.mirror.find(job_id)
    return [(look.at.prefixes[0], job.queue_name) for job in seen.jobs]


async def _search_mirror(look: ScreenRequest, text: str, before: str, search: Search) -> None:
    """Add the mirror's jobs that have the text, if there is a mirror."""
    if not look.parts.mirror.is_there:
        return
    at = look.at.within(look.at.prefixes[0])
    try:
        page, problem = await look.parts.mirror.search(
            text, shown=partial(_hit, at), most=_MOST_FOUND, longest_s=_MIRROR_S, before=before
        )
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    if page is None:
        search.history = MirrorFound(problem=problem)
        return
    further = at.to("/search", q=text, before=page.before) if page.before else ""
    back_to_ms = 0 if page.back_to is None else round(page.back_to.timestamp() * 1000)
    search.history = MirrorFound(page.found, page.looked_at, back_to_ms, further, page.is_whole)


def _hit(at: Addresses, job: MirroredJob) -> MirrorHit:
    document = status_object(job.document)
    error, updated = document["error"], job.document.get("updatedAt")
    line = (
        error
        if isinstance(error, str) and error
        else words.preview(words.without_own_id(document["jobData"], job.job_id))
    )
    return MirrorHit(
        job.queue_name,
        job.job_id,
        words.cut(str(document["status"] or "?"), _LONGEST_STATUS),
        at.job(job.queue_name, job.job_id),
        round(updated.timestamp() * 1000) if isinstance(updated, datetime) else 0,
        words.cut(line.partition("\n")[0], 200),
    )


async def _search_texts(look: ScreenRequest, text: str, search: Search) -> None:
    """Add each job that has the text, and the queues that took too long."""
    ends_s = search.begun_s + 0.95 * LONGEST_S
    counted = await look.parts.store.overview(is_whole=True)
    queues = [each for each in counted.queues if each.stats is not None and each.stats.total]
    search.of = sum(each.stats.total for each in queues if each.stats is not None)
    for number, counts in enumerate(queues):
        share_s = max(0.0, ends_s - time.monotonic()) / (len(queues) - number)
        try:
            async with asyncio.timeout(share_s):
                await _search_queue(look, text, counts, search)
        except (TimeoutError, RedisRefused):
            search.is_whole = False
            search.passed.append(counts.name)
        if len(search.found) >= _MOST_FOUND:
            return


async def _search_queue(look: ScreenRequest, text: str, counts: QueueCounts, search: Search) -> None:
    at = look.at.within(counts.prefix)
    async with look.parts.store.queue(counts.prefix, counts.name) as queue:
        async for each in queue.find_jobs(
            text=text,
            state=_STATES,
            limit=_MOST_FOUND - len(search.found),
            max_bytes=LONGEST_LISTED,
            on_progress=search.counter(),
        ):
            job_id = each.job.id or ""
            data = words.without_own_id(each.job.data, job_id)
            line = words.cut(look.error(each.error) or words.preview(data), 200)
            search.found.append(FoundLine(counts.name, job_id, each.state, at.job(counts.name, job_id), line))
