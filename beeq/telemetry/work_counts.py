"""A worker's counts for the queue's history: in this process's memory, until a heartbeat takes them.

Written in the jobs' loop, taken in the heartbeat's thread: a job costs only additions, without a method call.
"""

from beeq.protocol.history import BUCKET_COUNT, COUNTED, counts_text

_WAITS_AT = len(COUNTED)
_DURATIONS_AT = _WAITS_AT + BUCKET_COUNT


class WorkCounts:
    """Counts of one queue's work; they only grow, so the heartbeat takes them without a lock.

    Attributes:
        ended: recorded outcomes by status.
        waits: of jobs from when they were due to their first attempt, by their buckets (``bucket_of``).
        durations: of attempts, by their buckets.
    """

    __slots__ = ("_taken", "durations", "ended", "waits")

    def __init__(self) -> None:
        self.ended = dict.fromkeys(("succeeded", "failed", "retrying", "postponed"), 0)
        self.waits = [0] * BUCKET_COUNT
        self.durations = [0] * BUCKET_COUNT
        self._taken = self._numbers()  # the heartbeat's

    def _numbers(self) -> list[int]:
        ended = self.ended
        return [ended["succeeded"], ended["failed"], ended["retrying"], *self.waits, *self.durations]

    def take(self) -> str:
        """Return the counts since the last call as an entry of the history; "" if there are none."""
        now = self._numbers()
        if now == self._taken:
            return ""
        new = [count - before for count, before in zip(now, self._taken, strict=True)]
        self._taken = now
        return counts_text(new[:_WAITS_AT], new[_WAITS_AT:_DURATIONS_AT], new[_DURATIONS_AT:])
