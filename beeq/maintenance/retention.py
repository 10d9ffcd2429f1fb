"""Drops ended jobs that a queue's workers need not keep: by age, by number, in small steps.

The settings ``keep_succeeded`` and ``keep_failed`` say which jobs stay. The rules are in protocol/README.md,
"Retention".
"""

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from beeq.client.context import QueueContext
from beeq.errors import RedisError
from beeq.redis import scripts
from beeq.settings import Keep
from beeq.supervision.duty import Duty
from beeq.supervision.supervised_task import SupervisedTask

T = TypeVar("T")

#: A look is made once in so many stall intervals, and at least once in so long.
_STALL_INTERVALS = 2
_LONGEST_INTERVAL_S = 60.0
#: The part of an interval that a look may take; the next one goes on.
_LOOKING = 0.8
#: The time that the look at the end of a burst may take.
_LAST_LOOK_S = 2.0
#: What one script call drops, notes, or sweeps: a millisecond's worth or two.
_DROP_AT_ONCE = 100
_DROP_BYTES = 500_000
_NOTE_AT_ONCE = 150
_SWEEP_AT_ONCE = 250
#: Pages that one look goes through, even if every job seems to have its note.
_NOTE_PAGES = 30
_SWEEP_PAGES = 4
#: How long notes outlive the last look, beyond the age that they are for.
_NOTES_MS = 30 * 24 * 3_600_000


class Retention:
    """One queue's. ``repeat`` is the duty of a worker, ``once`` a look, ``last_look`` that of a burst."""

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._pipeline, self._keys = context.pipeline, context.keys
        settings = context.settings
        wanted = {"succeeded": settings.keep_succeeded, "failed": settings.keep_failed}
        self._kept: dict[str, Keep] = {
            state: keep for state, keep in wanted.items() if keep is not None and not keep.is_all
        }
        self._interval_s = min(_STALL_INTERVALS * settings.stall_interval / 1000, _LONGEST_INTERVAL_S)
        #: Called during a long look, as a sign of life; None: a caller waits for the look.
        self._duty: Duty | None = None
        self._cursors: dict[str, bytes] = {}  # state → where among the ended jobs to go on
        self._ranks: dict[tuple[str, str], int] = {}  # state and kind → where among the notes to go on

    def start(self) -> list[SupervisedTask]:
        """Start the duty, if there is anything to drop in time; return it."""
        return [self._context.duties.start("retention", self.repeat)] if self._kept else []

    async def repeat(self, duty: Duty) -> None:
        """Look repeatedly; report failures."""
        self._duty = duty
        now_s = asyncio.get_running_loop().time
        while True:
            next_s = now_s() + self._interval_s * random.uniform(1.0, 1.1)
            try:
                await self.once()
            except RedisError as error:
                self._context.report_error(error)
            await duty.rest(next_s - now_s())

    async def once(self) -> int:
        """Look for jobs to drop, unless another worker that keeps the same just did; return how many went.

        Raises RedisError if the look was not completed. The next one makes up for it.
        """
        if await self._is_turn():
            return await self._look_at_all(self._interval_s * _LOOKING)
        return 0

    async def last_look(self) -> None:
        """Look at the end of a burst, also if another worker just did: there may be none for a while."""
        if self._kept:
            try:
                await self._look_at_all(_LAST_LOOK_S)
            except RedisError as error:
                self._context.report_error(error)
            with suppress(RedisError):  # then the notes have no TTL until the next look
                await self._is_turn()

    async def _is_turn(self) -> bool:
        ages_ms = [keep.age_ms or 0 for keep in self._kept.values()]
        is_turn = await self._in_turn(
            scripts.begin_retention(
                self._pipeline,
                self._keys,
                kept="; ".join(f"{state} {keep}" for state, keep in self._kept.items()),
                interval_ms=round(self._interval_s * 1000),
                notes_ms=max(ages_ms) + _NOTES_MS,
            )
        )
        return bool(is_turn)

    async def _look_at_all(self, bound_s: float) -> int:
        ends_s = asyncio.get_running_loop().time() + bound_s
        dropped = 0
        failure: RedisError | None = None
        for state, keep in self._kept.items():
            try:
                dropped += await self._look(state, keep, ends_s)
            except RedisError as error:  # a key of the wrong type, say: the other state's keys may be fine
                failure = failure or error
        if failure is not None:
            raise failure
        return dropped

    async def _look(self, state: str, keep: Keep, ends_s: float) -> int:
        await self._sweep(state, "own")
        dropped = await self._drop(state, keep, ends_s)
        if not keep.own:
            await self._sweep(state, "seen")
            if await self._note(state, ends_s):
                dropped += await self._drop(state, keep, ends_s)
        return dropped

    async def _drop(self, state: str, keep: Keep, ends_s: float) -> int:
        """Drop the jobs beyond ``keep``; return how many."""
        total, has_more = 0, 1
        while has_more and asyncio.get_running_loop().time() < ends_s:
            dropped, has_more = await self._in_turn(
                scripts.drop_finished(
                    self._pipeline,
                    self._keys,
                    state=state,
                    age_ms="" if keep.age_ms is None else keep.age_ms,
                    count="" if keep.count is None else keep.count,
                    is_own="1" if keep.own else "",
                    limit=_DROP_AT_ONCE,
                    max_bytes=_DROP_BYTES,
                    outbox_limit=self._context.settings.outbox_limit,
                )
            )
            total += dropped
        return total

    async def _note(self, state: str, ends_s: float) -> int:
        """Note when jobs finished by other workers were first seen; return how many."""
        total = pages = 0
        while asyncio.get_running_loop().time() < ends_s:
            cursor, noted, missing = await self._in_turn(
                scripts.note_finished(
                    self._pipeline,
                    self._keys,
                    state=state,
                    cursor=self._cursors.get(state, b"0"),
                    count=_NOTE_AT_ONCE,
                )
            )
            self._cursors[state] = cursor
            total, pages = total + noted, pages + 1
            if cursor == b"0" or (missing <= 0 and pages >= _NOTE_PAGES):
                break
        return total

    async def _sweep(self, state: str, kind: str) -> None:
        """Drop some of the notes of jobs that Node peers have removed or retried."""
        for _ in range(_SWEEP_PAGES):
            self._ranks[state, kind] = await self._in_turn(
                scripts.sweep_finished(
                    self._pipeline,
                    self._keys,
                    state=state,
                    kind=kind,
                    start=self._ranks.get((state, kind), 0),
                    count=_SWEEP_AT_ONCE,
                )
            )
            if not self._ranks[state, kind]:
                break

    async def _in_turn(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Run one step, and rest as long as it took, to leave the server to others."""
        loop, pipeline = asyncio.get_running_loop(), self._pipeline
        began_s = loop.time()
        if self._duty is None:
            return await call
        bound_s = self._context.settings.redis_timeout / 1000
        reply = await self._duty.in_turn(call, sent=lambda: pipeline.batches_sent, bound_s=bound_s)
        self._duty.turn()
        await asyncio.sleep(min(loop.time() - began_s, self._duty.patience_s / 2))
        return reply
