"""Actions on jobs and queues: the targets of forms. Each action is one line in the log."""

import logging
from collections.abc import Awaitable, Callable

from starlette.responses import Response

from beeq.errors import JobUnreadable, NoWorkerLives, one_line
from beeq.operations.job_filter import JobFilter
from beeq.queue import Queue
from beeq.web.page import rendering, words
from beeq.web.page.addresses import text_of_segment
from beeq.web.page.look import ScreenRequest
from beeq.web.page.runs import DONE, MANY, BulkRun, Verb
from beeq.web.page.screens.queue import FILTERS, TABS, VERBS, filters_of
from beeq.web.page.store import LONGEST_PARSED, LONGEST_SHOWN, in_time
from beeq.web.responses import Refusal

logger = logging.getLogger("beeq.web")

_MOST_SELECTED = 1000
_LONGEST = words.size(LONGEST_PARSED)
#: How the confirmation of a run names some filters; others go by their own names.
_PHRASES = {
    "error": "with an error that contains",
    "error_kind": "with an error of the kind",
    "text": "with the text",
    "older_than": "older than",
}


async def act(look: ScreenRequest) -> Response:
    """Do the button's action on the selected jobs, or on all that match."""
    verb = look.sent("verb")
    if verb in _ON_QUEUE:
        return await _ON_QUEUE[verb](look)
    if verb not in MANY:
        raise Refusal(400, "The page has no button of this name")
    known: Verb = verb
    if look.sent("all"):
        return await _begin_run(look, known)
    ids = list(dict.fromkeys(map(_text_of, look.form.get("id", []))))
    if not ids:
        return look.back("Select jobs first")
    if len(ids) > _MOST_SELECTED:
        raise Refusal(400, f"At most {_MOST_SELECTED} jobs can be selected one by one")
    name = look.names["queue"]
    done = too_long = 0
    try:
        async with in_time(), look.parts.store.queue(look.prefix, name) as queue:
            for job_id in ids:
                try:
                    done += await _ONE[known](queue, job_id)
                except _TooLongToRetry:
                    too_long += 1
    finally:  # also for what was done before Redis failed
        _log(look, known, name, ids, done)
        look.parts.failures.forget()
        look.parts.searches.forget()
    where = look.sent("after_removal") if known == "remove" and done else ""
    return look.back(_said(DONE[known], done, len(ids), too_long), where)


def _text_of(field: str) -> str:
    """Return the text that a field holds as a segment of a path.

    Browsers change line ends in plain text, and HTML cannot hold some other characters.
    """
    try:
        return text_of_segment(field)
    except UnicodeDecodeError:
        raise Refusal(400, "The form cannot be read") from None


class _TooLongToRetry(Exception):
    """The record is longer than what the page reads."""


async def _retry(queue: Queue, job_id: str) -> bool:
    details = await queue.inspect_job(job_id, max_bytes=LONGEST_PARSED)
    if details is not None and details.is_too_long:
        raise _TooLongToRetry
    try:
        return details is not None and details.job is not None and await queue.retry_job(details.job)
    except JobUnreadable:
        return False  # its record has changed meanwhile


async def _remove(queue: Queue, job_id: str) -> bool:
    if await queue.inspect_job(job_id, max_bytes=LONGEST_SHOWN) is None:
        return False
    await queue.remove_job(job_id)
    return True


_ONE: dict[Verb, Callable[[Queue, str], Awaitable[bool]]] = {
    "retry": _retry,
    "remove": _remove,
    "run": Queue.run_job,
    "cancel": Queue.cancel_job,
}


def _said(done: str, count: int, of: int, too_long: int) -> str:
    text = f"{words.number(count)} {_jobs(count)} {done}"
    left = of - count - too_long
    if too_long:
        text += f"; {words.number(too_long)} not: longer than {_LONGEST}, which beeq retry takes"
    return text if not left else f"{text}; {words.number(left)} not: moved, ended or removed meanwhile"


def _jobs(count: int) -> str:
    return "job" if count == 1 else "jobs"


def _log(look: ScreenRequest, verb: str, queue_name: str, ids: list[str], done: int) -> None:
    shown = ", ".join(one_line(each) for each in ids[:5]) + (", …" if len(ids) > 5 else "")  # noqa: PLR2004 - a line's worth
    logger.info(
        "%s: %s of %d %s of %s (%s): %d done",
        look.visitor.who, verb, len(ids), _jobs(len(ids)), one_line(queue_name), shown, done,
    )  # fmt: skip


