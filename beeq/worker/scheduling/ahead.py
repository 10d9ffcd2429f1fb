"""Jobs that are claimed ahead: they begin as soon as a running one has ended, without a call in between.

``AttemptPace`` computes how many: as many as will begin within a few milliseconds. A long job must not hold
up those behind it: jobs that have not begun in time go back to the front of the queue. The loop gives them
back; if it is blocked, the heartbeat's thread does; if the whole process does not run, another worker does
(``maintenance/overdue_watch.py``). Whichever thread takes a job out of ``AheadJobs`` must start it or give it
back.
"""

import contextlib
from collections import deque
from collections.abc import Collection
from itertools import repeat

from beeq.worker.scheduling.claims import ClaimedJob

#: The most jobs held, running ones included: larger calls would not cost less for each job.
MOST_HELD = 64
#: A job claimed ahead that has not begun after so many times ``claim_ahead_ms`` goes back.
BEGINS_WITHIN = 4
#: How much later than its own worker others may take a job back: by then Redis has the note that it began.
NOTED_WITHIN_MS = 30
#: How many attempts must end before their mean counts …
_LEAST_ATTEMPTS = 20
#: … and the weight of each later one.
_SHARE_OF_NEWEST = 1 / 20


class AttemptPace:
    """Measures the attempts of a queue in this worker, and computes how many jobs to claim ahead.

    Args:
        claim_ahead_ms: a job is claimed ahead if it will begin within this time.
        concurrency: how many run at once.
    """

    def __init__(self, claim_ahead_ms: int, *, concurrency: int) -> None:
        self._bound_s = claim_ahead_ms / 1000
        self._concurrency = concurrency
        #: How many jobs are claimed ahead at most.
        self.most = max(0, MOST_HELD - concurrency) if claim_ahead_ms else 0
        # For attempts this short the most jobs are claimed.
        self._short_s = min(self._bound_s, self._bound_s * concurrency / max(1, self.most))
        self._attempts = 0
        self._mean_s = 0.0

    def ended(self, duration_s: float) -> int:
        """Add an attempt's duration; return how many jobs may be claimed ahead."""
        if self._attempts < _LEAST_ATTEMPTS:
            self._attempts += 1
            self._mean_s += (duration_s - self._mean_s) / self._attempts
            if self._attempts < _LEAST_ATTEMPTS:
                return 0
            mean_s = self._mean_s
        else:
            mean_s = self._mean_s
            self._mean_s = mean_s = mean_s + (duration_s - mean_s) * _SHARE_OF_NEWEST
        if mean_s < self._short_s:
            return self.most
        if mean_s >= self._bound_s:
            return 0
        return min(self.most, int(self._bound_s * self._concurrency / mean_s))


def ahead_member(raw_id: bytes, claim: bytes) -> bytes:
    """Return the member of ``beeq:ahead`` for a job with this claim."""
    return b"%b %b" % (claim, raw_id)


#: A job that was claimed ahead; by when it must begin, by the scheduler's clock; whether Redis has a note of
#: it, so that others may take it back after that.
AheadJob = tuple[ClaimedJob, float, bool]


class AheadJobs(deque[AheadJob]):
    """One worker's jobs, in the order in which they were claimed, which is that in which they begin."""

    def add(self, jobs: list[ClaimedJob], *, begin_by_s: float, is_noted: bool) -> None:
        """Add jobs that are to begin by this time; ``is_noted``: others may take them back after that."""
        self.extend(zip(jobs, repeat(begin_by_s), repeat(is_noted)))

    def take(self, count: int, now_s: float) -> list[AheadJob]:
        """Take out at most ``count`` jobs that begin next, and none for which it is too late."""
        taken: list[AheadJob] = []
        with contextlib.suppress(IndexError):  # there are no more, or the thread was faster
            while len(taken) < count:
                job = self.popleft()
                if job[1] < now_s:
                    self.appendleft(job)
                    break
                taken.append(job)
        return taken

    def take_overdue(self, now_s: float) -> list[ClaimedJob]:
        """Take out the jobs from the first overdue one on; any thread may call this.

        The newest comes first: put back in this order, each to the front, they are in their order again.
        """
        taken: list[ClaimedJob] = []
        while self.oldest_s < now_s:
            try:
                taken.append(self.pop()[0])
            except IndexError:
                break
        return taken

    @property
    def oldest_s(self) -> float:
        """By when the next one must begin; infinite if there is none. Any thread may read it."""
        try:
            return self[0][1]
        except IndexError:
            return float("inf")

    def jobs(self) -> list[ClaimedJob]:
        """Return all of them; any thread may call this."""
        return [job for job, _, _ in list(self)]  # ``list`` copies atomically

    def among(self, claims: Collection[bytes]) -> list[tuple[bytes, bytes]]:
        """Return id and claim of those with these claims."""
        return [(raw_id, claim) for raw_id, _, _, claim in self.jobs() if claim in claims]
