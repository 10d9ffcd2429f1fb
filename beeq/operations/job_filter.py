"""Filters jobs by state, error, data and age. Pure: the caller brings record and clock."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypedDict, Unpack, get_args

from beeq.operations.error_kinds import kind_of_error
from beeq.protocol.codec import MAX_SHOWN_LEVELS, Record, RecordLike, dumps_shown
from beeq.protocol.keys import JobSetName
from beeq.settings import Duration, milliseconds, whole

#: Where a job of a queue can be.
State: TypeAlias = JobSetName
STATES: tuple[State, ...] = get_args(State)
#: The states of jobs that have not ended.
UNFINISHED: tuple[State, ...] = ("active", "waiting", "delayed")
#: Members of a record that ``where`` may look into.
_ROOTS = ("data", "options", "status", "progress")
_TEXTS = ("error", "error_kind", "text")
#: The longest path of ``where``, and its most parts: deeper values are not shown, either.
_LONGEST_PATH, _MOST_PARTS = 1000, MAX_SHOWN_LEVELS


class OneOf(tuple[Any, ...]):
    """Values of which ``where`` takes any: ``where={"data.user": OneOf((7, "7"))}``."""

    __slots__ = ()


class Filters(TypedDict, total=False):
    """The filters' arguments; each is optional, and all given ones must match.

    ``state``: one of ``STATES`` or several. ``error``: text that the newest error or its trace has, in
    either case of letters; ``error_kind``: the newest error's first line, # in place of each number and id,
    exactly: ``KeyError: #``. ``text``: text that the data or the newest trace has, in either case.
    ``where``: values of the record by their paths, ``{"data.user": 7}``; a number in
    a path is an index of a list, ``OneOf`` takes any of several values. ``since`` and ``older_than``: ms,
    timedelta, or text like ``7d``; the age of a job is counted from its last failed
    attempt where that is noted, else from its creation. ``limit``: so many jobs at
    most.
    """

    state: State | Sequence[State]
    error: str
    error_kind: str
    text: str
    where: Mapping[str, Any]
    since: Duration | None
    older_than: Duration | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """A checked filter. Durations are ms."""

    states: tuple[State, ...] = STATES
    error: str = ""
    where: tuple[tuple["_Path", tuple[Any, ...]], ...] = ()
    since_ms: int | None = None
    older_than_ms: int | None = None
    limit: int | None = None
    error_kind: str = ""
    text: str = ""

    @classmethod
    def of(cls, allowed: Sequence[State], **filters: Unpack[Filters]) -> Self:
        """Return the filter.

        Args:
            allowed: the allowed states; all of them apply if none is named.
            **filters: see ``Filters``.

        Raises:
            TypeError: not a filter, or of the wrong type. ValueError: a state, path or number that cannot be.
        """
        unknown = filters.keys() - Filters.__annotations__.keys()
        if unknown:
            raise TypeError(f"unknown filter: {', '.join(sorted(unknown))}")
        named = filters.get("state", allowed)
        states: tuple[State, ...] = (named,) if isinstance(named, str) else tuple(named)
        for state in states:
            if state not in allowed:
                raise ValueError(f"state must be one of {', '.join(allowed)}, not {state!r}")
        error, kind, text = (_checked_text(name, filters.get(name, "")) for name in _TEXTS)
        since, older_than, limit = (filters.get(name) for name in ("since", "older_than", "limit"))
        return cls(
            states=tuple(dict.fromkeys(states)),
            error=error.casefold(),
            where=tuple(
                (_checked_path(path), tuple(value) if isinstance(value, OneOf) else (value,))
                for path, value in filters.get("where", {}).items()
            ),
            since_ms=None if since is None else milliseconds("since", since),
            older_than_ms=None if older_than is None else milliseconds("older_than", older_than),
            limit=None if limit is None else whole("limit", limit, at_least=1),
            error_kind=kind,
            text=text.casefold(),
        )

    def matches(self, record: Record | None, *, last_ms: int, now_ms: int) -> bool:
        """Return whether a job of one of the states matches.

        Args:
            record: its record; None for one that cannot be read: it has no error, no data, and is old.
            last_ms: when it last failed, or else was created, in ms since the epoch; 0: unknown.
            now_ms: the clock.
        """
        age_ms = now_ms - last_ms
        if self.since_ms is not None and age_ms > self.since_ms:
            return False
        if self.older_than_ms is not None and age_ms <= self.older_than_ms:
            return False
        if not (self.error or self.where or self.error_kind or self.text):
            return True
        return (
            record is not None
            and self._has_error(record)
            and self._has_values(record)
            and (not self.text or self._has_text(record))
        )

    def _has_error(self, record: Record) -> bool:
        if self.error_kind and self.error_kind != kind_of_error(newest_trace(record)):
            return False
        return not self.error or self.error in newest_trace(record).casefold()

    def _has_text(self, record: Record) -> bool:
        if self.text in newest_trace(record).casefold():
            return True
        return self.text in dumps_shown(record.data).decode(errors="replace").casefold()

    def _has_values(self, record: Record) -> bool:
        members = {name: getattr(record, name) for name in _ROOTS}
        return all(
            any(_is_same(found, value) for found in path.found_in(members) for value in values)
            for path, values in self.where
        )


def newest_trace(record: RecordLike) -> str:
    """Return the trace of the newest failed attempt in a record; its first line is the error. "" if none."""
    traces = record.options.get("stacktraces")
    newest = traces[0] if isinstance(traces, list) and traces else ""
    return newest if isinstance(newest, str) else ""


def _checked_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    return value


def _checked_path(path: Any) -> "_Path":
    if not isinstance(path, str):
        raise TypeError(f"a path of where must be a str, not {type(path).__name__}")
    if path.partition(".")[0] not in _ROOTS:
        raise ValueError(f"where {path!r}: a path begins with {', '.join(_ROOTS)}, as in data.user")
    if len(path) > _LONGEST_PATH or path.count(".") >= _MOST_PARTS:
        raise ValueError(
            f"where {path[:40]!r}…: a path has at most {_LONGEST_PATH} characters, and {_MOST_PARTS} parts"
        )
    return _Path(path)


class _Path:
    """A path of ``where`` with all its readings: a key may have dots in it.

    A search takes as long as one pass through the value, however many readings the path has.
    """

    __slots__ = ("_keys", "_parts")

    def __init__(self, text: str) -> None:
        self._parts = text.split(".")
        self._keys: dict[int, dict[str, int]] = {}

    def found_in(self, value: Any, at: int = 0) -> Iterator[Any]:
        """Yield the values at the path's parts from ``at`` on, in each of their readings."""
        if at == len(self._parts):
            yield value
        elif isinstance(value, dict):
            keys = self._keys_from(at)
            for key in value if len(value) < len(keys) else keys:
                if key in keys and key in value:
                    yield from self.found_in(value[key], keys[key])
        elif isinstance(value, list):
            index = self._parts[at]
            if index.isdecimal() and int(index) < len(value):
                yield from self.found_in(value[int(index)], at + 1)

    def _keys_from(self, at: int) -> dict[str, int]:
        """Return the keys that the parts from ``at`` on may begin with, each with the part after it."""
        if at not in self._keys:
            ends = range(len(self._parts), at, -1)
            self._keys[at] = {".".join(self._parts[at:end]): end for end in ends}
        return self._keys[at]


def _is_same(found: Any, wanted: Any) -> bool:
    """Return whether they are equal; True is not 1, and values too deep to compare are not equal."""
    try:
        return bool(found == wanted) and isinstance(found, bool) is isinstance(wanted, bool)
    except RecursionError:
        return False
