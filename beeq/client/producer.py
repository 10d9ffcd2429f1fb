"""Puts jobs into a queue: saves that happen together share one script call."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from operator import methodcaller
from typing import Any, Protocol

from beeq.client.context import QueueContext
from beeq.client.registry import QueueNote
from beeq.errors import NotReplicated, QueueClosed, RedisError, RedisRefused, RedisUnavailable
from beeq.job import Job
from beeq.protocol.options import check_job_id
from beeq.redis import scripts
from beeq.redis.pipeline import NOT_SENT, UNKNOWN, Pipeline
from beeq.redis.resp import CommandPrefix, settle
from beeq.telemetry.hooks import Telemetry

#: One script call adds at most this many jobs, and not much more than this many bytes: a long
#: call would block every client.
MAX_JOBS = 500
MAX_BYTES = 1_000_000

#: The empty wishes that most batches share; never changed.
_NOTHING: dict[Any, Any] = {}
_NOTHING_ASKED = (b"", b"", 0)
#: Futures in C are asked by C, which takes a fraction of a loop's time.
_is_cancelled = methodcaller("cancelled")


class Producer:
    """Adds jobs. The first save goes out at once; those made while it is under way go out together.

    A batch keeps the place of its first save among the queue's other commands, and takes further saves
    only until another command follows: commands are executed in the order of their calls.
    """

    def __init__(self, context: QueueContext) -> None:
        keys, settings = context.keys, context.settings
        self._pipeline = context.pipeline
        self._telemetry = context.telemetry
        #: Notified of jobs with an id of their own before they are sent; None: jobs get no events.
        delivers = settings.store_jobs and settings.get_events
        self._event_hub = context.event_hub if delivers else None
        #: The prefix of a call with whole jobs, and of one with records alone (no id, no delay).
        self._prefixes = tuple(
            scripts.add_jobs.prefix(keys, earlier_delayed=channel, outbox_limit=settings.outbox_limit)
            for channel in (keys.earlier_delayed, "")
        )
        #: Sent before the first save, and then once an hour.
        self.note = QueueNote(keys)
        self._batch: SaveBatch | None = None  # the latest; further saves may join until it is sent

    def save(self, job: Job, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Future[int], SaveBatch]:
        """Add the job; its ``id`` is set, or None if the id exists, when the returned future is done.

        The future returns the moment since which events of the id are about this job (see ``EventHub``). It
        raises ``RedisError`` if Redis did not add the job, or did not reply; ``QueueClosed``. If it is
        cancelled, call ``withdraw``. ``loop`` is the running loop: looking it up takes time.

        Raises:
            TypeError: it cannot be written as JSON; nothing was sent.
            ValueError: its option ``delay`` is not a time, or its id cannot be encoded; nothing was sent.
        """
        waiter: asyncio.Future[int] = loop.create_future()
        return waiter, self._put(job, waiter, loop)

    def withdraw(self, job: Job, waiter: asyncio.Future[int], batch: SaveBatch) -> str:
        """Withdraw a save whose future was cancelled, unless it was sent; return a text that says which."""
        if batch.is_settled:
            self._take_over([job], waiter, batch)
            return f"Redis has added it already, as {job.id}" if job.id and not batch.error else UNKNOWN
        if not batch.has_left_out(waiter):
            return UNKNOWN
        self.refused(job)
        return NOT_SENT

    def _put(
        self, job: Job, waiter: asyncio.Future[int] | None, loop: asyncio.AbstractEventLoop
    ) -> SaveBatch:
        # Everything that may raise is computed before any state changes: no job fails another's save.
        job_id = None if job.id is None else check_job_id(job.id)
        record, due_ms = job.encoded()
        raw_id = b"" if job_id is None else job_id.encode()
        size_bytes = len(record) + len(raw_id)
        batch = self._batch
        if (
            batch is None
            or self._pipeline.last is not batch.call
            or len(batch.jobs) >= MAX_JOBS
            or batch.size_bytes + size_bytes > MAX_BYTES
        ):
            if self.note.is_due():
                self.note.send_along(self._pipeline)
            moment = 0 if self._event_hub is None else self._event_hub.moment
            batch = SaveBatch(self, self._pipeline, self._prefixes, self._telemetry, moment, loop)
            self._batch = batch
        if raw_id or due_ms:
            moment = batch.moment
            if job_id is not None and self._event_hub is not None:
                moment = self._event_hub.moment
                self._event_hub.expect(job)  # its events may overtake the reply
            batch.ask_of_next(raw_id, due_ms, moment)
        batch.add(job, record, waiter, size_bytes)
        return batch

    def _take_over(self, jobs: list[Job], caller: asyncio.Future[Any], batch: SaveBatch) -> None:
        """Deliver events to jobs that were added just before their caller was cancelled."""
        if not (caller.cancelled() or batch.error):  # else the batch has done so
            for job in jobs:
                self.added_late(job, since=0)

    def added_late(self, job: Job, since: int) -> None:
        """Deliver events to a job that was added although its caller was cancelled."""
        if self._event_hub is not None and job.id is not None:
            self._event_hub.deliver_to(job, since=since)

    def refused(self, job: Job) -> None:
        """Stop expecting events for a job: it was not added."""
        if self._event_hub is not None:
            self._event_hub.unregister(job)

    async def save_all(self, jobs: Sequence[Job]) -> dict[Job, Exception]:
        """Add many jobs in as few calls as the bounds allow; return those that failed, and why.

        Raises RedisUnavailable if Redis is away, and none of them was added.
        """
        if any(job.claim for job in jobs):
            raise RuntimeError("a running job cannot be saved again; enqueue a new one")
        jobs_of, errors = self._put_all(jobs)
        # Nothing is sent before the first ``await``, so the jobs are the last of each batch.
        done = {batch: batch.until_done(len(together)) for batch, together in jobs_of.items()}
        try:
            await (next(iter(done.values())) if len(done) == 1 else asyncio.gather(*done.values()))
        except asyncio.CancelledError as cancelled:
            cancelled.add_note(self._withdraw_all(jobs_of, done))
            raise
        for batch, together in jobs_of.items():
            if batch.error is not None:
                errors |= dict.fromkeys(together, batch.error)
            elif batch.failures:
                errors |= {job: batch.failures[job] for job in together if job in batch.failures}
        if not errors:
            return errors
        away = [error for error in errors.values() if isinstance(error, (QueueClosed, RedisUnavailable))]
        is_any_there = any(isinstance(error, NotReplicated) for error in away)
        if away and not is_any_there and len(errors) == len(dict.fromkeys(jobs)):
            raise away[0]
        return errors

    def _put_all(self, jobs: Iterable[Job]) -> tuple[dict[SaveBatch, list[Job]], dict[Job, Exception]]:
        """Return the jobs of each batch, and the errors of the others."""
        jobs_of: dict[SaveBatch, list[Job]] = {}
        errors: dict[Job, Exception] = {}
        loop = asyncio.get_running_loop()
        latest: SaveBatch | None = None
        together: list[Job] = []
        for job in dict.fromkeys(jobs):
            try:
                batch = self._put(job, None, loop)
            except (TypeError, ValueError) as error:
                errors[job] = error
                continue
            if batch is not latest:
                latest, together = batch, []
                jobs_of[batch] = together
            together.append(job)
        return jobs_of, errors

    def _withdraw_all(
        self, jobs_of: dict[SaveBatch, list[Job]], done: dict[SaveBatch, asyncio.Future[Any]]
    ) -> str:
        """Withdraw the jobs that were not sent; return a note about all of them."""
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
    """Notified of saves whose callers do not handle the outcome."""

    def refused(self, job: Job) -> None:
        """A job with an id of its own was not added."""

    def added_late(self, job: Job, since: int) -> None:
        """A job was added although its caller was cancelled; its events are those after ``since``."""


class SaveBatch:
    """Saves that share one script call; kept in parallel lists, which spare the garbage collector work."""

    __slots__ = (
        "_asked",
        "_callers",
        "_listener",
        "_prefixes",
        "_records",
        "_telemetry",
        "_waiters",
        "_withdrawn",
        "call",
        "error",
        "failures",
        "is_settled",
        "jobs",
        "moment",
        "size_bytes",
    )

    def __init__(  # noqa: PLR0917 - arguments by name take longer
        self,
        listener: SaveListener,
        pipeline: Pipeline,
        prefixes: tuple[CommandPrefix, ...],
        telemetry: Telemetry,
        moment: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._listener = listener
        self._prefixes = prefixes  # for a call with whole jobs, and with records alone
        self._telemetry = telemetry
        self.jobs: list[Job] = []
        self._records: list[bytes] = []
        self._waiters: list[asyncio.Future[int] | None] = []
        #: By place, for jobs with wishes: id (b"": an automatic one), due time in digits (b"": now), and the
        #: moment since which events are about the job.
        self._asked: dict[int, tuple[bytes, bytes, int]] = _NOTHING
        #: Events before this moment belong to earlier jobs, whose numbers are given again.
        self.moment = moment
        self.size_bytes = 0
        #: Callers that wait for several of the jobs, and these jobs' places.
        self._callers: tuple[tuple[asyncio.Future[None], range], ...] = ()
        self._withdrawn: Collection[int] = ()  # places left out of the call as it was last packed
        self.is_settled = False
        #: Why no job was added, as far as is known.
        self.error: Exception | None = None
        #: The errors of jobs that got no automatic id, or were not confirmed by replicas; the others were
        #: added.
        self.failures: dict[Job, RedisError] = _NOTHING
        self.call = pipeline.defer(scripts.add_jobs, self._packed, self._settle, loop)

    @property
    def has_wishes(self) -> bool:
        """Whether any of the jobs has an id of its own or a delay."""
        return bool(self._asked)

    def ask_of_next(self, raw_id: bytes, due_ms: int, moment: int) -> None:
        """Set the wishes of the job that is added next: an id, or b"", and when it may run, or 0."""
        due = b"%d" % due_ms if due_ms else b""
        self._asked = self._asked or {}
        self._asked[len(self.jobs)] = (raw_id, due, moment)

    def add(self, job: Job, record: bytes, waiter: asyncio.Future[int] | None, size_bytes: int) -> None:
        """Add ``job``; must not raise, or the lists would no longer match."""
        self.jobs.append(job)
        self._records.append(record)
        self._waiters.append(waiter)
        self.size_bytes += size_bytes

    def until_done(self, count: int) -> asyncio.Future[None]:
        """Return a future for the caller that has just added the last ``count`` jobs.

        It is done once each has its id, or ``error`` is set; cancelled, it withdraws them.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        added = len(self.jobs)
        self._callers += ((done, range(added - count, added)),)
        return done

    def has_left_out(self, caller: asyncio.Future[Any]) -> bool:
        """Return whether the job, or jobs, of this cancelled future were not sent."""
        return not self.call.is_sent or set(self._withdrawn).issuperset(self._places(caller))

    def _places(self, caller: asyncio.Future[Any]) -> Iterable[int]:
        if caller in self._waiters:
            return [self._waiters.index(caller)]
        return next(places for done, places in self._callers if done is caller)

    def _left_behind(self) -> Collection[int]:
        """Return the places of the jobs whose callers were cancelled."""
        places: set[int] = set()
        if any(map(_is_cancelled, filter(None, self._waiters))):
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
        records = self._records
        if not (withdrawn or self._asked):
            return self._prefixes[1].pack(records)
        arguments: list[bytes] = []
        for at, record in enumerate(records):
            if at not in withdrawn:
                raw_id, due, _moment = self._asked.get(at, _NOTHING_ASKED)
                arguments += (raw_id, record, due)
        return self._prefixes[0].pack(arguments) if arguments else b""

    def _settle(self, reply: Any, error: Exception | None) -> None:
        """Give each job its id or its error, and wake the callers."""
        self.is_settled = True
        if type(reply) is int and error is None and not (self._withdrawn or self._asked):
            count = len(self.jobs)
            late = self._settle_well(reply - count)
        else:
            count = self._settle_each(reply, error)
            late = self._wake_each()
        if self._telemetry.tally is not None:
            self._telemetry.tally.enqueued(count)
        for done, places in self._callers:
            if done.cancelled():
                late.update(places)
            settle(done, None, None)
        if late and self.error is None:
            for at in late.difference(self._withdrawn):
                self._listener.added_late(self.jobs[at], self._moment_of(at))
        self.jobs, self._waiters = [], []  # a batch that is still referenced keeps no jobs alive

    def _settle_well(self, number: int) -> set[int]:
        """Give each job the next number, and wake its caller; return the places of cancelled ones."""
        first = number + 1
        cancelled: set[int] = set()
        for job, waiter in zip(self.jobs, self._waiters, strict=True):
            number += 1
            job.is_new, job.id = True, str(number)
            if waiter is not None:
                try:
                    waiter.set_result(self.moment)
                except asyncio.InvalidStateError:
                    cancelled.add(number - first)
        return cancelled

    def _settle_each(self, reply: Any, error: Exception | None) -> int:
        """Give each job its id or its error; return how many were added."""
        sent = [at for at in range(len(self.jobs)) if at not in self._withdrawn]
        added_ids = range(reply - len(sent) + 1, reply + 1) if type(reply) is int else reply
        shortfall = error if isinstance(error, NotReplicated) else None
        if shortfall is not None:
            error = None  # the jobs are there: each gets its id, and an error that names it
        if error is None and (added_ids is None or len(added_ids) != len(sent)):
            error = RedisUnavailable("Redis did not answer for each of the jobs")
        self.error = error
        if added_ids is None or error is not None:
            added_ids = [None] * len(sent)
        count = 0
        self.failures = {}
        for at, added_id in zip(sent, added_ids, strict=True):
            job = self.jobs[at]
            job.is_new = False
            if isinstance(added_id, bytes | int):
                job.is_new = True
                job.id = added_id.decode() if isinstance(added_id, bytes) else str(added_id)
                count += 1
            elif isinstance(added_id, RedisRefused):
                self.failures[job] = added_id
                continue
            else:
                if self._asked.get(at, _NOTHING_ASKED)[0]:
                    self._listener.refused(job)  # before its id is cleared
                job.id = None if error is None and shortfall is None else job.id
            if shortfall is not None:
                self.failures[job] = shortfall.of(job.id)
        return count

    def _moment_of(self, at: int) -> int:
        return self._asked[at][2] if at in self._asked else self.moment

    def _wake_each(self) -> set[int]:
        """Wake each caller with its job's outcome; return the places of jobs whose callers did not get it.

        These callers were cancelled, or get an error although the job was added.
        """
        late: set[int] = set()
        for at, (job, waiter) in enumerate(zip(self.jobs, self._waiters, strict=True)):
            failure = self.failures.get(job)
            if isinstance(failure, NotReplicated) or (waiter is not None and waiter.cancelled()):
                late.add(at)
            if waiter is not None:
                settle(waiter, self._moment_of(at), self.error or failure)
        return late
