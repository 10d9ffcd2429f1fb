"""The stored text of a queue's pause: since when, who paused it, why, and until when.

The text in ``beeq:paused`` is JSON, with times by Redis's clock. Any other text there,
set by hand, pauses the queue as well.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from beeq.protocol.codec import loads
from beeq.protocol.options import SAFE_INTEGER

#: The longest reason, and the longest name, in characters.
MAX_REASON_CHARACTERS = 500
MAX_BY_CHARACTERS = 200
#: The longest pause that ends by itself: ten years.
MAX_PAUSE_MS = 3650 * 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Pause:
    """A queue's pause. Times are ms since the epoch, by Redis's clock.

    Attributes:
        since_ms: when it began; 0: unknown.
        by: who paused the queue, as a rule ``user@host``; "" if unknown.
        reason: why; "" if none was given.
        until_ms: when it ends by itself; None: when the queue is resumed.
        everyone: whether waiting jobs are hidden from Node workers, too.
    """

    since_ms: int
    by: str
    reason: str
    until_ms: int | None
    everyone: bool

    def shown(self) -> dict[str, Any]:
        """Return it under the names that commands show."""
        return {
            "since": self.since_ms,
            "by": self.by,
            "reason": self.reason,
            "until": self.until_ms,
            "everyone": self.everyone,
        }

    def __str__(self) -> str:
        """Return who paused it, until when and why, for a line of a log; not escaped."""
        until = "until somebody resumes it" if self.until_ms is None else f"until {_moment(self.until_ms)}"
        who = f"by {self.by or 'somebody'}{', for Node workers, too' if self.everyone else ''}"
        return f"{who}, {until}{f': {self.reason}' if self.reason else ''}"


def decode_pause(raw: bytes) -> Pause:
    """Return the pause in the text of ``beeq:paused``; missing parts are unknown."""
    try:
        members = loads(raw)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        members = {}
    by, reason = members.get("by"), members.get("reason")
    return Pause(
        _time_in(members.get("since")) or 0,
        by if isinstance(by, str) else "",
        reason if isinstance(reason, str) else "",
        _time_in(members.get("until")),
        members.get("everyone") is True,
    )


def _moment(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
    except (OverflowError, OSError, ValueError):  # an impossible date
        return f"{at_ms} ms"


def _time_in(value: object) -> int | None:
    is_time = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SAFE_INTEGER
    return value if is_time and isinstance(value, int) else None
