"""One job: where it is, what it carries, how it ended, and what came of its attempts."""

import asyncio
from typing import Any

from starlette.responses import Response

from beeq.job import Job
from beeq.operations.inspection import JobDetails
from beeq.process import now_ms
from beeq.protocol.codec import dumps_shown
from beeq.web.page import rendering
from beeq.web.page.look import ScreenRequest
from beeq.web.page.made.files import MadeFile
from beeq.web.page.screens.queue import VERBS
from beeq.web.page.store import in_time
from beeq.web.responses import Refusal

#: Options that are shown elsewhere.
_SHOWN_ELSEWHERE = ("timestamp", "stacktraces", "delay")
_KNOWN_OPTIONS = ("retries", "backoff", "timeout")
#: Reasons that may repeat what an error says.
_REASONS_WITH_VALUES = ("failed", "retry", "postponed", "unreadable", "paused", "succeeded", "cancelled")
#: As on the screen of a queue; of a job that is in no list, too.
_VERBS = {**VERBS, "nowhere": (("remove", "Remove"),)}


async def _details(look: ScreenRequest) -> JobDetails[Job]:
    async with in_time(), look.parts.store.queue(look.prefix, look.names["queue"]) as queue:
        return _found(await queue.inspect_job(look.names["id"]))


def _found(details: JobDetails[Job] | None) -> JobDetails[Job]:
    if details is None:
        raise Refusal(404, "This queue has no such job: it was removed, or never here")
    return details


async def show(look: ScreenRequest) -> Response:
    """Return the job's screen."""
    job_id = look.names["id"]
    async with in_time(), look.parts.store.queue(look.prefix, look.names["queue"]) as queue:
        found, explanation = await asyncio.gather(
            queue.inspect_job(job_id), queue.explain(job_id, is_quick=True)
        )
    details = _found(found)
    job, ended = details.job, details.ended
    options = {} if job is None else {k: v for k, v in job.options.items() if k not in _SHOWN_ELSEWHERE}
    error = "" if ended is None or ended.error is None else str(ended.error)
    if error and details.attempts and error in details.attempts[0].error:
        error = details.attempts[0].error  # with its type
    data = None if job is None else look.data(job.data)
    has_result = ended is not None and ended.error is None and details.state == "succeeded"
    made: list[MadeFile] = []
    if ended is not None and has_result and not look.hides_data:
        made = await look.parts.made.look(look.names["queue"], job and job.data, ended.value)
    return look.screen(
        "job.html",
        queue_name=look.names["queue"],
        job_id=look.names["id"],
        details=details,
        job=job,
        now_ms=now_ms(),
        data=data,
        data_size=0 if job is None else len(dumps_shown(data)),
        options=_options(look, options),
        reasons=[
            each.text
            for each in explanation.reasons
            if not (look.hides_data and each.kind in _REASONS_WITH_VALUES)
        ],
        problem=look.error(details.problem),
        has_result=has_result,
        made=made,
        has_media_root=look.parts.made.root is not None,
        result=None if ended is None else look.data(ended.value),
        error=look.error(error.partition("\n")[0]) if look.hides_data else error,
        attempts=[(each, look.error(each.error)) for each in details.attempts],
        traces=_traces(look, job),
        progress=_progress(look, job),
        verbs=_VERBS.get(details.state, ()),
        here=look.here,
        after_removal=look.at.queue(look.names["queue"]),
    )


def _options(look: ScreenRequest, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as they may be shown: what beeq itself reads is not a secret."""
    return {name: value if name in _KNOWN_OPTIONS else look.data(value) for name, value in options.items()}


def _traces(look: ScreenRequest, job: Job | None) -> list[str]:
    if job is None or look.hides_data:
        return []
    traces = job.options.get("stacktraces")
    return [trace for trace in traces if isinstance(trace, str)][:20] if isinstance(traces, list) else []


def _progress(look: ScreenRequest, job: Job | None) -> Any:
    return None if job is None or not job.progress else look.data(job.progress)


async def download(look: ScreenRequest) -> Response:
    """Return the job's data or result as a file of JSON, as exact as Redis has it."""
    part = look.names["part"]
    if part not in ("data", "result") or look.hides_data:
        raise Refusal(404, "There is nothing here")
    details = await _details(look)
    if part == "data":
        if details.job is None:
            raise Refusal(404, "The job's record cannot be read")
        value = details.job.data
    else:
        if details.ended is None or details.ended.error is not None:
            raise Refusal(404, "The job has no result")
        value = details.ended.value
    return rendering.download(dumps_shown(value), f"{part}.json")
