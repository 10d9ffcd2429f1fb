"""What entries of a history say: percentiles, what nobody has counted, points and gaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beeq.operations.history.estimates import uncounted, unnamed
from beeq.operations.history.points import of_hours, of_minutes
from beeq.protocol.history import BOUNDS_MS, BUCKET_COUNT, Buckets, Entry, bucket_of, counts_text
from beeq.telemetry.work_counts import WorkCounts

pytestmark = pytest.mark.fast
COUNTS = st.lists(st.integers(0, 10**9), max_size=BUCKET_COUNT)


@given(COUNTS)
def test_buckets_are_read_as_they_are_written(counts):
    written = Buckets.of(Buckets(counts).as_text()).counts
    assert [count for count in written if count] == [count for count in counts if count]
    assert all(counts[at] == count for at, count in enumerate(written))


@given(st.text(max_size=60))
def test_an_entry_of_any_text_is_read(text):
    entry = Entry.of(text)
    assert len(entry.waits.counts) <= 128


@pytest.mark.parametrize(
    "text", ["9" * 400, f"-{2**53 + 1}", "9" * 5000, f";{'9' * 5000}:1", f";5:{'9' * 400}"]
)
def test_numbers_that_lua_does_not_have_count_nothing(text):
    entry = Entry.of(text)
    assert (entry.succeeded, entry.waits.total) == (0, 0)
    assert Entry.of(f"{2**53},-{2**53}").failed == -(2**53)


@given(st.lists(st.floats(0.5, 9e7), min_size=1, max_size=50), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_as_exact_as_a_bucket(durations_ms, share):
    buckets = Buckets([0] * BUCKET_COUNT)
    for duration_ms in durations_ms:
        buckets.counts[bucket_of(duration_ms)] += 1
    exact_ms = sorted(durations_ms)[max(0, -int(-share * len(durations_ms) // 1) - 1)]
    found_ms = buckets.percentile_ms(share)
    assert found_ms is not None
    factor = BOUNDS_MS[1] / BOUNDS_MS[0]
    assert exact_ms <= 1 or exact_ms / factor * 0.999 <= found_ms <= exact_ms * factor * 1.001


def test_without_durations_there_is_no_percentile():
    assert Buckets().percentile_ms(0.5) is None
    assert Buckets([0, 0]).percentile_ms(0.5) is None


def test_durations_beyond_all_bounds_are_the_longest():
    buckets = Buckets([0] * BUCKET_COUNT)
    buckets.counts[bucket_of(10.0**12)] += 1
    assert buckets.percentile_ms(0.95) == BOUNDS_MS[-1]


def test_counts_are_taken_once_and_as_an_entry():
    work = WorkCounts()
    assert work.take() == ""
    for status in ("succeeded", "succeeded", "failed", "retrying", "postponed"):
        work.ended[status] += 1
    work.waits[bucket_of(0)] += 1
    work.durations[bucket_of(3000)] += 1
    entry = Entry.of(work.take())
    assert (entry.succeeded, entry.failed, entry.retried, entry.samples) == (2, 1, 1, 0)
    assert (entry.waits.total, entry.durations.total) == (1, 1)
    assert 2500 < (entry.durations.percentile_ms(0.5) or 0) < 4000
    assert work.take() == ""
    work.ended["failed"] += 1
    assert work.take() == ",1,;;"


def test_nothing_counted_is_no_entry():
    assert counts_text((0, 0, 0), [0] * 5, []) == ""


def test_what_is_counted_a_minute_late_is_counted_once():
    assert uncounted([0, 100, 0, 0], [0, 0, 100, 0]) == [0, 0, 0, 0]
    assert uncounted([0, 100, 0, 0], [0, 40, 60, 0]) == [0, 0, 0, 0]


@pytest.mark.parametrize("late", [0, 3, 8])
def test_workers_that_tell_late_hide_no_other_workers(late):
    """Node's workers end 50 a minute, beeq's 100, some of which are counted in the next minute."""
    counted = [100 - late, *[100 + late * (-1) ** at for at in range(9)]]
    found = uncounted([150] * 10, counted)
    assert abs(sum(found) - 500) <= 60
    assert uncounted([100] * 10, counted) == [0] * 10, "and beeq's alone are exact"


def test_all_that_grows_without_a_count_is_uncounted():
    assert uncounted([5, 0, 7], [0, 0, 0]) == [5, 0, 7]


def test_removed_jobs_take_nothing_from_what_was_counted():
    assert uncounted([0, 0, 0, 0], [90, 80, 100, 70]) == [0, 0, 0, 0]


def test_jobs_with_automatic_ids_are_named_at_once():
    """A burst of 100 came and was done; their ends are reported a minute later, when nothing new had come."""
    assert unnamed([0, 100], [100, 0], [0, 100]) == [0, 0]


def test_jobs_with_ids_of_their_own_are_what_ended():
    assert unnamed([40, 50, 60], [0, 0, 0], [40, 50, 60]) == [40, 50, 60]


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=60))
def test_estimates_are_never_negative_nor_more_than_grew(minutes):
    grown, counted = [each[0] for each in minutes], [each[1] for each in minutes]
    found = uncounted(grown, counted)
    assert all(each >= 0 for each in found)
    assert sum(found) <= sum(grown)


def entry(**values) -> Entry:
    return Entry(samples=1, **values)


def test_minutes_become_points_of_whole_steps():
    entries = [entry(succeeded=1, new_ids=1, waiting=n, most_waiting=n) for n in range(7)]
    history = of_minutes(1000 * 5 + 3, entries, step=5)
    assert [point.at_ms // 60_000 for point in history.points] == [5003, 5005]
    assert [(point.minutes, point.succeeded, point.added) for point in history.points] == [
        (2, 2, 2),
        (5, 5, 5),
    ]
    assert [(point.waiting, point.most_waiting) for point in history.points] == [(0.5, 1), (4.0, 6)]
    assert history.total.succeeded == 7
    assert history.total.waiting == 3.0
    assert history.gaps == []


def test_minutes_without_a_sample_are_gaps():
    entries = [Entry(), Entry(), entry(failed=1), Entry(), entry(succeeded=3)]
    history = of_minutes(10, entries, step=1)
    assert history.gaps == [(600_000, 720_000), (780_000, 840_000)]
    assert [point.a_minute(point.ended) for point in history.points] == [None, None, 1.0, None, 3.0]
    assert [point.waiting for point in history.points] == [None, None, 0.0, None, 0.0]
    assert history.failure_rate == 0.25
    assert not history.is_empty


def test_a_history_that_nobody_kept_is_empty():
    history = of_minutes(10, [Entry()] * 3, step=1)
    assert history.is_empty
    assert history.gaps == [(600_000, 780_000)]
    assert history.failure_rate is None
    assert of_minutes(10, [], step=1).total.minutes == 0


def test_a_node_fleet_is_charted_by_what_has_grown():
    entries = [entry(new_ids=10, more_succeeded=7, more_failed=1, more_unfinished=2) for _ in range(6)]
    for history in (of_minutes(100, entries, step=1), of_hours(100, entries, step=1)):
        assert [point.added for point in history.points] == [10] * 6
        assert history.total.succeeded == 42
        assert history.total.failed == 6
        assert history.total.uncounted == 48


def test_an_hour_that_was_seen_in_part_is_told_as_a_gap():
    entries = [Entry(samples=60, succeeded=9), Entry(samples=20, succeeded=2), Entry(samples=5, succeeded=1)]
    history = of_hours(100, entries, step=1)
    assert history.gaps == [(101 * 3_600_000, 102 * 3_600_000)], "the current hour goes on"
    assert [point.a_minute(point.succeeded) for point in history.points] == [0.15, 0.1, 0.2]


def test_hours_of_a_queue_that_drops_jobs_have_their_counts():
    """Retention takes away what ends: the sets do not grow, and ids are their own."""
    history = of_hours(100, [Entry(samples=60, succeeded=600, more_unfinished=-100)] * 2, step=1)
    assert [(point.added, point.succeeded) for point in history.points] == [(500, 600)] * 2
