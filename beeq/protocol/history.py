"""A queue's history as Redis has it: one entry a minute, and one an hour. Pure.

How entries are written and added up is in ``lua/note_history.lua``; protocol/README.md, "History", has the
rules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Self

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
#: For how long minutes and hours are kept.
KEPT_MINUTES, KEPT_HOURS = 24 * 60, 30 * 24
_BUCKETS_A_DECADE, _DECADES = 5, 8
#: The upper bounds of the buckets of waits and durations, in ms, up to 28 hours; one more has no bound.
BOUNDS_MS: tuple[float, ...] = tuple(
    10 ** (at / _BUCKETS_A_DECADE) for at in range(_BUCKETS_A_DECADE * _DECADES + 1)
)
BUCKET_COUNT = len(BOUNDS_MS) + 1
#: The workers' counts, in the order of an entry's first numbers.
COUNTED = ("succeeded", "failed", "retried")
#: All fields: counts, samples, and growth between samples.
_NUMBERS = (
    *COUNTED,
    *("samples", "waiting", "active", "delayed", "most_waiting"),
    *("new_ids", "more_succeeded", "more_failed", "more_unfinished"),
)
_SECTIONS = 3
#: More buckets than an entry has are invalid, and so are numbers that Lua cannot represent exactly.
_MOST_BUCKETS = 64
_LARGEST = 2**53
_MOST_DIGITS = len(str(-_LARGEST))


#: Returns the bucket number of a duration in ms. A partial for speed: each job calls it twice.
bucket_of: Callable[[float], int] = partial(bisect_left, BOUNDS_MS)


@dataclass(slots=True)
class Buckets:
    """How often a duration was in each bucket."""

    counts: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def add(self, other: Buckets) -> None:
        """Add the other's counts to these."""
        if other.counts:
            pairs = zip_longest(self.counts, other.counts, fillvalue=0)
            self.counts = [one + another for one, another in pairs]

    def percentile_ms(self, share: float) -> float | None:
        """Return the duration in ms below which that share lies, to a bucket's precision, or None."""
        total = self.total
        if not total:
            return None
        left = share * total
        for at, count in enumerate(self.counts):
            if count and left <= count:
                return _within(at, left / count)
            left -= count
        return BOUNDS_MS[-1]

    def as_text(self) -> str:
        """Return them as an entry has them."""
        found = [at for at, count in enumerate(self.counts) if count]
        if not found:
            return ""
        first, last = found[0], found[-1]
        return f"{first}:" + ",".join(str(count or "") for count in self.counts[first : last + 1])

    @classmethod
    def of(cls, text: str) -> Self:
        """Read the text of ``as_text``; invalid text counts nothing."""
        first, separator, rest = text.partition(":")
        if not separator or not first.isdecimal() or len(first) > _MOST_DIGITS:
            return cls()
        bucket = int(first)
        if bucket >= _MOST_BUCKETS:
            return cls()
        counts = [_whole(each) for each in rest.split(",", _MOST_BUCKETS)[:_MOST_BUCKETS]]
        return cls([0] * bucket + counts)


def _within(bucket: int, share: float) -> float:
    """Return the duration at a share of a bucket's width; the bounds are apart by a factor."""
    if bucket >= len(BOUNDS_MS):
        return BOUNDS_MS[-1]
    upper = BOUNDS_MS[bucket]
    if bucket == 0:
        return upper * share
    return float(upper * (upper / BOUNDS_MS[bucket - 1]) ** (share - 1))


def _whole(text: str) -> int:
    if not text or len(text) > _MOST_DIGITS:
        return 0
    try:
        number = int(text)
    except ValueError:
        return 0
    return number if -_LARGEST <= number <= _LARGEST else 0


@dataclass(slots=True)
class Entry:
    """One minute's, or one hour's, as Redis has it.

    Attributes:
        succeeded, failed, retried: outcomes that beeq's workers have recorded; ``failed`` is for good.
        samples: how often the queue was sampled; ``waiting``, ``active`` and ``delayed`` are sums over these
            samples, ``most_waiting`` is the largest.
        new_ids: automatic ids that were given out.
        more_succeeded, more_failed: growth of the sets; 0 where they shrank.
        more_unfinished: growth of ``waiting``, ``active`` and ``delayed`` together; may be negative.
        waits, durations: of jobs until their first attempt, and of attempts, on beeq's workers.
    """

    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    samples: int = 0
    waiting: int = 0
    active: int = 0
    delayed: int = 0
    most_waiting: int = 0
    new_ids: int = 0
    more_succeeded: int = 0
    more_failed: int = 0
    more_unfinished: int = 0
    waits: Buckets = field(default_factory=Buckets)
    durations: Buckets = field(default_factory=Buckets)

    @classmethod
    def of(cls, text: str) -> Self:
        """Read an entry; invalid parts count as nothing."""
        if not text:
            return cls()
        numbers, waits, durations = (*text.split(";", _SECTIONS), "", "")[:_SECTIONS]
        values = [_whole(each) for each in numbers.split(",", len(_NUMBERS))]
        named = dict(zip(_NUMBERS, values, strict=False))
        return cls(**named, waits=Buckets.of(waits), durations=Buckets.of(durations))


def counts_text(outcomes: Iterable[int], waits: Sequence[int], durations: Sequence[int]) -> str:
    """Return a worker's counts as an entry; "" if there are none.

    ``outcomes`` are as many as ``COUNTED`` names; ``waits`` and ``durations`` have a count for each bucket.
    """
    numbers = ",".join(str(count or "") for count in outcomes)
    text = f"{numbers};{Buckets(list(waits)).as_text()};{Buckets(list(durations)).as_text()}"
    return text if text.strip(",;") else ""
