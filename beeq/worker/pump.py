"""The pump: one script call a turn takes outcomes to Redis and brings as many jobs as there are places.

Outcomes gather while a call is in flight, so calls grow with the load: at concurrency 1 a job costs
one round trip, at 100 a fraction of one. From concurrency 2 two arms turn in step, each with half of
the places, so that Redis works on one's call while this process works on the other's jobs. Only when
the queue is empty does a further connection block in BLMOVE, so that an idle worker starts a job one
push later. Never more is claimed than there are free places.

Decides nothing about outcomes (``outcome.py``) and runs no handler (``runner.py``).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from beeq.errors import JobLost, RedisError, RedisRefused
from beeq.line import Line
from beeq.scripts import EXCHANGE, HAND_BACK
from beeq.worker.mover import Mover
from beeq.worker.pause import Pause

if TYPE_CHECKING:
    from beeq.connection import Dialer
    from beeq.keys import Keys
    from beeq.outcome import Settlement
    from beeq.settings import Settings

#: Jobs asked for, and outcomes told, in one call.
_MAX_BATCH = 500
#: … and not much more than this many bytes of outcomes.
_MAX_BATCH_BYTES = 1_000_000

#: A claimed job: its id as Redis has it, its record, how often it was handed out, and the claim.
Claimed = tuple[bytes, bytes, int, bytes]


class Outcome:
    """A settlement on its way to Redis."""

    __slots__ = ("claim", "raw_id", "settlement")

    def __init__(self, raw_id: bytes, claim: bytes, settlement: Settlement) -> None:
        self.raw_id = raw_id
        self.claim = claim
        self.settlement = settlement


class Pump:
    """Keeps up to ``concurrency`` jobs claimed, and records how they end.

    Args:
        dialer: makes the two connections.
        keys: the queue's.
        settings: the queue's.
        concurrency: places.
        on_claimed: called with each new job; must lead to one ``settle`` or ``hand_back`` of it.
        on_settled: called with each outcome that Redis has taken.
        on_error: called with each failure; the pump waits a little and goes on.
        on_idle: called when the queue was found empty while nothing runs.
    """

    def __init__(
        self,
        dialer: Dialer,
        keys: Keys,
        settings: Settings,
        *,
        concurrency: int,
        on_claimed: Callable[[Claimed], None],
        on_settled: Callable[[Settlement], None],
        on_error: Callable[[BaseException], None],
        on_idle: Callable[[], None],
    ) -> None:
        self._keys = keys
        self._script_keys = (
            keys.waiting,
            keys.active,
            keys.stalling,
            keys.jobs,
            keys.succeeded,
            keys.failed,
            keys.delayed,
            keys.claims,
            keys.results,
            keys.expiries,
            keys.outbox,
        )
        self._fixed_arguments = (
            keys.events if settings.send_events else "",
            keys.earlier_delayed,
            settings.result_ttl,
            "1" if settings.remove_on_success else "",
            "1" if settings.remove_on_failure else "",
            settings.outbox_limit,
        )
        self._outbox_limit = settings.outbox_limit
        self._concurrency = concurrency
        self._on_claimed = on_claimed
        self._on_settled = on_settled
        self._on_error = on_error
        self._on_idle = on_idle
        #: One line for both arms: their calls are executed, and answered, in the order they were made.
        self._line = Line(dialer, timeout_ms=settings.redis_timeout)
        self._arms = 1 if concurrency == 1 else 2
        #: What one call asks for at most.
        self._share = min(-(-concurrency // self._arms), _MAX_BATCH)
        #: Waits at an empty queue; reserves one place while it does.
        self._mover = Mover(dialer, keys, settings, on_end=self._moved, on_error=on_error)
        self._pause = Pause(settings.initial_redis_failure_retry_delay)
        #: What this worker owns, id → claim: the heartbeat beats for these until they are recorded.
        self.claimed: dict[bytes, bytes] = {}
        self._busy = 0  # places taken: claimed and not yet recorded
        self._promised = 0  # free places that calls in flight have asked jobs for
        self._turning = 0  # calls in flight
        self._outcomes: list[Outcome] = []  # added by settle, taken by a turn
        self._adopted = b""  # an id that a blocking move has put into active
        self._returning: list[tuple[bytes, bytes]] = []  # id and claim of jobs to hand back
        self._is_empty = False  # the queue had nothing more, when last asked
        self._is_taking = True
        self._is_bursting = False
        self._sleepers: list[asyncio.Future[None]] = []  # one for each arm that rests
        self._turn = 0
        self._identity = secrets.token_hex(8).encode()
        self._lost_tokens: list[bytes] = []  # of calls whose reply was lost: what did they claim?

    def settle(self, raw_id: bytes, claim: bytes, settlement: Settlement) -> None:
        """Record how a claimed job ended, with the next turn."""
        self._outcomes.append(Outcome(raw_id, claim, settlement))
        self._poke()

    def hand_back(self, claims: list[tuple[bytes, bytes]]) -> None:
        """Give claimed jobs back to the front of the queue, with the next turn; the first runs first."""
        self._returning += claims
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
        sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    async def run(self) -> None:
        """Turn until ``stop_taking`` was called and everything claimed has been recorded."""
        async with asyncio.TaskGroup() as arms:
            if self._arms > 1:
                arms.create_task(self._help())
            await self._lead()
            self._poke()

    async def _lead(self) -> None:
        """The first arm: it also keeps the blocking move, hands back, and knows when all is done."""
        while self._has_duty():
            if self._returning or (self._adopted and not self._is_taking):
                await self._safely(self._return_jobs)
            elif self._has_reason():
                await self._safely(self._take_turn)
            elif self._mover.is_pending and not self._may_block():
                await self._mover.stop(self._line)
            else:
                if self._may_block() and not self._mover.is_pending and self._free_places() > 0:
                    self._mover.start()
                if self._busy == 0 and not self._turning:
                    self._on_idle()
                await self._rest()

    async def _help(self) -> None:
        """Another arm: it only turns."""
        while self._has_duty():
            if self._has_reason():
                await self._safely(self._take_turn)
                if self._is_empty or not self._busy:
                    self._poke()  # the first arm may now block for the next job, or be done
            else:
                await self._rest()

    def _has_duty(self) -> bool:
        return bool(self._is_taking or self._busy or self._turning or self._adopted or self._mover.is_pending)

    def _has_reason(self) -> bool:
        """Return whether a turn has anything to do."""
        if self._outcomes or self._lost_tokens or (self._adopted and self._is_taking):
            return True
        return self._may_ask() and not self._is_empty and self._free_places() > 0

    def _may_ask(self) -> bool:
        """While a blocking move is pending the next job is its; a turn must not take a later one first."""
        return self._is_taking and not self._mover.is_blocking

    def _may_block(self) -> bool:
        """A call in flight may be taking jobs: a blocking move must not overtake it."""
        return self._is_taking and not self._is_bursting and (self._mover.is_pending or not self._turning)

    def _free_places(self) -> int:
        return self._concurrency - self._busy - self._promised - self._mover.is_blocking

    def _moved(self, raw_id: bytes | None) -> None:
        if raw_id is not None:
            self._adopted = raw_id
        if raw_id is not None or self._mover.is_pending:
            self._is_empty = False  # there may be more; or the move has failed and rests: ask instead
        self._poke()

    async def _rest(self) -> None:
        """Wait for an outcome, a job, or the end; the blocking move bounds it while a place is free."""
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        await sleeper

    async def _safely(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do one step; on failure tell, wait a little, and let the next step try again."""
        try:
            await step()
        except RedisError as error:
            self._on_error(error)
            await self._pause.wait(lambda: not self._is_taking)
        else:
            self._pause.reset()

    # Turns.

    async def _take_turn(self) -> None:
        if self._lost_tokens:
            await self._recover()
        outcomes = self._next_outcomes()
        adopted, self._adopted = self._adopted, b""
        # The places of the outcomes in this call are free once they are recorded, which is before
        # the script claims anything; another arm's call may be faster and must not count on them.
        places = self._free_places() + len(outcomes) - bool(adopted)
        free = max(0, min(places, self._share)) if self._may_ask() else 0
        promised = max(0, free + bool(adopted) - len(outcomes))
        self._turn += 1
        token = b"%b-%x" % (self._identity, self._turn)
        self._promised += promised
        self._turning += 1
        try:
            facts, taken, jobs = await self._exchange(token, free, adopted, outcomes)
        except BaseException as error:
            self._outcomes = outcomes + self._outcomes
            self._adopted = adopted or self._adopted
            if not isinstance(error, RedisRefused):
                self._lost_tokens.append(token)
            raise
        finally:
            self._promised -= promised
            self._turning -= 1
        if free:
            self._is_empty = taken < free
        self._busy += len(jobs) // 3 - len(outcomes)
        for outcome, fact in zip(outcomes, facts, strict=True):
            self._tell(outcome, fact)
        for at in range(0, len(jobs), 3):
            raw_id, deliveries = jobs[at], jobs[at + 2]
            claim = self.claimed[raw_id] = b"%b:%d" % (token, deliveries)
            self._on_claimed((raw_id, jobs[at + 1], deliveries, claim))

    def _next_outcomes(self) -> list[Outcome]:
        """Take as many outcomes as one call may carry; one large record goes alone."""
        count = size_bytes = 0
        for outcome in self._outcomes[:_MAX_BATCH]:
            size_bytes += len(outcome.settlement.record)
            if count and size_bytes > _MAX_BATCH_BYTES:
                break
            count += 1
        outcomes, self._outcomes = self._outcomes[:count], self._outcomes[count:]
        return outcomes

    async def _exchange(
        self, token: bytes, free: int, adopted: bytes, outcomes: list[Outcome]
    ) -> tuple[list[int], int, list[Any]]:
        arguments: list[Any] = [token, free, adopted, *self._fixed_arguments]
        for outcome in outcomes:
            settlement = outcome.settlement
            arguments += (
                outcome.raw_id,
                outcome.claim,
                settlement.status,
                settlement.record,
                settlement.message,
                settlement.delay_ms,
                settlement.keep,
            )
        reply: tuple[list[int], int, list[Any]] = await self._line.run(EXCHANGE, self._script_keys, arguments)
        return reply

    def _tell(self, outcome: Outcome, fact: int) -> None:
        self._release(outcome.raw_id, outcome.claim)
        if fact:
            self._on_settled(outcome.settlement)
        else:
            self._on_error(JobLost(outcome.settlement.job.saved_id()))

    def _release(self, raw_id: bytes, claim: bytes) -> None:
        """Stop beating for a job, unless the same id was claimed anew meanwhile."""
        if self.claimed.get(raw_id) == claim:
            del self.claimed[raw_id]

    async def _recover(self) -> None:
        """Hand back what a call claimed whose reply was lost; without this, a stall check would."""
        lost, self._lost_tokens = tuple(self._lost_tokens), []
        try:
            await self._hand_back_claims(lost)
        except BaseException:
            self._lost_tokens += lost
            raise
        self._is_empty = False

    async def _hand_back_claims(self, tokens: tuple[bytes, ...]) -> None:
        cursor = b"0"
        while True:
            cursor, fields = await self._line.call("HSCAN", self._keys.claims, cursor, "COUNT", 500)
            pairs = []
            for at in range(0, len(fields), 2):
                raw_id, claim = fields[at], fields[at + 1]
                if claim.rpartition(b":")[0] in tokens:
                    pairs += [raw_id, claim]
            await self._hand_back(pairs)
            if cursor == b"0":
                return

    # The end.

    async def _hand_back(self, pairs: list[Any]) -> int:
        if not pairs:
            return 0
        keys = self._keys
        returned: int = await self._line.run(
            HAND_BACK,
            (keys.waiting, keys.active, keys.stalling, keys.jobs, keys.claims, keys.outbox),
            [self._outbox_limit, *pairs],
        )
        return returned

    async def _return_jobs(self) -> None:
        """Hand back what was given up, and what a blocking move fetched too late.

        Newest first: the script pushes each to the front, so the oldest ends up foremost.
        """
        adopted, self._adopted = self._adopted, b""
        returning, self._returning = self._returning, []
        pairs: list[Any] = [adopted, b""] if adopted else []
        for raw_id, claim in reversed(returning):
            pairs += [raw_id, claim]
        try:
            await self._hand_back(pairs)
        except BaseException:
            self._adopted = adopted or self._adopted
            self._returning = returning + self._returning
            raise
        for raw_id, claim in returning:
            self._release(raw_id, claim)
        self._busy -= len(returning)

    async def close(self) -> None:
        """Close the connections; ``run`` has ended."""
        await self._mover.close()
        await self._line.close()
