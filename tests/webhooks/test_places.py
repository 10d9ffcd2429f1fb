"""The places of slow receivers, by a clock of the test's own."""

from __future__ import annotations

import pytest

from beeq.webhooks.receivers import places as module
from beeq.webhooks.receivers.places import LONGEST_WAIT_S, SHORTEST_WAIT_S, HeldPlace, Places

PLACES = 8


class World:
    """A worker with eight places, and its clock."""

    def __init__(self, share: int | None = None) -> None:
        self.now_s = 1000.0
        self.places = Places(300.0, share, clock=lambda: self.now_s)

    def taken(self, name: str, count: int) -> list[HeldPlace]:
        return [self.places.take(name) for _ in range(count)]

    def slow(self, taken: list[HeldPlace]) -> list[HeldPlace]:
        """Let these attempts have no answer, as after some seconds; return those that go on."""
        self.now_s += 5
        going_on = []
        for place in taken:
            if self.places.is_too_slow(place, PLACES):
                self.places.leave(place)
            else:
                going_on.append(place)
        return going_on

    def admits(self, name: str) -> bool:
        return self.places.wait_s(name, PLACES) == 0


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
    assert world.admits("a")


@pytest.mark.parametrize(("share", "held"), [(1, 1), (3, 3), (100, 6)])
def test_the_share_may_be_chosen(share: int, held: int) -> None:
    world = World(share)
    assert len(world.slow(world.taken("a", PLACES))) == held


def test_all_slow_hosts_together_leave_a_quarter() -> None:
    world = World()
    held = [place for name in "abcdefgh" for place in world.slow(world.taken(name, 1))]

    assert len(held) == PLACES - PLACES // 4
    assert not world.admits("a")
    assert world.admits("z")


def test_a_single_place_may_be_held_by_a_slow_host() -> None:
    places = Places(300.0, None, clock=lambda: 0.0)
    assert not places.is_too_slow(places.take("a"), 1)


def test_a_host_counts_as_slow_for_minutes() -> None:
    world = World()
    for place in world.slow(world.taken("a", 1)):
        world.places.leave(place)
    world.taken("a", PLACES // 2)
    world.now_s += 299
    assert not world.admits("a")
    world.now_s += 2
    assert world.admits("a")


def test_jobs_come_back_as_fast_as_the_host_takes_them() -> None:
    world = World()
    going_on = world.slow(world.taken("a", PLACES))  # each took five seconds
    waits_s = [world.places.wait_s("a", PLACES) for _ in range(8)]
    assert waits_s == pytest.approx([5 / 4 * n for n in range(1, 9)])

    many = [world.places.wait_s("a", PLACES) for _ in range(1000)]
    assert many[-1] == LONGEST_WAIT_S

    world.now_s += LONGEST_WAIT_S
    for place in going_on:
        world.places.leave(place)
    place = world.places.take("a")
    world.places.leave(place)  # at once: the host is quick by now
    assert world.places.put_off_s("a", PLACES) == SHORTEST_WAIT_S


def test_hosts_without_an_attempt_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HOSTS", 2)
    world = World()
    (busy,) = world.slow(world.taken("busy", 1))
    world.slow(world.taken("held", 1))
    for n in range(100):
        world.places.leave(world.places.take(f"other-{n}"))
    world.taken("busy", 3)

    assert not world.admits("busy")  # it was slow, and is remembered: it holds places
    world.places.leave(busy)
