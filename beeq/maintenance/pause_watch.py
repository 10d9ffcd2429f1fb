"""Checks each second whether the queue is paused, and moves its waiting jobs accordingly.

A message announces at once that the queue was paused or resumed; a look finds it if the message was lost,
after a failover, and when a pause has ended by itself. What a pause for everyone hides, and when that comes
back:
protocol/README.md, "Pauses".
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from beeq.client.context import QueueContext
from beeq.errors import RedisError, RedisRefused
from beeq.logs.records import log_event
from beeq.protocol.pauses import Pause, decode_pause
from beeq.redis import scripts
from beeq.supervision.duty import Duty

#: Between two looks: a worker that starts, or misses the message, stops taking jobs after at most a second.
_LOOK_S = (0.6, 0.8)
#: Ids that one call moves one by one at most.
_MOVE_AT_ONCE = 1000
#: ``resume`` must be sure of the end of a pause; a worker's looks are repeated anyway.
_END_PAUSE = replace(scripts.apply_pause, awaits_replicas=True)
#: After so many calls since the end of a pause, jobs are taken even if older ones are still hidden:
#: producers may be faster than these calls.
_MOST_CALLS = 50


class PauseKeeper:
    """Applies the pause of one queue, call by call, until all waiting jobs are where they belong."""

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._in_steps = False  # the user may not RENAME

    async def apply(self) -> tuple[Pause | None, bool]:
        """Make one call; return the pause before it, and whether there is more to move. Raises RedisError."""
        raw, has_more = await self._call("")
        return None if raw is None else decode_pause(raw), has_more

    async def _call(self, ends: str | bytes) -> tuple[bytes | None, bool]:
        """Return the text of the pause before the call, and whether there is more to move."""
        pipeline, keys, in_steps = self._context.pipeline, self._context.keys, "1" if self._in_steps else ""
        if ends:
            reply = await _END_PAUSE(pipeline, keys, ends=ends, limit=_MOVE_AT_ONCE, in_steps=in_steps)
        else:
            reply = await scripts.apply_pause(pipeline, keys, ends="", limit=_MOVE_AT_ONCE, in_steps=in_steps)
        raw, left, needs_steps, refusal = reply
        self._in_steps = bool(needs_steps)
        if refusal:
            refused = RedisRefused(refusal.decode(errors="replace"))
            if ends:
                raise refused
            self._context.report_error(refused)
        return raw, left > 0

    async def settle(self, *, ends: bool = False) -> Pause | None:
        """Apply the pause completely; return the pause at the beginning. Raises RedisError.

        With ``ends`` that pause ends once all jobs are back; a pause begun meanwhile stays. This has no
        limit: each call moves more than producers add meanwhile.
        """
        raw, has_more = await self._call("1" if ends else "")
        # The pause may no longer be for everyone.
        that_one = raw.partition(b'"everyone":')[0] if ends and raw else b""
        while has_more:
            _, has_more = await self._call(that_one)
        return None if raw is None else decode_pause(raw)


class PauseWatch:
    """One worker's; ``run`` is the duty.

    ``on_change`` is called with the queue's pause, or None, once that is known, and whenever it has changed.
    """

    def __init__(self, context: QueueContext, *, on_change: Callable[[Pause | None], object]) -> None:
        self._context = context
        self._keeper = PauseKeeper(context)
        self._on_change = on_change
        self._poked = asyncio.Event()
        self._is_known = False
        #: The queue's pause, as far as is known.
        self.pause: Pause | None = None

    def look(self) -> None:
        """Look now: the queue was paused or resumed, or a message of that may have been lost."""
        self._poked.set()

    async def run(self, duty: Duty) -> None:
        """Look repeatedly, until cancelled."""
        while True:
            self._poked.clear()
            try:
                await self._look(duty)
                duty.turn()
            except RedisError as error:
                self._context.report_error(error)
                if isinstance(error, RedisRefused):
                    duty.turn()  # Redis is there
                    if not self._is_known:
                        self._report(None)  # the worker itself reports what else its user may not do
            await self._rest(duty)

    async def _look(self, duty: Duty) -> None:
        pipeline, bound_s = self._context.pipeline, self._context.settings.redis_timeout / 1000
        has_more, calls = True, 0
        while has_more:
            pause, has_more = await duty.in_turn(
                self._keeper.apply(), sent=lambda: pipeline.batches_sent, bound_s=bound_s
            )
            calls = 0 if pause is not None else calls + 1
            # After a pause, the oldest jobs come back before any is taken.
            if pause is not None or not has_more or calls == _MOST_CALLS:
                self._report(pause)

    def _report(self, pause: Pause | None) -> None:
        if self._is_known and pause == self.pause:
            return
        name = self._context.name
        if pause is not None:
            log_event(logging.WARNING, f"paused {pause}", queue=name)
        elif self.pause is not None:
            log_event(logging.WARNING, "the pause is over: jobs are taken again", queue=name)
        self._is_known, self.pause = True, pause
        self._on_change(pause)

    async def _rest(self, duty: Duty) -> None:
        """Wait for the next look, or a message, and give signs of life meanwhile."""
        ends_at_s = time.monotonic() + random.uniform(*_LOOK_S)
        while not self._poked.is_set() and (left_s := ends_at_s - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, duty.patience_s / 2)):
                    await self._poked.wait()
            duty.rests(0)
