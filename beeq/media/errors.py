"""What may go wrong with media. Messages name files as the caller did, never by absolute path."""

from __future__ import annotations

from beeq.errors import BeeqError

_SHOWN_LENGTH = 200


class MediaFailed(BeeqError):
    """It did not work this time; another try might, or a try by another worker."""


class MediaRefused(BeeqError):
    """It must not be done, or never can be; asking again is of no use."""


def shown(name: str) -> str:
    """Return a name for a message: quoted, control characters escaped, of bounded length."""
    return ascii(name) if len(name) <= _SHOWN_LENGTH else f"{name[:_SHOWN_LENGTH]!a}…"
