"""What a receiver answered, as far as a delivery is interested. No IO, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

#: A receiver may put an attempt off by a day, not more.
MAX_RETRY_AFTER_MS = 24 * 60 * 60 * 1000
_MAX_SECONDS_DIGITS = 6  # a day has 86400 seconds


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """The head of a response; its body is nobody's business.

    Attributes:
        status: the HTTP status code.
        duration_ms: from the start of the attempt, connecting included, to this answer.
        retry_after_ms: how long the receiver wants to be left alone, None if it did not say.
    """

    status: int
    duration_ms: int
    retry_after_ms: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether the receiver took the message."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no message at this URL any more."""
        return self.status == HTTPStatus.GONE


def retry_after_ms(value: str, now: datetime) -> int | None:
    """Return the wait that a ``Retry-After`` header asks for: 0 to a day, in ms.

    Args:
        value: seconds, or an HTTP date. None comes back for anything else.
        now: aware.
    """
    text = value.strip()
    if text.isascii() and text.isdecimal():
        digits = text.lstrip("0")
        wait_ms = int(digits or "0") * 1000 if len(digits) <= _MAX_SECONDS_DIGITS else None
        return MAX_RETRY_AFTER_MS if wait_ms is None else min(wait_ms, MAX_RETRY_AFTER_MS)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000", which HTTP means as UTC too
        date = date.replace(tzinfo=UTC)
    wait_s = (date - now).total_seconds()
    return min(max(int(wait_s * 1000), 0), MAX_RETRY_AFTER_MS)
