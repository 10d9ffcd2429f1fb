"""Carries out the methods of ``Job`` and ``Queue`` that need Redis: the owner of every job object of a queue.

Each method opens the queue if it is not open yet, delegates the work to the responsible part, and registers
job objects with the event hub.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from beeq.client.commands import Commands
from beeq.client.context import QueueContext
from beeq.client.events.listeners import Listeners
from beeq.client.producer import Producer
from beeq.client.reader import Reader
from beeq.client.results import Results
from beeq.client.session import Session
from beeq.emitter import Emitter
from beeq.errors import JobUnreadable, RedisRefused
from beeq.job import Job, SomeJob
from beeq.protocol.backoff import Strategy
from beeq.protocol.codec import decode_record
from beeq.protocol.options import check_job_id
from beeq.redis.pipeline import NOT_SENT
from beeq.settings import Duration, milliseconds
from beeq.telemetry.tracing import Tracing

#: An event is lost if the connection that hears it breaks.
_EVENT_PATIENCE_S = 1.0
#: How often a save may find its id taken by a job that is gone when it is then read.
_FINDS = 10


async def _before_it_is_sent(opening: Coroutine[Any, Any, None]) -> None:
    """Await the opening; a note of a CancelledError says that nothing was sent."""
    try:
        await opening
    except asyncio.CancelledError as cancelled:
        cancelled.add_note(NOT_SENT)
        raise


class HasStrategies(Protocol):
    """What ``JobActions`` needs of the ``Queue``."""

    backoff_strategies: dict[str, Strategy]


class JobActions:
    """One queue's; the ``JobOwner`` of its jobs. ``Job`` and ``Queue`` document what each method promises."""

    def __init__(
        self,
        queue: HasStrategies,
        context: QueueContext,
        *,
        session: Session,
        listeners: Listeners,
        reader: Reader,
    ) -> None:
        #: What ``job.queue`` gives.
        self.queue = queue
        self.name = context.name
        self.now_ms = context.now_ms
        self._report_error = context.report_error
        self._telemetry = context.telemetry
        self._event_hub = context.event_hub
        #: Whether events are delivered to job objects.
        self._stores_jobs = context.settings.store_jobs and context.settings.get_events
        self._session = session
        self._listeners = listeners
        self._reader = reader
        self._producer = Producer(context)
        self._commands = Commands(context, reader)
        self._results = Results(context.event_hub, reader)

    @property
    def backoff_strategies(self) -> dict[str, Strategy]:
        """The queue's strategies by name."""
        return self.queue.backoff_strategies

    # Making and finding.

    def save(self, job: SomeJob) -> Coroutine[Any, Any, SomeJob]:
        """Put ``job`` into the queue; see ``Job.save``."""
        tracing = self._telemetry.tracing
        return self._save(job) if tracing is None else self._save_traced(job, tracing)

    async def _save_traced(self, job: SomeJob, tracing: Tracing) -> SomeJob:
        with tracing.sending([job.options]) as sending:
            await self._save(job)
            sending.job_id = job.id
        return job

    async def _save(self, job: SomeJob) -> SomeJob:
        if job.claim:
            raise RuntimeError("a running job cannot be saved again; enqueue a new one")
        loop = asyncio.get_running_loop()  # once: each call of it asks the system for the process id
        if not self._session.is_hearing_in(loop):
            await _before_it_is_sent(self._session.ensure_hearing())
        waiter, batch = self._producer.save(job, loop)
        try:
            since = await waiter
        except asyncio.CancelledError as cancelled:
            cancelled.add_note(self._producer.withdraw(job, waiter, batch))
            raise
        # No ``await`` from here on: the caller adds its listeners before any event is delivered.
        if job.id is not None:
            if self._stores_jobs:
                self._event_hub.deliver_to(job, since=since)
            if batch.has_wishes:
                self._schedule(job)
        return job

    async def save_or_find(self, job: Job) -> Job:
        """Put ``job`` into the queue, or return the job that has its id; see ``Queue.save_or_find``."""
        wanted_id = job.id
        for _ in range(_FINDS):
            await self.save(job)
            if job.id is not None or wanted_id is None:
                return job
            existing = await self.get_job(wanted_id)
            if existing is not None:
                return existing
            job.set_id(wanted_id)  # that job was removed between the two calls
        raise RedisRefused(f"the id {wanted_id} was taken, and free again, {_FINDS} times")

    async def save_all(self, jobs: list[Job]) -> dict[Job, Exception]:
        """Put many jobs into the queue; see ``Queue.save_all``."""
        tracing = self._telemetry.tracing
        if tracing is None:
            return await self._save_all(jobs)
        with tracing.sending([job.options for job in jobs if not job.claim]) as sending:
            errors = await self._save_all(jobs)
            sending.error = next(iter(errors.values()), None)
        return errors

    async def _save_all(self, jobs: list[Job]) -> dict[Job, Exception]:
        await _before_it_is_sent(self._session.ensure_hearing())
        since = self._event_hub.moment
        errors = await self._producer.save_all(jobs)
        for job in dict.fromkeys(jobs):
            if job.id is not None and not (errors and job in errors):
                if self._stores_jobs:
                    self._event_hub.deliver_to(job, since=since)
                self._schedule(job)
        return errors

    def _schedule(self, job: Job) -> None:
        """Tell this process's activator of a job that is due later."""
        activator = self._session.activator
        if activator is not None and (due_ms := job.due_ms):
            activator.schedule(due_ms)

    async def get_job(self, job_id: str | int) -> Job | None:
        """Return the job as Redis has it now, or None; see ``Queue.get_job``."""
        await self._session.ensure()
        text = check_job_id(job_id)
        if text is None:
            return None
        moment = self._event_hub.moment
        raw = await self._reader.record(text)
        return None if raw is None else self.found(text, raw, since=moment)

    async def get_jobs(self, state: str, *, start: int, end: int, size: int) -> list[Job]:
        """Return jobs by state; see ``Queue.get_jobs``."""
        await self._session.ensure()
        moment = self._event_hub.moment
        ids = await self._reader.ids(state, start=start, end=end, size=size)
        jobs = []
        for job_id, raw in await self._reader.records(ids):
            try:
                jobs.append(self.found(job_id, raw, since=moment))
            except JobUnreadable as error:
                self._report_error(error)
        return jobs

    def found(self, job_id: str, raw: bytes, *, since: int) -> Job:
        """Return the job of a record that was read after the moment ``since``.

        Its final event may have come before the record did. If the record says that the job has not ended, a
        final event from before ``since`` was that of an earlier job of its id.
        """
        job = Job(self, decode_record(job_id, raw, now_ms=self.now_ms()), job_id)
        if job.status not in ("succeeded", "failed"):
            self._event_hub.forget(job_id, until=since)
            if self._stores_jobs:
                self._event_hub.register(job)
        self._event_hub.replay(job, since=since)
        return job

    # Changing. Removing and cancelling wait for the subscription to job events, as saving does: so a save
    # that was called just before them goes first. So does the claim of a job that its own handler removes or
    # cancels: otherwise the claim would be refused, and the handler stopped in the middle.

    async def remove(self, job: Job) -> None:
        """Remove the job from wherever it is; see ``Job.remove``."""
        await self._commands.await_claim(job)
        await self.remove_by_id(job.saved_id())

    async def cancel(self, job: Job) -> bool:
        """End the job if it has not ended; see ``Job.cancel``."""
        await self._commands.await_claim(job)
        return await self.cancel_by_id(job.saved_id())

    async def remove_by_id(self, job_id: str | int) -> None:
        """Remove the job from wherever it is; see ``Queue.remove_job``."""
        await self._session.ensure_hearing()
        text = check_job_id(job_id)
        if text is not None:
            await self._commands.remove(text)

    async def cancel_by_id(self, job_id: str | int) -> bool:
        """End the job if it has not ended; see ``Queue.cancel_job``."""
        await self._session.ensure_hearing()
        text = check_job_id(job_id)
        if text is None:
            return False
        heard = self._event_hub.waiter(text)
        try:
            is_cancelled = await self._commands.cancel(text)
            if is_cancelled and self._session.is_hearing_in(asyncio.get_running_loop()):
                # The event may come after the reply. A job that is saved under this id next must not get it.
                await asyncio.wait([heard], timeout=_EVENT_PATIENCE_S)
        finally:
            self._event_hub.drop_waiter(text, heard)
        return is_cancelled

    def forget(self, job_id: str) -> None:
        """Hold no events of a job that was removed, nor its objects."""
        self._commands.forget(job_id)

    async def retry(self, job: Job) -> bool:
        """Queue the failed job again; see ``Job.retry``."""
        await self._session.ensure()
        is_queued = await self._commands.retry(job)
        if is_queued and self._stores_jobs:
            self._event_hub.register(job)
        return is_queued

    async def clean(self, kind: str, *, older_than_ms: int) -> int:
        """Remove finished jobs; see ``Queue.clean``."""
        await self._session.ensure()
        return await self._commands.clean(kind, older_than_ms=older_than_ms)

    async def destroy(self) -> int:
        """Delete the queue; see ``Queue.destroy``."""
        await self._session.ensure()
        deleted = await self._commands.destroy()
        self._producer.note.forget()
        self._event_hub.forget_all()
        return deleted

    async def report_progress(self, job: Job, value: Any) -> int:
        """Publish the job's progress; see ``Job.report_progress``."""
        await self._session.ensure()
        return await self._commands.report_progress(job, value)

    async def remember(self, job: Job, facts: dict[str, Any]) -> None:
        """Keep facts with the running job; see ``Job.remember``."""
        await self._session.ensure()
        await self._commands.remember(job, facts)

    # Asking.

    async def is_in_set(self, job_id: str, name: str) -> bool:
        """Return whether the id is in the named list or set; see ``Job.is_in_set``."""
        await self._session.ensure()
        return await self._reader.is_in(job_id, name)

    async def result(self, job: Job, timeout: Duration | None) -> Any:  # noqa: ASYNC109 - in ms
        """Wait for the job's end; see ``Job.result``."""
        is_hearing = self._session.is_hearing_in(asyncio.get_running_loop())
        if not is_hearing:
            await self._session.ensure_hearing()
        timeout_ms = None if timeout is None else milliseconds("timeout", timeout)
        return await self._results.of(job, timeout_ms=timeout_ms, is_hearing=is_hearing)

    def new_emitter(self) -> Emitter:
        """Return an emitter for the listeners of a job."""
        self._session.owning_loop.refuse_elsewhere()
        return self._listeners.new_emitter()

    def listening_changed(self, job: Job) -> None:
        """Hold the job until its final event, as long as it has listeners."""
        self._event_hub.hold_or_let_go(job)
