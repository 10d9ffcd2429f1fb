"""A queue: its counts, and the jobs of one state that match the filters."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response

from beeq.client.reader import Stats
from beeq.errors import RedisRefused
from beeq.job import Job
from beeq.operations.history.points import History
from beeq.operations.job_filter import STATES, Filters, JobFilter, OneOf, State
from beeq.operations.many import FoundJob
from beeq.process import now_ms
from beeq.protocol.codec import loads
from beeq.web.page import words
from beeq.web.page.charts.panels import SPANS
from beeq.web.page.look import ScreenRequest
from beeq.web.page.searches import Search
from beeq.web.page.severity import is_unserved
from beeq.web.page.store import LONGEST_LISTED, in_time
from beeq.web.responses import Refusal

#: The tabs, in the order in which jobs pass through them.
TABS: tuple[State, ...] = ("waiting", "active", "delayed", "failed", "succeeded")
#: The actions on jobs of a state: verb and button.
VERBS: dict[str, tuple[tuple[str, str], ...]] = {
    "waiting": (("cancel", "Cancel"), ("remove", "Remove")),
    "active": (("cancel", "Cancel"), ("remove", "Remove")),
    "delayed": (("run", "Run now"), ("cancel", "Cancel"), ("remove", "Remove")),
    "failed": (("retry", "Retry"), ("remove", "Remove")),
    "succeeded": (("remove", "Remove"),),
}
#: Filters, as the query names them.
FILTERS = ("error", "kind", "text", "where", "since", "older")
A_PAGE = 50


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job of a list."""

    id: str
    address: str
    when: str
    moment: str
    attempts: int
    progress: str
    error: str
    words: str


async def show(look: ScreenRequest) -> Response:
    """Return the jobs of a state."""
    name = look.names["queue"]
    async with in_time():
        stats, pause = await asyncio.gather(
            look.parts.store.stats(look.prefix, name), look.parts.store.pause(look.prefix, name)
        )
    state = _state(look, stats)
    span = look.asked("span") if look.asked("span") in SPANS else "hour"
    given = {each: look.asked(each) for each in FILTERS if look.asked(each)}
    rows: list[JobRow] = []
    search: Search | None = None
    problem, next_at = "", None
    try:
        filters = filters_of(look, given)
        JobFilter.of(STATES, **filters)
    except ValueError as error:
        problem = str(error)
    else:
        if filters:
            key = (look.prefix, look.at.base, name, state, *sorted(given.items()))
            search = await look.parts.searches.look(
                key, partial(_search, look, name, {**filters, "state": state}), reader=look.reader
            )
            rows = search.found
        else:
            async with look.parts.store.queue(look.prefix, name) as queue, in_time():
                page = await queue.page_of_jobs(
                    state, at=look.asked("at"), count=A_PAGE, max_bytes=LONGEST_LISTED
                )
                rows, next_at = [_row(look, name, each) for each in page.jobs], page.next_at
    seen = None
    if state == "active" and rows:
        seen = await look.parts.active_jobs.of(look.prefix, name, [row.id for row in rows])
    return look.screen(
        "queue.html",
        name=name,
        stats=stats,
        state=state,
        tabs=TABS,
        verbs=VERBS[state],
        rows=rows,
        seen={} if seen is None else seen.jobs,
        is_unseen=state == "active" and bool(rows) and seen is None,
        search=search,
        given=given,
        filter_problem=problem,
        next_at=next_at,
        is_first=not look.asked("at"),
        limit=A_PAGE,
        pause=pause,
        now_ms=now_ms(),
        is_unserved=is_unserved(stats) and pause is None,
        history=await _history(look, name, span),
        span=span,
        spans=SPANS,
        here=look.here,
    )


async def _history(look: ScreenRequest, name: str, span: str) -> History | None:
    """Return the queue's history; None if Redis refuses it: the jobs are shown anyway."""
    try:
        return await look.parts.histories.of(look.prefix, name, span)
    except RedisRefused:
        return None


def _state(look: ScreenRequest, stats: Stats) -> State:
    """Return the state that the address names, or else the first one that has jobs."""
    named = look.names.get("state", "")
    if named in STATES:
        return named
    if named:
        raise Refusal(404, "A queue's jobs are waiting, active, delayed, failed or succeeded")
    return next((state for state in ("active", *TABS) if getattr(stats, state)), "waiting")


def filters_of(look: ScreenRequest, given: dict[str, str]) -> Filters:
    """Return the filters of a query or a form; raises ValueError if one is invalid."""
    if look.hides_data and given.keys() & {"error", "kind", "text", "where"}:
        raise ValueError("values are hidden here: no filter asks for them")
    filters: Filters = {}
    if given.get("error"):
        filters["error"] = given["error"]
    if given.get("kind"):
        filters["error_kind"] = given["kind"]
    if given.get("text"):
        filters["text"] = given["text"]
    if given.get("where"):
        filters["where"] = dict(_condition(part) for part in given["where"].split(" & "))
    if given.get("since"):
        filters["since"] = given["since"]
    if given.get("older"):
        filters["older_than"] = given["older"]
    return filters


def _condition(text: str) -> tuple[str, Any]:
    """Return path and value of ``data.user=7``, text or number, and of ``data.user:=7``, the number only."""
    name, separator, value = text.strip().partition("=")
    path, is_json = name.removesuffix(":").strip(), name.endswith(":")
    if not separator or not path:
        raise ValueError("write a condition as data.user=7; several with & between them")
    try:
        exact = loads(value.encode(errors="replace"))
    except ValueError:
        if is_json:
            raise ValueError(f"{path}: what follows := must be JSON") from None
        return path, value
    return (path, exact) if is_json else (path, OneOf((value, exact)))


async def _search(look: ScreenRequest, name: str, filters: Filters, search: Search) -> None:
    """Add the first matching jobs."""
    stats = await look.parts.store.stats(look.prefix, name)
    search.of = getattr(stats, str(filters["state"]))
    wanted: Filters = {**filters, "limit": A_PAGE}
    async with look.parts.store.queue(look.prefix, name) as queue:
        found = queue.find_jobs(max_bytes=LONGEST_LISTED, on_progress=search.counter(), **wanted)
        async for each in found:
            search.found.append(_row(look, name, each))


def _row(look: ScreenRequest, queue_name: str, found: FoundJob[Job]) -> JobRow:
    job, job_id, now = found.job, found.job.id or "", now_ms()
    at_ms = found.due_ms if found.due_ms is not None else found.failed_ms or found.created_ms
    if not at_ms:
        when = "?"
    elif found.due_ms is not None:
        when = (
            f"in {words.duration(at_ms - now)}" if at_ms > now else f"due {words.duration(now - at_ms)} ago"
        )
    else:
        when = f"{words.duration(now - at_ms)} ago"
    traces = job.options.get("stacktraces")
    return JobRow(
        id=job_id,
        address=look.at.job(queue_name, job_id),
        when=when,
        moment=words.moment(at_ms) if at_ms else "nobody knows when",
        attempts=len(traces) if isinstance(traces, list) else 0,
        progress=words.cut(words.preview(look.data(job.progress)), 40) if job.progress else "",
        error=words.cut(look.error(found.error), 200),
        words=words.preview(look.data(words.without_own_id(job.data, job_id))),
    )
