"""The stall check: jobs whose worker gives no sign of life go back to the queue.

The rules are in protocol/README.md, "Stall check".
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from beeq.client.context import QueueContext
from beeq.errors import RedisError
from beeq.logs.records import log_job, logs_all
from beeq.redis import scripts
from beeq.supervision.duty import Duty

T = TypeVar("T")

#: What one script call looks at: some milliseconds' worth.
_REQUEUE_AT_ONCE = 250
_MARK_AT_ONCE = 1000
_SWEEP_AT_ONCE = 300
#: The gate is held for a stall interval from each call of a check, and at least so long: a check needs
#: several calls, each before the gate opens.
_SHORTEST_LEASE_MS = 1000
#: A reply is late if it took half an interval, and at least so long.
_LATE_S = 0.25
#: The part of a stall interval that a check may spend on sweeping, and for how long its cursors are kept.
_SWEEPING = 0.05
_CURSORS_LIFETIME_MS = 3_600_000


class StallCheck:
    """Checks one queue.

    A check first requeues the jobs that the previous check marked and that gave no sign of life since; then
    it marks every active job. All peers of a queue make one check between them in a stall interval: a check
    holds the gate by a token, renews it with each call, and stops where the token is gone. Otherwise a check
    that took longer than the interval would take another one's fresh marks for silent jobs.
    """

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        #: Called during a long check, as a sign of life; None: a caller waits for the check.
        self._duty: Duty | None = None
        self._interval_ms = context.settings.stall_interval
        self._lease_ms = max(self._interval_ms, _SHORTEST_LEASE_MS)
        self._were_void = False

    async def once(self) -> int:
        """Check now, and emit ``stalled`` for each job that goes back to the queue; return how many did.

        Raises RedisError if the check was not made, or not completed. The next one makes up for it.
        """
        token = secrets.token_hex(8)
        asked_at = asyncio.get_running_loop().time()
        entries = await self._in_turn(
            scripts.begin_stall_check(
                self._context.pipeline, self._context.keys, token=token, lease_ms=self._lease_ms
            )
        )
        if entries < 0:
            return 0
        requeued = 0 if self._are_marks_void(asked_at) else await self._requeue(token, entries)
        if await self._mark(token):
            await self._sweep()
        return requeued

    def _are_marks_void(self, asked_at: float) -> bool:
        """Return whether Redis was away since the marks were made, or hung since ``asked_at``.

        Then living workers could not send heartbeats, or are not back yet: the check makes the marks again.
        Not in two consecutive checks, or a bad network would keep every orphan for ever.
        """
        now, interval_s = asyncio.get_running_loop().time(), self._interval_ms / 1000
        was_away = now - self._context.pipeline.again_at < interval_s
        stood_still = now - asked_at > max(interval_s / 2, _LATE_S)
        self._were_void = (was_away or stood_still) and not self._were_void
        return self._were_void

    async def _requeue(self, token: str, left: int) -> int:
        """Queue silent jobs among ``left`` entries of ``active`` again; return how many."""
        pipeline, keys = self._context.pipeline, self._context.keys
        requeued = 0
        while left > 0:
            holds, seen, ids = await self._in_turn(
                scripts.requeue_stalled(
                    pipeline,
                    keys,
                    token=token,
                    lease_ms=self._lease_ms,
                    limit=min(left, _REQUEUE_AT_ONCE),
                    outbox_limit=self._context.settings.outbox_limit,
                )
            )
            for job_id in ids:  # now: a later call may fail
                if self._context.telemetry.tally is not None:
                    self._context.telemetry.tally.stalled()
                text = job_id.decode(errors="replace")
                if not self._context.emit("stalled", text) or logs_all():
                    what = "was lost by its worker, and is queued again"
                    log_job(logging.WARNING, what, self._context.name, text)
            requeued += len(ids)
            self._took_turn()
            left = left - seen if holds and seen else 0
        return requeued

    async def _mark(self, token: str) -> bool:
        """Mark every active job; return whether this check held the gate to the end."""
        position = 0
        while position >= 0:
            position = await self._in_turn(
                scripts.mark_stalling(
                    self._context.pipeline,
                    self._context.keys,
                    token=token,
                    lease_ms=self._lease_ms,
                    interval_ms=self._interval_ms,
                    start=position,
                    limit=_MARK_AT_ONCE,
                )
            )
            self._took_turn()
        return bool(position == -1)

    async def _sweep(self) -> None:
        """Drop entries of beeq's side keys that Node peers have left behind, within this check's time."""
        now_s = asyncio.get_running_loop().time
        ends_s = now_s() + self._interval_ms / 1000 * _SWEEPING
        while (
            await self._in_turn(
                scripts.sweep(
                    self._context.pipeline,
                    self._context.keys,
                    count=_SWEEP_AT_ONCE,
                    lifetime_ms=_CURSORS_LIFETIME_MS,
                )
            )
            and now_s() < ends_s
        ):
            self._took_turn()

    def _took_turn(self) -> None:
        if self._duty is not None:
            self._duty.turn()

    async def _in_turn(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call of the queue's pipeline, where saves may go before it."""
        if self._duty is None:
            return await call
        pipeline, bound_s = self._context.pipeline, self._context.settings.redis_timeout / 1000
        return await self._duty.in_turn(call, sent=lambda: pipeline.batches_sent, bound_s=bound_s)

    async def repeat(self, duty: Duty, rest_s: Callable[[], float]) -> None:
        """Check repeatedly, ``rest_s()`` seconds apart; report failures."""
        self._duty = duty
        while True:
            try:
                await self.once()
            except RedisError as error:
                self._context.report_error(error)
            await duty.rest(rest_s())
