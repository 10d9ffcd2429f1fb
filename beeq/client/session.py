"""How a queue opens and closes: new → open → closing → closed.

* Opening: connects, loads the scripts, subscribes, starts the delayed-job activator. A failure is
  raised to every caller that waits for the opening, and the next call tries again.
* Closing: lets the consumer stop first, then hangs up. Other commands work until then. Closing twice is
  fine, and before opening; a second call with a shorter timeout shortens the wait.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from beeq.client.context import QueueContext
from beeq.client.listeners import Listeners
from beeq.client.owning_loop import OwningLoop
from beeq.errors import QueueClosed, RedisError
from beeq.maintenance.delayed_activator import DelayedActivator
from beeq.maintenance.stall_check import StallCheck
from beeq.redis.pubsub import Subscriber
from beeq.redis.scripts import ALL

#: bee-queue's default for ``close``.
CLOSE_TIMEOUT_MS = 5000


class Work(Protocol):
    """What a session asks of the part that works on the queue's jobs."""

    @property
    def has_begun(self) -> bool:
        """Whether jobs are taken here."""

    def opened(self) -> None:
        """Begin, if the work waits for the queue to be open."""

    async def stop(self, timeout_s: float) -> bool:
        """Take no more jobs, and return within about ``timeout_s``; whether all jobs ended in time."""

    def hurry(self, timeout_s: float) -> None:
        """Let a ``stop`` under way wait no longer than this from now."""


