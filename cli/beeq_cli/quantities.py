"""Durations, times and backoffs as people type them. Pure; ``ValueError`` says what is wrong."""

import re
from datetime import datetime

from beeq.settings import parse_duration, show_duration

__all__ = ["parse_backoff", "parse_interval", "parse_moment", "show_duration"]

_BARE_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_SHORTEST_INTERVAL_MS, _LONGEST_INTERVAL_MS = 100, 86_400_000


def parse_interval(text: str) -> int:
    """Return an interval between two looks in ms: a duration, or a bare number of seconds."""
    interval_ms = parse_duration(f"{text.strip()}s" if _BARE_NUMBER.fullmatch(text.strip()) else text)
    if not _SHORTEST_INTERVAL_MS <= interval_ms <= _LONGEST_INTERVAL_MS:
        raise ValueError(f"{text!r} is not from 100ms to 1d")
    return interval_ms


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
