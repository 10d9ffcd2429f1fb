"""The order of jobs that wait for a place: decides which one a free place goes to. No IO, no clock.

A waiting job lies in Redis, and asks again from time to time. If the first to ask took a free place,
endpoints with many jobs would get them all. So a place is kept for a job that goes before the asking one, and
will itself ask in a moment. A job goes before another if it has waited longer, relative to how long a place
at its endpoint is held: no job waits for ever, and short ones go first. Asking does not change the order. An
endpoint has one place in the line, its oldest job's, however many jobs it has.
"""

from dataclasses import dataclass

#: How many endpoints have a place in the line; those beyond whose turn is last have none.
MAX_WAITING = 100
#: A free place is kept for a job that asks within so long, or should have asked so long ago.
MOMENT_S = 2.0


@dataclass(frozen=True, slots=True)
class Seeker:
    """A job that asks for a place.

    Attributes:
        host: the name of its receiver's host.
        endpoint: the endpoint's key.
        job: the job's id.
        waited_s: how long it has waited so far.
    """

    host: str
    endpoint: str
    job: str
    waited_s: float = 0.0


@dataclass(slots=True)
class _WaitingEndpoint:
    seeker: Seeker
    since_s: float  # the start of its wait, if it had waited without a break
    length_s: float  # how long a place at the endpoint is held
    due_s: float  # when it asks again
    number: int  # of equal ones, the first to come goes first

    def rank(self, now_s: float) -> tuple[float, int]:
        """Return the sort key: smaller goes first."""
        return (self.since_s - now_s) / self.length_s, self.number


class TurnLine:
    """One line of waiting endpoints; the caller passes the time."""

    def __init__(self) -> None:
        self._waiting: dict[str, _WaitingEndpoint] = {}  # by endpoint
        self._count = 0  # how many have come

    def before(self, seeker: Seeker, length_s: float, now_s: float) -> list[Seeker]:
        """Return the jobs that go before the asking one, and are about to ask, too."""
        own = self._asking(seeker, length_s, now_s)
        return [
            other.seeker
            for other in self._waiting.values()
            if abs(other.due_s - now_s) <= MOMENT_S and _is_before(other, own, now_s)
        ]

    def position(self, seeker: Seeker, length_s: float, now_s: float) -> int | None:
        """Give the asking job its place in the line; return how many go before it, None: it has no place."""
        self._waiting = {
            endpoint: other for endpoint, other in self._waiting.items() if other.due_s >= now_s - MOMENT_S
        }
        own = self._asking(seeker, length_s, now_s)
        elder = self._waiting.get(seeker.endpoint)
        if elder is not None and _is_before(elder, own, now_s):
            return None
        self._waiting[seeker.endpoint] = own
        self._count += 1
        if len(self._waiting) > MAX_WAITING:
            last = max(self._waiting.values(), key=lambda other: other.rank(now_s))
            del self._waiting[last.seeker.endpoint]
            if last is own:
                return None
        return sum(_is_before(other, own, now_s) for other in self._waiting.values())

    def asks_again(self, seeker: Seeker, due_s: float) -> None:
        """Note when a job that has a place in the line asks again."""
        own = self._waiting.get(seeker.endpoint)
        if own is not None and own.seeker.job == seeker.job:
            own.due_s = due_s

    def leave(self, seeker: Seeker) -> None:
        """Remove a job that no longer waits."""
        own = self._waiting.get(seeker.endpoint)
        if own is not None and own.seeker.job == seeker.job:
            del self._waiting[seeker.endpoint]

    def forget(self, endpoint: str) -> None:
        """Remove an endpoint: its jobs no longer need this line."""
        self._waiting.pop(endpoint, None)

    def _asking(self, seeker: Seeker, length_s: float, now_s: float) -> _WaitingEndpoint:
        known = self._waiting.get(seeker.endpoint)
        is_own = known is not None and known.seeker.job == seeker.job
        if known is None or not is_own:
            return _WaitingEndpoint(seeker, now_s - seeker.waited_s, length_s, now_s, self._count)
        # Each job asks a little late. If that made it younger, it would fall behind those who ask next, and
        # they behind it in turn, and none would go first.
        since_s = min(known.since_s, now_s - seeker.waited_s)
        return _WaitingEndpoint(seeker, since_s, length_s, now_s, known.number)

    def is_awaited(self, now_s: float) -> bool:
        """Return whether the job is about to ask."""
        return any(abs(other.due_s - now_s) <= MOMENT_S for other in self._waiting.values())


def _is_before(other: _WaitingEndpoint, own: _WaitingEndpoint, now_s: float) -> bool:
    if other.seeker.job == own.seeker.job:
        return False
    if other.seeker.endpoint == own.seeker.endpoint:
        return (other.since_s, other.number) < (own.since_s, own.number)
    return other.rank(now_s) < own.rank(now_s)
