"""Adds to a queue's history: a worker's counts, and the sample of each minute.

The first caller in a minute samples (``lua/note_history.lua``), so no particular process is needed.
"""

import math
import time
from collections.abc import Callable

from beeq.errors import RedisError, RedisRefused
from beeq.protocol.keys import Keys
from beeq.redis import scripts

#: The shortest time between two additions of a worker's counts.
_COUNTS_EVERY_S = 5.0
#: Keeps a clock that is a little late from causing a call at each heartbeat.
_LEAST_S = 0.1
#: How long to wait after Redis has refused the call.
_REFUSED_S = 300.0


class HistoryNote:
    """One process's notes for one queue.

    Args:
        keys: of the queue.
        take: returns the counts of this process's worker since the last call; None: it does not work on
            the queue, and samples it only if Redis has any key of it.
    """

    def __init__(self, keys: Keys, take: Callable[[], str] | None = None) -> None:
        self._keys = keys
        self._take = take
        self._sample_at_s = -math.inf  # all by the monotonic clock
        self._counts_at_s = -math.inf
        self._refused_until_s = -math.inf

    def packed(self, *, is_last: bool = False) -> bytes | None:
        """Return the call that is due now, or None; report its outcome to ``answered`` or ``failed``.

        With ``is_last`` counts are due at once. Counts are sent once: a lost reply may cost the counts of
        some seconds, but none is added twice.
        """
        now_s = time.monotonic()
        if now_s < self._refused_until_s:
            return None
        counts = ""
        if self._take is not None and (is_last or now_s >= self._counts_at_s):
            counts = self._take()
            self._counts_at_s = now_s + _COUNTS_EVERY_S
        if not counts and now_s < self._sample_at_s:
            return None
        is_worker = "" if self._take is None else "1"
        return scripts.note_history.pack(self._keys, counts=counts, is_worker=is_worker)

    def answered(self, next_ms: int) -> None:
        """Take the reply: when the next sample is due."""
        self._sample_at_s = time.monotonic() + max(next_ms / 1000, _LEAST_S)

    def failed(self, error: RedisError) -> None:
        """Try again soon if Redis was away; after a refusal wait a while."""
        now_s = time.monotonic()
        self._sample_at_s = now_s + _COUNTS_EVERY_S
        if isinstance(error, RedisRefused):
            self._refused_until_s = now_s + _REFUSED_S
