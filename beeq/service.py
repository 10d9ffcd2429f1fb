"""The queue service: what the platform calls to put jobs into the four built-in queues, and to follow them.

Each kind of job has its queue, its fields and its policy (``jobs.py``); the job's own ``id`` becomes
the queue's, so putting a job twice does it once. Working is ``beeq worker``'s affair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from beeq.client.reader import Stats
from beeq.errors import BeeqError
from beeq.job_spec import JobOptions, JobSpec
from beeq.job_status import STATUSES, status_document
from beeq.jobs import (
    JOB_TYPES,
    AIGenerationJob,
    BaseJob,
    MediaProcessingJob,
    VideoAssemblyJob,
    WebhookJob,
)
from beeq.mirror.mirror import Mirror
from beeq.queue import Queue

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from beeq.client.reader import JobState
    from beeq.job import Job

logger = logging.getLogger(__name__)

#: What a job may be given as.
JobData = Mapping[str, Any] | BaseJob
Options = Mapping[str, Any]


async def find_unfinished(queues: Iterable[Queue], job_id: str) -> Queue | None:
    """Return the queue that has a job of that id which has not ended, or None.

    Raises:
        ValueError: several have one, which only ids of their own counters can bring about.
    """
    queues = list(queues)
    job_states = await asyncio.gather(*(queue.job_state(job_id) for queue in queues))
    found = [queue for queue, at in zip(queues, job_states, strict=True) if at and at.ended is None]
    if len(found) > 1:
        names = ", ".join(queue.name for queue in found)
        raise ValueError(f"several queues have a job {job_id}: {names}; say which one is meant")
    return found[0] if found else None


class QueueService:
    """The four built-in queues, as a producer sees them.

    Args:
        redis: as for ``Queue``.
        mongo_url: where the status mirror is; while connected, the service also writes what is owed
            to it. None: statuses come from Redis alone.
        prefix: the first part of every key.
        **settings: further settings of the four queues, see ``Settings``.

    Raises:
        TypeError, ValueError: a bad setting; the message names it.

    Connects at the first await, in ``connect``, or in ``async with``. Jobs are dicts, camelCase or
    snake_case, or models of ``beeq.jobs``; ``id`` and ``createdAt`` are filled in where missing.
    """

    def __init__(
        self,
        *,
        redis: str | Redis | None = None,
        mongo_url: str | None = None,
        prefix: str = "bq",
        **settings: Any,
    ) -> None:
        settings.setdefault("is_worker", False)
        settings.setdefault("mirrored", mongo_url is not None)
        self._queues = {name: Queue(name, redis=redis, prefix=prefix, **settings) for name in JOB_TYPES}
        self._mirror = None if mongo_url is None else Mirror(mongo_url, redis=redis, prefix=prefix)

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The four queues by name."""
        return dict(self._queues)

    async def connect(self) -> None:
        """Connect all four queues, within bounded tries.

        Raises:
            RedisUnavailable: Redis cannot be reached; call again to try again.
        """
        await asyncio.gather(*(queue.connect() for queue in self._queues.values()))
        if self._mirror is not None and not self._mirror.is_running:
            self._mirror.start()

    async def close(self) -> None:
        """Hang up; what is owed to the mirror stays in Redis. Calling it again is fine."""
        if self._mirror is not None:
            await self._mirror.stop()
        await asyncio.gather(*(queue.close() for queue in self._queues.values()))

    async def __aenter__(self) -> Self:
        """Connect; what did not is closed again."""
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Close."""
        await self.close()

    # Jobs.

    async def add_ai_generation_job(
        self, job: JobData | AIGenerationJob, options: Options | None = None
    ) -> Job:
        """Put a job into ``ai-generation``: 30 min an attempt, 3 retries, exponential from 2 s.

        Args:
            job: its fields; see ``AIGenerationJob``.
            options: ``timeout``, ``retries``, ``backoff``, ``delay_until`` as in ``Queue.enqueue``,
                instead of the policy.

        Returns:
            The saved job. One whose id exists is left as it is, and returned with that id.

        Raises:
            ValueError: fields are wrong (``InvalidJob``: every fault is named), or an option is.
            TypeError: an option of the wrong type. RedisError: Redis did not take the job.
        """
        return await self._add("ai-generation", job, options)

    async def add_media_processing_job(
        self, job: JobData | MediaProcessingJob, options: Options | None = None
    ) -> Job:
        """Put a job into ``media-processing``: 60 min, 2 retries, exponential from 5 s.

        Arguments, result and errors are those of ``add_ai_generation_job``.
        """
        return await self._add("media-processing", job, options)

    async def add_video_assembly_job(
        self, job: JobData | VideoAssemblyJob, options: Options | None = None
    ) -> Job:
        """Put a job into ``video-assembly``: 120 min, 1 retry, at once.

        Arguments, result and errors are those of ``add_ai_generation_job``.
        """
        return await self._add("video-assembly", job, options)

    async def add_webhook_job(self, job: JobData | WebhookJob, options: Options | None = None) -> Job:
        """Put a job into ``webhook-processing``: 30 s, 5 retries, exponential from 1 s.

        Arguments, result and errors are those of ``add_ai_generation_job``.
        """
        return await self._add("webhook-processing", job, options)

    async def _add(self, queue_name: str, job: JobData, options: Options | None) -> Job:
        spec = JobSpec(queue_name, JobOptions.of(options))
        return await spec.save(self._queues[queue_name], spec.completed(job))

    async def cancel_job(self, job_id: str, *, queue_name: str | None = None) -> bool:
        """End a job that waits, is delayed, or runs; see ``Queue.cancel_job``.

        Args:
            job_id: its id.
            queue_name: in which queue; None: wherever it is.

        Returns:
            Whether there was one to end.

        Raises:
            ValueError: no such queue; or several queues have an unfinished job of that id.
        """
        queue = await find_unfinished(map(self._queues.__getitem__, self._names(queue_name)), job_id)
        return queue is not None and await queue.cancel_job(job_id)

    async def get_job_status(self, job_id: str, *, queue_name: str | None = None) -> dict[str, Any] | None:
        """Return the job's status document, or None if nothing is known of it.

        ``jobId``, ``queueName``, ``status`` (``queued``, ``processing``, ``completed``, ``failed``,
        ``cancelled``), ``jobData``, ``result``, ``error``, ``projectId``, ``createdAt`` and
        ``updatedAt`` (datetimes in UTC).

        Args:
            job_id: its id.
            queue_name: in which queue; None: wherever it is, the newest if several have that id.

        With a mirror it is the mirror's word; Redis is asked while the mirror has none, or is away.

        Raises:
            ValueError: no such queue. RedisError: Redis did not answer.
        """
        mirrored = await self._mirrored_status(job_id, queue_name)
        if mirrored is not None:
            return mirrored
        found = await self._find(job_id, queue_name)
        documents = [status_document(name, job_id, job_state) for name, job_state in found.items()]
        documents.sort(key=lambda document: document["createdAt"].timestamp() if document["createdAt"] else 0)
        return documents[-1] if documents else None

    async def _mirrored_status(self, job_id: str, queue_name: str | None) -> dict[str, Any] | None:
        if self._mirror is None:
            return None
        try:
            return await self._mirror.collection.find(job_id, self._names(queue_name))
        except BeeqError as error:
            logger.warning("the mirror did not answer: %s", error)
            return None

    async def update_job_status(
        self, job_id: str, status: str, result: Any = None, error: str | None = None
    ) -> None:
        """Write a job's status into the mirror; it stands until something new happens to the job.

        Args:
            job_id: its id.
            status: ``queued``, ``processing``, ``completed``, ``failed`` or ``cancelled``.
            result: a JSON value.
            error: a message.

        Raises:
            ValueError: no such status. RuntimeError: the service has no mirror.
            MirrorUnavailable: MongoDB did not take it.
        """
        if status not in STATUSES:
            raise ValueError(f"{status!r} is no status; there are {', '.join(STATUSES)}")
        if error is not None and not isinstance(error, str):
            raise ValueError(f"error must be text, not {type(error).__name__}")
        if self._mirror is None:
            raise RuntimeError("there is no mirror: give mongo_url")
        found = await self._find(job_id, None)
        queue_name = next(iter(found)) if len(found) == 1 else None
        await self._mirror.collection.set_status(
            job_id, queue_name, status=status, result=result, error=error
        )

    async def _find(self, job_id: str, queue_name: str | None) -> dict[str, JobState]:
        """Return where a job of that id stands, by queue."""
        names = self._names(queue_name)
        job_states = await asyncio.gather(*(self._queues[name].job_state(job_id) for name in names))
        return {name: job_state for name, job_state in zip(names, job_states, strict=True) if job_state}

    def _names(self, queue_name: str | None) -> list[str]:
        if queue_name is None:
            return list(self._queues)
        if queue_name not in self._queues:
            raise ValueError(f"{queue_name!r} is none of the built-in queues: {', '.join(self._queues)}")
        return [queue_name]

    # Monitoring.

    async def queue_stats(self) -> dict[str, Stats]:
        """Return each queue's counts (waiting, active, succeeded, failed, delayed, newest job, workers)."""
        stats = await asyncio.gather(*(queue.stats() for queue in self._queues.values()))
        return dict(zip(self._queues, stats, strict=True))

    async def active_counts(self) -> dict[str, int]:
        """Return how many jobs run in each queue now."""
        return {name: stats.active for name, stats in (await self.queue_stats()).items()}
