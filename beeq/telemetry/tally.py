"""The counts of one queue in one process: an array of numbers, in memory that processes may share.

Each number is a double that is written at once, by one thread of one process: that of the queue's loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from beeq.errors import JobLost, RedisError

#: How an attempt may end.
OUTCOMES = ("succeeded", "retrying", "failed", "postponed", "cancelled")
#: The upper bounds of the histograms' buckets, in s; one more has no bound.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

_ENQUEUED, _STALLED, _LOST, _REDIS_ERRORS, _OUTCOMES = range(5)
_DURATION = _OUTCOMES + len(OUTCOMES)
#: A histogram: its sum, and a number for each bucket.
_HISTOGRAM = 1 + len(BUCKETS_S) + 1
_WAIT = _DURATION + _HISTOGRAM
#: How many numbers a tally has.
TALLY_SIZE = _WAIT + _HISTOGRAM


class Counts:
    """The numbers of a tally, or the sums of several, at one moment."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: Sequence[float] = (0.0,) * TALLY_SIZE) -> None:
        self._numbers = list(numbers)

    def __add__(self, other: Counts) -> Counts:
        return Counts([one + another for one, another in zip(self._numbers, other._numbers, strict=True)])

    @property
    def enqueued(self) -> float:
        """Jobs that this process has put into the queue."""
        return self._numbers[_ENQUEUED]

    @property
    def stalled(self) -> float:
        """Jobs that this process's stall checks have queued again."""
        return self._numbers[_STALLED]

    @property
    def lost(self) -> float:
        """Jobs of this process that had another owner before their end was recorded."""
        return self._numbers[_LOST]

    @property
    def redis_errors(self) -> float:
        """Failed calls to Redis, each try."""
        return self._numbers[_REDIS_ERRORS]

    def ended(self) -> dict[str, float]:
        """Return how many attempts have ended in each of ``OUTCOMES``."""
        return dict(zip(OUTCOMES, self._numbers[_OUTCOMES:_DURATION], strict=True))

    def durations(self) -> tuple[float, list[float]]:
        """Return the sum of all durations, in s, and how many were in each bucket."""
        return self._histogram(_DURATION)

    def waits(self) -> tuple[float, list[float]]:
        """Return the sum of all waits, in s, and how many were in each bucket."""
        return self._histogram(_WAIT)

    def _histogram(self, start: int) -> tuple[float, list[float]]:
        return self._numbers[start], self._numbers[start + 1 : start + _HISTOGRAM]


class QueueTally:
    """Counts of one queue. ``numbers``: ``TALLY_SIZE`` doubles, which go on from what they are."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: memoryview[float] | None = None) -> None:
        self._numbers = memoryview(bytearray(8 * TALLY_SIZE)).cast("d") if numbers is None else numbers

    def enqueued(self, count: int) -> None:
        """Count jobs that were put into the queue."""
        self._numbers[_ENQUEUED] += count

    def stalled(self) -> None:
        """Count a job that was queued again because its worker gave no sign of life."""
        self._numbers[_STALLED] += 1

    def reported(self, error: BaseException) -> None:
        """Count a reported error if it is a RedisError or a JobLost."""
        if isinstance(error, RedisError):
            self._numbers[_REDIS_ERRORS] += 1
        elif isinstance(error, JobLost):
            self._numbers[_LOST] += 1

    def ended(self, outcome: str) -> None:
        """Count the end of an attempt: one of ``OUTCOMES``."""
        self._numbers[_OUTCOMES + OUTCOMES.index(outcome)] += 1

    def ran(self, duration_s: float) -> None:
        """Count how long a handler ran."""
        self._observe(_DURATION, duration_s)

    def waited(self, wait_s: float) -> None:
        """Count how long a job waited for its first attempt, from when it was due."""
        self._observe(_WAIT, wait_s)

    def _observe(self, start: int, seconds: float) -> None:
        numbers = self._numbers
        numbers[start] += seconds
        numbers[start + 1 + bisect_left(BUCKETS_S, seconds)] += 1

    def read(self) -> Counts:
        """Return the numbers now; may be called in any thread."""
        return Counts(self._numbers.tolist())
