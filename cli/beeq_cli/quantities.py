"""Durations, times and backoffs as people type them. Pure; ``ValueError`` says what is wrong."""

import re
from datetime import datetime
from decimal import Decimal
from itertools import pairwise

_UNITS_MS = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)")
_MAX_MS = 2**53 - 1
_LARGEST_FIRST = [(unit, _UNITS_MS[unit]) for unit in ("d", "h", "m", "s")]


def parse_duration(text: str) -> int:
    """Return milliseconds: of ``500ms``, ``2s``, ``1.5s``, ``5m``, ``1h``, ``1d``, or of a bare number."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"invalid duration {text!r}; write 500ms, 2s, 1.5s, 5m, 1h or 1d")
    duration_ms = round(Decimal(match[1]) * _UNITS_MS[match[2]])
    if duration_ms > _MAX_MS:
        raise ValueError(f"{text!r} is too long")
    return duration_ms


def parse_moment(text: str) -> datetime:
    """Return the datetime of ISO 8601 text; without a zone it is local time."""
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"invalid date and time {text!r}; write 2030-01-31T12:00:00Z") from None


def parse_backoff(text: str) -> str | tuple[str, int]:
    """Return what ``Queue.enqueue`` takes, of ``immediate``, ``fixed:2s`` or ``exponential:2s``."""
    if text == "immediate":
        return text
    strategy, separator, delay = text.partition(":")
    if strategy not in ("fixed", "exponential") or not separator:
        raise ValueError(f"invalid backoff {text!r}; write immediate, fixed:2s or exponential:2s")
    delay_ms = parse_duration(delay)
    if delay_ms == 0:
        raise ValueError(f"{text!r}: the delay must be longer than 0")
    return strategy, delay_ms


def show_duration(duration_ms: int) -> str:
    """Return the duration in its two largest units, as people say it: ``3m 12s``."""
    for (large, large_ms), (small, small_ms) in pairwise(_LARGEST_FIRST):
        if duration_ms >= large_ms:
            return f"{duration_ms // large_ms}{large} {duration_ms % large_ms // small_ms}{small}"
    seconds = duration_ms / 1000
    if seconds < 1:
        return f"{duration_ms}ms"
    return f"{seconds:.1f}s" if seconds < 10 else f"{int(seconds)}s"  # noqa: PLR2004 - from there on, whole seconds
