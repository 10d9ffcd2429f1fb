"""How a queue opens and closes: new → open → closing → closed.

* Opening: connects, loads the scripts, subscribes, starts the delayed-job activator. A failure is
  raised to every caller that waits for the opening, and the next call tries again.
* Closing: lets the consumer stop first, then hangs up. Other commands work until then. Closing twice, or
before opening, is fine; a second call with a shorter timeout shortens the wait. A close returns at most
``CLOSE_GRACE_S`` (``closing.py``) after its timeout, even if something hangs. It goes on if its caller is
cancelled; if its own task is, with all others, it stops waiting for jobs, and still hangs up.
"""

import asyncio
import functools
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Protocol

from beeq.client.closing import (
    AT_ONCE_MS,
    CLOSE_GRACE_S,
    CLOSE_TIMEOUT_MS,
    HANG_UP_S,
    LEAVE_S,
    TELL_S,
    Ending,
    ended,
)
from beeq.client.context import QueueContext
from beeq.client.events.listeners import Listeners
from beeq.client.events.missed_ends import MissedEnds
from beeq.client.events.own_events import OwnEvents
from beeq.client.owning_loop import OwningLoop
from beeq.client.rights_check import lack_of_rights
from beeq.errors import QueueClosed, RedisError, kind_of
from beeq.logs.records import log_event
from beeq.maintenance.delayed_activator import DelayedActivator
from beeq.maintenance.stall_check import StallCheck
from beeq.redis.pubsub import Subscriber
from beeq.redis.scripts import ALL
from beeq.supervision.duty import Duty

#: Exceptions after which a block closes at once.
_CANCELS = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)


class Work(Protocol):
    """What a session needs of the part that runs the queue's jobs."""

    @property
    def has_begun(self) -> bool:
        """Whether jobs are taken here."""

    def opened(self) -> None:
        """Begin, if the work waits for the queue to be open."""

    def drain(self) -> None:
        """Take no more jobs."""

    async def stop(self, timeout_s: float) -> bool:
        """Take no more jobs; within about ``timeout_s`` return whether all jobs ended in time."""

    def hurry(self, timeout_s: float) -> None:
        """Limit the remaining wait of a ``stop`` under way."""


