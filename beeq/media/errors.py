"""The errors of media work; apart, because every module of the folder raises them.

Messages name files as the caller did, never by absolute path.
"""

from beeq.errors import BeeqError

_SHOWN_LENGTH = 200


class MediaFailed(BeeqError):
    """The operation failed; another attempt, or another worker, may succeed."""


class MediaRefused(BeeqError):
    """The operation is not allowed or not possible; another attempt would fail as well."""


def shown(name: str) -> str:
    """Return a name for a message: quoted, control characters escaped, of bounded length."""
    return ascii(name) if len(name) <= _SHOWN_LENGTH else f"{name[:_SHOWN_LENGTH]!a}…"
