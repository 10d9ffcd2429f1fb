"""The pump: the shell around the scheduler. It talks to Redis, and decides nothing.

Each exchange call (``lua/exchange.lua``) takes outcomes to Redis and brings as many jobs as there are free
places, and of short jobs some more (``scheduling/ahead.py``). Outcomes gather while a call is in flight, so
calls grow with the load: a long job costs one round trip, a short one a fraction of one. Only when the queue
is empty does a further connection block in BLMOVE (``blocking_fetch.py``), so that an idle worker starts a
job as soon as a producer has pushed it.

Every event goes to the scheduler (``scheduling/scheduler.py``), which returns actions. The pump carries them
out in that order. Actions that take time go to ``run``, which does one at a time.
"""

import asyncio
import contextlib
import functools
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection
from contextvars import Context
from typing import Any, Protocol

from beeq.client.context import QueueContext
from beeq.errors import RedisError, RedisUnavailable, kind_of
from beeq.protocol.outcome import Outcome
from beeq.redis.connection import Connection, meant_by
from beeq.redis.resp import CommandPrefix
from beeq.redis.retry_delay import RetryDelay
from beeq.supervision.duty import Duty
from beeq.worker.pump.blocking_fetch import BlockingFetch
from beeq.worker.pump.exchange_packer import ExchangePacker
from beeq.worker.pump.recovery import Recovery, failure_of
from beeq.worker.scheduling import actions
from beeq.worker.scheduling.ahead import BEGINS_WITHIN, AttemptPace, ahead_member
from beeq.worker.scheduling.claims import ClaimedJob
from beeq.worker.scheduling.scheduler import Scheduler

#: What each reply of ``lua/exchange.lua`` has; one that was to count the running jobs has one part more.
_PARTS = 5
#: How often ``settle`` looks whether replies have come that leave nothing to do.
_SETTLE_LOOK_S = 0.02


def _leave_it(_replies: list[Any], _error: RedisError | None) -> None:
    """Do nothing: if nobody was told of a begin, or too late, the job may be another worker's by now.

    Then its outcome is lost, as of any job that stalled.
    """


