"""Moves due delayed jobs to ``waiting``, in any process of the queue, worker or not.

The rules are in protocol/README.md, "Delayed jobs".

Follows Redis's clock. Looks at the start, after every reconnection, at an ``earlierDelayed`` message,
after an error, and now and then in any case.
"""

import asyncio
import re
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from beeq.client.context import QueueContext
from beeq.errors import RedisError, RedisRefused
from beeq.maintenance.eager_timer import EagerTimer
from beeq.maintenance.pause_watch import PauseKeeper
from beeq.redis import scripts
from beeq.redis.retry_delay import RetryDelay
from beeq.supervision.duty import Duty

T = TypeVar("T")

#: Jobs raised in one script call: a long one would block every client.
_RAISE_AT_ONCE = 1000
#: A lost message costs no more than this.
_LONGEST_SLEEP_MS = 15_000
#: A due time as a message has it: JavaScript writes a fraction, and large numbers with an exponent.
_DUE_TIME = re.compile(rb"[0-9]{1,400}(?:\.[0-9]{1,400})?(?:e\+?[0-9]{1,3})?")


class DelayedActivator:
    """One queue's delayed jobs. ``run`` is the duty; ``once`` is one look.

    Emits ``raised jobs`` with their number. A failure is reported, and the activator goes on.
    """

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._pause_keeper = PauseKeeper(context)
        self._timer = EagerTimer(min(context.settings.near_term_window, _LONGEST_SLEEP_MS))
        self._retry_delay = RetryDelay(100, 5000, news=lambda: context.connector.switches)
        self._offset_ms = int(time.time() * 1000) - _monotonic_ms()  # until Redis's clock is known
        self._poked = asyncio.Event()
        self._is_due = True
        #: Called during a long look, as a sign of life.
        self._duty: Duty | None = None

    def schedule(self, due_ms: float) -> None:
        """Look at this due time at the latest."""
        if self._timer.schedule(due_ms, now_ms=self._now_ms()):
            self._is_due = True
        self._poked.set()

    def heard(self, message: bytes) -> None:
        """Take a message of the ``earlierDelayed`` channel: a due time in ms; others are ignored."""
        if _DUE_TIME.fullmatch(message):
            self.schedule(float(message))

    def look(self) -> None:
        """Look now: a message may have been lost."""
        self._is_due = True
        self._poked.set()

    async def run(self, duty: Duty) -> None:
        """Look whenever there may be something to raise, until cancelled."""
        self._is_due = True  # an earlier run may have ended between a look and its result
        self._duty = duty
        while True:
            self._poked.clear()
            if not (self._is_due or self._timer.fire(now_ms=self._now_ms())):
                await self._rest(duty)
                continue
            self._is_due = False
            try:
                await self.once()
                self._retry_delay.reset()
            except RedisError as error:
                self._context.report_error(error)
                self._is_due = True
                duty.rests(self._retry_delay.next_ms / 1000)
                await self._retry_delay.wait()

    async def _rest(self, duty: Duty) -> None:
        """Wait for the deadline or a message, in steps short enough for the watchdog."""
        deadline_ms = self._timer.deadline_ms
        wait_ms = _LONGEST_SLEEP_MS if deadline_ms is None else deadline_ms - self._now_ms()
        duty.turn()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(max(0, wait_ms) / 1000, duty.patience_s / 2)):
                await self._poked.wait()

    async def once(self) -> int:
        """Raise what is due now; return how many jobs. Raises RedisError if Redis did not do it."""
        context = self._context
        total = 0
        raised: int
        while True:
            raised, next_due, now, is_any_hidden = await self._in_turn(
                scripts.raise_delayed(
                    context.pipeline,
                    context.keys,
                    debounce_ms=context.settings.delayed_debounce,
                    limit=_RAISE_AT_ONCE,
                )
            )
            total += raised
            if is_any_hidden:  # by a pause that may be over, with no worker alive to bring the jobs back
                await self._settle_pause()
            self._offset_ms = int(now) - _monotonic_ms()
            if not self._timer.schedule(int(next_due), now_ms=int(now)):
                break
        if total:
            context.emit("raised jobs", total)
        return total

    async def _settle_pause(self) -> None:
        """Bring hidden jobs back after a pause; a missing right there keeps no job from being raised."""
        try:
            await self._in_turn(self._pause_keeper.settle())
        except RedisRefused as refused:
            self._context.report_error(refused)

    async def _in_turn(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call over the queue's pipeline, where saves may go first."""
        if self._duty is None:
            return await call
        pipeline, bound_s = self._context.pipeline, self._context.settings.redis_timeout / 1000
        reply = await self._duty.in_turn(call, sent=lambda: pipeline.batches_sent, bound_s=bound_s)
        self._duty.turn()
        return reply

    def _now_ms(self) -> int:
        """Redis's clock, as far as is known."""
        return _monotonic_ms() + self._offset_ms


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
