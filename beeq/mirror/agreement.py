"""Compares a job's document in MongoDB with its state in Redis. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from beeq.client.reader import JobState
from beeq.mirror.documents import change_of, fingerprint_of
from beeq.protocol.codec import dumps_shown

#: Fields that follow the job's state; its data stay those of when it was enqueued.
_COMPARED = ("status", "result", "error")

AgreementKind = Literal["same", "late", "changed", "foreign", "missing", "forgotten"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of comparing a document with Redis.

    Attributes:
        kind: ``same``; ``late``: the document has another state than the job; ``changed``: it has the job's
            state, and another program has changed fields since; ``foreign``: beeq has not written it, and it
            differs; ``missing``: there is no document; ``forgotten``: Redis knows nothing of the job.
        in_redis: the status that a document of the job's state has; "" if Redis knows nothing.
        in_mirror: the document's.
        fields: those that differ.
    """

    kind: AgreementKind
    in_redis: str = ""
    in_mirror: str = ""
    fields: tuple[str, ...] = ()


def agreement_of(
    queue_name: str, job_id: str, document: Mapping[str, Any] | None, job_state: JobState | None
) -> Agreement:
    """Return how the stored document of a job and its state in Redis agree."""
    in_mirror = "" if document is None else str(document.get("status"))
    if job_state is None:
        return Agreement("forgotten", "", in_mirror)
    written = change_of(queue_name, job_id, job_state, 0).fields
    in_redis = str(written["status"])
    if document is None:
        return Agreement("missing", in_redis)
    fields = tuple(name for name in _COMPARED if not _is_same(written[name], document.get(name)))
    own = document.get("beeq")
    fingerprint = own.get("fingerprint") if isinstance(own, dict) else None
    if fingerprint == fingerprint_of(job_state):
        return Agreement("changed" if fields else "same", in_redis, in_mirror, fields)
    if not fields:
        return Agreement("same", in_redis, in_mirror)
    return Agreement("foreign" if fingerprint is None else "late", in_redis, in_mirror, fields)


def _is_same(written: Any, stored: Any) -> bool:
    try:
        return dumps_shown(written) == dumps_shown(stored)
    except TypeError:  # a type that only another program writes
        return False
