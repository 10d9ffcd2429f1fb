"""Slow receivers: how many of a worker's places they may hold, so that the others find one.

All begin alike. An attempt without an answer for some seconds marks its endpoint and its host as slow, for
minutes: a host's slow attempts hold at most a share of the places, and those of all slow hosts leave a
quarter of them free. Attempts beyond that are given up, and their jobs wait without a place.

The other endpoints of a slow host may belong to other users. One that answered in time takes places as if its
host were quick. An unknown one is tried, one attempt at a time, on places reserved for trials: so hundreds of
slow neighbours delay it only by the seconds of their trials. ``line`` orders the waiting jobs. No IO; the
clock is given.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from beeq.webhooks.receivers.line import Seeker, TurnLine

#: How many hosts and endpoints are remembered; beyond that, those used longest ago are forgotten.
MAX_HOSTS = 10_000
MAX_ENDPOINTS = 10_000
#: A job that waits asks again after so long: not at once, and not much later than its turn.
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
#: How many jobs ask in a second, or as many as there are places. With more the waits grow, up to …
MAX_ASKS = 20
MOST_SPREAD_S = 300.0
#: How many times longer an attempt that was given up is assumed to take.
_UNFINISHED = 4

#: ``free``: as at a quick host. At a slow host, ``trial``: of an unknown endpoint; ``slow``.
Kind = Literal["free", "trial", "slow"]


@dataclass(slots=True)
class _Host:
    held: int = 0  # places
    held_slowly: int = 0  # of these
    slow_until_s: float = 0.0


@dataclass(slots=True, eq=False)
class HeldPlace:
    """The place of one attempt, until it is left."""

    seeker: Seeker
    host: _Host
    began_s: float
    kind: Kind = "free"


class Places:
    """The places of one worker, and their holders.

    Args:
        slow_s: an attempt without an answer by then is slow.
        memory_s: so long after its latest slow attempt a host counts as slow.
        share: how many places the slow attempts of one host may hold; None: half of them.
        clock: returns seconds, which never go back.
    """

    def __init__(
        self, slow_s: float, memory_s: float, share: int | None, *, clock: Callable[[], float]
    ) -> None:
        self._slow_s = slow_s
        self._memory_s = memory_s
        self._share = share
        self._clock = clock
        self._held_slowly = 0
        self._next_ask_s = 0.0
        self._tried: set[str] = set()  # endpoints under trial
        self._lines: dict[Kind, TurnLine] = {"trial": TurnLine(), "slow": TurnLine()}
        self._hosts: OrderedDict[str, _Host] = OrderedDict()  # the latest used last, as in the next two
        self._quick: OrderedDict[str, None] = OrderedDict()  # endpoints
        self._slow: OrderedDict[str, float] = OrderedDict()  # endpoint → seconds that a place is held

    def is_slow(self, host: str) -> bool:
        """Return whether a host counts as slow."""
        found = self._hosts.get(host)
        return found is not None and found.slow_until_s > self._clock()

    def wait_s(self, seeker: Seeker, count: int) -> float:
        """Return how long a job waits for one of the worker's ``count`` places; 0: it takes one."""
        kind = self._kind(seeker)
        if kind == "free" or self._is_its_turn(seeker, kind, count):
            return 0.0
        return self.put_off_s(seeker, count)

    def take(self, seeker: Seeker) -> HeldPlace:
        """Take a place for an attempt; ``leave`` gives it back."""
        kind = self._kind(seeker)
        host = self._hosts.setdefault(seeker.host, _Host())
        self._hosts.move_to_end(seeker.host)
        host.held += 1
        self._forget_hosts()
        place = HeldPlace(seeker, host, self._clock())
        self._change(place, kind)
        for line in self._lines.values():
            line.leave(seeker)
        return place

    def is_too_slow(self, place: HeldPlace, count: int) -> bool:
        """Note that an attempt has no answer yet; return whether it is to give its place to others."""
        seeker = place.seeker
        place.host.slow_until_s = self._clock() + self._memory_s
        self._quick.pop(seeker.endpoint, None)
        self._remember(seeker, max(self._slow.get(seeker.endpoint, 0.0), _UNFINISHED * self._slow_s))
        self._lines["trial"].forget(seeker.endpoint)
        if place.kind == "slow":
            return False
        self._change(place, "free")
        if not self._is_its_turn(seeker, "slow", count):
            return True
        self._change(place, "slow")
        return False

    def leave(self, place: HeldPlace, *, is_over: bool = True) -> None:
        """Give the place back; ``is_over``: the attempt was completed, so its length counts."""
        host, seeker = place.host, place.seeker
        self._change(place, "free")
        host.held -= 1
        if not host.held and host.slow_until_s <= self._clock():
            self._hosts.pop(seeker.host, None)
        length_s = self._clock() - place.began_s
        if not is_over:
            return
        if length_s >= self._slow_s:
            self._remember(seeker, length_s)
            return
        for line in self._lines.values():  # no place is kept for jobs that no longer need one
            line.forget(seeker.endpoint)
        self._slow.pop(seeker.endpoint, None)
        self._quick[seeker.endpoint] = None
        self._quick.move_to_end(seeker.endpoint)
        if len(self._quick) > MAX_ENDPOINTS:
            self._quick.popitem(last=False)

    def put_off_s(self, seeker: Seeker, count: int) -> float:
        """Give a job its place in the line, if it has none; return in how many s it should ask again."""
        now_s = self._clock()
        kind: Kind = "slow" if seeker.endpoint in self._slow else "trial"
        line, length_s = self._lines[kind], self._length_s(seeker)
        room = _trials(count) if kind == "trial" else self._share_of(count)
        position = line.position(seeker, length_s, now_s)
        turn_s = length_s * (1 if position is None else position) / room
        wait_s = min(max(turn_s, SHORTEST_WAIT_S), LONGEST_WAIT_S)
        if position is None:  # one after the other, so that many waiting jobs do not keep the worker busy
            next_ask_s = max(self._next_ask_s, now_s) + 1 / max(MAX_ASKS, count)
            self._next_ask_s = min(next_ask_s, now_s + MOST_SPREAD_S)
            wait_s = max(wait_s, self._next_ask_s - now_s)
        line.asks_again(seeker, now_s + wait_s)
        return wait_s

    def _kind(self, seeker: Seeker) -> Kind:
        if not self.is_slow(seeker.host) or seeker.endpoint in self._quick:
            return "free"
        return "slow" if seeker.endpoint in self._slow else "trial"

    def _is_its_turn(self, seeker: Seeker, kind: Kind, count: int) -> bool:
        """Return whether there is a place, and no job that goes before is about to ask."""
        now_s = self._clock()

        def hosts_left(other: Seeker) -> int:
            if kind == "trial":
                return 0 if other.endpoint in self._tried else count
            host = self._hosts.get(other.host)
            return self._share_of(count) - (0 if host is None else host.held_slowly)

        left = _most_slow(count) - self._held_slowly - len(self._tried)
        for_trials = _trials(count) - len(self._tried)
        if kind == "trial":
            left = min(left, for_trials)
        elif self._lines["trial"].is_awaited(now_s):
            left -= for_trials
        if min(left, hosts_left(seeker)) <= 0:
            return False
        before = self._lines[kind].before(seeker, self._length_s(seeker), now_s)
        before = [other for other in before if hosts_left(other) > 0]
        at_host = sum(other.host == seeker.host for other in before)
        return left > len(before) and hosts_left(seeker) > at_host

    def _length_s(self, seeker: Seeker) -> float:
        return max(self._slow.get(seeker.endpoint, self._slow_s), SHORTEST_WAIT_S)

    def _change(self, place: HeldPlace, kind: Kind) -> None:
        """Count a place as another kind's."""
        if "slow" in (place.kind, kind) and place.kind != kind:
            step = 1 if kind == "slow" else -1
            place.host.held_slowly += step
            self._held_slowly += step
        if kind == "trial":
            self._tried.add(place.seeker.endpoint)
        elif place.kind == "trial":
            self._tried.discard(place.seeker.endpoint)
        place.kind = kind

    def _remember(self, seeker: Seeker, length_s: float) -> None:
        self._slow[seeker.endpoint] = length_s
        self._slow.move_to_end(seeker.endpoint)
        if len(self._slow) > MAX_ENDPOINTS:
            self._slow.popitem(last=False)

    def _forget_hosts(self) -> None:
        if len(self._hosts) > MAX_HOSTS:
            idle = next((name for name, host in self._hosts.items() if not host.held), None)
            if idle is not None:
                del self._hosts[idle]

    def _share_of(self, count: int) -> int:
        return max(1, count // 2) if self._share is None else self._share


def _most_slow(count: int) -> int:
    return max(1, count - max(1, count // 4))


def _trials(count: int) -> int:
    return max(1, _most_slow(count) // 2)