async def _duplicate(look: ScreenRequest) -> Response:
    """Save a new job with the same data and the remaining options."""
    name, job_id = look.names["queue"], _text_of(look.sent("id"))
    async with in_time(), look.parts.store.queue(look.prefix, name) as queue:
        details = await queue.inspect_job(job_id, max_bytes=LONGEST_PARSED)
        if details is not None and details.is_too_long:
            return look.back(f"Not duplicated: its record is longer than {_LONGEST}, too much for this page")
        if details is None or details.job is None:
            return look.back("The job is gone: nothing was duplicated")
        copy = await queue.duplicate_job(details.job)
    _log(look, "duplicate", name, [job_id], 1)
    new_id = copy.id or ""
    return look.back(
        f"This is the new job; its data are those of job {words.cut(job_id, 80)}", look.at.job(name, new_id)
    )


async def _pause(look: ScreenRequest) -> Response:
    """Pause the queue, as ``Queue.pause`` does."""
    name = look.names["queue"]
    try:
        async with in_time(), look.parts.store.queue(look.prefix, name) as queue:
            pause = await queue.pause(
                look.sent("reason").strip(),
                for_=look.sent("for").strip() or None,
                everyone=bool(look.sent("everyone")),
                by=f"{look.visitor.who}, on the page",
            )
    except (ValueError, NoWorkerLives) as error:
        return look.back(f"Not paused: {one_line(str(error))}")
    logger.info("%s: pause of %s: %s", look.visitor.who, one_line(name), one_line(str(pause)))
    look.parts.store.forget_counts()
    return look.back("The queue is paused")


async def _resume(look: ScreenRequest) -> Response:
    """End the queue's pause."""
    name = look.names["queue"]
    async with in_time(), look.parts.store.queue(look.prefix, name) as queue:
        pause = await queue.resume()
    logger.info("%s: resume of %s", look.visitor.who, one_line(name))
    look.parts.store.forget_counts()
    return look.back("The queue was not paused" if pause is None else "The queue goes on")


_ON_QUEUE: dict[str, Callable[[ScreenRequest], Awaitable[Response]]] = {
    "duplicate": _duplicate,
    "pause": _pause,
    "resume": _resume,
}


# Many.


async def _begin_run(look: ScreenRequest, verb: Verb) -> Response:
    name, state = look.names["queue"], look.sent("state")
    if state not in TABS or verb not in dict(VERBS[state]):
        raise Refusal(400, "Jobs of this state have no such button")
    given = {each: _text_of(look.sent(each)) for each in FILTERS if look.sent(each)}
    try:
        filters = filters_of(look, given)
        filters["state"] = state
        JobFilter.of(TABS, **filters)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    stats = await look.parts.store.stats(look.prefix, name)
    run = await look.parts.runs.begin(
        look.prefix, name, verb, filters, of=getattr(stats, state), is_counted=not given
    )
    return rendering.redirect(_address(look, run))


def _address(look: ScreenRequest, run: BulkRun) -> str:
    return look.at.to(f"/runs/{run.id}", next=look.sent("next") or None)


def _run_of(look: ScreenRequest) -> BulkRun:
    run = look.parts.runs.get(look.names["run"])
    if run is None or run.prefix != look.prefix:
        raise Refusal(404, "This action is not known here any more; what it has done is in the log")
    return run


async def show_run(look: ScreenRequest) -> Response:
    """Ask whether all jobs that match are meant, or show how far it is."""
    run = _run_of(look)
    wanted = look.asked("next")
    return look.screen(
        "run.html",
        run=run,
        next=wanted if look.at.is_own(wanted) else look.at.queue(run.queue_name),
        filters=", ".join(
            f"{_PHRASES.get(name, name)} {look.data(value)}"
            for name, value in run.filters.items()
            if name != "state"
        ),
        state=run.filters.get("state", ""),
        here=look.here,
    )


async def confirm_run(look: ScreenRequest) -> Response:
    """Carry out a confirmed run."""
    run = _run_of(look)
    await look.parts.runs.go_on(run, look.visitor.who)
    look.parts.failures.forget()
    look.parts.searches.forget()
    return rendering.redirect(_address(look, run))
