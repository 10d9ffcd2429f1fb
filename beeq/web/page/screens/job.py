"""One job: its state, its data, its end, and its attempts."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from beeq.job import Job
from beeq.mirror.history import MirroredJob
from beeq.operations.inspection import JobDetails
from beeq.process import now_ms
from beeq.protocol.codec import dumps_shown
from beeq.web.page import rendering, words
from beeq.web.page.look import ScreenRequest
from beeq.web.page.made.files import MadeFile
from beeq.web.page.screens import mirrored
from beeq.web.page.screens.queue import VERBS
from beeq.web.page.store import LONGEST_SAVED, LONGEST_SHOWN, in_time
from beeq.web.responses import Refusal

#: Options that are shown elsewhere.
_SHOWN_ELSEWHERE = ("timestamp", "stacktraces", "delay")
_KNOWN_OPTIONS = ("retries", "backoff", "timeout")
#: Reasons that may repeat an error's text.
_REASONS_WITH_VALUES = ("failed", "retry", "postponed", "unreadable", "paused", "succeeded", "cancelled")
#: As on the screen of a queue; of a job that is in no list, too.
_VERBS = {**VERBS, "nowhere": (("remove", "Remove"),)}


async def _mirrored(look: ScreenRequest) -> MirroredJob:
    """Return the mirror's document of a job that Redis does not know."""
    job, problem = await mirrored.remembered(look)
    if job is None:
        and_mirror = f"; the mirror cannot be asked: {problem}" if problem else ""
        raise Refusal(404, f"This queue has no such job: it was removed, or never here{and_mirror}")
    return job


async def show(look: ScreenRequest) -> Response:
    """Return the job's screen."""
    job_id = look.names["id"]
    async with in_time(), look.parts.store.queue(look.prefix, look.names["queue"]) as queue:
        details = await queue.inspect_job(job_id, max_bytes=LONGEST_SHOWN)
        explanation = await queue.explain(job_id, is_quick=True, details=details) if details else None
    if details is None or explanation is None:
        return await mirrored.forgotten(look, await _mirrored(look))
    is_whole = not details.is_too_long and details.result_bytes <= LONGEST_SHOWN
    job, ended = details.job, details.ended
    options = {} if job is None else {k: v for k, v in job.options.items() if k not in _SHOWN_ELSEWHERE}
    error = "" if ended is None or ended.error is None else str(ended.error)
    if error and details.attempts and error in details.attempts[0].error:
        error = details.attempts[0].error  # with its type
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
        data=None if job is None else look.data(job.data),
        options=_options(look, options),
        reasons=[
            each.text
            for each in explanation.reasons
            if not (look.hides_data and each.kind in _REASONS_WITH_VALUES)
        ],
        problem=details.problem if details.is_too_long else look.error(details.problem),
        is_result_long=details.result_bytes > LONGEST_SHOWN,
        can_save=details.record_bytes <= LONGEST_SAVED and details.result_bytes <= LONGEST_SAVED,
        has_result=has_result,
        made=made,
        has_media_root=look.parts.made.root is not None,
        result=None if ended is None else look.data(ended.value),
        error=look.error(error.partition("\n")[0]) if look.hides_data else error,
        attempts=[(each, look.error(each.error)) for each in details.attempts],
        traces=_traces(look, job),
        progress=_progress(look, job),
        mirror=await mirrored.section(look, is_whole=is_whole),
        verbs=_VERBS.get(details.state, ()),
        here=look.here,
        after_removal=look.at.queue(look.names["queue"]),
    )


def _options(look: ScreenRequest, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as they may be shown: those that beeq itself reads are not secret."""
    return {name: value if name in _KNOWN_OPTIONS else look.data(value) for name, value in options.items()}


def _traces(look: ScreenRequest, job: Job | None) -> list[str]:
    if job is None or look.hides_data:
        return []
    traces = job.options.get("stacktraces")
    return [trace for trace in traces if isinstance(trace, str)][:20] if isinstance(traces, list) else []


def _progress(look: ScreenRequest, job: Job | None) -> Any:
    return None if job is None or not job.progress else look.data(job.progress)


async def download(look: ScreenRequest) -> Response:
    """Return the job's data, result or record as a file of JSON, as exact as Redis has it."""
    part = look.names["part"]
    if part not in _PARTS or look.hides_data:
        raise Refusal(404, "There is nothing here")
    name, job_id = look.names["queue"], look.names["id"]
    async with in_time(), look.parts.store.queue(look.prefix, name) as queue:
        details = await queue.inspect_job(job_id, max_bytes=LONGEST_SHOWN)
    if details is None:
        return await mirrored.download(await _mirrored(look), part)
    size = details.result_bytes if part == "result" else details.record_bytes
    if size > LONGEST_SAVED:
        raise Refusal(413, f"This is larger than {words.size(LONGEST_SAVED)}: beeq show writes it whole")
    held = look.parts.store.held_bytes
    held.add(size)
    try:
        text = await _PARTS[part](look, details)
        response = rendering.download(text, f"{part}.json")
    except BaseException:
        held.remove(size)
        raise
    weakref.finalize(response, held.remove, size)  # sent, or not
    return response


async def _data(_look: ScreenRequest, details: JobDetails[Job]) -> bytes:
    if details.is_too_long:
        raise Refusal(404, "The data of so long a record are saved with the record")
    if details.job is None:
        raise Refusal(404, "The job's record cannot be read")
    return await asyncio.to_thread(dumps_shown, details.job.data)


async def _result(look: ScreenRequest, details: JobDetails[Job]) -> bytes:
    if details.result_bytes > LONGEST_SHOWN:
        async with in_time():
            text = await look.parts.store.raw_result(look.prefix, look.names["queue"], look.names["id"])
        if text is None:
            raise Refusal(404, "The job has no result")
        return text
    if details.ended is None or details.ended.error is not None:
        raise Refusal(404, "The job has no result")
    return await asyncio.to_thread(dumps_shown, details.ended.value)


async def _record(look: ScreenRequest, _details: JobDetails[Job]) -> bytes:
    async with in_time():
        text = await look.parts.store.raw_record(look.prefix, look.names["queue"], look.names["id"])
    if text is None:
        raise Refusal(404, "The job has no record")
    return text


#: What can be saved as a file.
_PARTS: dict[str, Callable[[ScreenRequest, JobDetails[Job]], Awaitable[bytes]]] = {
    "data": _data,
    "result": _result,
    "record": _record,
}
