"""The pump: the shell around the scheduler. It talks to Redis, and decides nothing.

Each exchange call (``lua/exchange.lua``) takes outcomes to Redis and brings as many jobs as there are free
places. Outcomes gather while a call is in flight, so calls grow with the load: at concurrency 1 a job costs
one round trip, at 100 a fraction of one. Only when the queue is empty does a further connection block in
BLMOVE (``blocking_fetch.py``), so that an idle worker starts a job as soon as a producer has pushed it.

Every event goes to the scheduler (``scheduler.py``), which returns actions. The pump carries them out in that
order. Actions that take time go to ``run``, which does one at a time.
"""

import asyncio
import functools
import secrets
from collections.abc import Callable
from typing import Any, Protocol

from beeq.client.context import QueueContext
from beeq.errors import RedisError
from beeq.protocol.outcome import Outcome
from beeq.redis.connection import Connection, meant_by
from beeq.redis.retry_delay import RetryDelay
from beeq.worker import actions
from beeq.worker.blocking_fetch import BlockingFetch
from beeq.worker.claims import ClaimedJob
from beeq.worker.exchange import ExchangePacker
from beeq.worker.recovery import Recovery, failure_of
from beeq.worker.scheduler import Scheduler


class PumpListener(Protocol):
    """Hears what comes of the jobs of a pump; ``Worker`` is one."""

    def start_job(self, claimed_job: ClaimedJob, claim_known: asyncio.Future[None] | None) -> None:
        """Start the job; it must lead to one ``outcome_ready`` or ``give_back``.

        If Redis has not granted its claim yet, there is a future, which is done once that is known.
        """

    def stop_job(self, claim: bytes) -> None:
        """Stop the job that was started early by this claim: Redis has not granted it."""

    def recorded(self, outcomes: list[Outcome]) -> None:
        """Redis has recorded these outcomes."""

    def lost(self, outcomes: list[Outcome]) -> None:
        """These jobs had another owner by then, and Redis has dropped the outcomes."""

    def found_empty(self) -> None:
        """The queue was found empty while nothing runs here."""


