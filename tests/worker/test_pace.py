"""How many jobs are claimed ahead, and in which order they leave: decisions, without a server."""

from __future__ import annotations

import pytest

from beeq.worker.scheduling.ahead import MOST_HELD, AheadJobs, AttemptPace
from beeq.worker.scheduling.claims import ClaimedJob

pytestmark = pytest.mark.fast


def paced(*durations_ms: float, bound_ms: int = 5, concurrency: int = 1) -> int:
    """Return how many jobs are claimed ahead after such attempts."""
    pace, limit = AttemptPace(bound_ms, concurrency=concurrency), 0
    for duration_ms in durations_ms:
        limit = pace.ended(duration_ms / 1000)
    return limit


def job(n: int) -> ClaimedJob:
    return b"%d" % n, b"record", 1, b"t.%d:1" % n


def held(count: int) -> AheadJobs:
    """Return jobs 1 to ``count``, of which each is to begin a second after the one before."""
    ahead = AheadJobs()
    for n in range(1, count + 1):
        ahead.add([job(n)], begin_by_s=n, is_noted=n == 2)
    return ahead


class TestPace:
    def test_before_twenty_attempts_nothing_is_claimed(self) -> None:
        assert paced(*[0.01] * 19) == 0
        assert paced(*[0.01] * 20) == MOST_HELD - 1

    @pytest.mark.parametrize(
        ("duration_ms", "concurrency", "limit"),
        [
            (1, 1, 5),
            (2, 1, 2),
            (4, 1, 1),
            (5, 1, 0),
            (50, 1, 0),
            (1, 10, 50),
            (1, 100, 0),
            (0.1, 10, 54),
            (0.1, 60, 4),
            (6, 100, 0),
        ],
    )
    def test_what_begins_within_the_bound_is_claimed(
        self, duration_ms: float, concurrency: int, limit: int
    ) -> None:
        assert paced(*[duration_ms] * 40, concurrency=concurrency) == limit

    def test_one_long_attempt_ends_it_for_a_while(self) -> None:
        assert paced(*[0.01] * 100, 1000) == 0
        assert paced(*[0.01] * 100, 1000, *[0.01] * 30) == 0
        assert paced(*[0.01] * 100, 1000, *[0.01] * 100) > 0

    def test_a_bound_of_zero_turns_it_off(self) -> None:
        assert paced(*[0.0] * 100, bound_ms=0) == 0


class TestAheadJobs:
    def test_the_oldest_begins_first(self) -> None:
        ahead = held(3)
        assert [(job, is_noted) for job, _, is_noted in ahead.take(2, 0)] == [(job(1), False), (job(2), True)]
        assert [job for job, _, _ in ahead.take(2, 0)] == [job(3)]
        assert ahead.take(2, 0) == []

    def test_one_that_is_late_begins_no_more(self) -> None:
        ahead = held(2)
        assert ahead.take(2, 1.5) == []
        assert (len(ahead), ahead.oldest_s) == (2, 1)

    def test_behind_a_late_one_all_go_back(self) -> None:
        ahead = held(3)
        assert ahead.take_overdue(0.5) == []
        assert ahead.take_overdue(1.5) == [job(3), job(2), job(1)]
        assert (len(ahead), ahead.oldest_s) == (0, float("inf"))
