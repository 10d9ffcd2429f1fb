"""Puts jobs into a queue: saves that happen together share one script call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from beeq.client.context import QueueContext
from beeq.errors import RedisUnavailable
from beeq.job import Job
from beeq.protocol.options import check_job_id
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline
from beeq.redis.resp import CommandPrefix, settle

#: One script call adds at most this many jobs, and not much more than this many bytes: a long
#: call would block every client.
MAX_JOBS = 500
MAX_BYTES = 1_000_000


class Producer:
    """Adds jobs. The first save goes out at once; those made while it is under way go out together.

    A batch has its place among the queue's other commands from its first save on, and takes further
    saves only while nothing else was asked: commands are executed in the order they were given.
    """

    def __init__(self, context: QueueContext) -> None:
        keys, settings = context.keys, context.settings
        self._pipeline = context.pipeline
        #: Hears of jobs that know their id before they are sent; None: events are not delivered to jobs.
        self._event_hub = context.event_hub if settings.store_jobs else None
        self._prefix = scripts.add_jobs.prefix(
            keys, earlier_delayed=keys.earlier_delayed, outbox_limit=settings.outbox_limit
        )
        self._batch: _SaveBatch | None = None  # the latest; further saves may join until it is sent

    def save(self, job: Job, loop: asyncio.AbstractEventLoop) -> asyncio.Future[int]:
        """Add the job; its ``id`` is set, or None if the id exists, when the returned future is done.

        The future returns the moment since which events of the id are about this job (see ``EventHub``). It
        raises ``RedisError``: Redis did not add it, or never said whether it did. ``loop`` is the running
        one: asking for it takes its time.

        Raises:
            TypeError: it cannot be written as JSON; nothing was sent.
            ValueError: its option ``delay`` is not a time; nothing was sent.
        """
        waiter: asyncio.Future[int] = loop.create_future()
        self._put(job, waiter)
        return waiter

    def _put(self, job: Job, waiter: asyncio.Future[int] | None) -> _SaveBatch:
        job_id = "" if job.id is None else check_job_id(job.id) or ""
        # What may be refused is worked out before anything is noted anywhere: no job fails another's save.
        record, due_ms = job.encoded(), job.due_ms
        moment = 0
        if self._event_hub is not None:
            moment = self._event_hub.moment
            if job_id:
                self._event_hub.register(job)  # its events may overtake the reply
        batch = self._batch
        if batch is None or not batch.has_room(len(record)) or not self._pipeline.is_last(batch.call):
            batch = self._batch = _SaveBatch(self._pipeline, self._prefix, self._release)
        batch.add(job, job_id, record, moment, waiter, due_ms=due_ms)
        return batch

    def _release(self, job: Job) -> None:
        """Let a job that was registered hear nothing: it was not added."""
        if self._event_hub is not None:
            self._event_hub.unregister(job)

    async def save_all(self, jobs: Sequence[Job]) -> dict[Job, Exception]:
        """Add many jobs in as few calls as the bounds allow; return those that failed, and why.

        Raises RedisUnavailable if Redis is away, and none of them was added.
        """
        if any(job.claim for job in jobs):
            raise RuntimeError("a running job cannot be saved again; enqueue a new one")
        errors: dict[Job, Exception] = {}
        batch_of: dict[Job, _SaveBatch] = {}
        for job in dict.fromkeys(jobs):
            try:
                batch_of[job] = self._put(job, None)
            except (TypeError, ValueError) as error:
                errors[job] = error
        if batch_of:
            await asyncio.wait([batch.until_done() for batch in set(batch_of.values())])
        for job, batch in batch_of.items():
            if batch.error is not None:
                errors[job] = batch.error
        away = [error for error in errors.values() if isinstance(error, RedisUnavailable)]
        if away and len(errors) == len(dict.fromkeys(jobs)):
            raise away[0]
        return errors


class _SaveBatch:
    """Saves that share one script call; in lists side by side, which the garbage collector need not visit."""

    def __init__(self, pipeline: Pipeline, prefix: CommandPrefix, on_refused: Callable[[Job], None]) -> None:
        self._prefix = prefix
        self._on_refused = on_refused
        self._jobs: list[Job] = []
        self._ids: list[str] = []  # as asked for
        self._records: list[bytes] = []
        self._dues_ms: list[int | str] = []
        self._moments: list[int] = []  # events of the ids heard before them were of earlier jobs
        self._waiters: list[asyncio.Future[int] | None] = []
        self._size_bytes = 0
        self._done: asyncio.Future[None] | None = None
        #: Why none of them was added, as far as is known.
        self.error: Exception | None = None
        self.call = pipeline.defer(scripts.add_jobs, self._packed, self._settle)

    def has_room(self, record_bytes: int) -> bool:
        """Return whether the call stays bounded with such a record in it."""
        return len(self._jobs) < MAX_JOBS and self._size_bytes + record_bytes <= MAX_BYTES

    def add(
        self,
        job: Job,
        job_id: str,
        record: bytes,
        moment: int,
        waiter: asyncio.Future[int] | None,
        *,
        due_ms: int,
    ) -> None:
        """Take ``job`` along; raises nothing, or the lists would not go together any more."""
        self._jobs.append(job)
        self._ids.append(job_id)
        self._records.append(record)
        self._dues_ms.append(due_ms or "")
        self._moments.append(moment)
        self._waiters.append(waiter)
        self._size_bytes += len(record)

    def until_done(self) -> asyncio.Future[None]:
        """Return a future that is done once each job has its id, or ``error`` is set. Ask before that."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        return self._done

    def _packed(self) -> bytes:
        arguments: list[Any] = []
        for words in zip(self._ids, self._records, self._dues_ms, strict=True):
            arguments += words
        return self._prefix.pack(arguments)

    def _settle(self, added_ids: list[bytes | None] | None, error: Exception | None) -> None:
        if error is None and (added_ids is None or len(added_ids) != len(self._jobs)):
            error = RedisUnavailable("Redis did not answer for each of the jobs")
        self.error = error
        if added_ids is None or error is not None:
            added_ids = [None] * len(self._jobs)
        for job, asked_id, added_id in zip(self._jobs, self._ids, added_ids, strict=True):
            if added_id is None and asked_id:
                self._on_refused(job)  # by the id it still has
            if error is None:
                job.id = None if added_id is None else added_id.decode()
        for moment, waiter in zip(self._moments, self._waiters, strict=True):
            if waiter is not None:
                settle(waiter, moment, error)
        self._jobs, self._waiters = [], []  # a batch that is still referred to holds no jobs
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
