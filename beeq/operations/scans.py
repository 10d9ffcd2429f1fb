"""Reads the ids of one state page by page; neither Redis nor memory holds more than a page at a time.

An id that enters the state meanwhile, or passes through it, may be missed. None is given twice, unless ten
thousand others come in between.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from beeq.operations.job_filter import State
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline

_MOST_DIGITS, _LAST_OFFSET, _LAST_CURSOR = 20, 2**53, 2**64 - 1
#: How many ids one call reads.
PAGE = 250
#: How many ids that have stayed mark the place where a page ended.
_ANCHORS = 10
_REMEMBERED = 10_000
#: How many calls without a member of a set before an empty page is returned.
_EMPTY_CALLS = 20


@dataclass(frozen=True, slots=True)
class PagePlace:
    """A place in a state: for a set a cursor and how many of its members were passed; else how many jobs."""

    cursor: bytes = b"0"
    offset: int = 0

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the place that ``text`` names; the beginning, if it names none."""
        cursor, _, offset = text.partition(".")
        parts = (cursor, offset)
        if not all(part.isascii() and part.isdecimal() and len(part) <= _MOST_DIGITS for part in parts):
            return cls()
        if int(cursor) > _LAST_CURSOR:
            return cls()
        return cls(cursor.encode(), min(int(offset), _LAST_OFFSET))

    def after(self, count: int) -> "PagePlace":
        """Return the place so many jobs further on."""
        return PagePlace(self.cursor, self.offset + count)

    @property
    def text(self) -> str:
        """The place as text."""
        return f"{self.cursor.decode()}.{self.offset}"


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

    async def page_at(self, place: PagePlace, count: int) -> tuple[Page, PagePlace, PagePlace | None]:
        """Return some ids from a place on, that place, and the next one; None: there are no more.

        This keeps nothing between two pages: an id may be on two of them, or on none, if others come and go.
        """
        key, first = self._keys.to_key(self.state), place.offset
        if self.state in ("succeeded", "failed"):
            return await self._set_page_at(key, place, count)
        due: dict[bytes, bytes] = {}
        if self.state == "delayed":
            flat = await self._pipeline.call(
                "ZRANGE", key, first, first + count, "WITHSCORES", repeatable=True
            )
            due = dict(zip(flat[::2], flat[1::2], strict=True))
            ids = flat[::2]
        elif self.state == "active":
            ids = await self._pipeline.call(
                "LRANGE", key, -(first + count + 1), -(first + 1), repeatable=True
            )
            ids.reverse()
        else:  # including those that a pause hides
            ids = await scripts.waiting_ids(
                self._pipeline, self._keys, first=-(first + count + 1), last=-(first + 1)
            )
            ids.reverse()
        here = PagePlace(b"0", first)
        return Page(ids[:count], first, due), here, here.after(count) if len(ids) > count else None

    async def _set_page_at(
        self, key: str, place: PagePlace, count: int
    ) -> tuple[Page, PagePlace, PagePlace | None]:
        for _ in range(_EMPTY_CALLS):
            command = ("SSCAN", key, place.cursor, "COUNT", count)
            cursor, members = await self._pipeline.call(*command, repeatable=True)
            if len(members) > place.offset + count:  # a small set comes as a whole
                return Page(members[place.offset :][:count]), place, place.after(count)
            if members[place.offset :] or cursor == b"0":
                break
            place = PagePlace(cursor)
        return Page(members[place.offset :]), place, None if cursor == b"0" else PagePlace(cursor)

    def gone(self, ids: Iterable[bytes]) -> None:
        """Note that these ids of the last page have left the state."""
        left = set(ids)
        before = len(self._last)
        self._last = [each for each in self._last if each not in left]
        self._next -= before - len(self._last)

    def _fresh(self, found: list[Any]) -> list[bytes]:
        """Return the ids that were not given before, as far as remembered."""
        fresh = list(dict.fromkeys(each for each in found if each not in self._seen))
        self._seen.update(dict.fromkeys(fresh))
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return fresh
