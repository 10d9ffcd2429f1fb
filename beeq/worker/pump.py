"""The pump: one script call a turn takes outcomes to Redis and brings as many jobs as there are places.

Outcomes gather while a call is in flight, so calls grow with the load: at concurrency 1 a job costs
one round trip, at 100 a fraction of one. From concurrency 2 two calls are in flight in turn, each with half
of the places, so that Redis works on one while this process works on the other's jobs. Only when the
queue is empty does a further connection block in BLMOVE, so that an idle worker starts a job one
push later: the call that claims the job is on its way then, but not answered (``adoption.py``). Never more
is claimed than there are free places.

Turns are taken where their reason arises: where an outcome is settled, where a reply is read. Whatever has
to be waited for (a lost connection, a hand-back, the end) is the affair of ``run``.

Decides nothing about outcomes (``outcome.py``) and runs no handler (``runner.py``).
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from beeq.errors import JobLost, RedisError
from beeq.redis.connection import Connection
from beeq.redis.retry_delay import RetryDelay
from beeq.worker.blocking_fetch import Mover
from beeq.worker.claims import claim_of
from beeq.worker.early_start import Adoption
from beeq.worker.exchange import MAX_BATCH, Exchange, PendingOutcome, Turn, first_of
from beeq.worker.recovery import Trouble
from beeq.worker.requeue import Returns

if TYPE_CHECKING:
    from beeq.protocol.keys import Keys
    from beeq.protocol.outcome import Outcome
    from beeq.redis.connector import Connector
    from beeq.settings import Settings
    from beeq.worker.claims import Claimed

#: Calls in flight at once.
_MAX_TURNS = 2


class Pump:
    """Keeps up to ``concurrency`` jobs claimed, and records how they end.

    Args:
        connector: makes the two connections.
        keys: the queue's.
        settings: the queue's.
        concurrency: places.
        on_claimed: called with each new job; must lead to one ``settle`` or ``hand_back`` of it.
        on_lost: called with the claim of a job whose handler has begun and that was not to be had after all.
        on_settled: called with each outcome that Redis has taken.
        on_error: called with each failure; the pump waits a little and goes on.
        on_idle: called when the queue was found empty while nothing runs.
    """

    def __init__(
        self,
        connector: Connector,
        keys: Keys,
        settings: Settings,
        *,
        concurrency: int,
        on_claimed: Callable[[Claimed], None],
        on_lost: Callable[[bytes], None],
        on_settled: Callable[[Outcome], None],
        on_error: Callable[[BaseException], None],
        on_idle: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._concurrency = concurrency
        self._on_claimed = on_claimed
        self._on_lost = on_lost
        self._on_settled = on_settled
        self._on_error = on_error
        self._on_idle = on_idle
        #: One connection for all calls: they are executed, and answered, in the order they were made.
        self._connection = Connection(connector, timeout_ms=settings.redis_timeout)
        self._exchange = Exchange(keys, settings)
        self._returns = Returns(self._connection, keys, outbox_limit=settings.outbox_limit)
        #: What one call asks for at most.
        self._share = min(-(-concurrency // _MAX_TURNS), MAX_BATCH)
        #: Waits at an empty queue; reserves one place while it does.
        self._mover = Mover(
            connector, keys, settings, beside=self._connection, on_end=self._moved, on_error=on_error
        )
        self._retry_delay = RetryDelay(settings.initial_redis_failure_retry_delay)
        self._trouble = Trouble(
            self._connection,
            self._retry_delay,
            find_claims=self._returns.claimed_with,
            on_found=self._sort_out_lost,
            on_error=on_error,
        )
        #: What runs here, id → claim: the heartbeat beats for these until they are recorded.
        self.claimed: dict[bytes, bytes] = {}
        self._busy = 0  # places taken: claimed and not yet recorded
        self._running = 0  # … of which so many have not been settled yet
        self._promised = 0  # free places that calls in flight have asked jobs for
        self._turning = 0  # calls in flight
        self._outcomes: list[PendingOutcome] = []  # added by settle, taken by a turn
        self._adopted: Adoption | None = None  # what a blocking move has put into active
        self._returning: list[tuple[bytes, bytes]] = []  # id and claim of jobs to hand back
        self._is_empty = False  # the queue had nothing more, when last asked
        self._is_taking = True
        self._is_bursting = False
        self._is_over = False  # ``run`` has ended
        self._is_handing_out = False  # a reply is being given out; whoever does that turns afterwards
        self._is_turn_due = False  # the loop's next turn begins with one of ours
        self._sleeper: asyncio.Future[None] | None = None  # run's, while it rests
        self._defect: Exception | None = None  # ends ``run``
        self._turns = 0
        self._identity = secrets.token_hex(8).encode()

    def settle(self, raw_id: bytes, claim: bytes, outcome: Outcome) -> None:
        """Record how a claimed job ended, with the next turn."""
        self._outcomes.append(PendingOutcome(raw_id, claim, outcome))
        self._running -= 1
        if self._is_handing_out:
            return
        if not self._running:
            self._take_turns()  # nobody else is about to end
        elif not self._is_turn_due and self._turning < _MAX_TURNS:
            self._is_turn_due = True
            self._loop.call_soon(self._take_due_turn)  # who ends in this turn of the loop goes along

    def hand_back(self, claims: list[tuple[bytes, bytes]]) -> None:
        """Give claimed jobs back to the front of the queue; the first runs first."""
        self._returning += claims
        self._running -= len(claims)
        self._poke()

    def stop_taking(self) -> None:
        """Claim nothing more; outcomes are still recorded."""
        self._is_taking = False
        self._poke()

    def burst(self) -> None:
        """Block for no further job from now on: ``on_idle`` then means that the queue is empty."""
        self._is_bursting = True
        self._poke()

    def look(self) -> None:
        """Ask the queue again: it may have been filled."""
        self._is_empty = False
        self._poke()

    def _poke(self) -> None:
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)

    async def run(self) -> None:
        """Turn until ``stop_taking`` was called and everything claimed has been recorded."""
        try:
            while self._has_duty() or self._defect is not None:
                await self._step()
            if self._trouble.lost_tokens:
                # Once: the last call may have claimed jobs, and its reply was lost.
                await self._trouble.mend(self._is_stopping)
        finally:
            self._is_over = True

    async def _step(self) -> None:
        if self._defect is not None:
            raise self._defect
        if self._trouble.is_present:
            await self._trouble.mend(self._is_stopping)
        elif self._returning or (self._adopted is not None and not self._may_adopt()):
            await self._return_jobs()
        elif self._mover.is_pending and not self._may_block():
            await self._mover.stop(self._connection)
        else:
            self._take_turns()
            if self._trouble.is_present or self._defect is not None:
                return
            if self._may_block() and not self._mover.is_pending and self._free_places() > 0:
                self._mover.start()
            if self._busy == 0 and not self._turning:
                self._on_idle()
            await self._rest()

    def _is_stopping(self) -> bool:
        return not self._is_taking

    def _has_duty(self) -> bool:
        is_owing = self._busy or self._turning or self._adopted is not None
        return bool(self._is_taking or is_owing or self._mover.is_pending)

    def _has_reason(self) -> bool:
        """Return whether a turn has anything to do."""
        if self._outcomes or (self._adopted is not None and self._may_adopt()):
            return True
        return self._may_ask() and not self._is_empty and self._free_places() > 0

    def _may_adopt(self) -> bool:
        """Whoever stops gives back what was moved, but not what has begun."""
        return self._is_taking or (self._adopted is not None and self._adopted.is_begun)

    def _may_ask(self) -> bool:
        """While a blocking move is pending the next job is its; a turn must not take a later one first."""
        return self._is_taking and not self._mover.is_blocking

    def _may_block(self) -> bool:
        """A call in flight may be taking jobs: a blocking move must not overtake it."""
        return self._is_taking and not self._is_bursting and (self._mover.is_pending or not self._turning)

    def _free_places(self) -> int:
        return self._concurrency - self._busy - self._promised - self._mover.is_blocking

    def _moved(self, raw_id: bytes | None, record: bytes) -> None:
        if raw_id is not None or self._mover.is_pending:
            self._is_empty = False  # there may be more; or the move has failed and rests: ask instead
        if raw_id is None:
            self._take_turns()
        else:
            self._adopt(Adoption(raw_id, self._new_token()), record)
        self._poke()

    def _adopt(self, adopted: Adoption, record: bytes) -> None:
        """Have a moved job claimed; begin it while that call is on its way, if its record has come along."""
        self._adopted = adopted
        if not (record and self._is_taking and self._is_fit()):
            self._take_turns()
            return
        claim_known = adopted.begin(record, self._loop)
        self._busy += 1
        self._running += 1
        self.claimed[adopted.raw_id] = adopted.claim
        self._take_turn()
        try:
            self._on_claimed((adopted.raw_id, record, 1, adopted.claim, claim_known))
        except Exception as defect:  # noqa: BLE001 - whatever it is, ``run`` raises it
            self._defect = defect

    async def _rest(self) -> None:
        """Wait for something to do; the blocking move bounds it while a place is free."""
        self._sleeper = self._loop.create_future()
        await self._sleeper

    # Turns.

    def _take_due_turn(self) -> None:
        self._is_turn_due = False
        self._take_turns()

    def _take_turns(self) -> None:
        """Make the calls there is a reason for, if the connection is fit for it."""
        while self._turning < _MAX_TURNS and self._has_reason():
            if not self._is_fit():
                self._trouble.is_present = not self._is_over
                self._poke()
                return
            self._take_turn()

    def _take_turn(self) -> None:
        turn = self._next_turn()
        self._promised += turn.promised
        self._turning += 1
        self._connection.ask((self._exchange.packed(turn),), functools.partial(self._answered, turn))

    def _is_fit(self) -> bool:
        return self._connection.is_connected and not (self._is_over or self._trouble.is_present)

    def _next_turn(self) -> Turn:
        adopted, self._adopted = (self._adopted, None) if self._may_adopt() else (None, self._adopted)
        is_begun = adopted is not None and adopted.is_begun
        # The script records outcomes first, and the outcome of what has begun must come after its claim.
        count = 0 if is_begun else first_of(self._outcomes, self._busy)
        outcomes, self._outcomes = self._outcomes[:count], self._outcomes[count:]
        to_begin = int(adopted is not None and not is_begun)
        # The places of the outcomes in this call are free once they are recorded, which is before
        # the script claims anything; another call may be faster and must not count on them.
        places = self._free_places() + count - to_begin
        free = max(0, min(places, self._share)) if self._may_ask() else 0
        return Turn(
            token=self._new_token() if adopted is None else adopted.token,
            free=free,
            adopted=adopted,
            outcomes=outcomes,
            promised=max(0, free + to_begin - count),
        )

    def _new_token(self) -> bytes:
        self._turns += 1
        return b"%b-%x" % (self._identity, self._turns)

    def _answered(self, turn: Turn, replies: list[Any], error: RedisError | None) -> None:
        if self._is_over:
            return
        self._promised -= turn.promised
        self._turning -= 1
        try:
            reply = replies[0] if error is None else error
            if isinstance(reply, RedisError):
                self._failed(turn, reply)
                return
            self._is_handing_out = True
            self._hand_out(turn, *reply)
            self._is_handing_out = False
            if not self._trouble.is_present:
                self._retry_delay.reset()
            self._take_turns()
        except Exception as defect:  # noqa: BLE001 - whatever it is, ``run`` raises it
            self._defect = defect
            self._poke()
            return
        if self._is_empty or not self._busy:
            self._poke()  # the next job may have to be blocked for; or all is done

    def _hand_out(self, turn: Turn, facts: list[int], taken: int, jobs: list[Any]) -> None:
        if turn.free:
            self._is_empty = taken < turn.free
        begun = self._begun_of(turn, jobs)
        count = len(jobs) // 3 - begun
        self._busy += count - len(turn.outcomes)
        self._running += count
        for outcome, fact in zip(turn.outcomes, facts, strict=True):
            self._tell(outcome, fact)
        for at in range(3 * begun, len(jobs), 3):
            raw_id, deliveries = jobs[at], jobs[at + 2]
            claim = self.claimed[raw_id] = claim_of(turn.token, at // 3, deliveries)
            self._on_claimed((raw_id, jobs[at + 1], deliveries, claim, None))

    def _begun_of(self, turn: Turn, jobs: list[Any]) -> int:
        """Return how many of a reply's jobs have begun: the first or none. Stop one that was not granted."""
        adopted = turn.adopted
        if adopted is None or not adopted.is_begun:
            return 0
        # Whose outcome was refused before this call came through begins anew.
        is_granted = adopted.is_granted(jobs) and self.claimed.get(adopted.raw_id) == adopted.claim
        if not is_granted:
            self._on_lost(adopted.claim)
        adopted.end()
        return int(is_granted)

    def _tell(self, outcome: PendingOutcome, fact: int) -> None:
        if not fact and self._adopted is not None and self._adopted.claim == outcome.claim:
            self._outcomes.insert(0, outcome)  # the call that was to claim it first was refused
            self._busy += 1
            return
        self._release(outcome.raw_id, outcome.claim)
        if fact:
            self._on_settled(outcome.outcome)
        else:
            self._on_error(JobLost(outcome.outcome.job.saved_id()))

    def _release(self, raw_id: bytes, claim: bytes) -> None:
        """Stop beating for a job, unless the same id was claimed anew meanwhile."""
        if self.claimed.get(raw_id) == claim:
            del self.claimed[raw_id]

    # Trouble.

    def _failed(self, turn: Turn, error: RedisError) -> None:
        """Keep what the call carried for another one, once the trouble is mended."""
        self._outcomes = turn.outcomes + self._outcomes
        self._adopted = turn.adopted or self._adopted
        self._trouble.note_failure(error, turn.token)
        self._poke()

    async def _sort_out_lost(self, found: list[tuple[bytes, bytes]]) -> None:
        """Hand back what calls with lost replies have claimed, except what has begun: that goes on."""
        if (adopted := self._adopted) is not None:
            has_ended = any(outcome.claim == adopted.claim for outcome in self._outcomes)
            if await self._returns.is_taken(adopted, found, has_ended=has_ended):
                self._adopted = None
                if (adopted.raw_id, adopted.claim) not in found:
                    self._on_lost(adopted.claim)
                adopted.end()
        await self._returns.give_back(
            [(raw_id, claim) for raw_id, claim in found if self.claimed.get(raw_id) != claim]
        )
        self._is_empty = False

    async def _return_jobs(self) -> None:
        """Hand back what was given up, and what a move fetched too late; if that fails, later."""
        adopted = None
        if not self._may_adopt():
            adopted, self._adopted = self._adopted, None
        returning, self._returning = self._returning, []
        try:
            await self._returns.give_back(returning, unclaimed=b"" if adopted is None else adopted.raw_id)
        except RedisError as error:
            self._adopted = adopted or self._adopted
            self._returning = returning + self._returning
            self._on_error(error)
            await self._retry_delay.wait(self._is_stopping)
            return
        self._retry_delay.reset()
        for raw_id, claim in returning:
            self._release(raw_id, claim)
        self._busy -= len(returning)

    async def close(self) -> None:
        """Close the connections; ``run`` has ended."""
        self._is_over = True
        await self._mover.close()
        await self._connection.close()
