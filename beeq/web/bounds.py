"""Limits on all clients of the HTTP API together, in this process and in Redis.

A client may send a thousand requests at once: ``bodies`` bounds the cost of one request, this module that of
all of them.
"""

from beeq.web.responses import Refusal

#: The bytes of all bodies of requests under way. A request beyond that gets a 503.
MAX_HELD_BYTES = 64 << 20
#: Jobs that are read and saved at once: a body may become thirty times its size when it is read.
MAX_JOBS_AT_ONCE = 16
#: Up to this size of a request, the limit of waiting jobs is the one that is configured.
_USUAL_BYTES = 100 << 10


class HeldBytes:
    """The bytes of all bodies that one application holds at present, or of other large things."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._total = 0

    def add(self, size: int) -> None:
        """Count held bytes; raises Refusal if they are too many."""
        if self._total + size > self._most:
            raise Refusal(503, "Too many large requests at once", headers={"retry-after": "1"})
        self._total += size

    def remove(self, size: int) -> None:
        """Count released bytes."""
        self._total -= size


def check_queue(waiting: int, *, max_waiting: int, size: int) -> None:
    """Raise Refusal (429) unless a queue in which so many jobs wait may get one more, from ``size`` bytes.

    Large jobs fill Redis sooner: of jobs of ten times the usual size only a tenth may wait. An empty queue
    takes any job.
    """
    allowed = max(1, min(max_waiting, max_waiting * _USUAL_BYTES // max(size, 1)))
    if waiting >= allowed:
        error = f"Too many jobs wait: {allowed} of this size may, by --max-waiting or BEEQ_MAX_WAITING"
        raise Refusal(429, error, headers={"retry-after": "10"})
