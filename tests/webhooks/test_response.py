"""Status codes and the Retry-After header."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from beeq.http_client.retry_after import retry_after_ms
from beeq.webhooks.response import WebhookResponse

NOW = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("status", "accepted", "gone"),
    [
        (101, False, False),
        (200, True, False),
        (204, True, False),
        (299, True, False),
        (300, False, False),
        (301, False, False),
        (400, False, False),
        (410, False, True),
        (429, False, False),
        (500, False, False),
        (999, False, False),
    ],
)
def test_two_hundreds_are_accepted_and_only_410_is_gone(status: int, accepted: bool, gone: bool) -> None:
    answer = WebhookResponse(status, duration_ms=1)

    assert (answer.accepted, answer.gone) == (accepted, gone)


@pytest.mark.parametrize(
    ("value", "expected_ms"),
    [
        ("0", 0),
        ("7", 7_000),
        (" 120 ", 120_000),
        ("0007", 7_000),
        ("86400", DAY_MS),
        ("86401", DAY_MS),
        ("9" * 5_000, DAY_MS),
        ("0" * 5_000, 0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30_000),
        ("Wednesday, 21-Oct-26 07:29:00 GMT", 60_000),
        ("Wed Oct 21 07:28:05 2026", 5_000),
        ("Wed, 21 Oct 2026 09:28:30 +0200", 30_000),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30_000),
        ("Tue, 20 Oct 2026 07:28:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY_MS),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", 1_500),
        ("0.0001", 1),
        ("99999.5", DAY_MS),
        (".5", None),
        ("1,5", None),
        ("1e3", None),
        ("٣", None),
        ("²", None),
        ("Wed, 99 Oct 2026 07:28:30 GMT", None),
        ("Wed, 21 Oct 99999999999999999999 07:28:30 GMT", None),
        ("Wed, 21 Oct 2026 07:28:30 +9999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_a_day(value: str, expected_ms: int | None) -> None:
    assert retry_after_ms(value, NOW) == expected_ms


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "value", ["0" * 65_000 + "x", "1" * 65_000 + "x", f"0.{'5' * 65_000}x", "Mon," * 16_000]
)
def test_a_long_retry_after_is_read_at_once(value: str) -> None:
    """It would take days if the parts of the number competed for its digits."""
    assert retry_after_ms(value, NOW) is None


def test_retry_after_compares_moments_not_clock_faces() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-9)))

    assert retry_after_ms("Wed, 21 Oct 2026 07:28:30 GMT", elsewhere) == 30_000
