"""A job's status as the platform reads it: one document a job. Pure.

The words differ from the queue's: what waits, is delayed, or will be tried again is ``queued``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from beeq.client.reader import trace_text
from beeq.protocol.codec import Record
from beeq.protocol.options import created_ms_of

if TYPE_CHECKING:
    from beeq.client.reader import JobState

STATUSES = ("queued", "processing", "completed", "failed", "cancelled")
#: The word of each state of ``JobState``.
_STATUS_OF = {
    "queued": "queued",
    "active": "processing",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
#: Where the calls begin in a trace, Python's or Node's.
_CALLS = re.compile(r"\n(?=Traceback \(most recent call last\):| {2}\+ Exception Group Traceback|    at )")
_TYPE = re.compile(r"[\w.]+")
#: Years beyond 9999 are none to Python, nor to BSON.
_LAST_MS = 253_402_300_799_999


def mirrored_name(queue_name: str) -> str:
    """Return what documents call a queue: as it is named, but for ``webhook``."""
    return "webhook" if queue_name == "webhook-processing" else queue_name


def status_document(queue_name: str, job_id: str, job_state: JobState) -> dict[str, Any]:
    """Return the status of a job as Redis knows it; when it last changed is not known there."""
    record, ended = job_state.record, job_state.ended
    error: str | None = None
    result: Any = None
    if ended is not None and ended.error is not None:
        error = str(ended.error)
        if record is not None and error == trace_text(record):  # nobody kept the message alone
            error = message_in(error)
    elif ended is not None:
        result = ended.value
    elif record is not None:
        error = _last_error(record)
    created_at = _moment(record)
    return {
        "jobId": job_id,
        "queueName": mirrored_name(queue_name),
        "status": _STATUS_OF[job_state.state],
        "jobData": None if record is None else record.data,
        "result": result,
        "error": error,
        "projectId": project_of(None if record is None else record.data),
        "createdAt": created_at,
        "updatedAt": created_at,
    }


def project_of(data: Any) -> Any:
    """Return the project that a job's data name, or None."""
    return data.get("projectId") if isinstance(data, dict) else None


def message_in(trace: str) -> str:
    """Return an error's message out of a stored trace: what stands before the calls, without the type."""
    head = _CALLS.split(trace, maxsplit=1)[0].rstrip("\n")
    name, colon, message = head.partition(": ")
    return message if colon and _TYPE.fullmatch(name) else head


def _last_error(record: Record) -> str | None:
    """Return why the job is to be tried again; None if it was never tried."""
    traces = record.options.get("stacktraces")
    if record.status != "retrying" or not isinstance(traces, list) or not traces:
        return None
    return message_in(trace_text(record))


def _moment(record: Record | None) -> datetime | None:
    created_ms = 0 if record is None else created_ms_of(record.options)
    return datetime.fromtimestamp(created_ms / 1000, UTC) if 0 < created_ms <= _LAST_MS else None
