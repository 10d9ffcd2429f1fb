"""Looks after a worker: whether its places are held by jobs that run, and whether it takes jobs.

Nothing should ever be found. If it is, a defect has left a place taken by nobody, or something waits for what
never comes: that is reported, and mended, where it is safe, as soon as it has been so for a stall interval.
"""

import asyncio
import time
from collections.abc import Callable

from beeq.client.context import QueueContext
from beeq.errors import WorkerStuck
from beeq.worker.blocking_fetch import FETCH_TIMEOUT_MS
from beeq.worker.pump import Pump


class WorkerWatch:
    """One worker's; the watchdog calls ``check`` at each tick.

    Args:
        context: of the queue.
        pump: of the worker.
        held: returns the claims whose handlers run.
    """

    def __init__(self, context: QueueContext, pump: Pump, *, held: Callable[[], set[bytes]]) -> None:
        self._context = context
        self._pump = pump
        self._held = held
        stall_interval_ms = context.settings.stall_interval
        self._patience_s = stall_interval_ms / 1000
        # An idle worker whose fetch waits takes a turn when that has ended in vain.
        is_long = stall_interval_ms >= FETCH_TIMEOUT_MS
        self._longest_turn_s = (FETCH_TIMEOUT_MS + 1000 if is_long else stall_interval_ms) / 1000
        self._leaking_since_s: float | None = None
        self._leaked = 0  # how many places, at least, ever since
        self._candidates: set[tuple[bytes, bytes]] = set()  # ids and claims that may have leaked, ever since
        self._looking: asyncio.Task[None] | None = None
        self._seen_waiting_at_s = 0.0  # the last turn when jobs were seen waiting
        #: Whether it takes no jobs though some wait and places are free.
        self.is_stuck = False

    @property
    def is_leaking(self) -> bool:
        """Whether places are taken by nobody."""
        return self._leaking_since_s is not None

    def check(self) -> None:
        """Look once."""
        now_s = time.monotonic()
        self._check_places(now_s)
        self._check_turns(now_s)

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    # Places.

    def _check_places(self, now_s: float) -> None:
        leaked, candidates = self._pump.unheld(self._held())
        if leaked <= 0:
            self._leaking_since_s = None
        elif self._leaking_since_s is None:
            self._leaking_since_s, self._leaked, self._candidates = now_s, leaked, set(candidates)
        else:
            self._leaked = min(self._leaked, leaked)
            self._candidates &= set(candidates)
            if now_s - self._leaking_since_s > self._patience_s:
                self._leaking_since_s = None
                self._free_places()

    def _free_places(self) -> None:
        """Beat no longer for jobs that nobody runs: a stall check queues them again, and counts that."""
        claims = sorted(self._candidates)[: self._leaked]
        claims += [(b"", b"")] * (self._leaked - len(claims))  # taken by no job at all
        ids = ", ".join(raw_id.decode(errors="replace") for raw_id, _ in claims[:10] if raw_id)
        self._pump.abandon(claims)
        text = f"{len(claims)} places were taken by jobs that nobody ran ({ids}); they are free again"
        self._context.report_error(WorkerStuck(text))

    # Turns.

    def _check_turns(self, now_s: float) -> None:
        last_turn_s = self._pump.last_turn_s
        if not self._pump.takes_jobs() or now_s - last_turn_s <= self._longest_turn_s:
            self.is_stuck, self._seen_waiting_at_s = False, 0.0
        elif self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(last_turn_s), name="beeq look")

    async def _look(self, last_turn_s: float) -> None:
        """See whether jobs wait in Redis; if they do so at two looks in a row, it is stuck."""
        waiting = await self._context.probe.waiting()
        if not waiting or self._pump.last_turn_s != last_turn_s or not self._pump.takes_jobs():
            self._seen_waiting_at_s = 0.0
        elif self._seen_waiting_at_s != last_turn_s:
            self._seen_waiting_at_s = last_turn_s
        else:
            self._seen_waiting_at_s = 0.0
            self.is_stuck = True
            silent_ms = round((time.monotonic() - last_turn_s) * 1000)
            text = f"the worker took none of {waiting} jobs for {silent_ms} ms, though it had free places"
            stuck = WorkerStuck(text)
            self._context.report_error(stuck)
            self._pump.wake(stuck)
