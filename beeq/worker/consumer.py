"""Runs a queue's jobs: takes the handler, starts the worker, runs until stopped or until nothing is left."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import Context, copy_context
from typing import Any

from beeq.client.closing import AT_ONCE_MS, CLOSE_GRACE_S, Ending, ended
from beeq.client.context import QueueContext
from beeq.client.job_actions import JobActions
from beeq.client.reader import Reader
from beeq.client.session import Session
from beeq.errors import HandlersHang, QueueClosed, RedisError, kind_and_text_of
from beeq.logs.records import HANDED_BACK, log_event, log_stop
from beeq.maintenance.retention import Retention
from beeq.operations.pauses import QueuePaused, read_pause
from beeq.process import process_name, signal_name, stop_signals
from beeq.redis.retry_delay import RetryDelay
from beeq.settings import whole
from beeq.worker.attempts.runner import Executor, Handler, check_executor, check_handler
from beeq.worker.health import WorkerHealth
from beeq.worker.worker import Worker

#: How long ``run`` waits for running jobs after the first signal.
DRAIN_TIMEOUT_MS = 30_000


class Consumer:
    """One queue's consumer; the ``Work`` of its session. ``Queue`` documents what each method promises."""

    def __init__(self, context: QueueContext, session: Session, owner: JobActions) -> None:
        self._context = context
        self._session = session
        self._owner = owner
        self._executor: Executor = "auto"
        self._is_of_session = False  # the handler was given in a running loop, and ends with the queue
        self._starts_on_opening = False  # process() came before connect(), and auto_connect is off
        self._closing: set[asyncio.Task[None]] = set()  # by signals
        self._runs: dict[asyncio.Task[Any], int] = {}  # tasks in ``run`` → earlier cancellations
        self._is_closed_by_signal = False
        self._ended = asyncio.Event()  # ``run`` may end
        self._failure: BaseException | None = None  # what ended the worker, if it was not stopped
        #: The context of the caller of ``run``, or else of ``process``: each attempt runs in a copy.
        self._variables = Context()
        self.handler: Handler | None = None
        self.concurrency = 1
        self.max_hung = context.settings.max_hung
        #: None while no jobs are taken.
        self.worker: Worker | None = None

    def hand_over(self, later: "Consumer") -> None:
        """Pass the handler that was given outside a loop to ``later``, of the queue opened again."""
        if self.handler is not None and not self._is_of_session:
            later.inherit(self.handler, self.concurrency, self._executor, self._variables)
        later.max_hung = self.max_hung

    def inherit(self, handler: Handler, concurrency: int, executor: Executor, variables: Context) -> None:
        """Take a handler from before the queue was closed; ``run`` starts it."""
        self.handler, self.concurrency, self._executor = handler, concurrency, executor
        self._variables = variables
        self._session.attach(self)

    def process(
        self, handler: Handler | None, concurrency: int, executor: Executor
    ) -> Handler | Callable[[Handler], Handler]:
        """Take the handler, or return a decorator that takes it; see ``Queue.process``."""
        whole("concurrency", concurrency, at_least=1)
        check_executor(executor)

        def take(function: Handler) -> Handler:
            check_handler(function, executor)
            self._take(function, concurrency, executor)
            return function

        return take if handler is None else take(handler)

    def _take(self, handler: Handler, concurrency: int, executor: Executor) -> None:
        if not self._context.settings.is_worker:
            raise RuntimeError("Cannot call Queue#process on a non-worker")
        if self.handler is not None:
            raise RuntimeError("Cannot call Queue#process twice")
        if not self._session.is_running:
            raise QueueClosed
        self._session.owning_loop.refuse_elsewhere()
        self.handler, self.concurrency, self._executor = handler, concurrency, executor
        self._variables = copy_context()
        self._session.attach(self)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return  # run() starts it
        self._is_of_session = True
        if self._session.may_connect:
            self._start()
        else:
            self._starts_on_opening = True

    def _start(self) -> Worker:
        if self.handler is None:
            raise RuntimeError("there is nothing to run: call process() first")
        self._session.owning_loop.enter()
        if self.worker is None:
            self.worker = Worker(
                self._context,
                self._owner,
                self.handler,
                concurrency=self.concurrency,
                max_hung=self.max_hung,
                executor=self._executor,
                variables=self._variables,
                on_failure=self._failed,
                is_host_leaving=self._is_being_cancelled,
            )
            self._session.owning_loop.spawn(self._open_patiently())
        return self.worker

    def _failed(self, failure: BaseException) -> None:
        self._failure = failure  # each failure was reported
        self._ended.set()

    def health(self) -> WorkerHealth:
        """Return the state of the work; may be called in any thread."""
        context, worker = self._context, self.worker
        duties = context.duties.health()
        loop_silent_ms = context.duties.silent_ms
        failure = self._failure
        is_healthy = (
            self._session.is_running
            and failure is None
            and all(duty.state == "running" for duty in duties)
            and loop_silent_ms < max(1000, context.settings.stall_interval)
            and (worker is None or worker.is_well)
        )
        if worker is None:
            return WorkerHealth(
                is_healthy=is_healthy,
                is_taking=False,
                duties=duties,
                loop_silent_ms=loop_silent_ms,
                error="" if failure is None else kind_and_text_of(failure),
            )
        is_queue_paused = worker.pause_watch.pause is not None
        return WorkerHealth(
            is_healthy=is_healthy and not worker.is_paused,
            is_taking=failure is None and not (worker.is_stopping or worker.is_paused or is_queue_paused),
            is_queue_paused=is_queue_paused,
            duties=duties,
            concurrency=self.concurrency,
            places_taken=worker.pump.scheduler.places.count_taken(),
            running=len(worker.active_jobs),
            hung=worker.hung,
            last_turn_ms=worker.last_turn_ms,
            loop_silent_ms=loop_silent_ms,
            error="" if failure is None else kind_and_text_of(failure),
        )

    async def _open_patiently(self) -> None:
        """Open the queue, however long Redis is away, and subscribe to cancellations.

        If a message is lost, the next heartbeat finds the cancelled jobs.
        """
        delay = RetryDelay(self._context.settings.initial_redis_failure_retry_delay)
        while self._session.is_running:
            try:
                await self._session.connect()
                await self._session.look_at_workers_rights()
                await self._session.subscribe(self._context.keys.cancelled, self._cancelled)
                await self._session.subscribe(
                    self._context.keys.workers, self._worker_came, self._worker_came
                )
                await self._session.subscribe(
                    self._context.keys.paused, self._pause_changed, self._pause_changed
                )
            except RedisError as error:
                self._context.report_error(error)
                await delay.wait(lambda: not self._session.is_running)
            else:
                await self._look_for_others()
                return

    async def _look_for_others(self) -> None:
        """Check whether other workers live; the heartbeat does so, too, but later."""
        asked_at_s = time.monotonic()
        try:
            names = await self._context.pipeline.call("ZRANGE", self._context.keys.workers, 0, 1)
        except RedisError:
            return  # the heartbeat reports it
        if self.worker is not None and names == [process_name().encode()]:
            self.worker.pump.claiming_ahead.see_workers((1, asked_at_s))

    def _cancelled(self, claim: bytes) -> None:
        if self.worker is not None:
            self.worker.cancel_all([claim])

    def _worker_came(self, name: bytes = b"") -> None:
        """Note that another worker process has started on the queue, or that its message may be lost."""
        if self.worker is not None and name != process_name().encode():
            self.worker.pump.claiming_ahead.worker_may_have_come()

    def _pause_changed(self, _message: bytes = b"") -> None:
        if self.worker is not None:
            self.worker.pause_watch.look()

    # Running.

    async def run(self, *, burst: bool, catch_signals: bool) -> None:
        """Work until the queue is closed, or with ``burst`` until nothing is due; see ``Queue.run``."""
        if not self._session.is_running:
            raise QueueClosed
        self._session.may_connect = True
        self._variables = copy_context()
        if self.worker is not None:
            self.worker.use_variables(self._variables)
        catching = stop_signals(self._signalled, takes_over=False) if catch_signals else nullcontext()
        # Of several queues in a process, only the one that takes the signals logs what happens.
        level = logging.INFO if catch_signals else logging.DEBUG
        began_s = time.monotonic()
        log_event(level, f"worker started: {self._context.where(self.concurrency)}", queue=self._context.name)
        with catching, self._running():
            try:
                await self._work(burst=burst)
            except asyncio.CancelledError:
                await self._leave()
                raise
            finally:
                ran_ms = round((time.monotonic() - began_s) * 1000)
                log_event(level, "worker stopped", queue=self._context.name, duration_ms=ran_ms)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Note the task in this block: if it is cancelled, the jobs are given back, not failed."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - ``run`` is a coroutine
        is_first = task not in self._runs
        if is_first:
            self._runs[task] = task.cancelling()
        try:
            yield
        finally:
            if is_first:
                del self._runs[task]

    def _is_being_cancelled(self) -> bool:
        return bool(self._runs) and all(task.cancelling() > before for task, before in self._runs.items())

    async def _work(self, *, burst: bool) -> None:
        if burst:
            try:
                await self._work_off()
            except (QueueClosed, RedisError):
                if self._session.is_running:
                    raise  # else closing caused it, and the end of the work is known below
        else:
            self._start()
            await self._ended.wait()  # as long as it takes: close() sets it
        if self._failure is not None:
            raise self._failure
        closed = self._session.until_closed()
        # An end by a signal is not an error; a caller of ``close`` gets its errors.
        await (self._ended_well(closed) if self._is_closed_by_signal else closed)

    async def _leave(self) -> None:
        """Hand back the running jobs after ``run`` was cancelled, unless another task is in ``run``, too."""
        if not self._is_being_cancelled():
            return
        leaving: Awaitable[bool | None]
        if not self._session.is_running:
            leaving = self._session.close(AT_ONCE_MS)
        elif self.worker is not None:
            leaving = self._end_work(self.worker, AT_ONCE_MS)
        else:
            return
        # In a task of its own: this one may be cancelled again, and the jobs must still go back.
        task = asyncio.get_running_loop().create_task(self._ended_well(leaving), name="beeq hand-back")
        await Ending().step(CLOSE_GRACE_S, lambda: [ended([task])])

    async def _ended_well(self, ending: Awaitable[bool | None]) -> None:
        """Await a requested end; log in one line that it failed, or that jobs went back."""
        try:
            is_drained = await ending
        except TimeoutError:
            is_drained = False
        except Exception as error:  # noqa: BLE001 - a connection that does not close, …
            log_event(logging.WARNING, "did not close well", queue=self._context.name, error=error)
            return
        if is_drained is False:
            log_event(logging.WARNING, HANDED_BACK, queue=self._context.name)

    async def _work_off(self) -> None:
        """Work until the queue is empty, due jobs have been raised, and nothing runs; or until ``close``.

        Raises HandlersHang when too many handlers hang: threads may do so for ever, and the other jobs can
        wait; QueuePaused when the queue is paused, running jobs have ended, and jobs wait.
        """
        session = self._session
        await session.ensure()
        if not session.is_running:
            return
        worker = self._start()
        worker.burst()
        while session.is_running:
            worker.look()
            if not (worker.is_paused or worker.pause_watch.pause):
                await worker.idle.wait()  # each job has its own bound
            if not session.is_running or worker.failure is not None:
                return
            if worker.is_paused:
                hung = worker.hung
                await self._end_work(worker)
                if session.is_running:
                    raise HandlersHang(hung)
                return
            if worker.pause_watch.pause is not None:
                await self._end_work(worker, None)
                if await self._is_done_despite_pause():
                    return
                worker = self._start()
                worker.burst()
            # A pause may have set ``idle`` and be over: then the loop looks again.
            elif worker.idle.is_set() and not await self._has_raised():
                await self._end_work(worker)
                await Retention(self._context).last_look()
                return

    async def _has_raised(self) -> bool:
        """Raise delayed jobs that are due; return whether there were any."""
        activator = self._session.activator
        return activator is not None and await activator.once() > 0

    async def _is_done_despite_pause(self) -> bool:
        """Return whether a burst is over, with no due job left. After the end of a pause it may go on.

        Raises QueuePaused: there are jobs, and the queue is paused.
        """
        context, session = self._context, self._session
        if not session.is_running:
            return True
        await self._has_raised()
        reader = Reader(context.pipeline, context.keys, scan_count=context.settings.redis_scan_count)
        waiting = (await reader.stats(with_age=False)).waiting
        pause = await read_pause(context.pipeline, context.keys)
        if waiting and pause is not None:
            raise QueuePaused(context.name, waiting, pause)
        return not waiting

    async def _end_work(self, worker: Worker, timeout_ms: int | None = DRAIN_TIMEOUT_MS) -> bool:
        """Stop this worker, but not the queue; return whether all jobs ended in time (None: however long)."""
        try:
            return await worker.stop(None if timeout_ms is None else timeout_ms / 1000)
        finally:
            if self.worker is worker:
                self.worker = None  # only now: a close() meanwhile stops the worker sooner

    def _signalled(self, number: int) -> None:
        """Let running jobs end after the first signal, and hand them back after the second."""
        is_first = not self._is_closed_by_signal  # though a ``close`` may be under way
        timeout_ms = DRAIN_TIMEOUT_MS if is_first else AT_ONCE_MS
        running = 0 if self.worker is None else len(self.worker.active_jobs)
        log_stop(
            signal_name(number),
            running,
            allowed_s=timeout_ms / 1000 if is_first else None,
            queue=self._context.name,
        )
        closing = asyncio.get_running_loop().create_task(self._close_by_signal(timeout_ms))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._is_closed_by_signal = True

    async def _close_by_signal(self, timeout_ms: int) -> None:
        with contextlib.suppress(Exception):  # ``run`` waits for the same end, and raises its error
            await self._session.close(timeout_ms)

    # Called by the session.

    @property
    def has_begun(self) -> bool:
        """Whether jobs are taken here."""
        return self.worker is not None

    def opened(self) -> None:
        """Start, if ``process`` came before ``connect``."""
        if self._starts_on_opening and self.worker is None:
            self._start()

    def drain(self) -> None:
        """Take no more jobs."""
        if self.worker is not None:
            self.worker.drain()

    async def stop(self, timeout_s: float) -> bool:
        """Stop the worker; return whether all jobs ended in time."""
        try:
            is_drained = self.worker is None or await self.worker.stop(timeout_s)
            self.worker = None
        finally:
            self._ended.set()
        return is_drained

    def hurry(self, timeout_s: float) -> None:
        """Let a ``stop`` under way wait no longer than this from now."""
        if self.worker is not None:
            self.worker.hurry(timeout_s)