class Session:
    """One queue's. ``Queue`` documents what each of these methods promises."""

    def __init__(
        self,
        context: QueueContext,
        owning_loop: OwningLoop,
        listeners: Listeners,
        missed_ends: MissedEnds,
    ) -> None:
        self._context = context
        self._missed_ends = missed_ends
        self._listeners = listeners
        self._work: Work | None = None  # None: the queue has no handler
        self._is_open = False
        self._is_closing = False
        self._is_closed = False
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._on_message: dict[str, Callable[[bytes], None]] = {}  # by channel
        self._on_confirmed: dict[str, Callable[[], None]] = {}  # by channel
        self._subscriber = Subscriber(
            context.connector,
            on_message=self._message,
            on_subscribed=self._subscribed,
            on_error=context.report_error,
            duties=context.duties,
        )
        self.own_events = OwnEvents(
            context.pipeline,
            context.keys,
            deliver=context.event_hub.receive,
            is_known=context.event_hub.is_known,
            has_ended=lambda job_id: context.event_hub.heard(job_id) is not None,
            spawn=functools.partial(owning_loop.spawn, name=f"beeq check of events of {context.name}"),
            on_lost=missed_ends.look,
            report_error=context.report_error,
        )
        self._hears_events = False
        self._has_heard_events = False  # perhaps before a connection was lost
        self._is_activating = False
        self._parts = ("queue", "mirrored") if context.settings.mirrored else ("queue",)
        self._lacks: set[str] = set()  # missing rights that were reported
        self._stall_check = StallCheck(context)
        self._is_checking = False
        self.owning_loop = owning_loop
        #: Whether the queue may connect by itself.
        self.may_connect = context.settings.auto_connect
        #: None: this process does not activate delayed jobs.
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
    def is_over(self) -> bool:
        """Whether the queue is closed: its parts no longer work."""
        return self._is_closed

    @property
    def is_ready(self) -> bool:
        """Whether the queue is connected."""
        return self._is_open

    def is_hearing_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether the queue is open in ``loop`` and subscribed to events, so that saves can start."""
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
            opening = self._opening = asyncio.get_running_loop().create_task(self._open(), context=Context())
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
            opening.exception()  # the callers get it; asyncio must not log it if there are none
        if not (self._is_open or self._on_message or (self._work is not None and self._work.has_begun)):
            self.owning_loop.leave()  # the next try may be in another loop

    async def _open(self) -> None:
        context = self._context
        self.own_events.opened_in(*context.connector.place)
        await context.pipeline.connect()
        if context.settings.ensure_scripts:
            loads = (context.pipeline.call("SCRIPT", "LOAD", s.source, repeatable=True) for s in ALL)
            await asyncio.gather(*loads)
        await self._look_at_rights(*self._parts)
        # A queue that only works does not need the events of its own jobs.
        if self._work is None or self._listeners.want_job_events():
            await self.hear_events()
        if self.activator is not None:
            if not self._is_activating:
                self._is_activating = True
                context.duties.start("delayed activator", self.activator.run)
            await self.subscribe(context.keys.earlier_delayed, self.activator.heard, self.activator.look)
        self._is_open = True
        asyncio.get_running_loop().call_soon(context.emit, "ready")

    async def look_at_workers_rights(self) -> None:
        """Report the rights that a worker needs and the Redis user lacks. Raises RedisUnavailable."""
        await self._look_at_rights("worker", beyond=self._parts)

    async def _look_at_rights(self, *parts: str, beyond: tuple[str, ...] = ()) -> None:
        context = self._context
        if not context.connector.names_user:
            return  # the default user may do everything, as a rule; a refusal says what it needs
        lack = await lack_of_rights(context.pipeline, context.keys, *parts, beyond=beyond)
        if lack is not None and str(lack) not in self._lacks:
            self._lacks.add(str(lack))
            context.report_error(lack)

    # Events.

    async def hear_events(self) -> None:
        """Subscribe to job events; done once, before the first job of this process is saved."""
        if self._hears_events or not self._context.settings.get_events:
            return
        await self.subscribe(self._context.keys.events, self.own_events.hear, self._events_confirmed)
        self._hears_events = True

    def listened_to(self, event: str) -> None:
        """Subscribe to job events if a listener to ``event`` needs them; else ``connect`` does it."""
        if self._is_closed:
            return  # ``connect`` opens another session, which takes the listeners over
        self.owning_loop.refuse_elsewhere()
        if event.startswith("job ") and self._is_open:
            self.owning_loop.spawn(self._hear_events_later())

    async def _hear_events_later(self) -> None:
        try:
            await self.hear_events()
        except RedisError as error:
            self._context.report_error(error)

    async def subscribe(
        self,
        channel: str,
        on_message: Callable[[bytes], None],
        on_confirmed: Callable[[], None] | None = None,
    ) -> None:
        """Call ``on_message`` with each message of ``channel``; return when Redis has confirmed that.

        ``on_confirmed`` is called each time Redis does: messages before that may have been lost.
        Raises what ``Subscriber.add`` raises.
        """
        self._on_message[channel] = on_message
        if on_confirmed is not None:
            self._on_confirmed[channel] = on_confirmed
        await self._subscriber.add(channel, timeout_ms=self._context.settings.redis_timeout)

    def _message(self, channel: str, message: bytes) -> None:
        self._on_message[channel](message)

    def _subscribed(self, channel: str) -> None:
        if channel in self._on_confirmed:
            self._on_confirmed[channel]()

    def _events_confirmed(self) -> None:
        self.own_events.doubt()
        if self._has_heard_events:
            self._missed_ends.look()
        self._has_heard_events = True

    async def check_stalled_jobs(self, interval_ms: int | None) -> int:
        """Check now; with an interval, repeat until ``close``, one repetition for each queue."""
        await self.ensure()
        try:
            return await self._stall_check.once()
        finally:
            if interval_ms is not None and not (self._is_checking or self._is_closing):
                self._is_checking = True
                check_again = functools.partial(self._check_again, interval_ms / 1000)
                self._context.duties.start("repeated stall check", check_again)

    async def _check_again(self, interval_s: float, duty: Duty) -> None:
        await duty.rest(interval_s)
        await self._stall_check.repeat(duty, lambda: interval_s)

    # Closing.

    async def close(self, timeout_ms: int) -> None:
        """Close the queue. Raises TimeoutError if some jobs did not end in time, and went back to it."""
        closing = self._begin_closing(timeout_ms)
        with self.owning_loop.sparing_listener():
            await asyncio.shield(closing)

    def _begin_closing(self, timeout_ms: int) -> asyncio.Task[None]:
        """Return what closes; it may be under way, and is hurried then."""
        if not self._is_closed:
            self.owning_loop.enter()
        if self._closing is None:
            self._is_closing = True
            if self._work is not None:
                self._work.drain()  # now: a job that sees the queue closing may end before the next turn
            self._closing = asyncio.get_running_loop().create_task(self._close(timeout_ms), context=Context())
        elif self._work is not None:
            self._work.hurry(timeout_ms / 1000)
        return self._closing

    async def leave(self, error: BaseException | None) -> None:
        """Close at the end of a block; if ``error`` ended the block, errors of the close are logged.

        If the block was cancelled, or this is, running jobs go back at once, and CancelledError is raised
        after it.
        """
        ending = Ending()
        with self.owning_loop.sparing_listener():
            closing = self._begin_closing(AT_ONCE_MS if isinstance(error, _CANCELS) else CLOSE_TIMEOUT_MS)
            await ending.cut_short(asyncio.wait([closing]))
            if ending.is_cancelled:
                self._begin_closing(AT_ONCE_MS)  # hurries it
                await ending.step(CLOSE_GRACE_S, lambda: [ended([closing])])
        ending.over()
        if error is None:
            closing.result()
        elif not closing.cancelled() and (failure := closing.exception()) is not None:
            what = f"was left by {kind_of(error)}, and did not close well"
            log_event(logging.WARNING, what, queue=self._context.name, error=failure)

    async def leave_unopened(self, error: BaseException) -> None:
        """Close after ``error`` kept a block from being entered, if work has begun, or may begin soon."""
        if isinstance(error, _CANCELS) or (self._work is not None and self._work.has_begun):
            await self.leave(error)

    async def until_closed(self) -> None:
        """Wait for a ``close`` under way, if there is one; raise what that raises."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self, timeout_ms: int) -> None:
        try:
            is_drained = self._work is None or await self._work.stop(timeout_ms / 1000)
            await self._receive_last_ends()
        finally:
            self._is_closed = True
            await self._hang_up()
        if not is_drained:
            raise TimeoutError("Operation timed out.")

    async def _receive_last_ends(self) -> None:
        """Receive what was published so far: ends of jobs that ran here until just now."""
        is_wanted = self._context.event_hub.is_awaited or self._listeners.want_job_events()
        if self._work is None or not (self._hears_events and is_wanted):
            return
        try:
            async with asyncio.timeout(TELL_S):
                await self._subscriber.catch_up()
                await self.own_events.settled()
        except (TimeoutError, RedisError):
            pass  # waiting callers will get QueueClosed

    async def _hang_up(self) -> None:
        self._context.event_hub.close()
        owned = (*self.owning_loop.end_spawning(), self._opening)
        tasks = [task for task in owned if task is not None]
        for task in tasks:
            task.cancel()
        context = self._context
        hanging_up = (context.duties, self._subscriber, context.probe, context.pipeline)
        ending = Ending()
        await ending.step(HANG_UP_S, lambda: [ended(tasks), *(part.close() for part in hanging_up)])
        closes_client = bool(context.settings.quit_command_client)
        await ending.step(LEAVE_S, lambda: [context.connector.close(close_client=closes_client)])
        ending.over()
