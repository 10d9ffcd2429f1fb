"""The delay that a response asks for by its ``Retry-After`` header. No IO, no clock."""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: A server may ask for a delay of a day at most.
MAX_RETRY_AFTER_MS = 24 * 60 * 60 * 1000
#: Possessive, since neighbours match the same digits: many zeros would be tried in all divisions.
_SECONDS = re.compile(r"0*+([0-9]*+)(\.[0-9]{1,9}+)?+[0-9]*+")
#: No date of HTTP is longer than this.
_MAX_DATE_CHARS = 100
_MAX_SECONDS_DIGITS = 6  # a day has 86400 seconds


def retry_after_in(headers: Iterable[tuple[bytes, bytes]], now: datetime) -> int | None:
    """Return the delay that the ``Retry-After`` header asks for, if there is one; see ``retry_after_ms``."""
    for name, value in headers:
        if name.lower() == b"retry-after":
            return retry_after_ms(value.decode("latin-1"), now)
    return None


def retry_after_ms(value: str, now: datetime) -> int | None:
    """Return the delay that a ``Retry-After`` header asks for, 0 to a day, in ms; None if it is invalid.

    ``value`` is seconds, which may have a fraction, or an HTTP date; ``now`` has a time zone.
    """
    text = value.strip()
    if text[:1].isdecimal() and (seconds := _SECONDS.fullmatch(text)):
        whole, fraction = seconds[1], seconds[2] or ""
        if len(whole) > _MAX_SECONDS_DIGITS:
            return MAX_RETRY_AFTER_MS
        return min(math.ceil(float(f"{whole or '0'}{fraction}") * 1000), MAX_RETRY_AFTER_MS)
    if len(text) > _MAX_DATE_CHARS:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000", which means UTC in HTTP too
        date = date.replace(tzinfo=UTC)
    wait_s = (date - now).total_seconds()
    return min(max(int(wait_s * 1000), 0), MAX_RETRY_AFTER_MS)
