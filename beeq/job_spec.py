"""What a producer asks for: one queue, and the options of the jobs that are put there.

For the built-in queues that is more than for others: fields are checked, ``id`` and ``createdAt``
filled in, and what is not said is the job type's policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from beeq.jobs import JOB_TYPES, BaseJob, fill, validate

if TYPE_CHECKING:
    from beeq.job import Job
    from beeq.queue import Queue

#: Wire names that are read as what they mean.
_ALIASES = {"delayUntil": "delay_until", "id": "job_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The options that a job may have; None leaves each to the queue's policy, or to bee-queue's default.

    They mean what ``Queue.enqueue`` says of them; durations are ints in ms or timedeltas.
    """

    job_id: str | int | None = None
    retries: int | None = None
    backoff: str | tuple[str, int | timedelta | None] | Mapping[str, Any] | None = None
    timeout: int | timedelta | None = None
    delay_until: datetime | float | timedelta | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Self:
        """Return what a mapping of option names asks for; ``backoff`` may be an object, as in bee-queue.

        Raises:
            ValueError: there is no such option; the message names it.
        """
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
        """Return the job's data as they are to be enqueued.

        Raises:
            ValueError: a field is wrong.
        """
        if isinstance(data, BaseJob):
            data = data.model_dump(by_alias=True)
        if self.queue_name not in JOB_TYPES:
            return dict(data)
        if not isinstance(data, Mapping):
            validate(self.queue_name, data)  # says what it is
        job_id = self.options.job_id
        if job_id is not None:
            if data.get("id") not in (None, job_id):
                raise ValueError("the job has another id already")
            data = {**data, "id": job_id}
        return validate(self.queue_name, fill(data)).model_dump(by_alias=True)

    def check(self, queue: Queue) -> None:
        """Check the options, before any data are at hand.

        Raises:
            TypeError, ValueError: one of them is impossible; the message names it.
        """
        self.job(queue, {"id": None})

    def job(self, queue: Queue, data: dict[str, Any]) -> Job:
        """Return a job, not yet saved, of ``completed`` data.

        Raises:
            TypeError, ValueError: one of the options is impossible; the message names it.
        """
        options = self.options
        job = queue.create_job(data)
        job_type = JOB_TYPES.get(self.queue_name)
        retries, backoff, timeout = options.retries, options.backoff, options.timeout
        if job_type is not None:
            policy = job_type.policy
            retries = policy.retries if retries is None else retries
            backoff = policy.backoff if backoff is None else backoff
            timeout = policy.timeout_ms if timeout is None else timeout
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
        """Put a job of ``completed`` data into its queue; one whose id exists is there already.

        Raises:
            TypeError, ValueError: one of the options is impossible. RedisError: Redis did not take it.
        """
        job = self.job(queue, data)
        wanted_id = job.id
        await job.save()
        if job.id is None:
            job.set_id(wanted_id)  # it exists: what was to be done is done
        return job


def _strategy_and_delay(backoff: Any) -> tuple[Any, ...]:
    if isinstance(backoff, str):
        return (backoff,)
    if isinstance(backoff, Mapping):
        return (backoff.get("strategy"), backoff.get("delay"))
    if isinstance(backoff, tuple | list) and len(backoff) in (1, 2):
        return tuple(backoff)
    raise ValueError("backoff must be a strategy's name, or the strategy and its delay")
