"""Durations, moments, backoffs and conditions as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from beeq.settings import parse_duration
from beeq_cli.commands.conditions import parse_condition
from beeq_cli.quantities import parse_backoff, parse_interval, parse_moment, show_duration


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("500ms", 500),
        ("2s", 2000),
        ("1.5s", 1500),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("0", 0),
        ("0.0", 0),
        (" 2s ", 2000),
        ("0.1ms", 1),
    ],
)
def test_a_duration_is_read_in_milliseconds(text: str, duration_ms: int) -> None:
    assert parse_duration(text) == duration_ms


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "+1s", "1 s", "1w", "1e3", "nan", "inf", "1.s", ".5s", "٣s", "9" * 30]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|too long"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["30", "1.5", " 250 ", "00001"])
def test_a_bare_number_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"has no unit; write 500ms, 2s, 1.5s, 5m, 1h or 1d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "interval_ms"), [("2", 2000), ("0.5", 500), (" 2 ", 2000), ("500ms", 500), ("5m", 300_000)]
)
def test_an_interval_may_be_a_bare_number_of_seconds(text: str, interval_ms: int) -> None:
    assert parse_interval(text) == interval_ms


@pytest.mark.parametrize("text", ["0", "0.01", "99ms", "86401", "2d", "x", "-1", "1e3"])
def test_an_interval_has_bounds(text: str) -> None:
    with pytest.raises(ValueError, match=r"100ms to 1d|invalid duration"):
        parse_interval(text)


def test_a_moment_is_iso_8601() -> None:
    assert parse_moment("2030-01-31T12:00:00Z") == datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert parse_moment("2030-01-31T12:00:00+02:00").utcoffset() == timedelta(hours=2)
    assert parse_moment("2030-01-31 12:00").tzinfo is None


@pytest.mark.parametrize("text", ["", "tomorrow", "2030-13-01", "1700000000000"])
def test_anything_else_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="date and time"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("text", "backoff"),
    [("immediate", "immediate"), ("fixed:2s", ("fixed", 2000)), ("exponential:500ms", ("exponential", 500))],
)
def test_a_backoff_is_a_strategy_and_its_delay(text: str, backoff: object) -> None:
    assert parse_backoff(text) == backoff


@pytest.mark.parametrize(
    "text", ["", "fixed", "fixed:", "fixed:0", "linear:2s", "immediate:2s", "exponential:x", "fixed:500"]
)
def test_anything_else_is_no_backoff(text: str) -> None:
    with pytest.raises(ValueError, match=r"backoff|duration|longer than 0|no unit"):
        parse_backoff(text)


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (0, "0ms"),
        (999, "999ms"),
        (1500, "1.5s"),
        (59_999, "59s"),
        (192_000, "3m 12s"),
        (3_660_000, "1h 1m"),
        (90_000_000, "1d 1h"),
    ],
)
def test_a_duration_is_shown_in_its_largest_units(duration_ms: int, text: str) -> None:
    assert show_duration(duration_ms) == text


NUMBERS = {
    "waiting": 10,
    "active": 0,
    "succeeded": 5,
    "failed": 1,
    "delayed": 0,
    "workers": 2,
    "oldest": 60_000,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("waiting>9", True),
        ("waiting>10", False),
        ("waiting>=10", True),
        ("waiting<11", True),
        ("waiting<=9", False),
        ("waiting==10", True),
        ("waiting=10", True),
        ("waiting!=10", False),
        (" failed > 0 ", True),
        ("oldest>59s", True),
        ("oldest>1m", False),
        ("oldest=60s", True),
        ("oldest>0", True),
        ("workers<2.5", True),
        ("delayed>-1", True),
    ],
)
def test_a_condition_compares_a_number_of_the_queue(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(NUMBERS) is holds


def test_no_condition_is_true_of_a_number_that_is_not_there() -> None:
    assert not parse_condition("oldest<1d").holds({**NUMBERS, "oldest": None})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "waiting",
        "waiting>",
        ">5",
        "waiting>x",
        "jobs>5",
        "waiting=>5",
        "waiting<>5",
        "waiting>5>6",
        "waiting>5s",
        "oldest>60000",
        "oldest>-1",
    ],
)
def test_anything_else_is_no_condition(text: str) -> None:
    with pytest.raises(ValueError, match=r"condition|compare|duration|number"):
        parse_condition(text)
