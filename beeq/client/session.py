"""How a queue opens, works and closes: new → open → closing → closed.

* Opening: connects, loads the scripts, subscribes, starts the delayed-job activator. A failure is
  raised to whoever asked, and the next ask tries again.
* Closing: takes no more jobs, waits for the running ones, gives back what does not end in time, then
  hangs up. Other commands work until then. Closing twice is fine, and before opening; a second call
  with a shorter timeout shortens the wait.

Owns every background task of its queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from beeq.client.errands import Errands
from beeq.client.home import Home
from beeq.errors import QueueClosed, RedisError
from beeq.maintenance.delayed_activator import DelayedActivator
from beeq.maintenance.stall_check import StallCheck
from beeq.process import stop_signals
from beeq.redis.pubsub import Subscriber
from beeq.redis.retry_delay import RetryDelay
from beeq.redis.scripts import ALL
from beeq.worker.worker import Worker

if TYPE_CHECKING:
    from beeq.queue import Queue
    from beeq.worker.runner import Executor, Handler

#: bee-queue's default for ``close``.
CLOSE_TIMEOUT_MS = 5000
#: How long ``run`` waits for running jobs after the first signal.
DRAIN_TIMEOUT_MS = 30_000


class Session:
    """One queue's. The queue's methods say what each of these promises."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.home = Home(queue.name)
        self._may_connect = queue.settings.auto_connect
        self._is_open = False
        self._is_closing = False
        self._is_closed = False
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._errands = Errands()
        self._subscriber: Subscriber | None = None
        self._hears_events = False
        self._activating: asyncio.Task[None] | None = None
        self.activator: DelayedActivator | None = None
        self._stall_check: StallCheck | None = None
        self._checking: asyncio.Task[None] | None = None
        self.handler: Handler | None = None
        self.concurrency = 1
        self._executor: Executor = "auto"
        self._starts_on_connecting = False  # process() came before connect(), and auto_connect is off
        self.worker: Worker | None = None
        self._stopped = asyncio.Event()  # ``run`` may end
        self._failure: BaseException | None = None  # what ended the worker, if nobody stopped it

    # Opening.

    @property
    def is_running(self) -> bool:
        """Whether ``close`` has not been called."""
        return not self._is_closing

    @property
    def is_ready(self) -> bool:
        """Whether the queue is connected."""
        return self._is_open

    def is_hearing_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether the queue is open in ``loop`` and hears of its jobs: they can be saved at once."""
        return self._hears_events and self._is_open and not self._is_closed and self.home.loop is loop

    async def ensure(self) -> None:
        """Let a command through when the queue is open; open it first if need be.

        Raises:
            RuntimeError: it was opened in another loop, or before a fork; or it may not open by itself.
        """
        if self._is_open and not self._is_closed:
            self.home.enter()
            return
        if self._is_closed:
            raise QueueClosed
        if not self._may_connect:
            raise RuntimeError("auto_connect is off: call connect() first")
        await self.connect()

    async def connect(self) -> None:
        """Open the queue, together with whoever else is opening it."""
        if self._is_closed:
            raise QueueClosed
        self.home.enter()
        self._may_connect = True
        if self._is_open:
            return
        opening = self._opening
        if opening is None:
            opening = self._opening = asyncio.get_running_loop().create_task(self._open())
            opening.add_done_callback(self._opened)
        await asyncio.wait([opening])  # if this is cancelled, the others still wait for it
        if opening.cancelled() and self._is_closed:
            raise QueueClosed
        opening.result()
        if self._starts_on_connecting and self.worker is None and not self._is_closing:
            self._start_worker()

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # whoever waits gets it; nobody waiting is no error of its own
        if not self._is_open and self._subscriber is None and self.worker is None:
            self.home.leave()  # the next try may be another loop's

    async def _open(self) -> None:
        queue = self._queue
        await queue.pipeline.connect()
        if queue.settings.ensure_scripts:
            loads = (queue.pipeline.call("SCRIPT", "LOAD", s.source, repeatable=True) for s in ALL)
            await asyncio.gather(*loads)
        if self._wants_events():
            await self.hear_events()
        if queue.settings.activate_delayed_jobs and self.activator is None:
            await self._activate()
        self._is_open = True
        asyncio.get_running_loop().call_soon(queue.emit, "ready")

    def _wants_events(self) -> bool:
        """A queue that only works has no use for the events of its own jobs: it made them."""
        queue = self._queue
        return queue.settings.get_events and (self.handler is None or queue.has_event_listeners())

    async def hear_events(self) -> None:
        """Subscribe to job events; done once, before the first job of this process is saved."""
        queue = self._queue
        if self._hears_events or not queue.settings.get_events:
            return
        await self._subscribe(queue.keys.events)
        self._hears_events = True

    async def _subscribe(self, channel: str) -> None:
        queue = self._queue
        if self._subscriber is None:
            self._subscriber = Subscriber(
                queue.connector,
                on_message=self._message,
                on_subscribed=self._subscribed,
                on_error=queue.report_error,
            )
        await self._subscriber.add(channel, timeout_ms=queue.settings.redis_timeout)

    def _message(self, channel: str, message: bytes) -> None:
        if channel == self._queue.keys.events:
            self._queue.event_hub.receive(message)
        elif channel == self._queue.keys.cancelled:
            if self.worker is not None:
                self.worker.cancel(message)
        elif self.activator is not None and message.isdigit():
            self.activator.schedule(float(message))

    def _subscribed(self, channel: str) -> None:
        if channel == self._queue.keys.earlier_delayed and self.activator is not None:
            self.activator.look()  # a message may have been lost meanwhile

    async def _activate(self) -> None:
        queue = self._queue
        self.activator = DelayedActivator(queue.context)
        self._activating = asyncio.get_running_loop().create_task(
            self.activator.run(), name=f"beeq activator of {queue.name}"
        )
        await self._subscribe(queue.keys.earlier_delayed)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, is_listener: bool = False) -> None:
        """Run an errand in the background, until it ends or the queue is closed; see ``Errands``."""
        if self._is_closed:
            coroutine.close()
            return
        self._errands.spawn(coroutine, is_listener=is_listener)

    # Working.

    def process(self, handler: Handler, concurrency: int, executor: Executor) -> None:
        """Take ``handler`` for the queue's jobs; start at once inside a running loop."""
        if not self._queue.settings.is_worker:
            raise RuntimeError("Cannot call Queue#process on a non-worker")
        if self.handler is not None:
            raise RuntimeError("Cannot call Queue#process twice")
        if self._is_closing:
            raise QueueClosed
        self.home.refuse_elsewhere()
        self.handler, self.concurrency, self._executor = handler, concurrency, executor
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return  # run() starts it
        if self._may_connect:
            self._start_worker()
        else:
            self._starts_on_connecting = True

    def _start_worker(self) -> Worker:
        if self.handler is None:
            raise RuntimeError("there is nothing to run: call process() first")
        self.home.enter()
        if self.worker is None:
            worker = Worker(
                self._queue,
                self.handler,
                self.concurrency,
                executor=self._executor,
                on_failure=self._worker_failed,
            )
            worker.start()
            self.worker = worker
            self.spawn(self._open_patiently())
        return self.worker

    def _worker_failed(self, failure: BaseException) -> None:
        """A defect ended the worker: say so, and let ``run`` raise it."""
        self._queue.report_error(failure)
        self._failure = failure
        self._stopped.set()

    async def _open_patiently(self) -> None:
        """Open the queue, however long Redis is away, and hear of cancelled jobs from then on.

        A message that is lost costs no cancellation: the next heartbeat tells of it.
        """
        pause = RetryDelay(self._queue.settings.initial_redis_failure_retry_delay)
        while not self._is_closing:
            try:
                await self.connect()
                await self._subscribe(self._queue.keys.cancelled)
            except RedisError as error:
                self._queue.report_error(error)
                await pause.wait(lambda: self._is_closing)
            else:
                return

    async def run(self, *, burst: bool, catch_signals: bool) -> None:
        """Work until ``close`` or a signal; with ``burst`` until nothing is left that is due."""
        if self._is_closing:
            raise QueueClosed
        self._may_connect = True
        with stop_signals(self._stop) if catch_signals else nullcontext():
            if burst:
                try:
                    await self._work_off()
                except (QueueClosed, RedisError):
                    if not self._is_closing:  # else it came of closing, which tells how the work ended
                        raise
            else:
                self._start_worker()
                await self._stopped.wait()  # as long as it takes: close() sets it
            if self._failure is not None:
                raise self._failure
            if self._closing is not None:
                await asyncio.shield(self._closing)

    async def _work_off(self) -> None:
        """Work until the queue is empty, what is due has been raised, and nothing runs; or ``close``."""
        await self.ensure()
        if self._is_closing:
            return
        worker = self._start_worker()
        worker.burst()
        while not self._is_closing:
            worker.look()
            await worker.idle.wait()  # each job has its own bound
            if self._is_closing or worker.failure is not None:
                return
            if self.activator is None or not await self.activator.once():
                await worker.stop(DRAIN_TIMEOUT_MS / 1000)
                self.worker = None  # only now: a close() meanwhile ends what this has not
                return

    async def check_stalled_jobs(self, interval_ms: int | None) -> int:
        """Check now; with an interval, repeat until ``close``, one repetition a queue."""
        queue = self._queue
        if self._stall_check is None:
            self._stall_check = StallCheck(queue.context)
        try:
            stalled = await self._stall_check.once()
        finally:
            if interval_ms is not None and self._checking is None and not self._is_closing:
                self._checking = asyncio.get_running_loop().create_task(self._check_again(interval_ms))
        for job_id in stalled:
            queue.emit("stalled", job_id)
        return len(stalled)

    async def _check_again(self, interval_ms: int) -> None:
        while True:
            await asyncio.sleep(interval_ms / 1000)
            try:
                await self.check_stalled_jobs(None)
            except RedisError as error:
                self._queue.report_error(error)

    async def _stop(self) -> None:
        """Let running jobs end after the first signal, and hand them back after the second."""
        try:
            await self.close(1 if self._is_closing else DRAIN_TIMEOUT_MS)
        except TimeoutError as error:
            self._queue.report_error(error)

    # Closing.

    async def close(self, timeout_ms: int) -> None:
        """Close the queue; raise TimeoutError when jobs had to be given back."""
        if not self._is_closed:
            self.home.enter()
        if self._closing is None:
            self._is_closing = True
            if self._checking is not None:
                self._checking.cancel()
            self._closing = asyncio.get_running_loop().create_task(self._close(timeout_ms))
        elif self.worker is not None:
            self.worker.hurry(timeout_ms / 1000)
        with self._errands.sparing_listener():
            await asyncio.shield(self._closing)

    async def _close(self, timeout_ms: int) -> None:
        try:
            worker = self.worker
            is_drained = worker is None or await worker.stop(timeout_ms / 1000)
            self.worker = None
        finally:
            self._is_closed = True
            await self._hang_up()
            self._stopped.set()
        if not is_drained:
            raise TimeoutError("Operation timed out.")

    async def _hang_up(self) -> None:
        queue = self._queue
        me = asyncio.current_task()
        owned = (*self._errands.to_end(), self._activating, self._opening, self._checking)
        duties = [task for task in owned if task is not None and task is not me]
        for task in duties:
            task.cancel()
        if duties:
            await asyncio.wait(duties, timeout=1)
        if self._subscriber is not None:
            await self._subscriber.close()
        await queue.pipeline.close()
        await queue.connector.close(close_client=bool(queue.settings.quit_command_client))
