"""What ``beeq enqueue`` is asked for: one queue, and the terms on which its jobs are put there.

For the built-in queues that is more than for others: fields are checked, ``id`` and ``createdAt``
filled in, and what is not said is the job type's policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from beeq import Job, Queue
from beeq.jobs import JOB_TYPES, fill, validate


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The options that a job may have; None leaves each to the queue's policy, or to bee-queue's default."""

    job_id: str | None = None
    retries: int | None = None
    backoff: str | tuple[str, int] | None = None
    timeout_ms: int | None = None
    delay_ms: int | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """Makes jobs of one queue on the same terms."""

    queue_name: str
    terms: Terms = field(default_factory=Terms)

    def completed(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the job's data as they are to be enqueued.

        Raises:
            ValueError: a field is wrong.
        """
        job_id = self.terms.job_id
        if self.queue_name not in JOB_TYPES:
            return data
        if job_id is not None:
            if data.get("id") not in (None, job_id):
                raise ValueError("the field id and --id differ")
            data = {**data, "id": job_id}
        return validate(self.queue_name, fill(data)).model_dump(by_alias=True)

    def check(self, queue: Queue) -> None:
        """Check the terms, before any data are at hand.

        Raises:
            TypeError, ValueError: one of them is impossible; the message names it.
        """
        self.job(queue, {"id": None})

    def job(self, queue: Queue, data: dict[str, Any]) -> Job:
        """Return a job, not yet saved, of ``completed`` data.

        Raises:
            TypeError, ValueError: one of the terms is impossible; the message names it.
        """
        terms = self.terms
        job = queue.create_job(data)
        job_type = JOB_TYPES.get(self.queue_name)
        retries, backoff, timeout_ms = terms.retries, terms.backoff, terms.timeout_ms
        if job_type is not None:
            policy = job_type.policy
            retries = policy.retries if retries is None else retries
            backoff = policy.backoff if backoff is None else backoff
            timeout_ms = policy.timeout_ms if timeout_ms is None else timeout_ms
            job.set_id(data["id"])
        elif terms.job_id is not None:
            job.set_id(terms.job_id)
        if retries is not None:
            job.retries(retries)
        if backoff is not None:
            job.backoff(*((backoff,) if isinstance(backoff, str) else backoff))
        if timeout_ms is not None:
            job.timeout(timeout_ms)
        if terms.delay_ms is not None:
            job.delay_until(timedelta(milliseconds=terms.delay_ms))
        if terms.at is not None:
            job.delay_until(terms.at)
        return job
