"""Registers in Redis that a queue is in use, so that commands find it without its name.

Producers and workers write the note, again after an hour; processes that only read a queue do not. A Redis
user without the right to the registry's key loses only this: the queue can then be found by its keys at most.
"""

import math
import time
from typing import Any

from beeq.errors import RedisUnavailable
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline

#: How long an unused queue stays in the registry.
LIFETIME_MS = 30 * 24 * 3_600_000
#: How many queues of one prefix the registry holds: some hundred kB.
MOST_QUEUES = 10_000
_EVERY_S = 3600.0


class QueueNote:
    """One process's note of one queue."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._due_at_s = -math.inf  # by the monotonic clock

    def is_due(self) -> bool:
        """Return whether to write it now; the next time is in an hour, even if this write fails."""
        now_s = time.monotonic()
        if now_s < self._due_at_s:
            return False
        self._due_at_s = now_s + _EVERY_S
        return True

    def forget(self) -> None:
        """Write the note at the next use of the queue: it was destroyed, say."""
        self._due_at_s = -math.inf

    def packed(self) -> bytes:
        """Return the call."""
        return scripts.note_queue.pack(
            self._keys, name=self._keys.queue_name, lifetime_ms=LIFETIME_MS, most=MOST_QUEUES
        )

    def send_along(self, pipeline: Pipeline) -> None:
        """Put the call into the pipeline, where it goes with the next call; its reply is ignored."""

        def answered(_reply: Any, error: Exception | None) -> None:
            if error is not None:
                self.failed(error)

        pipeline.defer(scripts.note_queue, self.packed, answered)

    def failed(self, error: Exception) -> None:
        """Try again at the next use if Redis was away; after a refusal wait an hour."""
        if isinstance(error, RedisUnavailable):
            self.forget()
