"""Notes in Redis that a queue is in use, so that commands find it without its name.

Written by who saves jobs, and by workers; again after an hour. Who only looks into a queue writes nothing. A
user without the right to the registry's key lacks nothing else: the queue is found by its keys, if at all.
"""

import math
import time
from typing import Any

from beeq.errors import RedisUnavailable
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline

#: How long a queue is known that nobody has used.
LIFETIME_MS = 30 * 24 * 3_600_000
#: How many queues are known of one prefix: some hundred kB.
MOST_QUEUES = 10_000
_EVERY_S = 3600.0


class QueueNote:
    """One queue's, as one process writes it."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._due_at_s = -math.inf  # by the monotonic clock

    def is_due(self) -> bool:
        """Return whether to write it now; the next time is in an hour, whatever becomes of this one."""
        now_s = time.monotonic()
        if now_s < self._due_at_s:
            return False
        self._due_at_s = now_s + _EVERY_S
        return True

    def forget(self) -> None:
        """Let the next use of the queue be noted: it was destroyed, say."""
        self._due_at_s = -math.inf

    def packed(self) -> bytes:
        """Return the call."""
        return scripts.note_queue.pack(
            self._keys, name=self._keys.queue_name, lifetime_ms=LIFETIME_MS, most=MOST_QUEUES
        )

    def send_along(self, pipeline: Pipeline) -> None:
        """Put the call into the pipeline, where it goes with what is asked next; nobody hears of its end."""

        def answered(_reply: Any, error: Exception | None) -> None:
            if error is not None:
                self.failed(error)

        pipeline.defer(scripts.note_queue, self.packed, answered)

    def failed(self, error: Exception) -> None:
        """Note it again with the next use if Redis was away; what it refuses, it refuses for an hour."""
        if isinstance(error, RedisUnavailable):
            self.forget()
