"""A queue's history: counts are added up, a minute is sampled once, what is old or of the future goes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast
MINUTE_MS = 60_000
DAY, MONTH = 1440, 720


@pytest.fixture(autouse=True)
def minute(bench: Bench) -> int:
    """The current minute, of which some seconds are left."""
    left_ms = MINUTE_MS - bench.now_ms() % MINUTE_MS
    if left_ms < 5000:
        time.sleep(left_ms / 1000)  # a test must not begin in one minute and end in the next
    return bench.now_ms() // MINUTE_MS


def note(bench: Bench, counts: str = "", *, is_worker: bool = True) -> int:
    left_ms: int = bench.run(scripts.note_history, counts=counts, is_worker="1" if is_worker else "")
    assert 0 < left_ms <= MINUTE_MS
    return left_ms


def minutes(bench: Bench) -> Any:
    return bench.redis.hgetall(bench.keys.minutes)


def hours(bench: Bench) -> Any:
    return bench.redis.hgetall(bench.keys.hours)


def sampled_before(bench: Bench, minute: int, *, succeeded=0, failed=0, newest=0, unfinished=0) -> None:
    """Let the newest sample be of that minute."""
    bench.redis.hset(bench.keys.minutes, "last", f"{minute},{succeeded},{failed},{newest},{unfinished}")


def test_whoever_calls_first_in_a_minute_samples_it(bench: Bench, minute: int) -> None:
    bench.put(waiting=["a", "b"], active=["c"], delayed={"d": 1, "e": 2}, hidden=["f"], id="7")
    bench.put(succeeded={"g"}, failed={"h", "i"})
    note(bench)
    bench.put(waiting=["j"])
    note(bench)
    sample = ",,,1,3,1,2,3,,,,;;"
    assert minutes(bench) == {str(minute): sample, "last": f"{minute},1,2,7,6"}
    assert hours(bench) == {str(minute // 60): sample}
    assert 24 * 3_600_000 < bench.redis.pttl(bench.keys.minutes) <= 25 * 3_600_000
    assert 30 * 24 * 3_600_000 < bench.redis.pttl(bench.keys.hours) <= 31 * 24 * 3_600_000


def test_counts_of_several_workers_are_added_up(bench: Bench, minute: int) -> None:
    note(bench, "3,1,;4:2,,1;")
    note(bench, "5,,2;2:1,1,1;41:7")
    note(bench)
    assert minutes(bench)[str(minute)] == "8,1,2,1,,,,,,,,;2:1,1,3,,1;41:7"
    assert hours(bench) == {str(minute // 60): "8,1,2,1,,,,,,,,;2:1,1,3,,1;41:7"}


def test_what_has_grown_is_of_the_minute_before(bench: Bench, minute: int) -> None:
    sampled_before(bench, minute - 1, succeeded=3, failed=5, newest=10, unfinished=4)
    bench.put(succeeded={"a", "b", "c", "d", "e"}, failed={"f"}, id="17", waiting=["g"])
    note(bench)
    assert minutes(bench)[str(minute - 1)] == ",,,,,,,,7,2,,-3;;"
    assert minutes(bench)[str(minute)] == ",,,1,1,,,1,,,,;;"


def test_after_a_pause_nobody_says_when_it_grew(bench: Bench, minute: int) -> None:
    sampled_before(bench, minute - 4, newest=10)
    bench.put(id="17")
    note(bench)
    assert minutes(bench).keys() == {str(minute), "last"}


def test_a_day_of_minutes_and_a_month_of_hours_stay(bench: Bench, minute: int) -> None:
    hour = minute // 60
    bench.put(minutes={str(minute - ago): "1" for ago in (1, 3, DAY - 1, DAY, DAY + 2)})
    bench.put(hours={str(hour - ago): "1" for ago in (1, MONTH - 1, MONTH, MONTH + 1)})
    sampled_before(bench, minute - 3 * 60)
    note(bench)
    assert minutes(bench).keys() == {"last", *(str(minute - ago) for ago in (0, 1, 3, DAY - 1))}
    assert hours(bench).keys() == {str(hour - ago) for ago in (0, 1, MONTH - 1)}


@pytest.mark.parametrize("away", [DAY + 5, 100 * DAY])
def test_a_clock_that_leaps_ahead_leaves_no_old_minutes(bench: Bench, minute: int, away: int) -> None:
    bench.put(minutes={str(minute - away - ago): "1" for ago in range(DAY)})
    sampled_before(bench, minute - away)
    note(bench)
    assert minutes(bench).keys() == {str(minute), "last"}


@pytest.mark.parametrize("ahead", [3, 500, 100 * DAY])
def test_a_clock_that_goes_back_takes_its_future_with_it(bench: Bench, minute: int, ahead: int) -> None:
    then = minute + ahead
    bench.put(minutes={str(then - ago): "1" for ago in range(0, DAY, 50)} | {str(minute - 2): "1"})
    bench.put(hours={str(then // 60): "1", str(minute // 60 - 1): "2"})
    sampled_before(bench, then, newest=3)
    note(bench, "1,,;;")
    left = {name for name in minutes(bench) if name != "last"}
    assert all(int(name) <= minute for name in left)
    assert {str(minute), str(minute - 2)} <= left
    assert minutes(bench)["last"] == f"{minute},0,0,0,0"
    assert max(map(int, hours(bench))) == minute // 60


def test_a_clock_that_steps_back_a_little_loses_nothing(bench: Bench, minute: int) -> None:
    bench.put(minutes={str(minute + 1): "4"})
    sampled_before(bench, minute + 1)
    note(bench, "1,,;;")
    assert minutes(bench) == {
        str(minute): "1,,,,,,,,,,,;;",
        str(minute + 1): "4",
        "last": f"{minute + 1},0,0,0,0",
    }


def test_a_page_samples_only_a_queue_that_is_there(bench: Bench, minute: int) -> None:
    note(bench, is_worker=False)
    assert bench.snapshot() == {}
    bench.put(jobs={"a": "{}"})
    note(bench, is_worker=False)
    assert minutes(bench)[str(minute)] == ",,,1,,,,,,,,;;"
    bench.drop("jobs")
    sampled_before(bench, minute - 1)
    note(bench, is_worker=False)
    assert minutes(bench)["last"] == f"{minute},0,0,0,0", "its history is of a queue that has been emptied"


@pytest.mark.parametrize("nonsense", ["x", ";;;;", "1,2,3,4;no:1;99999:4", "-1,,;:;:", "," * 5000])
def test_an_entry_of_nonsense_does_not_grow(bench: Bench, minute: int, nonsense: str) -> None:
    bench.put(minutes={str(minute): nonsense, "last": nonsense}, id="x")
    note(bench, "1,1,1;40:1,1;0:1")
    assert len(minutes(bench)[str(minute)]) < 100


@pytest.mark.parametrize("last", ["9" * 400, "9007199254740993", "9007199254740992", "9" * 20])
def test_a_sample_of_no_exact_minute_is_none(bench: Bench, minute: int, last: str) -> None:
    bench.put(minutes={str(minute - 1): "1", "last": f"{last},1,1,1,1"})
    note(bench)
    assert minutes(bench)["last"] == f"{minute},0,0,0,0"


def test_an_entry_that_is_too_long_counts_as_none(bench: Bench, minute: int) -> None:
    bench.put(minutes={str(minute): "7," * 100_000, "last": "7," * 100_000})
    assert bench.run(scripts.read_history, unit="minutes", count=1)[1:] == ["", "", ""]
    note(bench, "1,1,1;;")
    assert minutes(bench)[str(minute)] == "1,1,1,1,,,,,,,,;;"


def test_the_longest_entry_is_read(bench: Bench, minute: int) -> None:
    most = str(2**53 - 1)
    buckets = "0:" + ",".join([most] * 64)
    bench.put(minutes={str(minute): f"{','.join([most] * 12)};{buckets};{buckets}"})
    *_, entry = bench.run(scripts.read_history, unit="minutes", count=0)
    assert entry.count(most) == 140


def test_a_reader_gets_the_newest_entries_and_the_clock(bench: Bench, minute: int) -> None:
    bench.put(minutes={str(minute - 2): "a", str(minute): "c", str(minute - 5): "old", "last": "9,1"})
    bench.put(hours={str(minute // 60): "h"})
    now, last, *entries = bench.run(scripts.read_history, unit="minutes", count=3)
    assert abs(int(now) - bench.now_ms()) < 5000
    assert (last, entries) == ("9,1", ["", "a", "", "c"])
    assert bench.run(scripts.read_history, unit="hours", count=1)[1:] == ["9,1", "", "h"]


def test_a_reader_writes_nothing(bench: Bench) -> None:
    assert bench.run(scripts.read_history, unit="minutes", count=1)[1:] == ["", "", ""]
    assert bench.snapshot() == {}