class Pump:
    """Keeps up to ``concurrency`` jobs claimed, and records how they end.

    A failure of Redis is reported; the pump waits a little and goes on.
    """

    def __init__(self, context: QueueContext, *, concurrency: int, listener: PumpListener) -> None:
        settings = context.settings
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._on_error = context.report_error
        #: Read only, for others: the pump alone tells it events.
        self.scheduler = Scheduler(
            concurrency=concurrency,
            token_prefix=secrets.token_hex(8).encode(),
            is_connected=lambda: self._connection.is_connected,
        )
        #: One connection for all calls: they are executed, and answered, in the order they were made.
        self._connection = Connection(context.connector, timeout_ms=settings.redis_timeout)
        self._packer = ExchangePacker(context.keys, settings)
        self._retry_delay = RetryDelay(settings.initial_redis_failure_retry_delay)
        self._recovery = Recovery(self._connection, context.keys, outbox_limit=settings.outbox_limit)
        self.fetch = BlockingFetch(context, beside=self._connection, listener=self)
        self._claim_known: asyncio.Future[None] | None = None  # of the job that was started early
        #: What ``run`` carries out, or raises.
        self._awaited: asyncio.Queue[actions.AwaitedAction | Exception] = asyncio.Queue()
        self._performers: dict[type[Any], Callable[[Any], object]] = {
            actions.ExchangeCall: self._send,
            actions.Start: self._start,
            actions.StartEarly: self._start_early,
            actions.ClaimKnown: self._end_claim_known,
            actions.StopHandler: lambda action: listener.stop_job(action.claim),
            actions.Recorded: lambda action: listener.recorded(action.outcomes),
            actions.Lost: lambda action: listener.lost(action.outcomes),
            actions.Fetch: lambda _action: self.fetch.start(),
            actions.Idle: lambda _action: listener.found_empty(),
            actions.DecideSoon: lambda _action: self._loop.call_soon(self._decide),
            **dict.fromkeys(actions.AWAITED_ACTIONS, self._awaited.put_nowait),
        }

    # What the worker says.

    def outcome_ready(self, raw_id: bytes, claim: bytes, outcome: Outcome) -> None:
        """Take the outcome of a claimed job; a later call sends it to Redis."""
        self._carry_out(self.scheduler.outcome_ready(raw_id, claim, outcome))

    def give_back(self, claims: list[tuple[bytes, bytes]]) -> None:
        """Give claimed jobs back to the front of the queue; the first runs first."""
        self._carry_out(self.scheduler.give_back(claims))

    def drain(self) -> None:
        """Claim nothing more; outcomes are still recorded."""
        self._carry_out(self.scheduler.drain())

    def burst(self) -> None:
        """Block for no further job from now on: ``found_empty`` then means that nothing is left."""
        self._carry_out(self.scheduler.burst())

    def look(self) -> None:
        """Ask the queue again: it may have been filled."""
        self._carry_out(self.scheduler.look())

    # What the blocking fetch says.

    def fetched(self, raw_id: bytes, record: bytes) -> None:
        """Have the job claimed that it has moved into ``active``."""
        self._carry_out(self.scheduler.fetched(raw_id, record))

    def fetch_rests(self) -> None:
        """Let calls ask for jobs meanwhile."""
        self._carry_out(self.scheduler.fetch_rests())

    def fetch_ended(self) -> None:
        """Fetch again, or do what is due instead."""
        self._carry_out(self.scheduler.fetch_ended())

    # Actions.

    def _carry_out(self, due: actions.Actions) -> None:
        try:
            for action in due:
                self._performers[type(action)](action)
        except Exception as defect:  # noqa: BLE001 - ``run`` raises it
            self._awaited.put_nowait(defect)

    def _decide(self) -> None:
        self._carry_out(self.scheduler.decide())

    def _send(self, call: actions.ExchangeCall) -> None:
        self._connection.ask((self._packer.packed(call),), functools.partial(self._answered, call))

    def _answered(self, call: actions.ExchangeCall, replies: list[Any], error: RedisError | None) -> None:
        reply = replies[0] if error is None else error
        if isinstance(reply, RedisError):
            failure = failure_of(reply)
            if failure is not actions.Failure.SCRIPT_MISSING:  # which is loaded without a word
                self._on_error(meant_by(reply))
            self._carry_out(self.scheduler.failed(call, failure))
            return
        if self.scheduler.is_ready:
            self._retry_delay.reset()
        self._carry_out(self.scheduler.replied(call, *reply))

    def _start(self, action: actions.Start) -> None:
        for job in action.jobs:
            self._listener.start_job(job, None)

    def _start_early(self, action: actions.StartEarly) -> None:
        self._claim_known = self._loop.create_future()
        self._listener.start_job(action.job, self._claim_known)

    def _end_claim_known(self, _action: actions.ClaimKnown) -> None:
        if self._claim_known is not None and not self._claim_known.done():
            self._claim_known.set_result(None)

    # Actions that take time.

    async def run(self) -> None:
        """Work until ``drain`` was called and everything claimed has been recorded.

        Raises a defect as it is, never a failure of Redis.
        """
        self._decide()
        try:
            while not isinstance(action := await self._awaited.get(), actions.Done):
                if isinstance(action, Exception):
                    raise action
                self._carry_out(await self._await(action))
        finally:
            self.scheduler.end()

    async def _await(self, action: actions.AwaitedAction) -> actions.Actions:
        match action:
            case actions.Recover():
                return await self._recover(action)
            case actions.GiveBack():
                return await self._give_back(action)
            case _:  # StopFetch: Done ends the loop before
                await self.fetch.stop(self._connection)
                return self.scheduler.fetch_stopped()

    async def _recover(self, action: actions.Recover) -> actions.Actions:
        if action.needs_rest:
            await self._retry_delay.wait(self.scheduler.is_stopping)
        try:
            found, record = await self._recovery.run(action)
        except RedisError as error:
            self._on_error(error)
            return self.scheduler.recovery_failed()
        return self.scheduler.recovered(action, found, record)

    async def _give_back(self, action: actions.GiveBack) -> actions.Actions:
        try:
            await self._recovery.give_back(action)
        except RedisError as error:
            self._on_error(error)
            await self._retry_delay.wait(self.scheduler.is_stopping)
            return self.scheduler.give_back_failed(action)
        self._retry_delay.reset()
        return self.scheduler.given_back(action)

    async def close(self) -> None:
        """Close the connections; ``run`` has ended."""
        self.scheduler.end()
        await self.fetch.close()
        await self._connection.close()
