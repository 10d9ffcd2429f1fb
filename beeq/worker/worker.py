"""The worker of one queue: builds the pump, the runner, the heartbeat and the stall check, and ends them.

Makes jobs of claimed records, and emits the local events of recorded outcomes; ``lua/exchange.lua`` publishes
the events for other processes. Every background duty that it starts, it stops.

Cancellations: a handler that ends by CancelledError has failed, as by any other exception: it may have
cancelled itself, or have awaited a cancelled task or future. Handing such a job back, which does not count
its delivery, would let it go round for ever. Two cancellations come from outside, and then the job goes back
to the front of the queue: the host cancelled the task of ``run``; or the event loop ends, when
``asyncio.run`` cancels all tasks and waits for them before it closes the loop. That is recognised by the
cancellation of all duties' tasks; the pump then hands back, within the bounds of ``close``, before it ends.
If the loop goes on after all, the duties do, too; a second time the jobs are left to stall, which is counted.
A loop that ends without this leaves its jobs to the stall check, too: the heartbeat ends with its loop
(``loop_watch.py``).
"""

import asyncio
import functools
import math
import random
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from typing import Any

from beeq.client.closing import CLEAN_UP_S, END_DUTIES_S, HAND_BACK_S, Ending, ended
from beeq.client.context import QueueContext
from beeq.client.events.outcome_events import report_cancelled, report_outcomes
from beeq.client.job_actions import JobActions
from beeq.errors import HandlersHang, JobLost, JobStalled, JobUnreadable, StatusNotUpdated
from beeq.job import Job
from beeq.maintenance.overdue_watch import OverdueWatch
from beeq.maintenance.pause_watch import PauseWatch
from beeq.maintenance.retention import Retention
from beeq.maintenance.stall_check import StallCheck
from beeq.process import call_in_thread, process_name
from beeq.protocol.codec import Record
from beeq.protocol.outcome import Outcome, fail
from beeq.protocol.pauses import Pause
from beeq.supervision.duty import Duty
from beeq.supervision.loop_watch import InLoop, leave_loop, watch_loop
from beeq.telemetry.attempt_report import AttemptReport
from beeq.worker.attempts.processes.handler_ref import refuse_while_loading
from beeq.worker.attempts.runner import Attempt, Executor, Handler, Runner, outcome_of
from beeq.worker.heartbeat import Heartbeat
from beeq.worker.pump.claiming_ahead import ClaimingAhead
from beeq.worker.pump.pump import Pump
from beeq.worker.running_notes import looking_at
from beeq.worker.scheduling.claims import ClaimedJob
from beeq.worker.watch import WorkerWatch

#: After so many failures of the pump, with no call answered in between, the worker ends.
_MOST_DEFECTS = 5
#: The least number of handlers that may hang by default.
_LEAST_MAX_HUNG = 10


