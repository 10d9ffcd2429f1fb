"""The worker of one queue: builds the pump, the runner, the heartbeat and the stall check, and ends them.

Makes jobs of claimed records, and emits the local events of recorded outcomes; ``lua/exchange.lua`` publishes
the events for other processes. Every background duty that it starts, it stops.
"""

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

from beeq.client.context import QueueContext
from beeq.client.job_actions import JobActions
from beeq.errors import JobLost, JobStalled, JobUnreadable, StatusNotUpdated
from beeq.job import Job
from beeq.maintenance.stall_check import StallCheck
from beeq.process import process_name
from beeq.protocol.codec import Record, decode_record
from beeq.protocol.outcome import Outcome, fail, succeed
from beeq.worker.claims import ClaimedJob
from beeq.worker.heartbeat import Heartbeat
from beeq.worker.processes.handler_ref import refuse_while_loading
from beeq.worker.pump import Pump
from beeq.worker.runner import Attempt, Executor, Handler, Runner


class Worker:
    """Works on one queue, from its construction in a running loop until ``stop``.

    Redis may be away: the worker keeps trying. ``on_failure`` is called with a defect that ended it.
    """

    def __init__(
        self,
        context: QueueContext,
        owner: JobActions,
        handler: Handler,
        *,
        concurrency: int,
        executor: Executor,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        refuse_while_loading()
        loop = asyncio.get_running_loop()
        self._context = context
        self._owner = owner
        self._on_failure = on_failure
        self._attempts: dict[Attempt, None] = {}  # in the order of their start
        self._has_stopped = False
        self._hurry: asyncio.TimerHandle | None = None
        self._hurry_at_s = math.inf  # in the loop's time
        self._time_is_over = asyncio.Event()
        #: What ended the pump, if it was not stopped: a defect, never a failure of Redis.
        self.failure: BaseException | None = None
        #: Set while nothing runs and the queue was found empty.
        self.idle = asyncio.Event()
        self._runner = Runner(
            handler,
            executor=executor,
            concurrency=concurrency,
            on_end=self._ended,
            on_late=self._ended_late,
        )
        self.pump = Pump(context, concurrency=concurrency, listener=self)
        self._heartbeat = Heartbeat(
            context.connector.twin(),
            context.keys,
            context.settings,
            worker=process_name(),
            running=self.pump.scheduler.claimed,
            on_cancelled=lambda claims: loop.call_soon_threadsafe(self._cancel_all, claims),
            on_error=lambda error: loop.call_soon_threadsafe(context.report_error, error),
        )
        self._pump_task = loop.create_task(self.pump.run(), name=f"beeq pump of {context.name}")
        self._pump_task.add_done_callback(self._pump_ended)
        self._stalls_task = loop.create_task(self._check_stalls(), name=f"beeq stall check of {context.name}")

    @property
    def active_jobs(self) -> list[Job]:
        """The jobs that run here now."""
        return [attempt.job for attempt in self._attempts]

    def _pump_ended(self, pump_task: asyncio.Task[None]) -> None:
        """A pump ends because it was stopped; if it failed, the worker must not idle in silence."""
        if not pump_task.cancelled() and pump_task.exception() is not None:
            self.failure = pump_task.exception()
            self.idle.set()
            self._on_failure(self.failure)  # type: ignore[arg-type]  # it is not None

    def burst(self) -> None:
        """Let ``idle`` mean that the queue is empty: wait for no further job."""
        self.pump.burst()

    def look(self) -> None:
        """Ask the queue for jobs again: it may have been filled."""
        self.idle.clear()
        self.pump.look()

    def cancel(self, claim: bytes) -> None:
        """Stop the job that runs here by this claim, if one does; it was cancelled in Redis."""
        self._cancel_all([claim])

    def _cancel_all(self, claims: list[bytes]) -> None:
        cancelled = set(claims)
        for attempt in [attempt for attempt in self._attempts if attempt.claim in cancelled]:
            self._runner.stop(attempt)

    # What the pump says.

    def start_job(self, claimed_job: ClaimedJob, claim_known: asyncio.Future[None] | None) -> None:
        """Run the job, or record at once why it cannot run."""
        raw_id, raw_record, deliveries, claim = claimed_job
        context, owner = self._context, self._owner
        if self._has_stopped:  # the call was under way when this worker gave up
            self.pump.give_back([(raw_id, claim)])
            return
        self.idle.clear()
        job_id = raw_id.decode(errors="replace")
        now_ms = context.now_ms()
        try:
            job = Job(owner, decode_record(job_id, raw_record, now_ms=now_ms), job_id)
        except JobUnreadable as error:
            context.report_error(error)
            job = Job(owner, Record({}, {"timestamp": now_ms, "stacktraces": []}), job_id)
            self.pump.outcome_ready(raw_id, claim, fail(job, error, {}))
            return
        job.claim, job.claimed_record, job.claim_known = claim, raw_record, claim_known
        if deliveries > context.settings.max_stalls + 1:
            # A stall check only requeues. The worker that claims a job too often fails it, unrun.
            self.pump.outcome_ready(raw_id, claim, fail(job, JobStalled(job_id, deliveries), {}))
            return
        attempt = Attempt(job, raw_id, claim)
        self._attempts[attempt] = None
        self._runner.start(attempt)

    def stop_job(self, claim: bytes) -> None:
        """Stop the handler that was started early by this claim, if it runs: Redis has not granted it."""
        for attempt in [attempt for attempt in self._attempts if attempt.claim == claim]:
            attempt.is_lost = True
            self._context.report_error(JobLost(attempt.job.saved_id()))
            self._runner.stop(attempt)

    def recorded(self, outcomes: list[Outcome]) -> None:
        """Call the queue's listeners, in bee-queue's order (protocol/README.md, "Local events")."""
        emit = self._context.emit
        for outcome in outcomes:
            job, error = outcome.job, outcome.error
            if outcome.status == "succeeded":
                emit("succeeded", job, outcome.result)
            elif outcome.status == "retrying":
                emit("retrying", job, error)
                emit("failed", job, error)
            else:
                emit("failed", job, error)
                emit("failed:fatal", job, error)

    def lost(self, outcomes: list[Outcome]) -> None:
        """Report each job as lost."""
        for outcome in outcomes:
            self._context.report_error(JobLost(outcome.job.saved_id()))

    def found_empty(self) -> None:
        """Set ``idle``."""
        self.idle.set()

    # What the runner says.

    def _ended(self, attempt: Attempt, result: Any, error: BaseException | None) -> None:
        del self._attempts[attempt]
        if attempt.is_cancelled:
            self.pump.give_back([(attempt.raw_id, attempt.claim)])  # frees the place; the job is gone
            if not attempt.is_lost:
                self._context.emit("cancelled", attempt.job)
            return
        try:
            outcome = self._decide(attempt.job, result, error)
        except Exception as broken:  # noqa: BLE001 - the handler broke its job: options that are not a dict, …
            self._context.report_error(broken)
            outcome = self._decide(self._as_claimed(attempt), result, error)
        self.pump.outcome_ready(attempt.raw_id, attempt.claim, outcome)

    def _decide(self, job: Job, result: Any, error: BaseException | None) -> Outcome:
        if error is None:
            return succeed(job, result)
        return fail(job, error, self._owner.backoff_strategies)

    def _as_claimed(self, attempt: Attempt) -> Job:
        """Return the attempt's job as it was claimed, without what its handler changed."""
        raw_record, job_id = attempt.job.claimed_record, attempt.raw_id.decode(errors="replace")
        record = decode_record(job_id, raw_record, now_ms=self._context.now_ms())
        job = Job(self._owner, record, job_id)
        job.claim, job.claimed_record = attempt.claim, raw_record
        return job

    def _ended_late(self, job: Job, error: BaseException | None) -> None:
        """Report a handler that ended after its queue had closed and given the job back."""
        if self._has_stopped:
            status = "succeeded" if error is None else "failed"
            self._context.report_error(StatusNotUpdated(job.saved_id(), status))

    # Duties.

    async def _check_stalls(self) -> None:
        """Check at once, then once a stall interval; the jitter spreads the checks of several workers."""
        interval_s = self._context.settings.stall_interval / 1000
        await StallCheck(self._context).repeat(lambda: interval_s * random.uniform(1.0, 1.1))

    # The end.

    async def stop(self, timeout_s: float) -> bool:
        """Take nothing more, wait for what runs, give back what does not end in time.

        Returns whether everything ended in time. An unfinished job goes to the front of the queue,
        its retries untouched; a coroutine handler is cancelled, a child process killed, a thread left behind.
        """
        self.pump.drain()
        over = asyncio.get_running_loop().create_task(self._time_is_over.wait())
        await asyncio.wait([self._pump_task, over], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        is_drained = self._pump_task.done()
        if not is_drained:
            await self._give_up()
        self._has_stopped = True
        self.idle.set()
        await self._end_duties()
        return is_drained

    def hurry(self, timeout_s: float) -> None:
        """Let a ``stop`` under way wait no longer than this from now."""
        loop = asyncio.get_running_loop()
        over_at_s = loop.time() + timeout_s
        if over_at_s >= self._hurry_at_s:
            return
        if self._hurry is not None:
            self._hurry.cancel()
        self._hurry_at_s = over_at_s
        self._hurry = loop.call_at(over_at_s, self._time_is_over.set)

    async def _give_up(self) -> None:
        attempts, self._attempts = list(self._attempts), {}
        self._has_stopped = True
        for attempt in attempts:
            self._runner.give_up(attempt)
        tasks = [attempt.task for attempt in attempts if attempt.task is not None]
        if tasks:
            # A handler cleans up before its job may run elsewhere.
            await asyncio.wait(tasks, timeout=1)
        self.pump.give_back([(attempt.raw_id, attempt.claim) for attempt in attempts])
        await asyncio.wait([self._pump_task], timeout=2)

    async def _end_duties(self) -> None:
        duties = (self._pump_task, self._stalls_task)
        for task in duties:
            task.cancel()
        await asyncio.wait(duties, timeout=1)
        self._heartbeat.stop()
        await asyncio.to_thread(self._heartbeat.join, 2)
        if self._hurry is not None:
            self._hurry.cancel()
        await self._runner.close()
        await self.pump.close()
