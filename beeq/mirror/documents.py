"""Builds the MongoDB update for a job's state in Redis. Pure.

An update carries its own condition: it takes effect only if its revision is later than the document's,
so repeated or reordered updates, and several writers, are harmless. The revision is the id of the change
in the outbox stream. Each document also keeps a fingerprint of the state it was written from: by it the
reconciler finds missing updates, and a document that another program has changed is left alone until
the job's state in Redis changes.
"""

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from beeq.client.reader import Ended, JobState, trace_text
from beeq.environment import ProjectIdType
from beeq.errors import JobFailed
from beeq.job_status import mirrored_name, status_document
from beeq.mirror.project_ids import converted, written_as
from beeq.protocol.codec import Record, dumps, dumps_shown

#: A stream id is a time in ms and a number; both fit into 63 bits, in order.
_SEQUENCE_BITS = 20
_MAX_SEQUENCE = (1 << _SEQUENCE_BITS) - 1
#: MongoDB stores 100 levels of nesting; some of them are the document's own.
_MAX_LEVELS = 80
#: MongoDB stores 16 MB a document, which the job's data and its result share.
_MAX_VALUE_BYTES = 7_000_000
_BEGINNING_CHARACTERS = 10_000
_FINAL = ["completed", "failed", "cancelled"]
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Change:
    """One job's state, to be mirrored."""

    queue_name: str
    job_id: str
    revision: int  # the id of the latest known change
    fingerprint: str
    fields: dict[str, Any]  # the document's, as MongoDB can store them
    #: The job has just been enqueued: its data replace those of an earlier job with its id.
    is_fresh: bool
    #: The record is gone and no entry has the job's end: a document that has it is kept.
    is_guess: bool = False


def revision_of(stream_id: bytes) -> int:
    """Return a stream id as one number of the same order."""
    milliseconds, _, sequence = stream_id.partition(b"-")
    return (int(milliseconds) << _SEQUENCE_BITS) | min(int(sequence), _MAX_SEQUENCE)


def moment_of(revision: int) -> datetime:
    """Return when the change was made, by Redis's clock."""
    return datetime.fromtimestamp((revision >> _SEQUENCE_BITS) / 1000, UTC)


def fingerprint_of(job_state: JobState) -> str:
    """Return a text that differs between any two states of a job; its progress does not count."""
    record, ended = job_state.record, job_state.ended
    facts: list[Any] = [job_state.state]
    if record is not None:
        options, traces = record.options, record.options.get("stacktraces")
        facts += [record.status, options.get("timestamp"), options.get("retries")]
        facts.append(len(traces) if isinstance(traces, list) else 0)
    if ended is not None:
        facts += [ended.value, str(ended.error or "")]
    return f"{job_state.state}-{zlib.crc32(dumps_shown(facts)):08x}"


def has_ended(fingerprint: str | None) -> bool:
    """Return whether this is the fingerprint of a job that has ended."""
    return fingerprint is not None and fingerprint.startswith(("succeeded-", "failed-", "cancelled-"))


def change_of(queue_name: str, job_id: str, job_state: JobState | None, revision: int) -> Change:
    """Return the change that mirrors ``job_state``; None means that Redis knows nothing of the job."""
    is_guess = job_state is None
    job_state = job_state or state_without_record("cancelled", None)
    fields = status_document(queue_name, job_id, job_state)
    for name in ("jobId", "queueName", "updatedAt"):
        del fields[name]
    fields = {name: storable(value) for name, value in fields.items()}
    record = job_state.record
    is_fresh = record is not None and record.status == "created" and job_state.state == "queued"
    return Change(queue_name, job_id, revision, fingerprint_of(job_state), fields, is_fresh, is_guess)


def update_of(change: Change, id_type: ProjectIdType) -> list[dict[str, Any]]:
    """Return the pipeline of an update that changes the job's document, or creates it."""
    conditions: list[dict[str, Any]] = [
        {"$gt": [change.revision, {"$ifNull": ["$beeq.revision", -1]}]},
        {"$ne": ["$beeq.fingerprint", change.fingerprint]},
    ]
    if change.is_guess:
        conditions.append({"$not": [{"$in": [{"$ifNull": ["$status", ""]}, _FINAL]}]})
    is_new = {"$and": conditions}

    def unless_older(name: str, value: Any, present: Any = None) -> dict[str, Any]:
        return {"$cond": [is_new, value, {"$ifNull": [present or f"${name}", None]}]}

    fields, updated_at = change.fields, moment_of(change.revision)
    job_data: dict[str, Any] = {"$literal": fields["jobData"]}
    project_id: dict[str, Any] = {"$literal": written_as(fields["projectId"], id_type)}
    present_project_id = converted(id_type)
    if not change.is_fresh:
        job_data = {"$ifNull": ["$jobData", job_data]}
        project_id = {"$ifNull": [present_project_id, project_id]}
    return [
        {
            "$set": {
                "status": unless_older("status", fields["status"]),
                "jobData": unless_older("jobData", job_data),
                "result": unless_older("result", {"$literal": fields["result"]}),
                "error": unless_older("error", {"$literal": fields["error"]}),
                "projectId": unless_older("projectId", project_id, present_project_id),
                "createdAt": {"$ifNull": ["$createdAt", fields["createdAt"] or updated_at]},
                "updatedAt": unless_older("updatedAt", updated_at),
                "__v": {"$ifNull": ["$__v", 0]},
                "beeq": {
                    "revision": {"$max": [{"$ifNull": ["$beeq.revision", -1]}, change.revision]},
                    "fingerprint": unless_older("beeq.fingerprint", change.fingerprint),
                },
            }
        }
    ]


def shared_id(queue_name: str, job_id: str) -> str:
    """Return the ``jobId`` of a job whose id another queue's job has too, as counted ids do."""
    return f"{mirrored_name(queue_name)}:{job_id}"


def storable(value: Any) -> Any:
    """Return ``value`` as MongoDB can store it: values without a BSON type become text."""
    try:
        size = len(dumps(value))
    except (TypeError, RecursionError):
        return str(type(value).__name__)
    if size > _MAX_VALUE_BYTES:
        beginning = dumps(value)[:_BEGINNING_CHARACTERS].decode(errors="ignore")
        return {"tooLarge": size, "beginning": _text(beginning)}
    return _storable(value, 1)


def _storable(value: Any, level: int) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value in _INT64 else str(value)
    if isinstance(value, dict | list | tuple):
        if level > _MAX_LEVELS:
            return _text(dumps(value).decode(errors="replace"))
        if isinstance(value, dict):
            return {
                _text(str(key)).replace("\0", "\\u0000"): _storable(item, level + 1)
                for key, item in value.items()
            }
        return [_storable(item, level + 1) for item in value]
    return value  # None, a boolean, a float, or a datetime made by beeq


def _text(text: str) -> str:
    """Return the text with lone surrogates escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def state_without_record(state: str, record: Record | None, ended: Ended | None = None) -> JobState:
    """Return the state of a job that ended in ``state``, and whose record was removed since."""
    if ended is None and state == "failed" and record is not None:
        ended = Ended(error=JobFailed("", trace_text(record)))
    if ended is not None and state != "cancelled":
        return JobState(state, record, ended)
    return JobState(state, record, Ended(is_cancelled=state == "cancelled"))