class Worker:
    """Works on one queue, from its construction in a running loop until ``stop``.

    If Redis is away, the worker keeps trying. ``on_failure`` is called with a defect that ended it,
    ``is_host_leaving`` returns whether the task that runs it was cancelled. Each attempt runs in a copy of
    the context ``variables``; the duties run in an empty one.
    """

    def __init__(
        self,
        context: QueueContext,
        owner: JobActions,
        handler: Handler,
        *,
        concurrency: int,
        max_hung: int | None,
        executor: Executor,
        variables: Context,
        on_failure: Callable[[BaseException], None],
        is_host_leaving: Callable[[], bool],
    ) -> None:
        refuse_while_loading()
        self._context = context
        #: Both for the loop watch.
        self.queue_name, self.stall_interval_s = context.name, context.settings.stall_interval / 1000
        self._owner = owner
        self._on_failure = on_failure
        self._is_host_leaving = is_host_leaving
        self._is_ending = False  # with the loop
        self._has_outlived_end = False  # all tasks were cancelled, and the loop went on
        self._attempts: dict[Attempt, None] = {}  # in the order of their start
        self._has_stopped = False
        self._hurry: asyncio.TimerHandle | None = None
        self._hurry_at_s = math.inf  # in the loop's time
        self._time_is_over = asyncio.Event()
        #: What ended the pump, if it was not stopped: a defect, never a failure of Redis.
        self.failure: BaseException | None = None
        #: Whether it takes no jobs because too many handlers hang.
        self.is_paused = False
        #: Set while nothing runs and the queue was found empty; and when ``is_paused``.
        self.idle = asyncio.Event()
        self._report = AttemptReport(context.telemetry)
        self._most_deliveries = context.settings.max_stalls + 1
        self._runner = Runner(
            handler,
            executor=executor,
            concurrency=concurrency,
            on_end=self._ended,
            on_late=self._ended_late,
            on_hung=self._hung_changed,
            variables=variables,
            default_timeout_ms=context.settings.job_timeout,
            report=self._report,
        )
        self._max_hung = max_hung or max(concurrency, _LEAST_MAX_HUNG)
        overdue_watch = OverdueWatch(context)
        self.pump = Pump(context, concurrency=concurrency, listener=self, on_ahead=overdue_watch.look)
        self.pump.pause("queue", is_over=False)  # until the pause watch has looked
        self.pause_watch = PauseWatch(context, on_change=self._queue_pause_changed)
        self._heartbeat = self._begin_heartbeat()
        context.duties.checks.append(self._check_heartbeat)
        self._watch = WorkerWatch(context, self.pump, held=self._claims, active=lambda: self.active_jobs)
        context.duties.checks.append(self._watch.check)
        self._pump_over = asyncio.Event()
        self._pump_task = context.duties.start(
            "pump",
            self._run_pump,
            may_end=self.pump.has_ended,
            gives_up_after=_MOST_DEFECTS,
            on_given_up=self._pump_failed,
            on_over=self._pump_over.set,
        )
        self._pause_task = context.duties.start("pause watch", self.pause_watch.run)
        self._other_tasks = [
            context.duties.start("stall check", self._check_stalls),
            context.duties.start("overdue watch", overdue_watch.run),
            *Retention(context).start(),
        ]

    def _begin_heartbeat(self) -> Heartbeat:
        """Start heartbeats for the claims held here; their thread references this worker weakly."""
        context, pump, loop = self._context, self.pump, asyncio.get_running_loop()
        in_loop, ahead = InLoop(self, loop), pump.scheduler.places.ahead
        connector, is_bound = context.connector.twin()
        heartbeat = Heartbeat(
            connector,
            context.keys,
            context.settings,
            worker=process_name(),
            held=pump.scheduler.claimed.snapshot,
            look=looking_at(self, places=pump.concurrency, ahead=ahead),
            ahead=ahead,
            on_returned=functools.partial(InLoop(pump, loop).call, Pump.ahead_taken),
            take_counts=context.telemetry.work.take,
            on_living=functools.partial(InLoop(pump.claiming_ahead, loop).call, ClaimingAhead.see_workers),
            on_cancelled=functools.partial(in_loop.call, Worker.cancel_all),
            on_lost=functools.partial(in_loop.call, Worker._lose_all),
            on_error=functools.partial(in_loop.call, Worker._report_error),
            patience_s=context.duties.patience_s,
            loop=loop if is_bound else None,
        )
        context.duties.add(heartbeat.duty)
        watch_loop(self)
        self._on_garbage = weakref.finalize(self, heartbeat.loop_is_over)
        self._on_garbage.atexit = False
        return heartbeat

    def _check_heartbeat(self) -> None:
        """Start heartbeats again if the loop runs after a pause so long that it counted as over."""
        if self._heartbeat.is_over and not self._has_stopped:
            self._end_heartbeat()
            self._heartbeat = self._begin_heartbeat()

    def _end_heartbeat(self) -> None:
        leave_loop(self)
        self._on_garbage.detach()
        self._context.duties.remove(self._heartbeat.duty)
        self._heartbeat.stop()

    # Called by the heartbeat's thread.

    def running_ids(self) -> list[str]:
        """Return the ids of the jobs that run here now."""
        return [attempt.raw_id.decode(errors="replace") for attempt in list(self._attempts)]

    def running_since(self) -> list[tuple[bytes, int]]:
        """Return id and start of each job that runs here now, in ms by this machine's clock."""
        return [(attempt.raw_id, attempt.job.started_ms) for attempt in list(self._attempts)]

    def loop_is_over(self) -> None:
        """End what runs outside the loop, which is over: its jobs stall."""
        self._heartbeat.loop_is_over()
        self._runner.end_threads()

    def _report_error(self, error: BaseException) -> None:
        self._context.report_error(error)

    @property
    def active_jobs(self) -> list[Job]:
        """The jobs that run here now."""
        return [attempt.job for attempt in self._attempts]

    @property
    def is_well(self) -> bool:
        """Whether its places are held by running jobs, and it takes waiting jobs."""
        return not (self._watch.is_stuck or self._watch.is_leaking)

    def _claims(self) -> set[bytes]:
        return {attempt.claim for attempt in self._attempts}

    @property
    def hung(self) -> int:
        """How many handlers go on though their attempts have ended."""
        return self._runner.hung

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more jobs."""
        return self._has_stopped or self.pump.scheduler.is_stopping()

    @property
    def last_turn_ms(self) -> int:
        """When Redis last answered the pump, or showed that the queue is paused, in ms since the epoch."""
        task = self._pump_task if self.pause_watch.pause is None else self._pause_task
        return task.duty.health().last_turn_ms

    def _pump_failed(self, defect: BaseException) -> None:
        """Give up a pump that fails repeatedly: the worker must not idle in silence."""
        self.failure = defect
        self.idle.set()
        self._on_failure(defect)

    def use_variables(self, variables: Context) -> None:
        """Let later attempts run in copies of this context."""
        self._runner.variables = variables

    def burst(self) -> None:
        """Let ``idle`` mean that the queue is empty: wait for no further job."""
        self.pump.burst()

    def look(self) -> None:
        """Ask the queue for jobs again: it may have been filled."""
        self.idle.clear()
        self.pump.look()

    def cancel_all(self, claims: list[bytes]) -> None:
        """Stop the jobs that run here by these claims; they were cancelled in Redis."""
        cancelled = set(claims)
        self.pump.drop_ahead(cancelled)
        for attempt in [attempt for attempt in self._attempts if attempt.claim in cancelled]:
            self._runner.stop(attempt)

    def _lose_all(self, claims: list[bytes]) -> None:
        """Stop the jobs that still run by these claims. One whose handler has ended is not judged here.

        Its outcome may have ended the claim, with the reply still on its way.
        """
        lost = set(claims)
        self.pump.drop_ahead(lost)
        running = [(attempt.raw_id, attempt.claim) for attempt in self._attempts if attempt.claim in lost]
        if running:
            self.pump.claims_lost(running)

    # Called by the pump.

    def start_job(self, claimed_job: ClaimedJob, claim_known: asyncio.Future[None] | None) -> None:
        """Run the job, or record at once why it cannot run."""
        raw_id, raw_record, deliveries, claim = claimed_job
        context, owner = self._context, self._owner
        if self._has_stopped or self._is_ending:  # the call was under way when this worker gave up
            self.pump.give_back([(raw_id, claim)])
            return
        if not self._attempts:  # otherwise it was cleared, or is set for a pause, whose end clears it
            self.idle.clear()
        job_id = raw_id.decode(errors="replace")
        now_ms = context.now_ms()
        try:
            job = Job.claimed(owner, job_id, raw_record, claim, now_ms=now_ms)
        except JobUnreadable as error:
            context.report_error(error)
            job = Job(owner, Record({}, {"timestamp": now_ms, "stacktraces": []}), job_id)
            job.started_ms = now_ms
            self.pump.outcome_ready(raw_id, claim, fail(job, error, {}))
            return
        job.claim_known = claim_known
        if deliveries > self._most_deliveries:
            # A stall check only requeues. The worker that claims a job too often fails it, unrun.
            self.pump.outcome_ready(raw_id, claim, fail(job, JobStalled(job_id, deliveries), {}))
            return
        attempt = Attempt(job, raw_id, claim, deliveries)
        self._attempts[attempt] = None
        try:
            self._runner.start(attempt)
        except BaseException:
            self._attempts.pop(attempt, None)  # it does not run: the pump gives it back
            if attempt.timer is not None:
                attempt.timer.cancel()
            raise

    def stop_job(self, claim: bytes) -> None:
        """Stop the handler that runs by this claim, if one does: Redis has not granted it, or it is lost."""
        for attempt in [attempt for attempt in self._attempts if attempt.claim == claim]:
            if not attempt.is_stopped:
                attempt.is_lost = True
                self._runner.stop(attempt)
                self._context.report_error(JobLost(attempt.job.saved_id(), was_stopped=True))

    def recorded(self, outcomes: list[Outcome]) -> None:
        """Call the queue's listeners, in bee-queue's order (protocol/README.md, "Local events")."""
        self._report.recorded(outcomes)
        report_outcomes(self._context, outcomes)

    def lost(self, outcomes: list[Outcome]) -> None:
        """Report each job as lost."""
        for outcome in outcomes:
            self._context.report_error(JobLost(outcome.job.saved_id()))

    def claimed_ahead(self) -> None:
        """Have the heartbeats' thread watch these jobs: a handler may block the loop."""
        self._heartbeat.watch_ahead()

    def found_empty(self) -> None:
        """Set ``idle``."""
        self.idle.set()

    # Called by the runner.

    def _ended(self, attempt: Attempt, result: Any, error: BaseException | None) -> None:
        del self._attempts[attempt]
        self.pump.claiming_ahead.attempt_ended(attempt.ran_s)
        if attempt.is_stopped:
            self.pump.give_back([(attempt.raw_id, attempt.claim)])  # frees the place; the job is gone
            if not attempt.is_lost:
                report_cancelled(self._context, attempt.job)
            return
        if error is not None and self._is_over_with_host(attempt, error):
            self._leave_jobs([attempt])
            return
        outcome = outcome_of(attempt, result, error, self._owner, report_error=self._context.report_error)
        self.pump.outcome_ready(attempt.raw_id, attempt.claim, outcome)

    def _is_over_with_host(self, attempt: Attempt, error: BaseException) -> bool:
        """Return whether the handler was cancelled together with its worker."""
        if attempt.timed_out is not None:
            return False
        if issubclass(type(error), asyncio.CancelledError) and self._is_host_leaving():
            return True
        return attempt.task is not None and attempt.task.cancelling() > 0 and self._is_over_with_loop()

    def _is_over_with_loop(self) -> bool:
        return self._is_ending or self._context.duties.are_cancelled

    def _ended_late(self, job: Job, error: BaseException | None) -> None:
        """Report a handler that ended after its queue had closed and given the job back."""
        status = "succeeded" if error is None else "failed"
        self._context.report_error(StatusNotUpdated(job.saved_id(), status))

    def _hung_changed(self) -> None:
        """Take no jobs while too many handlers hang: each holds a thread, or a task."""
        is_full = self._runner.hung >= self._max_hung
        if is_full is self.is_paused or self._has_stopped:
            return
        self.is_paused = is_full
        self.idle.clear()
        self.pump.pause("hung", is_over=not is_full)
        if is_full:
            self._context.report_error(HandlersHang(self._runner.hung))
            self._context.emit("hung", self._runner.hung)
            self.idle.set()  # last: a listener that closes the queue decides how long jobs may take

    def _queue_pause_changed(self, pause: Pause | None) -> None:
        """Take no jobs while the queue is paused."""
        self.idle.clear()
        self.pump.pause("queue", is_over=pause is None)
        if pause is not None:
            self.idle.set()

    # Duties.

    async def _run_pump(self, duty: Duty) -> None:
        """Run the pump; if it is cancelled with all tasks, hand back before it ends."""
        if self._is_ending:
            self._is_ending, self._has_outlived_end = False, True
            self.pump.pause("end", is_over=True)
        try:
            await self.pump.run(duty)
        except asyncio.CancelledError:
            if not self._is_over_with_loop():
                raise
            self._is_ending = True
            await self._end_with_loop(duty)
            if not self.pump.has_ended():  # else ``stop`` waits for a good end
                raise

    async def _end_with_loop(self, duty: Duty) -> None:
        """Take no more jobs, and give back the running ones: all handlers were cancelled."""
        self.pump.pause("end", is_over=False)
        duty.rests(HAND_BACK_S)
        ending = Ending()
        loop = asyncio.get_running_loop()
        over_at_s = loop.time() + HAND_BACK_S
        if tasks := [attempt.task for attempt in self._attempts if attempt.task is not None]:
            await ending.step(CLEAN_UP_S, lambda: [ended(tasks)])
        attempts, self._attempts = list(self._attempts), {}
        for attempt in attempts:
            self._runner.give_up(attempt, was_cancelled=True)
        self._leave_jobs(attempts)
        try:
            await ending.step(over_at_s - loop.time(), lambda: [self.pump.settle(duty)])
        except Exception as error:  # noqa: BLE001 - a defect; what is left stalls
            self._context.report_error(error)

    def _leave_jobs(self, attempts: Iterable[Attempt]) -> None:
        """Give the jobs back; if the loop went on once before, let them stall, which is counted."""
        claims = [(attempt.raw_id, attempt.claim) for attempt in attempts]
        if self._has_outlived_end:
            self.pump.abandon(claims)
        else:
            self.pump.give_back(claims)

    async def _check_stalls(self, duty: Duty) -> None:
        """Check once a stall interval; the jitter spreads the checks of several workers."""
        interval_s = self._context.settings.stall_interval / 1000
        await StallCheck(self._context).repeat(duty, lambda: interval_s * random.uniform(1.0, 1.1))

    # The end.

    def drain(self) -> None:
        """Take no more jobs; running ones go on."""
        self.pump.drain()

    async def stop(self, timeout_s: float | None) -> bool:
        """Take no more jobs, wait for the running ones, give back those not ended in time (None: no limit).

        Returns whether everything ended in time. An unfinished job goes to the front of the queue,
        its retries untouched; a coroutine handler is cancelled, a child process killed, a thread abandoned.
        If this is cancelled, it stops waiting, ends as if its time were over, and raises CancelledError.
        """
        self.pump.drain()
        loop = asyncio.get_running_loop()
        ending = Ending()
        ends = [loop.create_task(event.wait()) for event in (self._pump_over, self._time_is_over)]
        await ending.cut_short(asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED))
        for end in ends:
            end.cancel()
        over_at_s = loop.time()
        is_drained = not self._attempts  # of jobs; a pump that still waits for Redis may end a little later
        if not (is_drained and self._pump_over.is_set()):
            await self._give_up(over_at_s + HAND_BACK_S, ending)
            is_drained = is_drained and self._pump_over.is_set()
        self._has_stopped = True
        self.idle.set()
        await self._end_duties(over_at_s + END_DUTIES_S, ending)
        ending.over()
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

    def _end_watch(self) -> None:
        checks = self._context.duties.checks
        for check in (self._watch.check, self._check_heartbeat):
            if check in checks:
                checks.remove(check)
        self._watch.close()

    async def _give_up(self, over_at_s: float, ending: Ending) -> None:
        self._end_watch()  # their handlers are left to themselves
        attempts, self._attempts = list(self._attempts), {}
        self._has_stopped = True
        for attempt in attempts:
            self._runner.give_up(attempt, was_cancelled=self._is_over_with_loop())
        tasks = [attempt.task for attempt in attempts if attempt.task is not None]
        if tasks:
            # A handler may clean up before its job can run elsewhere.
            await ending.step(CLEAN_UP_S, lambda: [ended(tasks)])
        self.pump.give_back([(attempt.raw_id, attempt.claim) for attempt in attempts])
        left_s = over_at_s - asyncio.get_running_loop().time()
        await ending.step(left_s, lambda: [self._pump_over.wait()])

    async def _end_duties(self, over_at_s: float, ending: Ending) -> None:
        duties = self._context.duties
        self._end_watch()
        self.pump.end()
        self._end_heartbeat()
        if self._hurry is not None:
            self._hurry.cancel()
        left_s = over_at_s - asyncio.get_running_loop().time()

        def ends() -> tuple[Awaitable[object], ...]:
            joined = call_in_thread(functools.partial(self._heartbeat.join, left_s))
            tasks = (self._pump_task, self._pause_task, *self._other_tasks)
            return *map(duties.stop, tasks), joined, self._runner.close(), self.pump.close()

        await ending.step(left_s, ends)
