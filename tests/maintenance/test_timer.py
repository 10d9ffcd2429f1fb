"""The timer of delayed jobs: bee-queue's own 17 promises, on a clock that the test turns."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beeq.maintenance.eager_timer import EagerTimer

pytestmark = pytest.mark.fast

MAX_MS = 500
START_MS = 1_000_000


class Clock:
    """Runs a timer: ``advance`` moves time on and counts the looks."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.timer = EagerTimer(MAX_MS)
        self.looks: list[int] = []

    def schedule(self, at_ms: float | None) -> None:
        if self.timer.schedule(at_ms, now_ms=self.now_ms):
            self.looks.append(self.now_ms - START_MS)

    def advance(self, ms: int) -> None:
        until_ms = self.now_ms + ms
        while self.timer.deadline_ms is not None and self.timer.deadline_ms <= until_ms:
            self.now_ms = self.timer.deadline_ms
            assert self.timer.fire(now_ms=self.now_ms)
            self.looks.append(self.now_ms - START_MS)
        self.now_ms = until_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_01_it_looks_at_the_time_it_was_told(clock):
    clock.schedule(START_MS + 10)
    clock.advance(9)
    assert clock.looks == []
    clock.advance(1)
    assert clock.looks == [10]


def test_02_it_never_looks_later_than_its_longest_delay(clock):
    clock.schedule(START_MS + 10_000)
    clock.advance(MAX_MS)
    assert clock.looks == [MAX_MS]


def test_03_it_looks_again_and_again_at_its_longest_delay(clock):
    clock.schedule(None)
    clock.advance(3 * MAX_MS)
    assert clock.looks == [MAX_MS, 2 * MAX_MS, 3 * MAX_MS]


def test_04_an_earlier_time_replaces_a_later_one(clock):
    clock.schedule(START_MS + 100)
    clock.schedule(START_MS + 50)
    clock.advance(100)
    assert clock.looks == [50]


def test_05_later_too_the_longest_delay_counts_from_then(clock):
    clock.schedule(START_MS + 100)
    clock.advance(25)
    clock.schedule(START_MS + 50)
    clock.advance(25 + MAX_MS)
    assert clock.looks == [50, 50 + MAX_MS]


def test_06_a_later_time_does_not_replace_an_earlier_one(clock):
    clock.schedule(START_MS + 50)
    clock.schedule(START_MS + 100)
    clock.advance(100)
    assert clock.looks == [50]


def test_07_nor_does_one_beyond_the_longest_delay(clock):
    clock.schedule(START_MS + 50)
    clock.schedule(START_MS + 10 * MAX_MS)
    clock.advance(100)
    assert clock.looks == [50]


@pytest.mark.parametrize(
    "nothing_known",
    [pytest.param(-1, id="08"), pytest.param(None, id="09 and 10"), pytest.param(math.nan, id="11")],
)
def test_a_time_that_is_none_means_the_longest_delay(clock, nothing_known):
    clock.schedule(nothing_known)
    clock.advance(MAX_MS - 1)
    assert clock.looks == []
    clock.advance(1)
    assert clock.looks == [MAX_MS]


def test_12_it_does_not_replace_an_earlier_one(clock):
    clock.schedule(START_MS + 50)
    clock.schedule(None)
    clock.advance(50)
    assert clock.looks == [50]


def test_13_a_time_that_has_passed_means_now(clock):
    clock.schedule(START_MS - 1)
    assert clock.looks == [0]
    clock.advance(MAX_MS)
    assert clock.looks == [0, MAX_MS]


def test_14_a_stopped_timer_looks_no_more(clock):
    clock.schedule(START_MS + 10)
    clock.timer.stop()
    clock.advance(10 * MAX_MS)
    assert clock.looks == []
    assert not clock.timer.fire(now_ms=clock.now_ms)


@pytest.mark.parametrize(
    "at_ms", [pytest.param(START_MS, id="15"), pytest.param(START_MS + 10 * MAX_MS, id="16")]
)
def test_a_stopped_timer_takes_no_time(clock, at_ms):
    clock.timer.stop()
    clock.schedule(at_ms)
    clock.advance(10 * MAX_MS)
    assert clock.looks == []


@pytest.mark.parametrize("max_delay_ms", [-1, 0, math.nan, math.inf, 1.5, True, "500"])
def test_17_a_longest_delay_must_be_a_positive_integer(max_delay_ms):
    with pytest.raises(ValueError, match="maximum delay must be a positive integer"):
        EagerTimer(max_delay_ms)


@given(st.lists(st.floats(min_value=-10, max_value=5000) | st.none() | st.just(math.inf), min_size=1))
def test_the_deadline_only_moves_nearer_and_is_never_far(times):
    timer = EagerTimer(MAX_MS)
    before = None
    for at_ms in times:
        is_now = timer.schedule(at_ms, now_ms=100)
        assert timer.deadline_ms is not None
        assert 100 < timer.deadline_ms <= 100 + MAX_MS
        if before is not None and not is_now:
            assert timer.deadline_ms <= before
        before = timer.deadline_ms
