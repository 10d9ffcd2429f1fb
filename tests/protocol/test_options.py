"""What may be asked of a job, in bee-queue's words, and what a record's options mean."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from beeq.protocol.backoff import builtin_strategies
from beeq.protocol.options import (
    MAX_TIMEOUT_MS,
    check_backoff,
    check_delay,
    check_due_ms,
    check_job_id,
    check_retries,
    check_timeout_ms,
    first_due_ms_of,
    retries_left,
    timeout_ms_of,
)
from tests.support.samples import make_job

pytestmark = pytest.mark.fast

HUGE = 10**400  # beyond what a float holds


@pytest.mark.parametrize("n", [0, 1, 2**53 - 1])
def test_retries_are_whole_numbers(n: int) -> None:
    assert check_retries(n) == n


@pytest.mark.parametrize("n", [-1, -HUGE], ids=["-1", "huge"])
def test_negative_retries_are_refused_in_bee_queues_words(n: int) -> None:
    with pytest.raises(ValueError, match="^Retries cannot be negative$"):
        check_retries(n)
    with pytest.raises(ValueError, match="^Retries cannot be negative$"):
        make_job().retries(n)


@pytest.mark.parametrize("n", [None, "3", 1.0, math.nan, True, [1]], ids=repr)
def test_retries_that_are_no_int_are_refused_by_name(n: Any) -> None:
    with pytest.raises(TypeError, match=rf"^retries must be an int, not {type(n).__name__}$"):
        check_retries(n)


@pytest.mark.parametrize("n", [2**53, HUGE], ids=["2^53", "huge"])
def test_retries_beyond_javascripts_integers_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="retries"):
        check_retries(n)


@pytest.mark.parametrize(
    ("timeout", "timeout_ms"),
    [
        (0, 0),
        (1, 1),
        (MAX_TIMEOUT_MS, 2**31 - 1),
        (timedelta(seconds=2), 2000),
        (timedelta(0), 0),
        (timedelta(microseconds=400), 1),
    ],
)
def test_a_timeout_is_milliseconds_or_a_timedelta(timeout: Any, timeout_ms: int) -> None:
    assert check_timeout_ms(timeout) == timeout_ms


@pytest.mark.parametrize("timeout", [-1, -HUGE, timedelta(seconds=-1)], ids=["-1", "huge", "delta"])
def test_a_negative_timeout_is_refused_in_bee_queues_words(timeout: Any) -> None:
    with pytest.raises(ValueError, match="^Timeout cannot be negative$"):
        check_timeout_ms(timeout)
    with pytest.raises(ValueError, match="^Timeout cannot be negative$"):
        make_job().timeout(timeout)


@pytest.mark.parametrize("timeout", [2**31, timedelta(days=25)], ids=repr)
def test_a_timeout_that_node_would_fire_at_once_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout must be at most 2147483647 ms"):
        check_timeout_ms(timeout)


@pytest.mark.parametrize("timeout", [2**53, HUGE], ids=["2^53", "huge"])
def test_a_timeout_beyond_all_bounds_is_not_called_negative(timeout: int) -> None:
    with pytest.raises(ValueError, match=r"^timeout must be at most 2147483647 ms"):
        check_timeout_ms(timeout)


@pytest.mark.parametrize("timeout", [None, b"5", 5.0, math.nan, True], ids=repr)
def test_a_timeout_of_another_type_is_refused_by_name(timeout: Any) -> None:
    with pytest.raises(TypeError, match=r"^timeout must be an int"):
        check_timeout_ms(timeout)


STRATEGIES = {**builtin_strategies(), "mine": lambda _job: 1}


@pytest.mark.parametrize(
    ("strategy", "delay", "option"),
    [
        ("immediate", None, {"strategy": "immediate"}),
        ("immediate", 5, {"strategy": "immediate", "delay": 5}),
        ("immediate", -5, {"strategy": "immediate", "delay": -5}),
        ("immediate", 1.5, {"strategy": "immediate", "delay": 1.5}),
        ("immediate", "any", {"strategy": "immediate", "delay": "any"}),
        ("immediate", timedelta(seconds=1), {"strategy": "immediate", "delay": 1000}),
        ("fixed", 1, {"strategy": "fixed", "delay": 1}),
        ("exponential", 2**53 - 1, {"strategy": "exponential", "delay": 2**53 - 1}),
        ("exponential", timedelta(seconds=1.5), {"strategy": "exponential", "delay": 1500}),
        ("mine", 7, {"strategy": "mine", "delay": 7}),
    ],
)
def test_a_backoff_is_a_known_strategy_then_a_delay(
    strategy: str, delay: Any, option: dict[str, Any]
) -> None:
    checked = check_backoff(strategy, delay, STRATEGIES)
    assert checked == option
    assert list(checked) == list(option)


@pytest.mark.parametrize("strategy", ["wow", "", "Fixed", None, 5, ["fixed"], b"fixed"], ids=repr)
def test_an_unknown_strategy_is_refused_in_bee_queues_words(strategy: Any) -> None:
    with pytest.raises(ValueError, match="^unknown strategy$"):
        check_backoff(strategy, 5, STRATEGIES)
    with pytest.raises(ValueError, match="^unknown strategy$"):
        make_job().backoff(strategy, 5)


@pytest.mark.parametrize("strategy", ["fixed", "exponential", "mine"])
@pytest.mark.parametrize(
    "delay",
    [None, 0, -1, 1.5, 44.0, math.nan, "5", True, 2**53, HUGE, timedelta(0)],
    ids=lambda d: repr(d)[:12],
)
def test_a_delay_not_a_positive_integer_is_refused_as_bee_queue(strategy: str, delay: Any) -> None:
    with pytest.raises(ValueError, match="^delay must be a positive integer$"):
        check_backoff(strategy, delay, STRATEGIES)


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
NOON_MS = 1_767_355_200_000


@pytest.mark.parametrize(
    ("when", "due_ms"),
    [
        (0, 0),
        (1, 1),
        (NOON_MS, NOON_MS),
        (2**53 - 1, 2**53 - 1),
        (1.9, 1),  # fractions are cut off
        (NOON_MS + 0.5, NOON_MS),
        (0.0, 0),
        (NOON, NOON_MS),
        (NOON.astimezone(timezone(timedelta(hours=5))), NOON_MS),
        (NOON + timedelta(milliseconds=1), NOON_MS + 1),
        (NOON + timedelta(milliseconds=999), NOON_MS + 999),
        (NOON + timedelta(microseconds=1999), NOON_MS + 1),
        (NOON.astimezone().replace(tzinfo=None), NOON_MS),  # naive means local time
        (timedelta(seconds=5), 5100),
        (timedelta(0), 100),
        (timedelta(milliseconds=-100), 0),
    ],
)
def test_a_due_time_is_a_datetime_milliseconds_or_a_timedelta(when: Any, due_ms: int) -> None:
    checked = check_due_ms(when, now_ms=100)
    assert (checked, type(checked)) == (due_ms, int)


@pytest.mark.parametrize(
    "when",
    [None, math.nan, math.inf, -math.inf, "wobble", "5", "2026-01-02", -1, -0.5 - 1, True, False, [], 2**53, 1e21, HUGE,
     -HUGE, timedelta(days=-1), timedelta.max, datetime(1969, 12, 31, tzinfo=UTC), b"5"],
    ids=lambda when: repr(when)[:24],
)  # fmt: skip
def test_what_is_no_time_is_refused_in_bee_queues_words(when: Any) -> None:
    with pytest.raises(ValueError, match="^invalid delay timestamp$"):
        check_due_ms(when, now_ms=100)


@pytest.mark.parametrize("when", [None, math.nan, "wobble", -1, math.inf], ids=repr)
def test_a_job_refuses_such_a_time_and_stays_as_it_is(when: Any) -> None:
    """The list is bee-queue's own test's."""
    job = make_job()
    with pytest.raises(ValueError, match="^invalid delay timestamp$"):
        job.delay_until(when)
    assert "delay" not in job.options


@pytest.mark.parametrize(
    ("delay", "due_ms"),
    [(None, 0), (0, 0), (0.0, 0), ("", 0), (False, 0), (1, 1), (1500.75, 1500), (2**53 - 1, 2**53 - 1), ("1500", 1500), ("0", 0)],
    ids=repr,
)  # fmt: skip
def test_a_saved_delay_is_a_number_or_text_of_digits(delay: Any, due_ms: int) -> None:
    checked = check_delay({"delay": delay})
    assert (checked, type(checked)) == (due_ms, int)
    assert check_delay({}) == 0


@pytest.mark.parametrize(
    "delay",
    ["tomorrow", "1.5", "-1", "1_000", " 5", "٣", "inf", "9" * 20, "9" * 5000, math.nan, math.inf, -math.inf, -1, -1.5, True, 2**53,
     1e300, [1], {"a": 1}, b"5", datetime(2026, 1, 2, tzinfo=UTC), timedelta(days=1)],
    ids=lambda delay: repr(delay)[:24],
)  # fmt: skip
def test_a_delay_that_is_no_time_is_refused_by_name(delay: Any) -> None:
    with pytest.raises(ValueError, match="^invalid delay timestamp: the option delay is ") as refusal:
        check_delay({"delay": delay})
    assert len(str(refusal.value)) < 150


@pytest.mark.parametrize("options", [None, [], "text"], ids=repr)
def test_options_that_are_no_dict_are_refused(options: Any) -> None:
    with pytest.raises(TypeError, match=f"^options must be a dict, not {type(options).__name__}$"):
        check_delay(options)


@pytest.mark.parametrize(
    ("job_id", "text"),
    [(None, None), ("", None), (0, None), ("0", "0"), ("a", "a"), (5, "5"), (-1, "-1"), ("é😀", "é😀"), (10**20, "1" + "0" * 20)],
    ids=repr,
)  # fmt: skip
def test_an_id_is_text_and_what_javascript_calls_falsy_is_none(job_id: Any, text: str | None) -> None:
    assert check_job_id(job_id) == text


@pytest.mark.parametrize(
    "job_id", [True, 1.5, 0.0, b"a", ["a"], object()], ids=lambda job_id: repr(job_id)[:8]
)
def test_an_id_of_another_type_is_refused(job_id: Any) -> None:
    with pytest.raises(TypeError, match=rf"^a job id must be a str or an int, not {type(job_id).__name__}$"):
        check_job_id(job_id)


@pytest.mark.parametrize("job_id", ["\ud800", "a\udc00"], ids=ascii)
def test_an_id_that_redis_could_not_hold_as_text_is_refused(job_id: str) -> None:
    with pytest.raises(ValueError, match="valid Unicode"):
        check_job_id(job_id)


@pytest.mark.parametrize(
    ("retries", "left"),
    [(0, 0), (1, 1), (7, 7), (-1, 0), (2.0, 2), (0.5, 1), (-0.5, 0), (math.inf, 0), (None, 0), (True, 0), ([], 0), ({}, 0),
     ("3", 3), ("x", 0), ("", 0), ("nan", 0), ("-2", 0)],
    ids=repr,
)  # fmt: skip
def test_the_retries_a_record_grants_are_read_whoever_wrote_them(retries: Any, left: int) -> None:
    assert retries_left({"retries": retries}) == left


@pytest.mark.parametrize(
    ("timeout", "timeout_ms"),
    [(0, 0), (50, 50), (50.5, 51), (-1, 0), (math.inf, 0), (None, 0), (True, 0), ("50", 0), ([], 0), (2**40, 2**40)],
    ids=repr,
)  # fmt: skip
def test_the_timeout_a_record_asks_for_is_read_whoever_wrote_it(timeout: Any, timeout_ms: int) -> None:
    assert timeout_ms_of({"timeout": timeout}) == timeout_ms


def test_what_was_not_asked_for_is_none() -> None:
    assert retries_left({}) == 0
    assert timeout_ms_of({}) == 0


@pytest.mark.parametrize("n", [HUGE, -HUGE], ids=["huge", "minus huge"])
def test_a_number_in_a_record_beyond_all_floats_harms_nobody(n: int) -> None:
    assert isinstance(retries_left({"retries": n}), int)
    assert isinstance(timeout_ms_of({"timeout": n}), int)


@pytest.mark.parametrize(
    ("options", "due_ms"),
    [
        ({"timestamp": 5}, 5),
        ({"timestamp": 5, "delay": 9}, 9),
        ({"timestamp": 5, "delay": 3}, 5),
        ({"timestamp": 5, "beeq": {"memory": {}}}, 5),
        ({"timestamp": 5, "beeq": {"postponed": 7}}, 0),
        ({"timestamp": -5}, 0),
        ({"timestamp": "5"}, 0),
        ({}, 0),
    ],
)
def test_a_job_is_due_when_it_was_made_or_its_delay_ends(options: dict[str, Any], due_ms: int) -> None:
    assert first_due_ms_of(options) == due_ms
