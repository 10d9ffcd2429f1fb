"""Settings: bee-queue's defaults, durations in either form, and a clear no to everything else."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import Any

import pytest

from beeq.settings import Settings, milliseconds, whole

pytestmark = pytest.mark.fast

DEFAULTS = {
    "tracing": None,
    "prefix": "bq",
    "is_worker": True,
    "get_events": True,
    "send_events": True,
    "store_jobs": True,
    "ensure_scripts": True,
    "activate_delayed_jobs": True,
    "remove_on_success": False,
    "remove_on_failure": False,
    "stall_interval": 5000,
    "near_term_window": 1_200_000,
    "delayed_debounce": 1000,
    "redis_scan_count": 100,
    "initial_redis_failure_retry_delay": 1000,
    "quit_command_client": None,
    "auto_connect": True,
    "max_stalls": 3,
    "result_ttl": 600_000,
    "keep_results": True,
    "mirrored": False,
    "max_hung": None,
    "redis_timeout": 5000,
    "wait_replicas": 0,
    "keep_succeeded": None,
    "keep_failed": None,
    "job_timeout": 0,
    "claim_ahead_ms": 5,
}
SWITCHES = [name for name, value in DEFAULTS.items() if isinstance(value, bool)]
#: Each duration, and the least it may be, in ms.
DURATIONS = {
    "stall_interval": 1,
    "near_term_window": 1,
    "delayed_debounce": 0,
    "initial_redis_failure_retry_delay": 1,
    "result_ttl": 1,
    "redis_timeout": 1,
    "job_timeout": 0,
    "claim_ahead_ms": 0,
}
COUNTS = {"redis_scan_count": 1, "max_stalls": 0, "wait_replicas": 0}
#: These may also be None.
OPTIONAL_COUNTS = {"max_hung": 1}
#: Tested in test_keep.py.
KEEPS = {"keep_succeeded", "keep_failed"}


def test_the_defaults_are_bee_queues_but_for_activation() -> None:
    assert dataclasses.asdict(Settings()) == DEFAULTS


def test_every_setting_is_a_switch_duration_or_count_tested_here() -> None:
    others = {"prefix", "quit_command_client", "tracing"}
    assert set(DEFAULTS) == {*SWITCHES, *DURATIONS, *COUNTS, *OPTIONAL_COUNTS, *KEEPS, *others}


@pytest.mark.parametrize("tracing", [True, False, "on", "", 1, [], {}])
def test_tracing_is_link_or_child_or_none(tracing: Any) -> None:
    assert [Settings(tracing=fine).tracing for fine in ("link", "child", None)] == ["link", "child", None]
    with pytest.raises(ValueError, match=r"tracing must be None, 'link' or 'child', not "):
        Settings(tracing=tracing)


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [None, 0, 1, "yes", "", [], 1.0], ids=repr)
def test_a_switch_takes_nothing_but_a_bool(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be a bool, not {type(value).__name__}$"):
        Settings(**{name: value})


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_can_be_set_either_way(name: str) -> None:
    for value in (True, False):
        assert getattr(Settings(**{name: value}), name) is value


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(
    ("duration", "duration_ms"),
    [
        (1, 1),
        (2**53 - 1, 2**53 - 1),
        (timedelta(milliseconds=1), 1),
        (timedelta(seconds=1.5), 1500),
        (timedelta(days=2), 172_800_000),
        (timedelta(microseconds=1), 1),
        (timedelta(microseconds=1001), 2),
        ("500ms", 500),
        ("30s", 30_000),
        ("1.5s", 1500),
        ("2h", 7_200_000),
        ("0.2ms", 1),
    ],
)
def test_a_duration_is_milliseconds_timedelta_or_text(name: str, duration: Any, duration_ms: int) -> None:
    value = getattr(Settings(**{name: duration}), name)
    assert (value, type(value)) == (duration_ms, int)


@pytest.mark.parametrize("name", [*DURATIONS, *COUNTS])
def test_a_number_that_is_needed_cannot_be_none(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be an int.*, not NoneType$"):
        Settings(**{name: None})


@pytest.mark.parametrize("name", [*DURATIONS, *COUNTS, *OPTIONAL_COUNTS])
@pytest.mark.parametrize("value", [b"5s", 5.0, math.nan, math.inf, True, False, [5]], ids=repr)
def test_not_a_number_of_milliseconds_or_things_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be an int.*, not {type(value).__name__}$"):
        Settings(**{name: value})


@pytest.mark.parametrize("name", [*DURATIONS, *COUNTS, *OPTIONAL_COUNTS])
@pytest.mark.parametrize("value", [-1, -(2**60), 2**53, 10**400], ids=lambda value: repr(value)[:9])
def test_what_is_out_of_range_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        Settings(**{name: value})


@pytest.mark.parametrize(("name", "least"), [*(DURATIONS | COUNTS | OPTIONAL_COUNTS).items()])
def test_the_least_value_is_allowed_and_what_is_below_it_is_not(name: str, least: int) -> None:
    assert getattr(Settings(**{name: least}), name) == least
    with pytest.raises(ValueError, match=rf"^{name}\b.*, not {least - 1}$"):
        Settings(**{name: least - 1})


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("duration", [timedelta(milliseconds=-1), timedelta(days=-1), timedelta.max])
def test_a_timedelta_out_of_range_is_refused_by_name(name: str, duration: timedelta) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        Settings(**{name: duration})


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("text", ["5", "1.5", "", "soon", "-1s", "5 s", "1w"])
def test_text_without_a_unit_is_refused_with_examples(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*duration '{text}'.*; write 500ms, 2s, .* or 1d$"):
        Settings(**{name: text})


@pytest.mark.parametrize("name", [*COUNTS, *OPTIONAL_COUNTS])
@pytest.mark.parametrize("text", ["5", "5s"])
def test_a_count_is_not_text(name: str, text: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be an int, not str$"):
        Settings(**{name: text})


@pytest.mark.parametrize("window", [0, -1, timedelta(0)], ids=repr)
def test_a_window_of_nothing_is_refused_in_bee_queues_words(window: Any) -> None:
    with pytest.raises(ValueError, match=r"^near_term_window: maximum delay must be a positive integer"):
        Settings(near_term_window=window)


@pytest.mark.parametrize(("prefix", "meant"), [("", "bq"), (None, "bq"), ("my", "my"), ("{a}:b", "{a}:b")])
def test_a_prefix_of_nothing_means_bq(prefix: Any, meant: str) -> None:
    assert Settings(prefix=prefix).prefix == meant


@pytest.mark.parametrize("prefix", [0, 5, b"bq", ["bq"], True], ids=repr)
def test_a_prefix_is_text(prefix: Any) -> None:
    with pytest.raises(TypeError, match=rf"^prefix must be a str, not {type(prefix).__name__}$"):
        Settings(prefix=prefix)


@pytest.mark.parametrize(
    "value", ["yes", "", 2, -1, [], {}, b"", object()], ids=lambda value: repr(value)[:8]
)
def test_whether_to_close_a_given_client_is_a_bool_or_left_open(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^quit_command_client must be a bool or None$"):
        Settings(quit_command_client=value)


@pytest.mark.parametrize("value", [True, False, None])
def test_whether_to_close_a_given_client_can_be_said(value: bool | None) -> None:
    assert Settings(quit_command_client=value).quit_command_client is value


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="stall_intervall"):
        Settings(stall_intervall=5)


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.stall_interval = 1  # type: ignore[misc]  # what is refused is the point


@pytest.mark.parametrize("value", [0, 7, timedelta(milliseconds=7)])
def test_a_bound_of_ones_own_is_kept(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^patience must be at least 8 \(milliseconds\), not [07]$"):
        milliseconds("patience", value, at_least=8)
    with pytest.raises((ValueError, TypeError), match=r"^places must be "):
        whole("places", value, at_least=8)
    assert whole("places", 8, at_least=8) == 8
