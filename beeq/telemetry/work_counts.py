"""What a queue's worker counts for the queue's history: in this process's memory, until a heartbeat takes it.

Written in the loop of the jobs, taken in the heartbeat's thread: nothing but additions is on a job's way.
"""

from beeq.protocol.history import BUCKET_COUNT, COUNTED, bucket_of, counts_text

#: How an attempt's end is counted; of others the history says nothing.
_PLACES = {"succeeded": 0, "failed": 1, "retrying": 2}
_WAITS_AT = len(COUNTED)
_DURATIONS_AT = _WAITS_AT + BUCKET_COUNT
_SIZE = _DURATIONS_AT + BUCKET_COUNT


class WorkCounts:
    """Counts of one queue's work; they only grow, so that whoever takes them needs no lock."""

    __slots__ = ("_numbers", "_taken")

    def __init__(self) -> None:
        self._numbers = [0] * _SIZE
        self._taken = [0] * _SIZE  # the heartbeat's

    def ended(self, status: str) -> None:
        """Count a recorded outcome."""
        place = _PLACES.get(status)
        if place is not None:
            self._numbers[place] += 1

    def waited(self, wait_ms: float) -> None:
        """Count a job's wait, from when it was due to its first attempt."""
        self._numbers[_WAITS_AT + bucket_of(wait_ms)] += 1

    def ran(self, duration_ms: float) -> None:
        """Count an attempt's duration."""
        self._numbers[_DURATIONS_AT + bucket_of(duration_ms)] += 1

    def take(self) -> str:
        """Return, as an entry of the history, what has come since the last call; "" if nothing has."""
        now = self._numbers.copy()
        if now == self._taken:
            return ""
        new = [count - before for count, before in zip(now, self._taken, strict=True)]
        self._taken = now
        return counts_text(new[:_WAITS_AT], new[_WAITS_AT:_DURATIONS_AT], new[_DURATIONS_AT:])
