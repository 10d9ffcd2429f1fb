"""What a producer asks for: a queue, and the options of the jobs that are enqueued there.

For the built-in queues, fields are checked, ``id`` and ``createdAt`` filled in, and missing options taken
from the job type's policy. What is invalid raises TypeError or ValueError; the message names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Self

from beeq.job import Job
from beeq.jobs import JOB_TYPES, BaseJob, fill, validate
from beeq.queue import Queue
from beeq.settings import Duration

#: bee-queue's names of options, and beeq's.
_ALIASES = {"delayUntil": "delay_until", "id": "job_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """A job's options, see ``Queue.enqueue``; durations are ints in ms, timedeltas, or text like ``30s``.

    None means the policy of a built-in queue, or bee-queue's default.
    """

    job_id: str | int | None = None
    retries: int | None = None
    backoff: str | tuple[str, Duration | None] | Mapping[str, Any] | None = None
    timeout: Duration | None = None
    delay_until: datetime | float | timedelta | str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Self:
        """Return the options in a mapping; ``backoff`` may be an object, as in bee-queue."""
        named = {_ALIASES.get(name, name): value for name, value in (options or {}).items()}
        unknown = named.keys() - {known.name for known in fields(cls)}
        if unknown:
            raise ValueError(f"unknown option: {', '.join(sorted(map(str, unknown)))}")
        return cls(**named)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Makes jobs of one queue with the same options."""

    queue_name: str
    options: JobOptions = field(default_factory=JobOptions)

    def completed(self, data: Mapping[str, Any] | BaseJob) -> dict[str, Any]:
        """Return the data to enqueue: checked and filled in, in a built-in queue."""
        if isinstance(data, BaseJob):
            data = data.model_dump(by_alias=True)
        if self.queue_name not in JOB_TYPES:
            return dict(data)
        if not isinstance(data, Mapping):
            validate(self.queue_name, data)  # raises the error that names its type
        job_id = self.options.job_id
        if job_id is not None:
            if data.get("id") not in (None, job_id):
                raise ValueError("the job has another id already")
            data = {**data, "id": job_id}
        return validate(self.queue_name, fill(data)).model_dump(by_alias=True)

    def check(self, queue: Queue) -> None:
        """Check the options, before there are any data."""
        self.job(queue, {"id": None})

    def job(self, queue: Queue, data: dict[str, Any]) -> Job:
        """Return a job, not yet saved, of ``completed`` data."""
        options = self.options
        job = queue.create_job(data)
        job_type = JOB_TYPES.get(self.queue_name)
        retries, backoff, timeout = options.retries, options.backoff, options.timeout
        if job_type is not None:
            retries = job_type.retries if retries is None else retries
            backoff = job_type.backoff if backoff is None else backoff
            timeout = job_type.timeout_ms if timeout is None else timeout
            job.set_id(data["id"])
        elif options.job_id is not None:
            job.set_id(options.job_id)
        if retries is not None:
            job.retries(retries)
        if backoff is not None:
            job.backoff(*_strategy_and_delay(backoff))
        if timeout is not None:
            job.timeout(timeout)
        if options.delay_until is not None:
            job.delay_until(options.delay_until)
        return job

    async def save(self, queue: Queue, data: dict[str, Any]) -> Job:
        """Enqueue a job of ``completed`` data; if its id exists, return that job, which is left as it is.

        After a RedisError the job may or may not be enqueued. Raises JobUnreadable as ``Queue.enqueue`` does.
        """
        return await queue.save_or_find(self.job(queue, data))


def _strategy_and_delay(backoff: Any) -> tuple[Any, ...]:
    if isinstance(backoff, str):
        return (backoff,)
    if isinstance(backoff, Mapping):
        return (backoff.get("strategy"), backoff.get("delay"))
    if isinstance(backoff, tuple | list) and len(backoff) in (1, 2):
        return tuple(backoff)
    raise ValueError("backoff must be a strategy's name, or the strategy and its delay")
