"""Checks that every id of a queue has a record, and is in one place.

Each page is read at another moment. So an id that looks wrong is only suspected, and checked again in one
atomic step at the end.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from beeq.errors import JobUnreadable
from beeq.operations.diagnosis.findings import (
    Finding,
    Move,
    named,
    places_in,
    plural,
    wanted_of_several,
    wanted_of_stray,
)
from beeq.operations.job_filter import State
from beeq.operations.scans import Scan
from beeq.protocol.codec import decode_record
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline

#: Called now and then with the number of ids looked at so far.
OnLooked = Callable[[int], object]
#: How many ids of a list or set are checked; a million of them take some 100 MB meanwhile.
MOST_LOOKED_AT = 2_000_000
#: How many ids are suspected at most; checking each again searches all waiting and running ids.
_MOST_SUSPECTS = 1000
_PAGE = 250
#: List entries that one call searches, unless one id needs more: a few milliseconds' worth.
_LONGEST_WALK = 200_000
_MOST_AT_ONCE = 50
_READ_BYTES = 1_000_000
_LISTS = ("waiting", "hidden", "active")
#: The digits of ``find_places``, without the lists, for an id in its right place.
_GOOD = {
    "waiting": b"1000000",
    "hidden": b"1000000",
    "active": b"1000000",
    "delayed": b"1000100",
    "succeeded": b"1000010",
    "failed": b"1000001",
}


class PlaceCheck:
    """One check of one queue."""

    def __init__(
        self, pipeline: Pipeline, keys: Keys, on_looked: OnLooked, most_ids: int = MOST_LOOKED_AT
    ) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._on_looked = on_looked
        self._most_ids = most_ids  # of each list and set
        self._looked_at = 0
        self._in_lists: set[int] = set()  # hashes of ids: a collision makes a suspect, which is cleared again
        self._suspects: dict[bytes, None] = {}
        self._unlooked: list[str] = []
        self._entries = 0  # of all lists

    async def findings(self) -> list[Finding]:
        """Return what is wrong, and what was not checked. Raises RedisError, QueueClosed."""
        for name in _LISTS:
            await self._look_at_list(name)
        for state in ("delayed", "succeeded", "failed"):
            await self._look_at_set(state)
        await self._look_for_strays()
        found = await self._settled()
        if self._unlooked:
            found.append(Finding("not-looked-at", "; ".join(self._unlooked), is_problem=False))
        return found

    # Looking.

    async def _look_at_list(self, name: str) -> None:
        key = self._keys.to_key("beeq:hidden" if name == "hidden" else name)
        length = await self._pipeline.call("LLEN", key, repeatable=True)
        self._entries += length
        if length > self._most_ids:
            self._unlooked.append(f"only the first {self._most_ids} ids of {name} were looked at")
        for start in range(0, min(length, self._most_ids), _PAGE):
            last = min(start + _PAGE, self._most_ids)
            ids = await self._pipeline.call("LRANGE", key, -last, -start - 1, repeatable=True)
            await self._suspect(name, ids)
            for each in ids:
                if hash(each) in self._in_lists:
                    self._suspects[each] = None
                self._in_lists.add(hash(each))

    async def _look_at_set(self, state: State) -> None:
        looked_at = 0
        scan = Scan(self._pipeline, self._keys, state)
        while (page := await scan.page()) is not None:
            await self._suspect(state, page.ids)
            self._suspects |= dict.fromkeys(each for each in page.ids if hash(each) in self._in_lists)
            looked_at += len(page.ids)
            if looked_at >= self._most_ids:
                self._unlooked.append(f"only {looked_at} ids of {state} were looked at")
                break

    async def _suspect(self, state: str, ids: Sequence[bytes]) -> None:
        """Suspect those of the ids that have no record, or are in a set that they should not be in."""
        if ids and len(self._suspects) < _MOST_SUSPECTS:
            digits = await self._places(ids, with_lists=False)
            good = _GOOD[state]
            self._suspects |= dict.fromkeys(
                each for each, seen in zip(ids, digits, strict=True) if seen != good
            )
        self._looked(len(ids))

    async def _look_for_strays(self) -> None:
        if self._unlooked:
            self._unlooked.append("records that are in no list and no set were not looked for")
            return
        cursor, looked_at = b"0", 0
        while True:
            cursor, count, strays = await scripts.scan_strays(
                self._pipeline, self._keys, cursor=cursor, count=_PAGE, max_bytes=_READ_BYTES
            )
            self._suspects |= dict.fromkeys(each for each in strays if hash(each) not in self._in_lists)
            looked_at += count
            self._looked(count)
            if cursor == b"0":
                return
            if looked_at >= 2 * self._most_ids:
                self._unlooked.append(f"only {looked_at} records were looked at")
                return

    def _looked(self, count: int) -> None:
        self._looked_at += count
        self._on_looked(self._looked_at)

    async def _places(self, ids: Sequence[bytes], *, with_lists: bool) -> list[bytes]:
        found: list[bytes] = await scripts.find_places(
            self._pipeline,
            self._keys,
            with_lists="1" if with_lists else "",
            ids=((each,) for each in ids),
        )
        return found

    # Settling.

    async def _settled(self) -> list[Finding]:
        """Return the findings on the suspects, after checking each atomically."""
        suspects = list(self._suspects)
        ghosts: list[Move] = []
        strays: list[Move] = []
        doubles: list[Move] = []
        async for job_id, seen in self._exact_places(suspects[:_MOST_SUSPECTS]):
            places = places_in(seen)
            if seen[:1] == b"0" and places:
                ghosts.append(Move(job_id, seen, ""))
            elif seen[:1] != b"0" and len(places) != 1:
                status = await self._status_of(job_id)
                if places:
                    doubles.append(Move(job_id, seen, wanted_of_several(places, status)))
                else:
                    strays.append(Move(job_id, seen, wanted_of_stray(status)))
        found = _described(ghosts, strays, doubles)
        if found and len(suspects) > _MOST_SUSPECTS:
            text = f"{len(suspects) - _MOST_SUSPECTS} more ids look wrong, and were not looked at again"
            found.append(Finding("not-looked-at", f"{text}: call it again once these are repaired"))
        elif len(suspects) > _MOST_SUSPECTS:
            self._unlooked.append(
                f"of {len(suspects)} ids that look wrong the first {_MOST_SUSPECTS} were looked at"
            )
        return found

    async def _exact_places(self, ids: Sequence[bytes]) -> AsyncIterator[tuple[bytes, bytes]]:
        at_once = ids_at_once(self._entries)
        for start in range(0, len(ids), at_once):
            some = ids[start : start + at_once]
            for pair in zip(some, await self._places(some, with_lists=True), strict=True):
                yield pair

    async def _status_of(self, job_id: bytes) -> str:
        raw: Any = await self._pipeline.call("HGET", self._keys.jobs, job_id, repeatable=True)
        try:
            return str(decode_record("", raw or b"", now_ms=0).status)
        except JobUnreadable:
            return ""


def ids_at_once(entries: int) -> int:
    """Return for how many ids one call may search lists of so many entries."""
    return max(1, min(_MOST_AT_ONCE, _LONGEST_WALK // max(1, entries)))


def _described(ghosts: list[Move], strays: list[Move], doubles: list[Move]) -> list[Finding]:
    found = []
    if ghosts:
        where = ", ".join(_in_order(place for move in ghosts for place in places_in(move.seen)))
        text = f"{plural(len(ghosts), 'id has', 'ids have')} no record, in {where}: {_ids(ghosts)}"
        found.append(_finding("ghosts", text, "takes them out", ghosts))
    if strays:
        text = f"{plural(len(strays), 'record is', 'records are')} in no list and no set: {_ids(strays)}"
        where = ", ".join(
            f"{sum(move.wanted == place for move in strays)} into {place}"
            for place in _in_order(move.wanted for move in strays)
        )
        found.append(_finding("strays", text, f"puts them where their status says, {where}", strays))
    if doubles:
        first = doubles[0]
        example = f"{first.job_id.decode(errors='replace')} in {' and '.join(places_in(first.seen))}"
        text = f"{plural(len(doubles), 'id is', 'ids are')} in several places: {_ids(doubles)} ({example})"
        found.append(_finding("doubles", text, "leaves each where it runs, or runs first", doubles))
    return found


def _finding(kind: Any, text: str, fix: str, moves: list[Move]) -> Finding:
    return Finding(kind, text, fix, len(moves), moves=tuple(moves))


def _ids(moves: list[Move]) -> str:
    return named([move.job_id for move in moves])


def _in_order(places: Iterable[str]) -> list[str]:
    there = set(places)
    return [place for place in _GOOD if place in there]
