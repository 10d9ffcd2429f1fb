"""The eager timer at its edges: early and late wake-ups, fractions, the farthest times, any sequence at all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beeq.maintenance.eager_timer import EagerTimer

pytestmark = pytest.mark.fast

MAX_MS = 500
START_MS = 1_795_488_864_455


@pytest.fixture
def timer() -> EagerTimer:
    return EagerTimer(MAX_MS)


def test_never_scheduled_it_never_fires(timer):
    assert timer.deadline_ms is None
    assert not timer.fire(now_ms=START_MS)


def test_woken_too_early_it_does_not_fire_and_keeps_its_time(timer):
    timer.schedule(START_MS + 100, now_ms=START_MS)
    assert not timer.fire(now_ms=START_MS + 99)
    assert timer.deadline_ms == START_MS + 100


def test_woken_too_late_it_fires_once_and_counts_from_then(timer):
    timer.schedule(START_MS + 100, now_ms=START_MS)
    assert timer.fire(now_ms=START_MS + 1000)
    assert not timer.fire(now_ms=START_MS + 1000)
    assert timer.deadline_ms == START_MS + 1000 + MAX_MS


def test_a_past_time_pushes_back_a_nearer_one(timer):
    timer.schedule(START_MS + 100, now_ms=START_MS)
    assert timer.schedule(START_MS, now_ms=START_MS)
    assert timer.deadline_ms == START_MS + MAX_MS


def test_a_stop_takes_the_deadline_away(timer):
    timer.schedule(START_MS + 100, now_ms=START_MS)
    timer.stop()
    assert timer.deadline_ms is None
    assert not timer.schedule(START_MS - 1, now_ms=START_MS)
    assert timer.deadline_ms is None


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_a_fraction_of_a_millisecond_is_not_fired_before(timer, fraction):
    timer.schedule(START_MS + 10 + fraction, now_ms=START_MS)
    assert timer.deadline_ms == START_MS + 11


@pytest.mark.parametrize(
    "at_ms",
    [math.inf, 1e300, 10**15, 10**400, -(10**400), -math.inf, -0.5],
    ids=lambda at_ms: repr(at_ms)[:9],
)
def test_the_farthest_and_the_impossible_times_are_the_maximum(timer, at_ms):
    timer.schedule(at_ms, now_ms=START_MS)
    assert timer.deadline_ms == START_MS + MAX_MS


@pytest.mark.parametrize("max_delay_ms", [None, False, [], 500.0])
def test_the_maximum_must_be_an_int(max_delay_ms):
    with pytest.raises(ValueError, match="^maximum delay must be a positive integer$"):
        EagerTimer(max_delay_ms)


TIMES = st.none() | st.floats() | st.integers(-10, 5000).map(lambda ms: START_MS + ms)


@settings(deadline=None)
@given(
    max_delay_ms=st.integers(1, 3000),
    steps=st.lists(st.tuples(TIMES, st.integers(0, 400)), min_size=1, max_size=30),
)
def test_no_wish_is_met_late_and_no_deadline_is_far(
    max_delay_ms: int, steps: list[tuple[float | None, int]]
) -> None:
    timer, now_ms = EagerTimer(max_delay_ms), START_MS
    for at_ms, passed_ms in steps:
        before = timer.deadline_ms
        is_due = timer.schedule(at_ms, now_ms=now_ms)
        deadline_ms = timer.deadline_ms
        assert deadline_ms is not None
        assert now_ms < deadline_ms <= now_ms + max_delay_ms
        if is_due:
            assert at_ms is not None
            assert 0 <= at_ms <= now_ms
            assert deadline_ms == now_ms + max_delay_ms
        else:
            assert before is None or deadline_ms <= before
            if at_ms is not None and at_ms > now_ms:
                assert deadline_ms < at_ms + 1
        now_ms += passed_ms
        is_fired = timer.fire(now_ms=now_ms)
        assert is_fired == (now_ms >= deadline_ms)
