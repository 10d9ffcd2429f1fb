"""A job's document in the mirror: part of its screen, and the screen of a job that Redis has forgotten."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.responses import Response

from beeq.client.reader import Stats
from beeq.mirror.agreement import Agreement, agreement_of
from beeq.mirror.history import LARGEST_SHOWN, MirroredJob
from beeq.process import now_ms
from beeq.protocol.codec import dumps_shown
from beeq.web.page import rendering, words
from beeq.web.page.look import ScreenRequest
from beeq.web.page.made.files import MadeFile
from beeq.web.page.store import in_time
from beeq.web.responses import Refusal, status_object

#: Fields of a document that hold none of the job's values.
_OPEN_FIELDS = frozenset({"jobId", "queueName", "status", "createdAt", "updatedAt"})
#: Fields with a section of their own on the screen of a forgotten job.
_SHOWN_ELSEWHERE = frozenset({"jobData", "result", "error", "status", "jobId", "queueName"})
_STATES = {
    "completed": "succeeded",
    "processing": "active",
    "queued": "waiting",
    "failed": "failed",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class MirrorSection:
    """The mirror's section of a job's screen.

    Attributes:
        text: how the document and Redis agree.
        is_wrong: whether they do not.
        updated_ms: when the document was written; 0: unknown.
        document: as it may be shown; None without one.
    """

    text: str
    is_wrong: bool
    updated_ms: int = 0
    document: dict[str, Any] | None = None


async def section(look: ScreenRequest, *, is_whole: bool) -> MirrorSection | None:
    """Return the mirror's section for a job that Redis has; None without a mirror.

    ``is_whole`` says whether the job is small enough to be read and compared.
    """
    queue_name, job_id = look.names["queue"], look.names["id"]
    if not (look.is_mirrored and look.parts.mirror.mirrors(queue_name)):
        return None
    seen = await look.parts.mirror.find(job_id, queue_name)
    if seen.problem:
        return MirrorSection(f"The mirror cannot be asked: {seen.problem}", is_wrong=True)
    async with in_time():
        stats = await look.parts.store.stats(look.prefix, queue_name)
        job_state = await look.parts.store.job_state(look.prefix, queue_name, job_id)
    job = seen.job
    if is_whole and (job is None or job.is_whole):
        agreement = agreement_of(queue_name, job_id, None if job is None else job.stored, job_state)
        text, is_right = _text(agreement, stats), agreement.kind in ("same", "forgotten")
    else:
        text, is_right = "The job is too large to be compared", True
    return MirrorSection(
        text,
        is_wrong=not (is_right or stats.owed),
        updated_ms=0 if job is None else _ms(job.document.get("updatedAt")),
        document=None if job is None else _shown(look, job),
    )


def _text(agreement: Agreement, stats: Stats) -> str:
    waits = (
        f"; {words.number(stats.owed)} {'change waits' if stats.owed == 1 else 'changes wait'} to be written"
        if stats.owed
        else ""
    )
    fields = " and ".join(agreement.fields)
    match agreement.kind:
        case "same":
            return "The document agrees with Redis"
        case "late":
            of = f"by Redis it is {agreement.in_redis}, by the document {agreement.in_mirror}"
            same = f"{fields} of the document are of an earlier attempt"
            return f"It is late: {of if agreement.in_redis != agreement.in_mirror else same}{waits}"
        case "changed":
            return f"Not beeq has written {fields} of the document; that stays until the job's state changes"
        case "foreign":
            return f"Another program has written the document; what differs from Redis: {fields}{waits}"
        case "missing":
            return f"MongoDB has no document of this job{waits}"
        case "forgotten":
            return "Redis knows nothing of the job any more"


def _ms(value: Any) -> int:
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else 0


def _shown(look: ScreenRequest, job: MirroredJob) -> dict[str, Any]:
    document = status_object(job.document)
    return {name: value if name in _OPEN_FIELDS else look.data(value) for name, value in document.items()}


async def forgotten(look: ScreenRequest, job: MirroredJob) -> Response:
    """Return the screen of a job that only the mirror knows; nothing can be done to it."""
    document = status_object(job.document)
    status, error = str(document["status"]), document["error"]
    made: list[MadeFile] = []
    if status == "completed" and not look.hides_data:
        made = await look.parts.made.look(job.queue_name, document["jobData"], document["result"])
    return look.screen(
        "forgotten.html",
        queue_name=job.queue_name,
        job_id=job.job_id,
        status=status,
        state=_STATES.get(status, ""),
        now_ms=now_ms(),
        created_ms=_ms(job.document.get("createdAt")),
        updated_ms=_ms(job.document.get("updatedAt")),
        project=None if look.hides_data else document["projectId"],
        error=look.error(error) if isinstance(error, str) else "",
        has_result=document["result"] is not None,
        result=look.data(document["result"]),
        data=look.data(document["jobData"]),
        size=job.size,
        is_whole=job.is_whole,
        others={
            name: value
            for name, value in _shown(look, job).items()
            if name not in _SHOWN_ELSEWHERE and name not in ("createdAt", "updatedAt", "projectId")
        },
        made=made,
        has_media_root=look.parts.made.root is not None,
    )


async def download(job: MirroredJob, part: str) -> Response:
    """Return data or result of a forgotten job as a file of JSON, or all of its document as ``record``."""
    if not job.is_whole:
        raise Refusal(413, f"The document is larger than {words.size(LARGEST_SHOWN)}")
    document = status_object(job.document)
    value = document if part == "record" else document["jobData" if part == "data" else "result"]
    return rendering.download(await asyncio.to_thread(dumps_shown, value), f"{part}.json")


async def remembered(look: ScreenRequest) -> tuple[MirroredJob | None, str]:
    """Return the job as the mirror has it, or None; and why the mirror could not be read, or ""."""
    if not look.is_mirrored:
        return None, ""
    seen = await look.parts.mirror.find(look.names["id"], look.names["queue"])
    return seen.job, seen.problem
