"""The places of slow receivers, by a clock of the test's own."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from beeq.webhooks.receivers import line as lines
from beeq.webhooks.receivers import places as module
from beeq.webhooks.receivers.line import Seeker
from beeq.webhooks.receivers.places import LONGEST_WAIT_S, MOST_SPREAD_S, HeldPlace, Places

PLACES = 8
SLOW_S = 5.0


def seeker(host: str, endpoint: str = "", job: str = "", waited_s: float = 0.0) -> Seeker:
    return Seeker(host, f"{host}/{endpoint}", job or f"{host}/{endpoint}", waited_s)


class World:
    """A worker with eight places, and its clock."""

    def __init__(self, share: int | None = None) -> None:
        self.now_s = 1000.0
        self.places = Places(SLOW_S, 300.0, share, clock=lambda: self.now_s)

    def taken(self, host: str, count: int, endpoint: str = "") -> list[HeldPlace]:
        return [self.places.take(seeker(host, endpoint)) for _ in range(count)]

    def slow(self, taken: list[HeldPlace]) -> list[HeldPlace]:
        """Let these attempts have no answer, as after some seconds; return those that go on."""
        self.now_s += SLOW_S
        going_on = []
        for place in taken:
            if self.places.is_too_slow(place, PLACES):
                self.places.leave(place, is_over=False)
            else:
                going_on.append(place)
        return going_on

    def wait_s(self, host: str, endpoint: str = "", job: str = "", waited_s: float = 0.0) -> float:
        return self.places.wait_s(seeker(host, endpoint, job, waited_s), PLACES)

    def admits(self, host: str, endpoint: str = "") -> bool:
        return self.wait_s(host, endpoint) == 0


def test_a_quick_host_may_hold_every_place() -> None:
    world = World()
    world.taken("a", PLACES)
    assert world.admits("a")


def test_a_slow_host_keeps_half_of_the_places() -> None:
    world = World()
    going_on = world.slow(world.taken("a", PLACES))

    assert len(going_on) == PLACES // 2
    assert not world.admits("a")
    assert world.admits("b")
    world.places.leave(going_on.pop())
    assert world.wait_s("a", job="another", waited_s=60) == 0


@pytest.mark.parametrize(("share", "held"), [(1, 1), (3, 3), (100, 6)])
def test_the_share_may_be_chosen(share: int, held: int) -> None:
    world = World(share)
    assert len(world.slow(world.taken("a", PLACES))) == held


def test_all_slow_hosts_together_leave_a_quarter() -> None:
    world = World()
    held = [place for name in "abcdefgh" for place in world.slow(world.taken(name, 1))]

    assert len(held) == PLACES - PLACES // 4
    assert not world.admits("a")
    assert not world.admits("a", "unknown")
    assert world.admits("z")


def test_a_single_place_may_be_held_by_a_slow_host() -> None:
    places = Places(SLOW_S, 300.0, None, clock=lambda: 0.0)
    assert not places.is_too_slow(places.take(seeker("a")), 1)


def test_a_host_counts_as_slow_for_minutes() -> None:
    world = World()
    going_on = world.slow(world.taken("a", PLACES))
    world.now_s += 299
    assert not world.admits("a")
    world.now_s += 2
    assert world.admits("a")
    assert len(going_on) == 4


def test_an_endpoint_that_answers_takes_places_at_a_slow_host() -> None:
    world = World()
    for place in world.taken("a", 1, "good"):
        world.places.leave(place)
    world.slow(world.taken("a", PLACES, "bad"))

    world.taken("a", PLACES, "good")
    assert world.admits("a", "good")
    assert not world.admits("a", "bad")


def test_an_endpoint_not_known_is_tried_once_at_a_time() -> None:
    world = World()
    world.slow(world.taken("a", PLACES, "bad"))
    (trial,) = world.taken("a", 1, "new")
    assert world.wait_s("a", "new", "another") > 0
    assert world.admits("a", "newer")  # slow ones hold four, and six may be held

    assert world.places.is_too_slow(trial, PLACES)  # half of them are held
    world.places.leave(trial, is_over=False)
    assert world.wait_s("a", "new", "another") > 0
    (trial,) = world.taken("a", 1, "newer")
    world.places.leave(trial)
    assert world.wait_s("a", "newer", "another") == 0


def test_slow_attempts_leave_places_to_trials_that_wait() -> None:
    world = World()
    held = [world.slow(world.taken(host, 3, "bad")) for host in "ab"]
    assert [len(some) for some in held] == [3, 3]
    assert world.wait_s("a", "new") > 0
    world.places.leave(held[0].pop())
    assert world.wait_s("a", "bad", "another", waited_s=1e6) > 0  # it would have room if nobody else waited
    assert world.wait_s("a", "new") == 0


def test_asking_does_not_make_anybody_wait_longer() -> None:
    world = World()
    world.slow(world.taken("a", PLACES, "bad"))
    waits_s = [world.wait_s("a", "bad", "1") for _ in range(1000)]
    assert waits_s[-1] == waits_s[0]


def test_many_who_wait_ask_one_after_the_other() -> None:
    world = World()
    world.slow(world.taken("a", PLACES, "bad"))
    waits_s = [world.wait_s("a", "bad", str(n), waited_s=-n) for n in range(20_000)]

    assert waits_s[10] <= LONGEST_WAIT_S
    assert max(waits_s) == MOST_SPREAD_S
    world.now_s += MOST_SPREAD_S
    assert world.wait_s("a", "bad", "21000") <= LONGEST_WAIT_S


def test_who_waited_longest_goes_first_and_what_is_over_soon() -> None:
    world = World(share=1)
    (held,) = world.slow(world.taken("a", 1, "long"))
    for endpoint, length_s in (("long", 60), ("short", 6)):
        for place in world.taken("a", 1, endpoint):
            world.now_s += length_s
            world.places.leave(place)
    asks: list[tuple[str, float]] = [("long", 50), ("short", 10), ("long", 200)]
    for n, (endpoint, waited_s) in enumerate(asks):
        assert world.wait_s("a", endpoint, str(n), waited_s) > 0
    world.now_s += 1
    world.places.leave(held, is_over=False)
    assert world.wait_s("a", "long", "0", 51) > 0
    assert world.wait_s("a", "short", "1", 11) > 0  # 200 of 60 is more than 10 of 6
    assert world.wait_s("a", "long", "2", 201) == 0


def test_a_job_that_asks_a_little_late_goes_behind_nobody() -> None:
    line = lines.TurnLine()
    for name, now_s in (("x", 0.0), ("y", 0.005)):
        assert line.position(seeker("a", name), 1.0, now_s) is not None
        line.asks_again(seeker("a", name), now_s + 1.0)

    assert line.before(seeker("a", "x", waited_s=1.0), 1.0, 1.01) == []
    assert line.position(seeker("a", "x", waited_s=1.0), 1.0, 1.01) == 0
    assert [one.endpoint for one in line.before(seeker("a", "y", waited_s=1.0), 1.0, 1.015)] == ["a/x"]


def test_no_place_is_kept_for_an_endpoint_that_is_known_by_now() -> None:
    world = World()
    world.slow(world.taken("a", PLACES))
    trials = [world.places.take(seeker("a", f"silent{n}", "first")) for n in range(2)]
    world.now_s += SLOW_S - 1
    for n in range(2):
        assert world.wait_s("a", f"silent{n}", "second", waited_s=60) == 1
    world.now_s -= SLOW_S - 1
    world.slow(trials)

    assert world.admits("a", "new")


def test_a_place_is_not_kept_for_a_job_that_does_not_come() -> None:
    world = World(share=1)
    (held,) = world.slow(world.taken("a", 1, "bad"))
    first_s = world.wait_s("a", "bad", "first", 100)
    world.places.leave(held)
    world.now_s += first_s - 1
    assert world.wait_s("a", "bad", "second", 50) > 0
    world.now_s += 1 + lines.MOMENT_S + 0.1
    assert world.wait_s("a", "bad", "second", 52) == 0


def test_the_line_is_bounded_and_keeps_those_who_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_WAITING", 3)
    line = lines.TurnLine()
    positions = [
        line.position(seeker("a", str(n), waited_s=waited_s), SLOW_S, 1000.0)
        for n, waited_s in enumerate((10, 20, 30, 5, 40))
    ]
    assert positions == [0, 0, 0, None, 0]
    assert [one.endpoint for one in line.before(seeker("b"), SLOW_S, 1000.0)] == ["a/1", "a/2", "a/4"]


def test_hosts_without_an_attempt_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HOSTS", 2)
    world = World()
    busy = world.slow(world.taken("busy", 4))
    world.slow(world.taken("held", 1))
    for n in range(100):
        world.places.leave(world.places.take(seeker(f"other-{n}")))

    assert not world.admits("busy")  # it was slow, and is remembered: it holds places
    assert len(busy) == 4


# --- Many at once ------------------------------------------------------------------------------


@dataclass
class SimulatedJob:
    """A job whose receiver answers after ``length_s``."""

    host: str
    endpoint: str
    length_s: float
    born_s: float
    waited_s: float = 0.0
    delivered_s: float | None = None


class Simulation:
    """A worker that takes jobs as they come, in virtual time; slow messages come again for ever."""

    def __init__(self, count: int) -> None:
        self.now_s = 0.0
        self.count = self.free = count
        self.asks = 0
        self.places = Places(SLOW_S, 300.0, None, clock=lambda: self.now_s)
        self._waiting: deque[SimulatedJob] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (time_s, self._number, event))

    def enqueue(self, host: str, endpoint: str, length_s: float, at_s: float = 0.0) -> SimulatedJob:
        job = SimulatedJob(host, endpoint, length_s, at_s)
        self.at(at_s, lambda: self._waiting.append(job))
        return job

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
            while self.free and self._waiting:
                self._begin(self._waiting.popleft())

    def _seeker(self, job: SimulatedJob) -> Seeker:
        return Seeker(job.host, f"{job.host}/{job.endpoint}", str(id(job)), job.waited_s)

    def _begin(self, job: SimulatedJob) -> None:
        self.asks += 1
        if (wait_s := self.places.wait_s(self._seeker(job), self.count)) > 0:
            return self._put_off(job, wait_s)
        place = self.places.take(self._seeker(job))
        self.free -= 1
        if job.length_s <= SLOW_S:
            return self.at(self.now_s + job.length_s, lambda: self._end(job, place))
        return self.at(self.now_s + SLOW_S, lambda: self._ask(job, place))

    def _put_off(self, job: SimulatedJob, wait_s: float) -> None:
        job.waited_s += wait_s
        self.at(self.now_s + wait_s, lambda: self._waiting.append(job))

    def _ask(self, job: SimulatedJob, place: HeldPlace) -> None:
        if not self.places.is_too_slow(place, self.count):
            return self.at(self.now_s + job.length_s - SLOW_S, lambda: self._end(job, place))
        self.places.leave(place, is_over=False)
        self.free += 1
        return self._put_off(job, self.places.put_off_s(self._seeker(job), self.count))

    def _end(self, job: SimulatedJob, place: HeldPlace) -> None:
        self.places.leave(place)
        self.free += 1
        if job.length_s >= 60:
            return self.at(self.now_s + 1, lambda: self._waiting.append(job))
        job.delivered_s = self.now_s
        return None


@pytest.mark.parametrize(("count", "slow", "within_s"), [(8, 100, 300), (50, 200, 100), (2, 20, 400)])
@pytest.mark.external  # it takes long
def test_slow_neighbours_cost_a_good_endpoint_minutes_at_most(count: int, slow: int, within_s: float) -> None:
    world = Simulation(count)
    for n in range(slow):
        world.enqueue("shared", f"slow-{n}", 60)
    same = [world.enqueue("shared", "good", 0.1, at_s) for at_s in range(10, 600, 60)]
    new = [world.enqueue("shared", f"good-{at_s}", 0.1, at_s) for at_s in range(10, 600, 60)]
    other = [world.enqueue("other", "good", 0.1, at_s) for at_s in range(10, 600, 60)]
    world.run(900)

    def longest_s(jobs: list[SimulatedJob]) -> float:
        return max((job.delivered_s or 1e9) - job.born_s for job in jobs)

    assert longest_s(same) < within_s
    assert longest_s(new) < within_s
    assert longest_s(other) < 10
    assert world.asks < 60 * 900  # each costs a turn through Redis


def test_many_slow_hosts_cost_a_good_endpoint_minutes() -> None:
    world = Simulation(8)
    for n in range(100):
        world.enqueue(f"slow-{n}", "", 60)
    world.enqueue("shared", "slow", 60)
    good = [world.enqueue("shared", f"good-{at_s}", 0.1, at_s) for at_s in range(10, 600, 60)]
    world.run(900)
    assert all(job.delivered_s is not None for job in good)