class PumpListener(Protocol):
    """Hears what comes of the jobs of a pump; ``Worker`` is one."""

    def start_job(self, claimed_job: ClaimedJob, claim_known: asyncio.Future[None] | None) -> None:
        """Start the job; it must lead to one ``outcome_ready`` or ``give_back``, unless this raises.

        If Redis has not granted its claim yet, there is a future, which is done once that is known.
        """

    def stop_job(self, claim: bytes) -> None:
        """Stop the job that runs by this claim, if one does: Redis has not granted it, or it is lost."""

    def recorded(self, outcomes: list[Outcome]) -> None:
        """Redis has recorded these outcomes."""

    def lost(self, outcomes: list[Outcome]) -> None:
        """These jobs had another owner by then, and Redis has dropped the outcomes."""

    def found_empty(self) -> None:
        """The queue was found empty while nothing runs here."""


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
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._on_ahead = on_ahead
        self._on_error = context.report_error
        #: Read only, for others: the pump alone tells it events.
        self.scheduler = Scheduler(
            concurrency=concurrency,
            token_prefix=secrets.token_hex(8).encode(),
            is_connected=lambda: self._connection.is_connected,
            clock=time.monotonic,
            begin_within_s=BEGINS_WITHIN * settings.claim_ahead_ms / 1000,
        )
        #: One connection for all calls: they are executed, and answered, in the order they were made.
        self._connection = Connection(context.connector, timeout_ms=settings.redis_timeout)
        self._packer = ExchangePacker(context.keys, settings)
        self._retry_delay = RetryDelay(
            settings.initial_redis_failure_retry_delay, news=lambda: context.connector.switches
        )
        self._recovery = Recovery(self._connection, context.keys, outbox_limit=settings.outbox_limit)
        self.fetch = BlockingFetch(context, beside=self._connection, listener=self)
        self._later_s = settings.initial_redis_failure_retry_delay / 1000
        self._later: asyncio.TimerHandle | None = None
        # Where no stall is allowed, a job would fail that a worker has claimed ahead and died.
        bound_ms = settings.claim_ahead_ms if settings.max_stalls else 0
        self._pace = AttemptPace(bound_ms, concurrency=concurrency)
        self._worker_came_at_s = math.inf  # nobody hears yet when one comes
        self._begins = CommandPrefix("ZREM", context.keys.ahead)
        self._ahead_timer: asyncio.TimerHandle | None = None
        self._starting: deque[ClaimedJob] = deque()  # what ``_start`` has still to start
        self._is_starting = False
        self._claim_known: asyncio.Future[None] | None = None  # of the job that was started early
        self._duty: Duty | None = None  # that of ``run``
        self._is_failing = False  # the last call, or the like, has failed
        self._is_done = False
        self._is_burst = False
        self._pauses: set[str] = set()  # why no jobs are asked for now
        #: How many jobs may run at once.
        self.concurrency = concurrency
        self._calls: dict[bytes, actions.ExchangeCall] = {}  # in flight, by their tokens
        self._giving_back: set[bytes] = set()  # claims that a GiveBack under way carries
        #: What ``run`` carries out, or raises.
        self._awaited: asyncio.Queue[actions.AwaitedAction | Exception] = asyncio.Queue()
        self._performers: dict[type[Any], Callable[[Any], object]] = {
            actions.ExchangeCall: self._send,
            actions.Start: self._start,
            actions.NoteBegins: self._note_begins,
            actions.CheckAhead: self._check_ahead_at,
            actions.StartEarly: self._start_early,
            actions.ClaimKnown: self._end_claim_known,
            actions.StopHandler: lambda action: listener.stop_job(action.claim),
            actions.Recorded: lambda action: listener.recorded(action.outcomes),
            actions.Lost: lambda action: listener.lost(action.outcomes),
            actions.Fetch: lambda _action: self.fetch.start(),
            actions.RetryLater: self._retry_later,
            actions.Idle: lambda _action: listener.found_empty(),
            actions.DecideSoon: lambda _action: self._loop.call_soon(self._turn_ended, context=Context()),
            **dict.fromkeys(actions.AWAITED_ACTIONS, self._awaited.put_nowait),
        }

    # What the worker says.

    def outcome_ready(self, raw_id: bytes, claim: bytes, outcome: Outcome) -> None:
        """Take the outcome of a claimed job; a later call sends it to Redis."""
        if outcome.status != "succeeded" and not outcome.is_postponed:
            self._packer.note_attempt(outcome)
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
        """Free the places of jobs that nobody runs, and beat no longer for them."""
        self._carry_out(self.scheduler.claims_lost(claims))
        self._carry_out(self.scheduler.give_back(claims))

    def attempt_ended(self, ran_s: float) -> bool:
        """Take how long an attempt took; return whether jobs are claimed ahead now."""
        limit = self.scheduler.places.ahead_limit = self._pace.ended(ran_s)
        return limit > 0

    def see_workers(self, seen: tuple[int, float]) -> None:
        """So many worker processes lived, this one among them, when that was asked (monotonic time).

        Others may take back what is claimed ahead. Without any, Redis is told neither of the claims nor of
        their begin. An older answer does not count if one has come meanwhile, or may have.
        """
        count, asked_at_s = seen
        if count > 1 or asked_at_s > self._worker_came_at_s:
            self.scheduler.places.notes_ahead = count > 1

    def worker_may_have_come(self) -> None:
        """Tell Redis what is claimed ahead, until it is known that no other worker process lives."""
        self._worker_came_at_s = time.monotonic()
        self.scheduler.places.notes_ahead = True

    def drop_ahead(self, claims: Collection[bytes]) -> None:
        """Let none of the jobs begin that were claimed so: they were cancelled, or are somebody else's."""
        jobs = self.scheduler.places.ahead.jobs()
        dropped = [(raw_id, claim) for raw_id, _, _, claim in jobs if claim in claims]
        if dropped:
            self.claims_lost(dropped)

    def ahead_taken(self, taken: tuple[list[tuple[bytes, bytes]], bool]) -> None:
        """The heartbeat's thread has given these back, which were claimed ahead; or it could not."""
        claims, is_done = taken
        self._carry_out(self.scheduler.ahead_taken(claims, is_done=is_done))

    def wake(self, reason: BaseException) -> None:
        """Wait no longer for what is under way, for this reason, and ask for jobs."""
        self._connection.leave()
        for call in list(self._calls.values()):  # whose end got lost
            self._answered(call, [], RedisUnavailable(str(reason)))
        if self.fetch.is_under_way:
            self.fetch.abort(reason)
        else:
            self.fetch_ended()
        self.look()

    @property
    def is_full(self) -> bool:
        """Whether no place is free."""
        return self.scheduler.places.is_full()

    def takes_jobs(self) -> bool:
        """Return whether it has a free place, waits for jobs, and recovers from no failure."""
        scheduler = self.scheduler
        is_closed = self._is_burst or self._pauses or scheduler.is_stopping()
        return scheduler.is_ready and not (is_closed or self.is_full)

    @property
    def last_turn_s(self) -> float:
        """When Redis last answered a call or a fetch, by the monotonic clock."""
        turned_at_s = 0.0 if self._duty is None else self._duty.turned_at_s
        return max(turned_at_s, self.fetch.duty.turned_at_s)

    def unheld(self, held: set[bytes]) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Return how many jobs seem to run beside those of these claims, and which they may be."""
        scheduler = self.scheduler
        running = scheduler.places.running
        if running <= len(held):
            return 0, []
        away = held.union(self._giving_back, [job[3] for job in scheduler.places.ahead.jobs()])
        away.update(each.claim for call in self._calls.values() for each in call.outcomes)
        claimed = [pair for pair in scheduler.claimed.items() if pair[1] not in away]
        candidates = [pair for pair in claimed if not scheduler.is_pending(pair[1])]
        return running - len(held), candidates

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
        self._is_burst = True
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
        for action in due:
            try:
                self._performers[type(action)](action)
            except Exception as defect:  # noqa: BLE001 - ``run`` raises it
                self._awaited.put_nowait(defect)
                if isinstance(action, actions.ExchangeCall):
                    # Else its outcomes and places would wait for a reply for ever.
                    self._calls.pop(action.token, None)
                    in_flight = self.scheduler.calls_in_flight
                    self._hold(action, f"a call was not sent: {kind_of(defect)}", in_flight=in_flight)

    def _turn_ended(self) -> None:
        self._carry_out(self.scheduler.turn_ended())

    def _send(self, call: actions.ExchangeCall) -> None:
        packed = self._packer.packed(call)
        self._calls[call.token] = call
        self._connection.ask((packed,), functools.partial(self._answered, call))

    def _answered(self, call: actions.ExchangeCall, replies: list[Any], error: RedisError | None) -> None:
        if self._calls.pop(call.token, None) is None:
            return  # it was given up
        reply: Any = replies[0] if error is None and replies else error
        if isinstance(reply, RedisError):
            self._is_failing = True
            failure = failure_of(reply)
            if failure is not actions.Failure.SCRIPT_MISSING:  # which is loaded without a word
                self._on_error(meant_by(reply))
            self._carry_out(self.scheduler.failed(call, failure, reply))
            return
        if self._is_failing and self.scheduler.is_ready:
            self._is_failing = False
            self._retry_delay.reset()
        in_flight = self.scheduler.calls_in_flight
        try:
            if len(reply) > _PARTS:
                self._packer.counted(reply.pop())
            parts = actions.ExchangeReply(*reply)
            if parts.flags & actions.ARE_AHEAD:
                self._on_ahead()
            due = self.scheduler.replied(call, parts)
        except Exception as defect:  # noqa: BLE001 - ``run`` raises it
            self._awaited.put_nowait(defect)
            self._hold(call, f"a reply could not be taken: {kind_of(defect)}", in_flight=in_flight)
            return
        if self._duty is not None:
            self._duty.progressed()
        self._carry_out(due)

    def _hold(self, call: actions.ExchangeCall, why: str, *, in_flight: int) -> None:
        """Have what a call carried sent again, and what it claimed looked for, once.

        ``in_flight``: how many calls were, this one among them. It may have been taken off before a defect.
        """
        scheduler = self.scheduler
        scheduler.calls_in_flight = max(scheduler.calls_in_flight, in_flight)
        self._carry_out(scheduler.failed(call, actions.Failure.REPLY_LOST, RedisUnavailable(why)))

    def _start(self, action: actions.Start) -> None:
        self._starting.extend(action.jobs)
        if self._is_starting:  # a handler that ended at once has led here: the loop below goes on
            return
        self._is_starting = True
        try:
            while self._starting:
                job = self._starting.popleft()
                try:
                    self._listener.start_job(job, None)
                except Exception as defect:  # noqa: BLE001 - ``run`` raises it; the other jobs start
                    self._not_started(job, defect)
        finally:
            self._is_starting = False

    def _note_begins(self, action: actions.NoteBegins) -> None:
        members = [ahead_member(raw_id, claim) for raw_id, _, _, claim in action.jobs]
        self._connection.ask((self._begins.pack(members),), _leave_it)

    def _check_ahead_at(self, action: actions.CheckAhead) -> None:
        self._ahead_timer = self._loop.call_later(
            max(0.0, action.at_s - time.monotonic()),
            lambda: self._carry_out(self.scheduler.check_ahead()),
            context=Context(),
        )

    def _start_early(self, action: actions.StartEarly) -> None:
        self._claim_known = self._loop.create_future()
        try:
            self._listener.start_job(action.job, self._claim_known)
        except Exception as defect:  # noqa: BLE001 - as above
            self._not_started(action.job, defect)

    def _not_started(self, job: ClaimedJob, defect: Exception) -> None:
        self._awaited.put_nowait(defect)
        raw_id, _, _, claim = job
        self.give_back([(raw_id, claim)])

    def _end_claim_known(self, _action: actions.ClaimKnown) -> None:
        if self._claim_known is not None and not self._claim_known.done():
            self._claim_known.set_result(None)

    def _retry_later(self, _action: actions.RetryLater) -> None:
        self._later = self._loop.call_later(
            self._later_s, lambda: self._carry_out(self.scheduler.retry_lonely()), context=Context()
        )

    # Actions that take time.

    async def run(self, duty: Duty) -> None:
        """Work until ``drain`` was called and everything claimed has been recorded.

        Raises a defect as it is, never a failure of Redis; may then be called again, and goes on.
        """
        self._duty = duty
        self._carry_out(self.scheduler.decide())
        while not await self._perform(await self._next_awaited(duty), duty):
            pass

    async def settle(self, duty: Duty) -> None:
        """Carry out what is due until nothing is held here and no fetch waits; ``pause`` comes before.

        For the loop's end, where ``run`` was cancelled. Raises a defect as it is.
        """
        while self.scheduler.places.taken or self.scheduler.calls_in_flight or self.fetch.is_under_way:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_LOOK_S):
                    action = await self._awaited.get()
                if await self._perform(action, duty):
                    return

    async def _perform(self, action: actions.AwaitedAction | Exception, duty: Duty) -> bool:
        """Carry out one action that takes time; return whether it was the last."""
        if isinstance(action, Exception):
            raise action
        if isinstance(action, actions.Done):
            self._is_done = True
            self.end()
            return True
        try:
            due = await self._await(action, duty)
        except BaseException:
            self._carry_out(self._cut_off(action))
            raise
        self._carry_out(due)
        return False

    async def _next_awaited(self, duty: Duty) -> actions.AwaitedAction | Exception:
        while True:
            duty.rests(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(duty.patience_s / 2):
                    return await self._awaited.get()

    def _cut_off(self, action: actions.AwaitedAction) -> actions.Actions:
        """Say that ``action`` was not carried out, or not to its end."""
        match action:
            case actions.Recover():
                return self.scheduler.recovery_failed()
            case actions.GiveBack():
                return self.scheduler.give_back_failed(action)
            case _:
                return self.scheduler.fetch_stopped()

    async def _await(self, action: actions.AwaitedAction, duty: Duty) -> actions.Actions:
        match action:
            case actions.Recover():
                return await self._recover(action, duty)
            case actions.GiveBack():
                return await self._give_back(action, duty)
            case _:  # StopFetch: Done ends the loop before
                duty.rests(self.fetch.longest_s)
                await self.fetch.stop(self._connection)
                return self.scheduler.fetch_stopped()

    async def _recover(self, action: actions.Recover, duty: Duty) -> actions.Actions:
        if action.needs_rest:
            await self._rest(duty)
        try:
            found, record = await self._recovery.run(action, functools.partial(duty.rests, 0))
        except RedisError as error:
            self._on_error(error)
            return self.scheduler.recovery_failed()
        return self.scheduler.recovered(action, found, record)

    async def _give_back(self, action: actions.GiveBack, duty: Duty) -> actions.Actions:
        self._giving_back = {claim for _, claim in action.claims}
        try:
            await self._recovery.give_back(action, functools.partial(duty.rests, 0))
        except RedisError as error:
            self._on_error(error)
            await self._rest(duty)
            return self.scheduler.give_back_failed(action)
        finally:
            self._giving_back = set()
        self._retry_delay.reset()
        return self.scheduler.given_back(action)

    async def _rest(self, duty: Duty) -> None:
        self._is_failing = True
        duty.rests(self._retry_delay.next_ms / 1000)
        await self._retry_delay.wait(self.scheduler.is_stopping)
        duty.rests(0)

    def has_ended(self) -> bool:
        """Return whether there is nothing left to do."""
        return self._is_done

    def end(self) -> None:
        """Answer no event from now on."""
        self.scheduler.end()

    async def close(self) -> None:
        """Close the connections; ``run`` has ended."""
        self.scheduler.end()
        for timer in (self._later, self._ahead_timer):
            if timer is not None:
                timer.cancel()
        await self.fetch.close()
        await self._connection.close()
