"""Works on a queue: takes the handler, starts the worker, runs until stopped or until nothing is left."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext

from beeq.client.context import QueueContext
from beeq.client.job_actions import JobActions
from beeq.client.session import Session
from beeq.errors import QueueClosed, RedisError
from beeq.process import stop_signals
from beeq.redis.retry_delay import RetryDelay
from beeq.settings import whole
from beeq.worker.runner import Executor, Handler, check_executor, check_handler
from beeq.worker.worker import Worker

#: How long ``run`` waits for running jobs after the first signal.
DRAIN_TIMEOUT_MS = 30_000


class Consumer:
    """One queue's; the ``Work`` of its session. ``Queue`` documents what each method promises."""

    def __init__(self, context: QueueContext, session: Session, owner: JobActions) -> None:
        self._context = context
        self._session = session
        self._owner = owner
        self._executor: Executor = "auto"
        self._starts_on_opening = False  # process() came before connect(), and auto_connect is off
        self._ended = asyncio.Event()  # ``run`` may end
        self._failure: BaseException | None = None  # what ended the worker, if it was not stopped
        self.handler: Handler | None = None
        self.concurrency = 1
        #: None while no jobs are taken.
        self.worker: Worker | None = None

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
        self._session.attach(self)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return  # run() starts it
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
                executor=self._executor,
                on_failure=self._failed,
            )
            self._session.owning_loop.spawn(self._open_patiently())
        return self.worker

    def _failed(self, failure: BaseException) -> None:
        self._context.report_error(failure)
        self._failure = failure
        self._ended.set()

    async def _open_patiently(self) -> None:
        """Open the queue, however long Redis is away, and hear of cancelled jobs from then on.

        If a message is lost, the job is cancelled all the same: the next heartbeat asks which jobs were.
        """
        delay = RetryDelay(self._context.settings.initial_redis_failure_retry_delay)
        while self._session.is_running:
            try:
                await self._session.connect()
                await self._session.subscribe(self._context.keys.cancelled, self._cancelled)
            except RedisError as error:
                self._context.report_error(error)
                await delay.wait(lambda: not self._session.is_running)
            else:
                return

    def _cancelled(self, claim: bytes) -> None:
        if self.worker is not None:
            self.worker.cancel(claim)

    # Running.

    async def run(self, *, burst: bool, catch_signals: bool) -> None:
        """Work until the queue is closed, or with ``burst`` until nothing is due; see ``Queue.run``."""
        if not self._session.is_running:
            raise QueueClosed
        self._session.may_connect = True
        with stop_signals(self._signalled) if catch_signals else nullcontext():
            if burst:
                try:
                    await self._work_off()
                except (QueueClosed, RedisError):
                    if self._session.is_running:
                        raise  # else it came of closing, and how the work ended is known below
            else:
                self._start()
                await self._ended.wait()  # as long as it takes: close() sets it
            if self._failure is not None:
                raise self._failure
            await self._session.until_closed()

    async def _work_off(self) -> None:
        """Work until the queue is empty, what is due has been raised, and nothing runs; or ``close``."""
        session = self._session
        await session.ensure()
        if not session.is_running:
            return
        worker = self._start()
        worker.burst()
        while session.is_running:
            worker.look()
            await worker.idle.wait()  # each job has its own bound
            if not session.is_running or worker.failure is not None:
                return
            if session.activator is None or not await session.activator.once():
                await worker.stop(DRAIN_TIMEOUT_MS / 1000)
                self.worker = None  # only now: a close() meanwhile stops the worker sooner
                return

    async def _signalled(self) -> None:
        """Let running jobs end after the first signal, and hand them back after the second."""
        try:
            await self._session.close(DRAIN_TIMEOUT_MS if self._session.is_running else 1)
        except TimeoutError as error:
            self._context.report_error(error)

    # What the session asks.

    @property
    def has_begun(self) -> bool:
        """Whether jobs are taken here."""
        return self.worker is not None

    def opened(self) -> None:
        """Start, if ``process`` came before ``connect``."""
        if self._starts_on_opening and self.worker is None:
            self._start()

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
