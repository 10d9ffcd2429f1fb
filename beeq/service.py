"""The queue service: enqueues jobs into the four built-in queues, and follows them.

Each kind of job has its queue, its fields and its policy (``jobs.py``). The job's own ``id`` is also its id
in the queue, so a job that is added twice runs once. ``beeq worker`` runs the jobs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

from beeq.client.reader import JobState, Stats
from beeq.environment import check_project_id_type
from beeq.errors import BeeqError, RedisError, line_of
from beeq.job import Job
from beeq.job_spec import JobOptions, JobSpec
from beeq.job_status import STATUSES, status_document
from beeq.jobs import JOB_TYPES, BaseJob, check_built_in
from beeq.mirror.documents import fingerprint_of
from beeq.mirror.mirror import Mirror
from beeq.queue import Queue
from beeq.settings import ServiceSettings
from beeq.supervision.fence import without_context

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

#: How long a close waits for the mirror.
_CATCH_UP_S = 1.0

JobData = Mapping[str, Any] | BaseJob
Options = Mapping[str, Any]


async def find_unfinished(queues: Iterable[Queue], job_id: str) -> Queue | None:
    """Return the queue with an unfinished job of that id, or None.

    Raises ValueError if several queues have one, as happens with ids that each queue counts for itself.
    """
    queues = list(queues)
    job_states = await asyncio.gather(*(queue.job_state(job_id) for queue in queues))
    found = [queue for queue, at in zip(queues, job_states, strict=True) if at and at.ended is None]
    if len(found) > 1:
        names = ", ".join(queue.name for queue in found)
        raise ValueError(f"several queues have a job {job_id}: {names}; say which one is meant")
    return found[0] if found else None


class QueueService:
    """The four built-in queues, for producers.

    Args:
        redis: as for ``Queue``.
        mongo_url: of the status mirror; while connected, the service also writes changes to it. None:
            statuses come from Redis alone.
        mongo_project_id: how the mirror writes ``projectId``: ``auto`` (text of 24 hexadecimal digits as an
            ObjectId, everything else as it is), ``objectid`` (ObjectIds only) or ``text`` (as it is).
        prefix: the first part of every key.
        **settings: further settings of the four queues, see ``Settings``.

    Raises:
        TypeError, ValueError: a setting is invalid; the message names it.

    Connects at the first await, in ``connect``, or in ``async with``. Jobs are dicts, camelCase or
    snake_case, or models of ``beeq.jobs``; missing ``id`` and ``createdAt`` are filled in.
    """

    def __init__(
        self,
        *,
        redis: str | Redis | None = None,
        mongo_url: str | None = None,
        mongo_project_id: str = "auto",
        prefix: str = "bq",
        **settings: Unpack[ServiceSettings],
    ) -> None:
        settings.setdefault("is_worker", False)
        settings.setdefault("mirrored", mongo_url is not None)
        self._queues = {name: Queue(name, redis=redis, prefix=prefix, **settings) for name in JOB_TYPES}
        self._has_noted = False  # whether a change may have been noted here
        self._is_closed = False
        check_project_id_type(mongo_project_id)
        self._make_mirror = partial(Mirror, redis=redis, prefix=prefix, project_id_type=mongo_project_id)
        self._mongo_url = mongo_url
        self._mirror = None if mongo_url is None else self._make_mirror(mongo_url)

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The four queues by name."""
        return dict(self._queues)

    async def connect(self) -> None:
        """Connect all four queues, also after a close; gives up after some attempts.

        Raises:
            RedisUnavailable: Redis cannot be reached; a further call tries again.
        """
        await asyncio.gather(*(queue.connect() for queue in self._queues.values()))
        if self._is_closed:
            self._is_closed = False
            self._mirror = None if self._mongo_url is None else self._make_mirror(self._mongo_url)
        if self._mirror is not None and not self._mirror.is_running:
            self._mirror.start()

    async def close(self) -> None:
        """Close all connections; ``connect`` opens them again. Closing twice is fine.

        Changes noted so far are mirrored first, if MongoDB takes them within a second; the others stay in
        Redis for the next writer. This returns at most 3 s after the queues have closed, even if something
        hangs.
        """
        await self._close(lambda queue: queue.close())

    async def _close(self, close: Callable[[Queue], Awaitable[None]]) -> None:
        is_first, self._is_closed = not self._is_closed, True
        try:
            await asyncio.gather(*map(close, self._queues.values()))
        finally:
            if self._mirror is not None:
                if is_first:
                    await self._catch_up(self._mirror)
                await self._mirror.stop()

    async def _catch_up(self, mirror: Mirror) -> None:
        if not (mirror.is_running or self._has_noted):
            return
        if not mirror.is_running:  # ``connect`` was not called: the queues have opened by themselves
            mirror.start()
        try:
            await mirror.flush(_CATCH_UP_S)
        except RedisError as error:
            logger.warning("changes are not mirrored yet: %s", line_of(error))

    async def __aenter__(self) -> Self:
        """Connect; if that fails, close."""
        try:
            await self.connect()
        except BaseException as error:
            await self.__aexit__(None, error, None)
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close, each queue as ``Queue`` does at the end of its block; an error in the block is raised on."""
        await self._close(lambda queue: queue.__aexit__(kind, error, trace))

    # Jobs.

    async def add_ai_generation_job(self, job: JobData, options: Options | None = None) -> Job:
        """Add a job to ``ai-generation``: a timeout of 30 min, 3 retries, exponential backoff from 2 s.

        Args:
            job: its fields; see ``AIGenerationJob``.
            options: ``timeout``, ``retries``, ``backoff``, ``delay_until`` as in ``Queue.enqueue``,
                in place of the policy.

        Returns:
            The saved job. If its id exists, the job that has it, as it is; its ``is_new`` is then False.

        Raises:
            ValueError: fields (``InvalidJob``: every fault is named) or an option are invalid.
            TypeError: an option has the wrong type. RedisError: the job may not be saved.
        """
        return await self._add("ai-generation", job, options)

    async def add_media_processing_job(self, job: JobData, options: Options | None = None) -> Job:
        """Add a ``MediaProcessingJob`` to ``media-processing``: 60 min, 2 retries, exponential from 5 s.

        Arguments, result and errors are those of ``add_ai_generation_job``.
        """
        return await self._add("media-processing", job, options)

    async def add_video_assembly_job(self, job: JobData, options: Options | None = None) -> Job:
        """Add a ``VideoAssemblyJob`` to ``video-assembly``: 120 min, 1 retry, at once.

        Arguments, result and errors are those of ``add_ai_generation_job``.
        """
        return await self._add("video-assembly", job, options)

    async def add_webhook_job(self, job: JobData, options: Options | None = None) -> Job:
        """Add a ``WebhookJob`` to ``webhook-processing``: 30 s, 5 retries, exponential from 1 s.

        Arguments, result and errors are those of ``add_ai_generation_job``.
        """
        return await self._add("webhook-processing", job, options)

    async def _add(self, queue_name: str, job: JobData, options: Options | None) -> Job:
        spec = JobSpec(queue_name, JobOptions.of(options))
        self._has_noted = True
        return await spec.save(self._queues[queue_name], spec.completed(job))

    async def cancel_job(self, job_id: str, *, queue_name: str | None = None) -> bool:
        """Cancel a job that waits, is delayed, or runs; see ``Queue.cancel_job``.

        Args:
            job_id: its id.
            queue_name: its queue; None means any.

        Returns:
            Whether there was an unfinished job.

        Raises:
            ValueError: not a built-in queue; or several queues have an unfinished job of that id.
        """
        queue = await find_unfinished(map(self._queues.__getitem__, self._names(queue_name)), job_id)
        self._has_noted = self._has_noted or queue is not None
        return queue is not None and await queue.cancel_job(job_id)

    async def get_job_status(self, job_id: str, *, queue_name: str | None = None) -> dict[str, Any] | None:
        """Return the job's status document, or None if there is no such job.

        ``jobId``, ``queueName``, ``status`` (``queued``, ``processing``, ``completed``, ``failed``,
        ``cancelled``), ``jobData``, ``result``, ``error``, ``projectId``, ``createdAt`` and
        ``updatedAt`` (datetimes in UTC). ObjectIds are given as text, ``projectId`` as in ``jobData``.

        Args:
            job_id: its id.
            queue_name: its queue; None means any: the newest job, if several queues have that id.

        The document comes from the mirror if there is one, and it answers and knows the job; otherwise
        from Redis.

        Raises:
            ValueError: not a built-in queue. RedisError: Redis did not answer.
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
            return await without_context(self._mirror.collection.find(job_id, self._names(queue_name)))
        except BeeqError as error:
            logger.warning("the mirror did not answer: %s", line_of(error))
            return None

    async def update_job_status(
        self, job_id: str, status: str, result: Any = None, error: str | None = None
    ) -> None:
        """Write a job's status into the mirror; it stays until the job's state in Redis changes.

        Args:
            job_id: its id.
            status: ``queued``, ``processing``, ``completed``, ``failed`` or ``cancelled``.
            result: a JSON value.
            error: a message.

        Raises:
            ValueError: the status is invalid. RuntimeError: the service has no mirror.
            MirrorUnavailable: MongoDB did not answer. RedisError: Redis did not.
        """
        if status not in STATUSES:
            raise ValueError(f"{status!r} is not a valid status; these are {', '.join(STATUSES)}")
        if error is not None and not isinstance(error, str):
            raise ValueError(f"error must be text, not {type(error).__name__}")
        if self._mirror is None:
            raise RuntimeError("there is no mirror: give mongo_url")
        # In this order: a change after the first look is later than this, and one before the second is seen.
        revisions = await self._mirror.revisions()
        found = await self._find(job_id, None)
        queue_name = next(iter(found)) if len(found) == 1 else None
        written = self._mirror.collection.set_status(
            job_id,
            queue_name,
            status=status,
            result=result,
            error=error,
            revision=max((revisions.get(name, 0) for name in found or revisions), default=0),
            fingerprint=None if queue_name is None else fingerprint_of(found[queue_name]),
        )
        await without_context(written)  # PyMongo keeps the connections that it opens here

    async def _find(self, job_id: str, queue_name: str | None) -> dict[str, JobState]:
        """Return the state of a job of that id, by queue."""
        names = self._names(queue_name)
        job_states = await asyncio.gather(*(self._queues[name].job_state(job_id) for name in names))
        return {name: job_state for name, job_state in zip(names, job_states, strict=True) if job_state}

    def _names(self, queue_name: str | None) -> list[str]:
        if queue_name is None:
            return list(self._queues)
        check_built_in(queue_name)
        return [queue_name]

    # Monitoring.

    async def queue_stats(self) -> dict[str, Stats]:
        """Return each queue's counts (waiting, active, succeeded, failed, delayed, newest job, workers)."""
        stats = await asyncio.gather(*(queue.stats() for queue in self._queues.values()))
        return dict(zip(self._queues, stats, strict=True))

    async def active_counts(self) -> dict[str, int]:
        """Return the number of running jobs, by queue."""
        return {name: stats.active for name, stats in (await self.queue_stats()).items()}
