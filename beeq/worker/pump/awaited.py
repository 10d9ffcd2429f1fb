"""Carries out the actions that take time, one after the other: Recover, GiveBack, StopFetch, at last Done.

The scheduler gets the end of each, also of one that was cut off. A defect anywhere in the pump is queued
among them, and raised in its turn: the pump's duty reports it, and restarts.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable

from beeq.client.context import QueueContext
from beeq.errors import RedisError
from beeq.redis.connection import Connection
from beeq.redis.retry_delay import RetryDelay
from beeq.supervision.duty import Duty
from beeq.worker.pump.blocking_fetch import BlockingFetch
from beeq.worker.pump.recovery import Recovery
from beeq.worker.scheduling import actions
from beeq.worker.scheduling.scheduler import Scheduler

#: How often ``settle`` checks whether replies have left nothing to do.
_SETTLE_LOOK_S = 0.02


class AwaitedActions:
    """The awaited actions of one pump.

    Args:
        context: of the queue; failures of Redis are reported there.
        scheduler: notified of the actions' ends.
        connection: that of the calls.
        fetch: which StopFetch stops.
        retry_delay: waited for after a failure.
        carry_out: carries out the scheduler's decisions.
    """

    def __init__(
        self,
        context: QueueContext,
        *,
        scheduler: Scheduler,
        connection: Connection,
        fetch: BlockingFetch,
        retry_delay: RetryDelay,
        carry_out: Callable[[actions.Actions], object],
    ) -> None:
        self._scheduler = scheduler
        self._connection = connection
        self._fetch = fetch
        self._retry_delay = retry_delay
        self._carry_out = carry_out
        self._on_error = context.report_error
        self._recovery = Recovery(connection, context.keys, outbox_limit=context.settings.outbox_limit)
        self._due: asyncio.Queue[actions.AwaitedAction | Exception] = asyncio.Queue()
        #: The claims that a GiveBack under way carries.
        self.giving_back: set[bytes] = set()
        #: Whether everything is done.
        self.are_done = False

    def put(self, action: actions.AwaitedAction | Exception) -> None:
        """Carry out the action, or raise the defect, when those before it have ended."""
        self._due.put_nowait(action)

    async def run(self, duty: Duty) -> None:
        """Carry out actions until ``Done``. Raises a defect as it is, never a failure of Redis."""
        while not await self._perform(await self._next(duty), duty):
            pass

    async def settle(self, duty: Duty) -> None:
        """Carry out actions until nothing is held here and no fetch waits. Raises a defect as it is."""
        scheduler = self._scheduler
        while scheduler.places.taken or scheduler.calls_in_flight or self._fetch.is_under_way:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_LOOK_S):
                    action = await self._due.get()
                if await self._perform(action, duty):
                    return

    async def _next(self, duty: Duty) -> actions.AwaitedAction | Exception:
        while True:
            duty.rests(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(duty.patience_s / 2):
                    return await self._due.get()

    async def _perform(self, action: actions.AwaitedAction | Exception, duty: Duty) -> bool:
        """Carry out one action; return whether it was the last."""
        if isinstance(action, Exception):
            raise action
        if isinstance(action, actions.Done):
            self.are_done = True
            self._scheduler.end()
            return True
        try:
            due = await self._await(action, duty)
        except BaseException:
            self._carry_out(self._cut_off(action))
            raise
        self._carry_out(due)
        return False

    async def _await(self, action: actions.AwaitedAction, duty: Duty) -> actions.Actions:
        match action:
            case actions.Recover():
                return await self._recover(action, duty)
            case actions.GiveBack():
                return await self._give_back(action, duty)
            case _:  # StopFetch: Done ends the loop before
                duty.rests(self._fetch.longest_s)
                await self._fetch.stop(self._connection)
                return self._scheduler.fetch_stopped()

    def _cut_off(self, action: actions.AwaitedAction) -> actions.Actions:
        """Report that ``action`` was not carried out, or not completely."""
        match action:
            case actions.Recover():
                return self._scheduler.recovery_failed()
            case actions.GiveBack():
                return self._scheduler.give_back_failed(action)
            case _:
                return self._scheduler.fetch_stopped()

    async def _recover(self, action: actions.Recover, duty: Duty) -> actions.Actions:
        if action.needs_rest:
            await self._rest(duty)
        try:
            found, record = await self._recovery.run(action, functools.partial(duty.rests, 0))
        except RedisError as error:
            self._on_error(error)
            return self._scheduler.recovery_failed()
        return self._scheduler.recovered(action, found, record)

    async def _give_back(self, action: actions.GiveBack, duty: Duty) -> actions.Actions:
        self.giving_back = {claim for _, claim in action.claims}
        try:
            await self._recovery.give_back(action, functools.partial(duty.rests, 0))
        except RedisError as error:
            self._on_error(error)
            await self._rest(duty)
            return self._scheduler.give_back_failed(action)
        finally:
            self.giving_back = set()
        self._retry_delay.reset()
        return self._scheduler.given_back(action)

    async def _rest(self, duty: Duty) -> None:
        duty.rests(self._retry_delay.next_ms / 1000)
        await self._retry_delay.wait(self._scheduler.is_stopping)
        duty.rests(0)
