"""The pump: the shell around the scheduler. It talks to Redis, and decides nothing.

Each exchange call (``lua/exchange.lua``) takes outcomes to Redis and brings as many jobs as there are free
places, and of short jobs some more (``scheduling/ahead.py``). Outcomes gather while a call is in flight, so
calls grow with the load: a long job costs one round trip, a short one a fraction of one. Only when the queue
is empty does a further connection block in BLMOVE (``blocking_fetch.py``), so that an idle worker starts a
job as soon as a producer has pushed it.

Every event goes to the scheduler (``scheduling/scheduler.py``), which returns actions. The pump has its parts
carry them out, in that order: a table says who does what.
"""

import asyncio
import functools
import secrets
import time
from collections.abc import Callable, Collection
from contextvars import Context
from typing import Any

from beeq.client.context import QueueContext
from beeq.protocol.outcome import Outcome
from beeq.redis.connection import Connection
from beeq.redis.retry_delay import RetryDelay
from beeq.supervision.duty import Duty
from beeq.worker.pump.awaited import AwaitedActions
from beeq.worker.pump.blocking_fetch import BlockingFetch
from beeq.worker.pump.claiming_ahead import ClaimingAhead
from beeq.worker.pump.exchange_calls import ExchangeCalls
from beeq.worker.pump.exchange_packer import ExchangePacker
from beeq.worker.pump.job_starts import JobStarts
from beeq.worker.pump.listener import PumpListener
from beeq.worker.scheduling import actions
from beeq.worker.scheduling.ahead import BEGINS_WITHIN
from beeq.worker.scheduling.scheduler import Scheduler


