"""How much the HTTP API takes from all clients together, in this process and in Redis.

A client that may send one request may send a thousand at once: what one request may cost is bounded where it
is read (``bodies``), what all of them may cost is bounded here.
"""

from beeq.web.responses import Refusal

#: Of bodies that are held at once, those of requests under way. One that does not fit is answered with 503.
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
        """Count bytes that are kept; raises Refusal if they are too many."""
        if self._total + size > self._most:
            raise Refusal(503, "Too many large requests at once", headers={"retry-after": "1"})
        self._total += size

    def remove(self, size: int) -> None:
        """Count bytes that are kept no more."""
        self._total -= size


def check_queue(waiting: int, *, max_waiting: int, size: int) -> None:
    """Raise Refusal (429) unless a queue in which so many jobs wait may get one more, from ``size`` bytes.

    Large jobs fill Redis sooner: what ten times the usual size may be waiting is a tenth in number. An empty
    queue takes any job.
    """
    allowed = max(1, min(max_waiting, max_waiting * _USUAL_BYTES // max(size, 1)))
    if waiting >= allowed:
        error = f"Too many jobs wait: {allowed} of this size may, by --max-waiting or BEEQ_MAX_WAITING"
        raise Refusal(429, error, headers={"retry-after": "10"})
