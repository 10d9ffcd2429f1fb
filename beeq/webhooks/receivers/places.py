"""Slow receivers: how many of a worker's places they may hold, so that the others find one.

All begin alike. An attempt without an answer for some seconds makes its host a slow one, for minutes: the
slow attempts of one host hold a share of the places at most, and those of all slow hosts leave a quarter of
them. What is too much by then is given up, and what comes later waits without a place, spread over the time
that the host needs. No IO; the clock is given.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: Hosts that are remembered. Of more, one without an attempt that was used longest ago is forgotten.
MAX_HOSTS = 10_000
#: A job that waits asks again after so long: not at once, and not much later than it could.
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.1, 300.0


@dataclass(slots=True)
class _Host:
    held: int = 0  # places
    held_slowly: int = 0  # of these
    slow_until_s: float = 0.0
    latest_s: float = 0.0  # how long the latest attempt took
    next_s: float = 0.0  # when there may be a place for the next job that waits


@dataclass(slots=True, eq=False)
class HeldPlace:
    """The place of one attempt, until it is left."""

    host: _Host
    began_s: float
    is_slow: bool = False


class Places:
    """Who holds how many places of one worker.

    Args:
        memory_s: so long after its latest slow attempt a host counts as slow.
        share: how many places the slow attempts of one host may hold; None: half of them.
        clock: returns seconds, which never go back.
    """

    def __init__(self, memory_s: float, share: int | None, *, clock: Callable[[], float]) -> None:
        self._memory_s = memory_s
        self._share = share
        self._clock = clock
        self._held_slowly = 0
        self._hosts: OrderedDict[str, _Host] = OrderedDict()  # the latest used last

    def wait_s(self, name: str, count: int) -> float:
        """Return how long a job of a host waits for one of the worker's ``count`` places; 0: it takes one."""
        host = self._hosts.get(name)
        if host is None or host.slow_until_s <= self._clock():
            return 0.0
        if host.held < self._share_of(count) and self._held_slowly < _most_slow(count):
            return 0.0
        return self.put_off_s(name, count)

    def take(self, name: str) -> HeldPlace:
        """Take a place for an attempt; ``leave`` gives it back."""
        host = self._hosts.setdefault(name, _Host())
        self._hosts.move_to_end(name)
        host.held += 1
        if len(self._hosts) > MAX_HOSTS:
            idle = next((other for other, it in self._hosts.items() if not it.held), None)
            if idle is not None:
                del self._hosts[idle]
        return HeldPlace(host, self._clock())

    def is_too_slow(self, place: HeldPlace, count: int) -> bool:
        """Note that an attempt has no answer yet; return whether it is to give its place to others."""
        host = place.host
        host.slow_until_s = self._clock() + self._memory_s
        if host.held_slowly >= self._share_of(count) or self._held_slowly >= _most_slow(count):
            return True
        place.is_slow = True
        host.held_slowly += 1
        self._held_slowly += 1
        return False

    def leave(self, place: HeldPlace) -> None:
        """Give the place back."""
        host = place.host
        host.held -= 1
        host.latest_s = self._clock() - place.began_s
        if place.is_slow:
            host.held_slowly -= 1
            self._held_slowly -= 1

    def put_off_s(self, name: str, count: int) -> float:
        """Return how long to wait for a place: the host's attempts end one after the other."""
        host = self._hosts.setdefault(name, _Host())
        now_s = self._clock()
        host.next_s = max(host.next_s, now_s) + host.latest_s / self._share_of(count)
        host.next_s = min(host.next_s, now_s + LONGEST_WAIT_S)
        return max(host.next_s - now_s, SHORTEST_WAIT_S)

    def _share_of(self, count: int) -> int:
        return max(1, count // 2) if self._share is None else self._share


def _most_slow(count: int) -> int:
    return max(1, count - max(1, count // 4))
