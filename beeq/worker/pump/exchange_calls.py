"""The calls of ``lua/exchange.lua`` in flight: sends them, and reports the end of each to the scheduler.

A call ends once: by its reply, by a failure, or because it was given up. A defect on the way ends it like a
lost reply; otherwise its outcomes and places would wait for a reply for ever.
"""

import asyncio
import functools
from collections.abc import Callable
from contextvars import Context
from typing import Any

from beeq.client.context import QueueContext
from beeq.errors import RedisError, RedisUnavailable, kind_of
from beeq.redis.connection import Connection, meant_by
from beeq.redis.retry_delay import RetryDelay
from beeq.supervision.duty import Duty
from beeq.worker.pump.exchange_packer import ExchangePacker
from beeq.worker.pump.recovery import failure_of
from beeq.worker.scheduling import actions
from beeq.worker.scheduling.scheduler import Scheduler

#: The number of parts of a reply; one that counts the running jobs has one more.
_PARTS = 5


class ExchangeCalls:
    """The calls of one pump.

    Args:
        context: of the queue; failures of Redis are reported there.
        scheduler: notified of the calls' ends.
        connection: one for all calls, so that they are executed and answered in order.
        retry_delay: reset when a call has worked.
        carry_out: carries out the scheduler's decisions.
        on_defect: called with a defect.
        on_ahead: called when a reply says that jobs are claimed ahead, by this worker or another one.
        on_claimed_ahead: called before jobs of a reply start that claimed some ahead.
    """

    def __init__(
        self,
        context: QueueContext,
        *,
        scheduler: Scheduler,
        connection: Connection,
        retry_delay: RetryDelay,
        carry_out: Callable[[actions.Actions], object],
        on_defect: Callable[[Exception], object],
        on_ahead: Callable[[], object],
        on_claimed_ahead: Callable[[], object],
    ) -> None:
        self._scheduler = scheduler
        self._connection = connection
        self._retry_delay = retry_delay
        self._carry_out = carry_out
        self._on_defect = on_defect
        self._on_ahead = on_ahead
        self._on_claimed_ahead = on_claimed_ahead
        self._on_error = context.report_error
        self._loop = asyncio.get_running_loop()
        self._packer = ExchangePacker(context.keys, context.settings)
        self._calls: dict[bytes, actions.ExchangeCall] = {}  # in flight, by their tokens
        self._later_s = context.settings.initial_redis_failure_retry_delay / 1000
        self._later: asyncio.TimerHandle | None = None
        #: The duty that makes progress with each reply.
        self.duty: Duty | None = None

    def send(self, call: actions.ExchangeCall) -> None:
        """Send a call."""
        try:
            packed = self._packer.packed(call)
            self._calls[call.token] = call
            self._connection.ask((packed,), functools.partial(self._answered, call))
        except Exception as defect:  # noqa: BLE001 - it is reported
            self._on_defect(defect)
            self._calls.pop(call.token, None)
            in_flight = self._scheduler.calls_in_flight
            self._hold(call, f"a call was not sent: {kind_of(defect)}", in_flight=in_flight)

    def retry_later(self, _action: actions.RetryLater) -> None:
        """Have the scheduler send a refused outcome again after a while."""
        self._later = self._loop.call_later(
            self._later_s, lambda: self._carry_out(self._scheduler.retry_lonely()), context=Context()
        )

    def give_up(self, why: str) -> None:
        """Stop waiting for replies."""
        for call in list(self._calls.values()):
            self._answered(call, [], RedisUnavailable(why))

    def claims(self) -> set[bytes]:
        """Return the claims of the jobs whose outcomes are on the way."""
        return {each.claim for call in self._calls.values() for each in call.outcomes}

    def close(self) -> None:
        """Cancel later sends."""
        if self._later is not None:
            self._later.cancel()

    def _answered(self, call: actions.ExchangeCall, replies: list[Any], error: RedisError | None) -> None:
        if self._calls.pop(call.token, None) is None:
            return  # it was given up
        scheduler = self._scheduler
        reply: Any = replies[0] if error is None and replies else error
        if isinstance(reply, RedisError):
            failure = failure_of(reply)
            if failure is not actions.Failure.SCRIPT_MISSING:  # which is loaded without a report
                self._on_error(meant_by(reply))
            self._carry_out(scheduler.failed(call, failure, reply))
            return
        if self._retry_delay.has_grown and scheduler.is_ready:
            self._retry_delay.reset()
        in_flight = scheduler.calls_in_flight
        try:
            if len(reply) > _PARTS:
                self._packer.counted(reply.pop())
            parts = actions.ExchangeReply(*reply)
            if parts.flags & actions.ARE_AHEAD:
                self._on_ahead()
            due = scheduler.replied(call, parts)
            if parts.ahead:
                self._on_claimed_ahead()
        except Exception as defect:  # noqa: BLE001 - it is reported
            self._on_defect(defect)
            self._hold(call, f"a reply could not be taken: {kind_of(defect)}", in_flight=in_flight)
            return
        if self.duty is not None:
            self.duty.progressed()
        self._carry_out(due)

    def _hold(self, call: actions.ExchangeCall, why: str, *, in_flight: int) -> None:
        """Have a call's outcomes sent again, and its claims looked for, once.

        ``in_flight``: how many calls there were, this one included. A defect may have come after its removal.
        """
        scheduler = self._scheduler
        scheduler.calls_in_flight = max(scheduler.calls_in_flight, in_flight)
        self._carry_out(scheduler.failed(call, actions.Failure.REPLY_LOST, RedisUnavailable(why)))
