"""The errors of media work; apart, because every module of the folder raises them.

Messages name files as the caller did, never by absolute path.
"""

from collections.abc import Sequence

from beeq.errors import BeeqError

_SHOWN_LENGTH = 200
_SHOWN_NAMES = 3


class MediaFailed(BeeqError):
    """The operation failed; another attempt, or another worker, may succeed."""


class MediaRefused(BeeqError):
    """The operation is not allowed or not possible; another attempt would fail as well."""


def shown(name: str) -> str:
    """Return a name for a message: quoted, control characters escaped, of bounded length."""
    return ascii(name) if len(name) <= _SHOWN_LENGTH else f"{name[:_SHOWN_LENGTH]!a}…"


def shown_all(names: Sequence[str]) -> str:
    """Return names for a message: the first three, and how many more there are."""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(map(shown, names[:_SHOWN_NAMES])) + more