class Session:
    """One queue's. ``Queue`` documents what each of these methods promises."""

    def __init__(self, context: QueueContext, owning_loop: OwningLoop, listeners: Listeners) -> None:
        self._context = context
        self._listeners = listeners
        self._work: Work | None = None  # None: the queue has no handler
        self._is_open = False
        self._is_closing = False
        self._is_closed = False
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._on_message: dict[str, Callable[[bytes], None]] = {}  # by channel
        self._subscriber = Subscriber(
            context.connector,
            on_message=self._message,
            on_subscribed=self._subscribed,
            on_error=context.report_error,
        )
        self._hears_events = False
        self._is_activating = False
        self._stall_check = StallCheck(context)
        self._checking: asyncio.Task[None] | None = None
        self.owning_loop = owning_loop
        #: Whether the queue may connect by itself.
        self.may_connect = context.settings.auto_connect
        #: None: this process does not raise delayed jobs.
        self.activator = DelayedActivator(context) if context.settings.activate_delayed_jobs else None

    def attach(self, work: Work) -> None:
        """Call ``work`` when the queue opens and closes; called once, before the work begins."""
        self._work = work

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
        return self._hears_events and self._is_open and not self._is_closed and self.owning_loop.loop is loop

    async def ensure(self) -> None:
        """Return when the queue is open; open it first if it is not.

        Raises RuntimeError if it was opened in another loop or before a fork, or may not open by itself;
        QueueClosed; RedisUnavailable.
        """
        if self._is_open and not self._is_closed:
            self.owning_loop.enter()
            return
        if self._is_closed:
            raise QueueClosed
        if not self.may_connect:
            raise RuntimeError("auto_connect is off: call connect() first")
        await self.connect()

    async def ensure_hearing(self) -> None:
        """Return when the queue is open and hears of its jobs. Raises what ``ensure`` raises."""
        await self.ensure()
        await self.hear_events()

    async def connect(self) -> None:
        """Open the queue. All callers that wait for it share one opening."""
        if self._is_closed:
            raise QueueClosed
        self.owning_loop.enter()
        self.may_connect = True
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
        if self._work is not None and not self._is_closing:
            self._work.opened()

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # the callers get it; asyncio logs it if there is none
        if not (self._is_open or self._on_message or (self._work is not None and self._work.has_begun)):
            self.owning_loop.leave()  # the next try may be in another loop

    async def _open(self) -> None:
        context = self._context
        await context.pipeline.connect()
        if context.settings.ensure_scripts:
            loads = (context.pipeline.call("SCRIPT", "LOAD", s.source, repeatable=True) for s in ALL)
            await asyncio.gather(*loads)
        # A queue that only works does not need the events of its own jobs.
        if self._work is None or self._listeners.want_job_events():
            await self.hear_events()
        if self.activator is not None and not self._is_activating:
            self._is_activating = True
            self.owning_loop.spawn(self.activator.run(), name=f"beeq activator of {context.name}")
            await self.subscribe(context.keys.earlier_delayed, self.activator.heard)
        self._is_open = True
        asyncio.get_running_loop().call_soon(context.emit, "ready")

    # What is heard.

    async def hear_events(self) -> None:
        """Subscribe to job events; done once, before the first job of this process is saved."""
        if self._hears_events or not self._context.settings.get_events:
            return
        await self.subscribe(self._context.keys.events, self._context.event_hub.receive)
        self._hears_events = True

    def listened_to(self, event: str) -> None:
        """Hear job events if a listener to ``event`` needs that. Not yet open, ``connect`` sees to it."""
        self.owning_loop.refuse_elsewhere()
        if event.startswith("job ") and self._is_open:
            self.owning_loop.spawn(self._hear_events_later())

    async def _hear_events_later(self) -> None:
        try:
            await self.hear_events()
        except RedisError as error:
            self._context.report_error(error)

    async def subscribe(self, channel: str, on_message: Callable[[bytes], None]) -> None:
        """Call ``on_message`` with each message of ``channel``; return when Redis has confirmed that.

        If it does not in time, this raises RedisUnavailable; it will, once Redis is back.
        """
        self._on_message[channel] = on_message
        await self._subscriber.add(channel, timeout_ms=self._context.settings.redis_timeout)

    def _message(self, channel: str, message: bytes) -> None:
        self._on_message[channel](message)

    def _subscribed(self, channel: str) -> None:
        if channel == self._context.keys.earlier_delayed and self.activator is not None:
            self.activator.look()  # a message may have been lost meanwhile

    async def check_stalled_jobs(self, interval_ms: int | None) -> int:
        """Check now; with an interval, repeat until ``close``, one repetition for each queue."""
        await self.ensure()
        try:
            return await self._stall_check.once()
        finally:
            if interval_ms is not None and self._checking is None and not self._is_closing:
                self._checking = asyncio.get_running_loop().create_task(self._check_again(interval_ms / 1000))

    async def _check_again(self, interval_s: float) -> None:
        await asyncio.sleep(interval_s)
        await self._stall_check.repeat(lambda: interval_s)

    # Closing.

    async def close(self, timeout_ms: int) -> None:
        """Close the queue. Raises TimeoutError if some jobs did not end in time, and went back to it."""
        if not self._is_closed:
            self.owning_loop.enter()
        if self._closing is None:
            self._is_closing = True
            if self._checking is not None:
                self._checking.cancel()
            self._closing = asyncio.get_running_loop().create_task(self._close(timeout_ms))
        elif self._work is not None:
            self._work.hurry(timeout_ms / 1000)
        with self.owning_loop.sparing_listener():
            await asyncio.shield(self._closing)

    async def until_closed(self) -> None:
        """Wait for a ``close`` under way, if there is one; raise what that raises."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self, timeout_ms: int) -> None:
        try:
            is_drained = self._work is None or await self._work.stop(timeout_ms / 1000)
        finally:
            self._is_closed = True
            await self._hang_up()
        if not is_drained:
            raise TimeoutError("Operation timed out.")

    async def _hang_up(self) -> None:
        owned = (*self.owning_loop.end_spawning(), self._opening, self._checking)
        tasks = [task for task in owned if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)
        await self._subscriber.close()
        await self._context.pipeline.close()
        await self._context.connector.close(close_client=bool(self._context.settings.quit_command_client))
