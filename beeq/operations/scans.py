"""Goes through the ids of one state, page by page; neither Redis nor memory holds more than a page at a time.

What moves meanwhile moves: an id may be missed that comes into the state, or passes through it. None is given
twice, unless ten thousand others come in between.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from beeq.operations.job_filter import State
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline

#: How many ids one call reads.
PAGE = 250
#: How many ids that have stayed mark the place where a page ended.
_ANCHORS = 10
_REMEMBERED = 10_000


@dataclass(slots=True)
class Page:
    """Some ids of one state.

    Attributes:
        ids: as Redis has them; none: that was the end.
        start: of a list: how many entries lay to the right of the first of them, when they were read.
        due: of delayed jobs: id → due time in ms, as text.
    """

    ids: list[bytes]
    start: int = 0
    due: dict[bytes, bytes] = field(default_factory=dict)


class Scan:
    """One pass through one state: waiting, active and delayed jobs in the order in which they run."""

    def __init__(self, pipeline: Pipeline, keys: Keys, state: State) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self.state: State = state
        self._has_ended = False
        self._seen: dict[bytes, None] = {}
        self._cursor = b"0"  # of a set
        self._next = 0  # of a list: how many entries lie to the right of what comes next
        self._last_due = b"0"  # of delayed jobs
        self._anchors: deque[bytes] = deque(maxlen=_ANCHORS)
        self._last: list[bytes] = []  # of the last page, those that are still there

    async def page(self) -> Page | None:
        """Return the next ids, of which there may be none; None at the end."""
        if self._has_ended:
            return None
        if self.state in ("succeeded", "failed"):
            return await self._set_page()
        self._anchors.extend(self._last[-_ANCHORS:])
        start, found = await scripts.page_ids(
            self._pipeline,
            self._keys,
            state=self.state,
            count=PAGE,
            offset=self._next,
            due=self._last_due,
            anchors=((anchor,) for anchor in reversed(self._anchors)),
        )
        due: dict[bytes, bytes] = {}
        if self.state == "delayed":
            due = dict(zip(found[::2], found[1::2], strict=True))
            found = found[::2]
        self._has_ended = len(found) < PAGE
        self._next = start + len(found)
        if found:
            self._last_due = due.get(found[-1], self._last_due)
        self._last = list(found)
        return Page(self._fresh(found), start, due)

    async def _set_page(self) -> Page:
        key = self._keys.to_key(self.state)
        self._cursor, found = await self._pipeline.call(
            "SSCAN", key, self._cursor, "COUNT", PAGE, repeatable=True
        )
        self._has_ended = self._cursor == b"0"
        return Page(self._fresh(found))

    def gone(self, ids: Iterable[bytes]) -> None:
        """Note that these of the last page have left the state."""
        left = set(ids)
        before = len(self._last)
        self._last = [each for each in self._last if each not in left]
        self._next -= before - len(self._last)

    def _fresh(self, found: list[Any]) -> list[bytes]:
        """Return the ids that were not given before, as far as that is remembered."""
        fresh = list(dict.fromkeys(each for each in found if each not in self._seen))
        self._seen.update(dict.fromkeys(fresh))
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return fresh
