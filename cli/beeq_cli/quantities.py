"""Durations, moments and backoffs as people type them. Pure; ``ValueError`` says what is wrong."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal

_UNITS_MS = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)")
_MAX_MS = 2**53 - 1
_SECOND_MS, _MINUTE_MS, _HOUR_MS, _DAY_MS = 1000, 60_000, 3_600_000, 86_400_000


def parse_duration(text: str) -> int:
    """Return milliseconds: of ``500ms``, ``2s``, ``1.5s``, ``5m``, ``1h``, ``1d``, or of a bare number.

    Raises:
        ValueError: it is no duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write 500ms, 2s, 1.5s, 5m, 1h or 1d")
    duration_ms = round(Decimal(match[1]) * _UNITS_MS[match[2]])
    if duration_ms > _MAX_MS:
        raise ValueError(f"{text!r} is too long")
    return duration_ms


def parse_moment(text: str) -> datetime:
    """Return the moment of ISO 8601 text; without a zone it is local time.

    Raises:
        ValueError: it is no such text.
    """
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no date and time; write 2030-01-31T12:00:00Z") from None


def parse_backoff(text: str) -> str | tuple[str, int]:
    """Return what ``Queue.enqueue`` takes, of ``immediate``, ``fixed:2s`` or ``exponential:2s``.

    Raises:
        ValueError: it is none of these.
    """
    if text == "immediate":
        return text
    strategy, separator, delay = text.partition(":")
    if strategy not in ("fixed", "exponential") or not separator:
        raise ValueError(f"{text!r} is no backoff; write immediate, fixed:2s or exponential:2s")
    delay_ms = parse_duration(delay)
    if delay_ms == 0:
        raise ValueError(f"{text!r}: the delay must be longer than 0")
    return strategy, delay_ms


def show_duration(duration_ms: int) -> str:
    """Return the duration in its two largest units, as people say it: ``3m 12s``."""
    if duration_ms < _SECOND_MS:
        return f"{duration_ms}ms"
    if duration_ms < _MINUTE_MS:
        return (
            f"{duration_ms / _SECOND_MS:.1f}s" if duration_ms < 10 * _SECOND_MS else f"{duration_ms // 1000}s"
        )
    if duration_ms < _HOUR_MS:
        return f"{duration_ms // _MINUTE_MS}m {duration_ms % _MINUTE_MS // _SECOND_MS}s"
    if duration_ms < _DAY_MS:
        return f"{duration_ms // _HOUR_MS}h {duration_ms % _HOUR_MS // _MINUTE_MS}m"
    return f"{duration_ms // _DAY_MS}d {duration_ms % _DAY_MS // _HOUR_MS}h"
