"""Merges the errors of a command's queues: the same error of many queues is one line, then a count.

Each queue rarely repeats the same error of Redis (``beeq/supervision/error_reports.py``), but all of them
report it. So the first report is logged at once, with the queue's name; those of other queues with the same
class and text are counted, and logged with the next one after ``FIRST_REST_S``, then after twice as long each
time. Once every queue has Redis back, one line says for how long it was away.
"""

import logging
import time
from collections import OrderedDict

from beeq import Queue, RedisError, RedisUnavailable
from beeq.logs.records import log_event, log_queue_error

FIRST_REST_S = 10.0
LONGEST_REST_S = 300.0
#: How many errors are remembered; beyond that the oldest is forgotten.
MAX_KINDS = 200


class _Repetition:
    """Errors of one class and text."""

    __slots__ = ("count", "queues", "rest_s", "said_at")

    def __init__(self, now: float) -> None:
        self.said_at = now
        self.rest_s = FIRST_REST_S
        self.count = 0  # since it was logged
        self.queues: set[str] = set()


class Outages:
    """One process's outages. Follows any number of queues, all in one thread."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[tuple[type, str], _Repetition] = OrderedDict()
        self._away: dict[str, float] = {}  # queues without Redis, and since when
        self._seen: set[str] = set()  # queues that were without it since all had it
        self._errors = 0
        self._since = 0.0

    def follow(self, queue: Queue) -> None:
        """Log the queue's errors, and that Redis is back."""
        queue.on("error", lambda error: self._met(queue.name, error))
        queue.on("reconnected", lambda _away_ms, errors: self._back(queue.name, errors))

    def _met(self, name: str, error: BaseException) -> None:
        if not isinstance(error, RedisError):
            log_queue_error(name, error)
            return
        now = time.monotonic()
        if isinstance(error, RedisUnavailable):
            if not self._away:
                self._since = now
            self._away.setdefault(name, now)
            self._seen.add(name)
        key = type(error), str(error)
        kind = self._kinds.pop(key, None)
        if kind is None or now - kind.said_at > 2 * kind.rest_s:
            self._kinds[key] = _Repetition(now)
            if len(self._kinds) > MAX_KINDS:
                self._kinds.popitem(last=False)
            log_queue_error(name, error, more="")
            return
        self._kinds[key] = kind
        kind.count += 1 + error.repeated
        kind.queues.add(name)
        if now - kind.said_at >= kind.rest_s:
            more = f" ({kind.count} times, in {_queues(len(kind.queues))}, since it was last said)"
            log_queue_error(name, error, more=more)
            kind.said_at, kind.count, kind.queues = now, 0, set()
            kind.rest_s = min(2 * kind.rest_s, LONGEST_REST_S)

    def _back(self, name: str, errors: int) -> None:
        self._errors += errors
        self._away.pop(name, None)
        if self._away:
            return
        away_s = time.monotonic() - self._since
        count = f"{self._errors} errors, in {_queues(len(self._seen))}"
        what = f"Redis is back after {away_s:.1f} s ({count})"
        log_event(logging.WARNING, what, duration_ms=round(away_s * 1000))
        self._errors, self._seen = 0, set()
        for key in [key for key in self._kinds if issubclass(key[0], RedisUnavailable)]:
            del self._kinds[key]


def _queues(count: int) -> str:
    return "1 queue" if count == 1 else f"{count} queues"
