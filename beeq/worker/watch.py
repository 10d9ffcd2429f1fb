"""Watches a worker: whether its places are held by running jobs, and whether it takes jobs.

It should never find anything. If it does, a defect has left a place taken by no job, or something waits for
an event that never comes: after a stall interval this is reported, and repaired where that is safe.

Logged, because it is not a defect: jobs wait while all places have been taken for long.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from beeq.client.context import QueueContext
from beeq.errors import WorkerStuck, shortened
from beeq.job import Job
from beeq.logs.records import log_event
from beeq.worker.pump.blocking_fetch import FETCH_TIMEOUT_MS
from beeq.worker.pump.pump import Pump
from beeq.worker.scheduling.places import WorkerPlaces

#: After this time all places count as taken for long; it is logged again after twice as long, and so on …
FULL_S = 30.0
#: … but at least so often.
_LONGEST_REST_S = 3600.0
#: Places count as free after so many looks in a row: between two jobs one is free for a moment.
_LOOKS = 2


class FullPlaces:
    """Logs that jobs wait while all places have been taken for long, and when one is free again.

    It is a warning if none of the running jobs has ended meanwhile.

    Args:
        context: of the queue.
        places: of the worker.
        active: returns the jobs that run.
    """

    def __init__(
        self, context: QueueContext, places: WorkerPlaces, *, active: Callable[[], list[Job]]
    ) -> None:
        self._context = context
        self._places = places
        self._active = active
        self._since_s = 0.0  # since when all places are taken; 0: they are not
        self._rest_s = FULL_S
        self._due_s = 0.0
        self._free_looks = 0
        self._was_said = False
        self._saying: asyncio.Task[None] | None = None

    def check(self, now_s: float) -> None:
        """Look once."""
        if self._places.is_full():
            self._free_looks = 0
            if not self._since_s:
                self._since_s, self._rest_s, self._due_s = now_s, FULL_S, now_s + FULL_S
            elif now_s >= self._due_s and (self._saying is None or self._saying.done()):
                self._saying = asyncio.get_running_loop().create_task(self._say(now_s), name="beeq places")
        elif self._since_s:
            self._free_looks += 1
            if self._free_looks >= _LOOKS:
                if self._was_said:
                    self._log(logging.INFO, "a place is free again; all were taken for", now_s)
                self._since_s, self._was_said = 0.0, False

    def close(self) -> None:
        """Look no more."""
        if self._saying is not None:
            self._saying.cancel()

    async def _say(self, now_s: float) -> None:
        self._due_s = now_s + self._rest_s
        waiting = await self._context.probe.waiting()
        jobs = self._active()
        if not (waiting and jobs and self._since_s):
            return
        self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S)
        self._due_s = now_s + self._rest_s
        self._was_said = True
        now_ms = self._context.now_ms()
        oldest = min(jobs, key=lambda job: job.started_ms)
        is_still = now_ms - max(job.started_ms for job in jobs) >= (now_s - self._since_s) * 1000
        more = "none of the jobs that run has ended meanwhile; " if is_still else ""
        longest = f"job {shortened(str(oldest.id), 200)} runs for {(now_ms - oldest.started_ms) / 1000:.0f} s"
        level = logging.WARNING if is_still else logging.INFO
        self._log(level, "all places have been taken for", now_s, f", {waiting} jobs wait; {more}{longest}")

    def _log(self, level: int, what: str, now_s: float, more: str = "") -> None:
        full_s = now_s - self._since_s
        text = f"{what} {full_s:.0f} s{more}"
        log_event(level, text, queue=self._context.name, duration_ms=round(full_s * 1000))


class WorkerWatch:
    """One worker's watch; the watchdog calls ``check`` at each tick.

    Args:
        context: of the queue.
        pump: of the worker.
        held: returns the claims whose handlers run.
        active: returns the jobs that run.
    """

    def __init__(
        self,
        context: QueueContext,
        pump: Pump,
        *,
        held: Callable[[], set[bytes]],
        active: Callable[[], list[Job]],
    ) -> None:
        self._context = context
        self._pump = pump
        self._scheduler = pump.scheduler
        self._held = held
        self._full_places = FullPlaces(context, pump.scheduler.places, active=active)
        stall_interval_ms = context.settings.stall_interval
        self._patience_s = stall_interval_ms / 1000
        # An idle worker takes a turn when its fetch ends without a job.
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
        """Whether places are taken by no job."""
        return self._leaking_since_s is not None

    def check(self) -> None:
        """Look once."""
        now_s = time.monotonic()
        self._check_places(now_s)
        self._check_turns(now_s)
        self._full_places.check(now_s)

    def close(self) -> None:
        """Look no more."""
        self._full_places.close()
        if self._looking is not None:
            self._looking.cancel()

    # Places.

    def _check_places(self, now_s: float) -> None:
        leaked, candidates = self._unheld()
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

    def _unheld(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Return how many jobs seem to run without a handler, and which they may be."""
        held, places = self._held(), self._scheduler.places
        if places.running <= len(held):
            return 0, []
        away = held.union(self._pump.claims_away(), [job[3] for job in places.ahead.jobs()])
        claimed = [pair for pair in self._scheduler.claimed.items() if pair[1] not in away]
        candidates = [pair for pair in claimed if not self._scheduler.is_pending(pair[1])]
        return places.running - len(held), candidates

    def _free_places(self) -> None:
        """Stop the heartbeats of jobs without a handler: a stall check queues them again, and counts that."""
        claims = sorted(self._candidates)[: self._leaked]
        claims += [(b"", b"")] * (self._leaked - len(claims))  # taken by no known job
        ids = ", ".join(raw_id.decode(errors="replace") for raw_id, _ in claims[:10] if raw_id)
        self._pump.abandon(claims)
        text = f"{len(claims)} places were taken by jobs that nobody ran ({ids}); they are free again"
        self._context.report_error(WorkerStuck(text))

    # Turns.

    def _check_turns(self, now_s: float) -> None:
        last_turn_s = self._pump.last_turn_s
        if not self._scheduler.takes_jobs() or now_s - last_turn_s <= self._longest_turn_s:
            self.is_stuck, self._seen_waiting_at_s = False, 0.0
        elif self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(last_turn_s), name="beeq look")

    async def _look(self, last_turn_s: float) -> None:
        """Check whether jobs wait in Redis; if they do at two looks in a row, the worker is stuck."""
        waiting = await self._context.probe.waiting()
        if not waiting or self._pump.last_turn_s != last_turn_s or not self._scheduler.takes_jobs():
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