class Pump:
    """Keeps up to ``concurrency`` jobs running, and records how they end.

    A failure of Redis is reported; the pump waits a little and goes on. ``on_ahead`` is called when a reply
    says that jobs are claimed ahead, by this worker or another one.
    """

    def __init__(
        self,
        context: QueueContext,
        *,
        concurrency: int,
        listener: PumpListener,
        on_ahead: Callable[[], object],
    ) -> None:
        settings = context.settings
        loop = asyncio.get_running_loop()
        #: How many jobs may run at once.
        self.concurrency = concurrency
        self._connection = connection = Connection(context.connector, timeout_ms=settings.redis_timeout)
        #: Read only, for others: only the pump and its parts report events to it.
        self.scheduler = scheduler = Scheduler(
            concurrency=concurrency,
            token_prefix=secrets.token_hex(8).encode(),
            # As a lambda would be, without a call of it: an idle worker's job asks twice.
            is_connected=functools.partial(getattr, connection, "is_connected"),
            clock=time.monotonic,
            begin_within_s=BEGINS_WITHIN * settings.claim_ahead_ms / 1000,
        )
        self._pauses: set[str] = set()  # why no jobs are asked for now
        retry_delay = RetryDelay(
            settings.initial_redis_failure_retry_delay, news=lambda: context.connector.switches
        )
        self.fetch = BlockingFetch(context, beside=connection, listener=self)
        self._awaited = AwaitedActions(
            context,
            scheduler=scheduler,
            connection=connection,
            fetch=self.fetch,
            retry_delay=retry_delay,
            carry_out=self._carry_out,
        )
        self._calls = ExchangeCalls(
            context,
            scheduler=scheduler,
            connection=connection,
            retry_delay=retry_delay,
            carry_out=self._carry_out,
            on_defect=self._awaited.put,
            on_ahead=on_ahead,
            on_claimed_ahead=listener.claimed_ahead,
        )
        self.claiming_ahead = ClaimingAhead(
            context,
            concurrency=concurrency,
            scheduler=scheduler,
            connection=connection,
            carry_out=self._carry_out,
        )
        starts = JobStarts(listener, give_back=self.give_back, on_defect=self._awaited.put)
        #: Who carries out what.
        self._performers: dict[type[Any], Callable[[Any], object]] = {
            actions.ExchangeCall: self._calls.send,
            actions.RetryLater: self._calls.retry_later,
            actions.Start: starts.start,
            actions.StartEarly: starts.start_early,
            actions.ClaimKnown: starts.claim_known,
            actions.NoteBegins: self.claiming_ahead.note_begins,
            actions.CheckAhead: self.claiming_ahead.check_at,
            actions.StopHandler: lambda action: listener.stop_job(action.claim),
            actions.Recorded: lambda action: listener.recorded(action.outcomes),
            actions.Lost: lambda action: listener.lost(action.outcomes),
            actions.Idle: lambda _action: listener.found_empty(),
            actions.Fetch: lambda _action: self.fetch.start(),
            actions.DecideSoon: lambda _action: loop.call_soon(self._turn_ended, context=Context()),
            **dict.fromkeys(actions.AWAITED_ACTIONS, self._awaited.put),
        }

    def _carry_out(self, due: actions.Actions) -> None:
        for action in due:
            try:
                self._performers[type(action)](action)
            except Exception as defect:  # noqa: BLE001 - ``run`` raises it
                self._awaited.put(defect)

    def _turn_ended(self) -> None:
        self._carry_out(self.scheduler.turn_ended())

    # What the worker says of jobs.

    def outcome_ready(self, raw_id: bytes, claim: bytes, outcome: Outcome) -> None:
        """Take the outcome of a claimed job; a later call sends it to Redis."""
        if outcome.status != "succeeded" and not outcome.is_postponed:
            ExchangePacker.note_attempt(outcome)
        due = self.scheduler.outcome_ready(raw_id, claim, outcome)
        if due:
            self._carry_out(due)

    def give_back(self, claims: list[tuple[bytes, bytes]]) -> None:
        """Give claimed jobs back to the front of the queue; the first runs first."""
        self._carry_out(self.scheduler.give_back(claims))

    def claims_lost(self, claims: list[tuple[bytes, bytes]]) -> None:
        """Have the handlers stopped that still run by these claims; a heartbeat found them gone."""
        self._carry_out(self.scheduler.claims_lost(claims))

    def abandon(self, claims: list[tuple[bytes, bytes]]) -> None:
        """Free the places of jobs without a handler, and stop their heartbeats."""
        self._carry_out(self.scheduler.claims_lost(claims))
        self._carry_out(self.scheduler.give_back(claims))

    def drop_ahead(self, claims: Collection[bytes]) -> None:
        """Drop the jobs claimed ahead with these claims: they were cancelled, or have another owner."""
        self.claims_lost(self.scheduler.places.ahead.among(claims))

    def ahead_taken(self, taken: tuple[list[tuple[bytes, bytes]], bool]) -> None:
        """The heartbeat's thread has given these back, which were claimed ahead; or it could not."""
        claims, is_done = taken
        self._carry_out(self.scheduler.ahead_taken(claims, is_done=is_done))

    # What the worker commands.

    def pause(self, why: str, *, is_over: bool) -> None:
        """Ask for no jobs until the pause is over, and every other one; outcomes are still recorded."""
        if is_over:
            self._pauses.discard(why)
        else:
            self._pauses.add(why)
        self._carry_out(self.scheduler.pause(is_over=not self._pauses))

    def drain(self) -> None:
        """Claim nothing more; outcomes are still recorded."""
        self._carry_out(self.scheduler.drain())

    def burst(self) -> None:
        """Block for no further job from now on: ``found_empty`` then means that nothing is left."""
        self._carry_out(self.scheduler.burst())

    def look(self) -> None:
        """Ask the queue again: it may have been filled."""
        self._carry_out(self.scheduler.look())

    def wake(self, reason: BaseException) -> None:
        """Wait no longer for what is under way, for this reason, and ask for jobs."""
        self._connection.leave()
        self._calls.give_up(str(reason))  # those whose end got lost
        if self.fetch.is_under_way:
            self.fetch.abort(reason)
        else:
            self.fetch_ended()
        self.look()

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

    # For who watches the worker.

    @property
    def last_turn_s(self) -> float:
        """When Redis last answered a call or a fetch, by the monotonic clock."""
        duty = self._calls.duty
        return max(0.0 if duty is None else duty.turned_at_s, self.fetch.duty.turned_at_s)

    def claims_away(self) -> set[bytes]:
        """Return the claims of jobs whose outcomes are on the way, or which are being given back."""
        return self._calls.claims() | self._awaited.giving_back

    # From the beginning to the end.

    async def run(self, duty: Duty) -> None:
        """Work until ``drain`` was called and everything claimed has been recorded.

        Raises a defect as it is, never a failure of Redis; may then be called again, and goes on.
        """
        self._calls.duty = duty
        self._carry_out(self.scheduler.decide())
        await self._awaited.run(duty)

    async def settle(self, duty: Duty) -> None:
        """Carry out what is due until nothing is held here and no fetch waits; ``pause`` comes before.

        For the loop's end, where ``run`` was cancelled. Raises a defect as it is.
        """
        await self._awaited.settle(duty)

    def has_ended(self) -> bool:
        """Return whether there is nothing left to do."""
        return self._awaited.are_done

    def end(self) -> None:
        """Answer no event from now on."""
        self.scheduler.end()

    async def close(self) -> None:
        """Close the connections; ``run`` has ended."""
        self.scheduler.end()
        self._calls.close()
        self.claiming_ahead.close()
        await self.fetch.close()
        await self._connection.close()
