"""A job's status document, for programs that follow jobs. Pure.

A waiting or delayed job, and one that will be retried, has the status ``queued``.
"""

import re
from datetime import UTC, datetime
from typing import Any

from beeq.client.reader import JobState, trace_text
from beeq.protocol.codec import Record
from beeq.protocol.options import created_ms_of
from beeq.protocol.outcome import bounded

STATUSES = ("queued", "processing", "completed", "failed", "cancelled")
#: The status of each state of a ``JobState``.
_STATUS_OF = {
    "queued": "queued",
    "active": "processing",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
#: The beginning of the calls in a trace, Python's or Node's.
_CALLS = re.compile(r"\n(?=Traceback \(most recent call last\):| {2}\+ Exception Group Traceback|    at )")
_TYPE = re.compile(r"[\w.]+")
#: Python and BSON have no years beyond 9999.
_LAST_MS = 253_402_300_799_999


def mirrored_name(queue_name: str) -> str:
    """Return a queue's name in documents: its own name, except for ``webhook``."""
    return "webhook" if queue_name == "webhook-processing" else queue_name


def status_document(queue_name: str, job_id: str, job_state: JobState) -> dict[str, Any]:
    """Return a job's document from its state in Redis, which does not say when the job last changed."""
    record, ended = job_state.record, job_state.ended
    error: str | None = None
    result: Any = None
    if ended is not None and ended.error is not None:
        error = str(ended.error)
        if record is not None and error == trace_text(record):  # the message was not stored alone
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
        "error": None if error is None else bounded(error),
        "projectId": project_of(None if record is None else record.data),
        "createdAt": created_at,
        "updatedAt": created_at,
    }


def project_of(data: Any) -> Any:
    """Return the ``projectId`` in a job's data, or None."""
    return data.get("projectId") if isinstance(data, dict) else None


def message_in(trace: str) -> str:
    """Return an error's message from a stored trace: the text before the calls, without the type."""
    head = _CALLS.split(trace, maxsplit=1)[0].rstrip("\n")
    name, colon, message = head.partition(": ")
    return message if colon and _TYPE.fullmatch(name) else head


def _last_error(record: Record) -> str | None:
    """Return why the job's last attempt failed; None if it had none."""
    traces = record.options.get("stacktraces")
    if record.status != "retrying" or not isinstance(traces, list) or not traces:
        return None
    return message_in(trace_text(record))


def _moment(record: Record | None) -> datetime | None:
    created_ms = 0 if record is None else created_ms_of(record.options)
    return datetime.fromtimestamp(created_ms / 1000, UTC) if 0 < created_ms <= _LAST_MS else None
