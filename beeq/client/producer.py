"""Puts jobs into a queue: saves that happen together share one script call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from beeq.client.context import QueueContext
from beeq.client.registry import QueueNote
from beeq.errors import NotReplicated, QueueClosed, RedisError, RedisRefused, RedisUnavailable
from beeq.job import Job
from beeq.protocol.options import check_job_id
from beeq.redis import scripts
from beeq.redis.pipeline import NOT_SENT, UNKNOWN, Pipeline
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
        self._telemetry = context.telemetry
        #: Hears of jobs that know their id before they are sent; None: events are not delivered to jobs.
        delivers = settings.store_jobs and settings.get_events
        self._event_hub = context.event_hub if delivers else None
        self._prefix = scripts.add_jobs.prefix(
            keys, earlier_delayed=keys.earlier_delayed, outbox_limit=settings.outbox_limit
        )
        #: Goes before the first save, and then one an hour.
        self.note = QueueNote(keys)
        self._batch: SaveBatch | None = None  # the latest; further saves may join until it is sent

    def save(self, job: Job, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Future[int], SaveBatch]:
        """Add the job; its ``id`` is set, or None if the id exists, when the returned future is done.

        The future returns the moment since which events of the id are about this job (see ``EventHub``). It
        raises ``RedisError``: Redis did not add it, or never said whether it did; ``QueueClosed``. If it is
        cancelled, call ``withdraw``. ``loop`` is the running one: asking for it takes its time.

        Raises:
            TypeError: it cannot be written as JSON; nothing was sent.
            ValueError: its option ``delay`` is not a time, or its id cannot be encoded; nothing was sent.
        """
        waiter: asyncio.Future[int] = loop.create_future()
        return waiter, self._put(job, waiter)

    def withdraw(self, job: Job, waiter: asyncio.Future[int], batch: SaveBatch) -> str:
        """Undo what was noted of a save whose future was cancelled, unless it was sent; say which it was."""
        if batch.is_settled:
            self._take_over([job], waiter, batch)
            return f"Redis has added it already, as {job.id}" if job.id and not batch.error else UNKNOWN
        if not batch.has_left_out(waiter):
            return UNKNOWN
        self.refused(job)
        return NOT_SENT

    def _put(self, job: Job, waiter: asyncio.Future[int] | None) -> SaveBatch:
        job_id = "" if job.id is None else check_job_id(job.id) or ""
        # What may be refused is worked out before anything is noted anywhere: no job fails another's save.
        record, due_ms = job.encoded(), job.due_ms
        raw_id = job_id.encode() if job_id else b""
        size_bytes = len(record) + len(raw_id)
        moment = 0
        if self._event_hub is not None:
            moment = self._event_hub.moment
            if job_id:
                self._event_hub.expect(job)  # its events may overtake the reply
        batch = self._batch
        if batch is None or not batch.has_room(size_bytes) or not self._pipeline.is_last(batch.call):
            if self.note.is_due():
                self.note.send_along(self._pipeline)
            batch = self._batch = SaveBatch(self._pipeline, self._prefix, self)
        batch.add(job, raw_id, record, moment, waiter, due_ms=due_ms, size_bytes=size_bytes)
        return batch

    def _take_over(self, jobs: list[Job], caller: asyncio.Future[Any], batch: SaveBatch) -> None:
        """Let jobs hear of events that were added just before their caller was cancelled."""
        if not (caller.cancelled() or batch.error):  # else the batch has seen to it
            for job in jobs:
                self.added_late(job, since=0)

    def added_late(self, job: Job, since: int) -> None:
        """Let a job that was added hear of events, though its caller was cancelled."""
        if self._event_hub is not None and job.id is not None:
            self._event_hub.deliver_to(job, since=since)

    def refused(self, job: Job) -> None:
        """Let a job that was expected hear nothing: it was not added."""
        if self._event_hub is not None:
            self._event_hub.unregister(job)

    def answered(self, added_ids: Sequence[bytes | RedisRefused | None]) -> None:
        """Count the jobs that were added, if anybody wants to know."""
        if self._telemetry.tally is not None:
            self._telemetry.tally.enqueued(sum(isinstance(each, bytes) for each in added_ids))

    async def save_all(self, jobs: Sequence[Job]) -> dict[Job, Exception]:
        """Add many jobs in as few calls as the bounds allow; return those that failed, and why.

        Raises RedisUnavailable if Redis is away, and none of them was added.
        """
        if any(job.claim for job in jobs):
            raise RuntimeError("a running job cannot be saved again; enqueue a new one")
        errors: dict[Job, Exception] = {}
        jobs_of: dict[SaveBatch, list[Job]] = {}
        for job in dict.fromkeys(jobs):
            try:
                jobs_of.setdefault(self._put(job, None), []).append(job)
            except (TypeError, ValueError) as error:
                errors[job] = error
        # Nothing is sent before the first ``await``: the jobs are the last of each batch.
        done = {batch: batch.until_done(len(together)) for batch, together in jobs_of.items()}
        try:
            await asyncio.gather(*done.values())
        except asyncio.CancelledError as cancelled:
            cancelled.add_note(self._withdraw_all(jobs_of, done))
            raise
        for batch, together in jobs_of.items():
            if batch.error is not None:
                errors |= dict.fromkeys(together, batch.error)
            else:
                errors |= {job: batch.failures[job] for job in together if job in batch.failures}
        away = [error for error in errors.values() if isinstance(error, (QueueClosed, RedisUnavailable))]
        is_any_there = any(isinstance(error, NotReplicated) for error in away)
        if away and not is_any_there and len(errors) == len(dict.fromkeys(jobs)):
            raise away[0]
        return errors

    def _withdraw_all(
        self, jobs_of: dict[SaveBatch, list[Job]], done: dict[SaveBatch, asyncio.Future[Any]]
    ) -> str:
        """Undo what was noted of jobs that were not sent; return what a note says of all of them."""
        withdrawn = 0
        for batch, together in jobs_of.items():
            if batch.has_left_out(done[batch]):
                withdrawn += len(together)
                for job in together:
                    self.refused(job)
            elif batch.is_settled:
                self._take_over(together, done[batch], batch)
        count = sum(map(len, jobs_of.values()))
        if withdrawn == count:
            return NOT_SENT
        return f"{withdrawn} of {count} jobs were withdrawn; of those without an id, {UNKNOWN}"


class SaveListener(Protocol):
    """Hears what became of jobs, where their callers do not see to it."""

    def answered(self, added_ids: Sequence[bytes | RedisRefused | None]) -> None:
        """Hear which ids were added, and for which jobs there is none."""

    def refused(self, job: Job) -> None:
        """Hear that a job with an id of its own was not added."""

    def added_late(self, job: Job, since: int) -> None:
        """Hear that a job was added whose caller was cancelled; events of it are those after ``since``."""


class SaveBatch:
    """Saves that share one script call; in lists side by side, which the garbage collector need not visit."""

    def __init__(self, pipeline: Pipeline, prefix: CommandPrefix, listener: SaveListener) -> None:
        self._prefix = prefix
        self._listener = listener
        self._jobs: list[Job] = []
        self._ids: list[bytes] = []  # as asked for; empty for an automatic one
        self._records: list[bytes] = []
        self._dues_ms: list[bytes] = []  # as digits; empty for now
        self._moments: list[int] = []  # events of the ids heard before them were of earlier jobs
        self._waiters: list[asyncio.Future[int] | None] = []
        self._size_bytes = 0
        #: Callers that wait for several of the jobs, and which these are.
        self._callers: list[tuple[asyncio.Future[None], range]] = []
        self._withdrawn: set[int] = set()  # those that the call, as it was last packed, leaves out
        self.is_settled = False
        #: Why none of them was added, as far as is known.
        self.error: Exception | None = None
        #: Those that got no automatic id, or were not confirmed by replicas, and why; the others were added.
        self.failures: dict[Job, RedisError] = {}
        self.call = pipeline.defer(scripts.add_jobs, self._packed, self._settle)

    def has_room(self, size_bytes: int) -> bool:
        """Return whether the call stays bounded with such a job, its record and its id, in it."""
        return len(self._jobs) < MAX_JOBS and self._size_bytes + size_bytes <= MAX_BYTES

    def add(
        self,
        job: Job,
        raw_id: bytes,
        record: bytes,
        moment: int,
        waiter: asyncio.Future[int] | None,
        *,
        due_ms: int,
        size_bytes: int,
    ) -> None:
        """Take ``job`` along; raises nothing, or the lists would not go together any more."""
        self._jobs.append(job)
        self._ids.append(raw_id)
        self._records.append(record)
        self._dues_ms.append(b"%d" % due_ms if due_ms else b"")
        self._moments.append(moment)
        self._waiters.append(waiter)
        self._size_bytes += size_bytes

    def until_done(self, count: int) -> asyncio.Future[None]:
        """Return a future for who has just added the last ``count`` jobs.

        It is done once each has its id, or ``error`` is set; cancelled, it withdraws them.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        added = len(self._jobs)
        self._callers.append((done, range(added - count, added)))
        return done

    def has_left_out(self, caller: asyncio.Future[Any]) -> bool:
        """Return whether the job, or jobs, of this cancelled future are not sent; a save asks in time."""
        return not self.call.is_sent or self._withdrawn.issuperset(self._places(caller))

    def _places(self, caller: asyncio.Future[Any]) -> Iterable[int]:
        if caller in self._waiters:
            return [self._waiters.index(caller)]
        return next(places for done, places in self._callers if done is caller)

    def _left_behind(self) -> set[int]:
        """Return the places of the jobs whose callers were cancelled."""
        places: set[int] = set()
        for at, waiter in enumerate(self._waiters):
            if waiter is not None and waiter.cancelled():
                places.add(at)
        for done, together in self._callers:
            if done.cancelled():
                places.update(together)
        return places

    def _packed(self) -> bytes:
        """Return the call; empty if all jobs were withdrawn."""
        withdrawn = self._withdrawn = self._left_behind()
        arguments = [b""] * (3 * len(self._jobs))
        arguments[::3], arguments[1::3], arguments[2::3] = self._ids, self._records, self._dues_ms
        if withdrawn:
            for at in sorted(withdrawn, reverse=True):
                del arguments[3 * at : 3 * at + 3]
        return self._prefix.pack(arguments) if arguments else b""

    def _settle(
        self, added_ids: Sequence[bytes | RedisRefused | None] | None, error: Exception | None
    ) -> None:
        jobs, asked_ids = self._jobs, self._ids
        if self._withdrawn:
            sent = [at for at in range(len(jobs)) if at not in self._withdrawn]
            jobs, asked_ids = [jobs[at] for at in sent], [asked_ids[at] for at in sent]
        shortfall = error if isinstance(error, NotReplicated) else None
        if shortfall is not None:
            error = None  # the jobs are there: each gets its id, and an error that names it
        if error is None and (added_ids is None or len(added_ids) != len(jobs)):
            error = RedisUnavailable("Redis did not answer for each of the jobs")
        self.error, self.is_settled = error, True
        if added_ids is None or error is not None:
            added_ids = [None] * len(jobs)
        self._listener.answered(added_ids)
        for job, asked_id, added_id in zip(jobs, asked_ids, added_ids, strict=True):
            job.is_new = False
            if isinstance(added_id, bytes):
                job.is_new, job.id = True, added_id.decode()
            elif isinstance(added_id, RedisRefused):
                self.failures[job] = added_id
                continue
            else:
                if asked_id:
                    self._listener.refused(job)  # by the id it still has
                job.id = None if error is None and shortfall is None else job.id
            if shortfall is not None:
                self.failures[job] = shortfall.of(job.id)
        self._tell_callers(error)

    def _tell_callers(self, error: Exception | None) -> None:
        late: set[int] = set()  # of callers that were cancelled, or get an error though the job is there
        if self.failures:
            unconfirmed = {job for job, why in self.failures.items() if isinstance(why, NotReplicated)}
            late = {at for at, job in enumerate(self._jobs) if job in unconfirmed}
        entries = zip(self._jobs, self._moments, self._waiters, strict=True)
        for at, (job, moment, waiter) in enumerate(entries):
            if waiter is None:
                continue
            if waiter.cancelled():
                late.add(at)
            elif error is None and not self.failures:
                waiter.set_result(moment)  # as below, which costs each job a call
            else:
                settle(waiter, moment, error or self.failures.get(job))
        for done, places in self._callers:
            if done.cancelled():
                late.update(places)
            settle(done, None, None)
        if error is None:
            for at in late - self._withdrawn:
                self._listener.added_late(self._jobs[at], self._moments[at])
        self._jobs, self._waiters = [], []  # a batch that is still referred to holds no jobs
