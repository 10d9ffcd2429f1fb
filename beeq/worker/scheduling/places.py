"""A worker's places: what takes them, and how many jobs the next call may ask for.

Without claiming ahead, jobs that run, outcomes that are not recorded, and jobs asked for take a place each;
a job that is asked for by the call that carries an outcome takes that outcome's place. With claiming ahead
only jobs that run, or are about to, take one; the others are held beyond the places, up to a limit.
"""

import math
from collections.abc import Callable

from beeq.worker.scheduling.actions import MAX_BATCH, MAX_CALLS, ExchangeCall
from beeq.worker.scheduling.ahead import AheadJobs
from beeq.worker.scheduling.claims import FIRST_DELIVERY, ClaimedJob, HeldClaims


class WorkerPlaces:
    """The places of one scheduler; decisions only.

    Args:
        concurrency: how many there are.
        clock: returns the time in seconds.
        begin_within_s: how soon a job that is claimed ahead must begin.
    """

    def __init__(self, concurrency: int, *, clock: Callable[[], float], begin_within_s: float) -> None:
        self._concurrency = concurrency
        self._clock = clock
        self._begin_within_s = begin_within_s
        #: How many jobs are held: those that run, were claimed ahead, or whose outcome is not recorded.
        self.taken = 0
        #: Of these, jobs that run.
        self.running = 0
        #: Of these, jobs that were claimed ahead and have not begun.
        self.ahead = AheadJobs()
        #: How many jobs may be held beyond the places; the worker sets it at each job's end.
        self.ahead_limit = 0
        #: Whether jobs claimed ahead, and their begins, are noted in Redis: others may take them back.
        self.notes_ahead = True
        #: Claims of jobs that run, and were handed out before.
        self.redelivered: set[bytes] = set()
        self._requested = 0  # jobs that calls in flight ask for, minus the outcomes that they carry
        self._asked = 0  # jobs that calls in flight may bring in all

    def count_taken(self) -> int:
        """Return how many places are taken by jobs that run, and by outcomes that are not recorded."""
        return min(self.taken - len(self.ahead), self._concurrency)

    def is_full(self) -> bool:
        """Return whether no place is free."""
        return self.taken - len(self.ahead) >= self._concurrency

    def calls(self) -> int:
        """Return how many calls may be in flight: one while enough jobs are here, for larger calls."""
        return 1 if len(self.ahead) * 4 > self.ahead_limit else MAX_CALLS

    def may_be_free(self) -> bool:
        """Return a quick check before ``free``, which takes longer."""
        return self.running + self._asked < self._concurrency

    def _left(self) -> tuple[int, int, int]:
        """Return how many jobs may be held beyond the places, how many more jobs in all, and idle places.

        None beyond them while a job runs that was handed out before: if it kills the worker again, the jobs
        behind it would be counted as stalled, too. Idle are places without jobs that are here or asked for.
        """
        beyond = 0 if self.redelivered else self.ahead_limit
        room = self._concurrency + beyond - self.taken - self._requested
        idle = self._concurrency - self.running - len(self.ahead) - self._asked
        return beyond, room, idle

    def free(self) -> int:
        """Return how many jobs may be asked for that begin at once."""
        _, room, idle = self._left()
        return min(room, idle) if self.ahead_limit else room

    def wanted(self, *, ended: int, to_claim: int, most: int, may_claim_ahead: bool) -> tuple[int, int]:
        """Return how many jobs a call may ask for that begin at once, and how many ahead.

        Args:
            ended: how many outcomes the call carries: their places are free once it is executed.
            to_claim: 1 if it claims a fetched job, too.
            most: how many it may ask for at most.
            may_claim_ahead: whether jobs may be claimed ahead now.
        """
        beyond, room, idle = self._left()
        # Each call asks for its share: Redis works on one while this process works on the other's jobs.
        most = min(-(-(self._concurrency + beyond) // MAX_CALLS), MAX_BATCH, most)
        wanted = max(0, min(room + ended - to_claim, most))
        if not self.ahead_limit:
            return wanted, 0
        free = max(0, min(idle - to_claim, wanted))
        return free, wanted - free if beyond and may_claim_ahead else 0

    def sent(self, call: ExchangeCall, *, to_claim: int) -> None:
        """Count the jobs that a call may bring, and note until when they must begin."""
        call.asked = call.free + call.ahead + to_claim
        call.requested = max(0, call.asked - len(call.outcomes))
        self._requested += call.requested
        self._asked += call.asked
        if call.ahead:
            call.begin_by_s = self._clock() + self._begin_within_s
            call.notes_ahead = self.notes_ahead

    def answered(self, call: ExchangeCall) -> None:
        """Note that the call has ended, well or not; a second call does nothing."""
        self._requested -= call.requested
        self._asked -= call.asked
        call.requested = call.asked = 0

    def reserve(self, places: int) -> None:
        """Reserve places for a job that is neither held nor asked for; or free them again (below 0)."""
        self._requested += places
        self._asked += places

    def take(self, jobs: list[ClaimedJob], ahead: int, call: ExchangeCall) -> list[ClaimedJob]:
        """Hold the jobs of a call, the last ``ahead`` of them claimed ahead; return the others."""
        self.taken += len(jobs)
        at_once = jobs[: len(jobs) - ahead] if ahead else jobs
        if ahead:
            self.ahead.add(jobs[len(at_once) :], begin_by_s=call.begin_by_s, is_noted=call.notes_ahead)
        self.running += len(at_once)
        again = [job[3] for job in at_once if job[2] != FIRST_DELIVERY]
        if again:
            self.redelivered.update(again)
        return at_once

    def begin(self, claimed: HeldClaims) -> tuple[list[ClaimedJob], list[ClaimedJob]]:
        """Return the jobs claimed ahead that begin now, and those of them that are noted in Redis.

        As many as there are places, without overdue ones.
        """
        begun: list[ClaimedJob] = []
        noted: list[ClaimedJob] = []
        now_s, free = self._clock(), self._concurrency - self.running
        while len(begun) < free and (taken := self.ahead.take(free - len(begun), now_s)):
            for job, _, is_noted in taken:
                if claimed.get(job[0]) != job[3]:  # it is lost, or was cancelled
                    self.taken -= 1
                    continue
                begun.append(job)
                if is_noted:
                    noted.append(job)
        self.running += len(begun)
        return begun, noted

    def is_overdue(self) -> bool:
        """Return whether a job that was claimed ahead has not begun in time."""
        return self.ahead.oldest_s < self._clock()

    def leave_ahead(self) -> list[tuple[bytes, bytes]]:
        """Remove the jobs claimed ahead; return id and claim of each, in order."""
        newest_first = self.ahead.take_overdue(math.inf)
        return [(raw_id, claim) for raw_id, _, _, claim in reversed(newest_first)]
