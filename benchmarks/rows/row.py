"""A row of the result file, and the measurement that gives rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.measures import Library

#: The names of the libraries, as result files have them.
BEEQ, BEE_QUEUE, EXCHANGE_ALONE = "beeq", "bee-queue", "exchange alone"
#: Those that have a number in most rows.
BOTH = (BEE_QUEUE, BEEQ)
#: A quick run divides the counts by this; its numbers mean nothing.
_QUICK = 100
#: … and has so many jobs at least.
_LEAST = 12


@dataclass(frozen=True)
class Row:
    """One row of the result file."""

    kind: str
    title: str
    unit: str
    concurrency: int | None = None
    #: For a row that only beeq has a number for: the title of the one whose other numbers are beside it.
    beside: str = ""


@dataclass(frozen=True)
class Measure:
    """One thing to run in each round for each library; it gives one number for each of its rows."""

    rows: tuple[Row, ...]
    run: Callable[[Library, Any, str], dict[Row, float]]
    #: How often the libraries take turns in one round, whose number is the median of theirs.
    turns: int = 1
    #: Which libraries take part.
    by: tuple[str, ...] = BOTH

    @property
    def group(self) -> str:
        """Its name for ``--only``."""
        return self.rows[0].kind.replace(" ", "-")


@dataclass(frozen=True)
class Counts:
    """How many jobs a measure has, by library: enough for half a second and more."""

    bee_queue: int
    beeq: int
    #: Of the client that only makes exchange calls.
    alone: int = 0
    divisor: int = 1

    def of(self, library: Library) -> int:
        """Return those of a library."""
        count = {BEE_QUEUE: self.bee_queue, BEEQ: self.beeq, EXCHANGE_ALONE: self.alone}[library.name]
        return max(count // self.divisor, _LEAST)

    def scaled(self, *, is_quick: bool) -> Counts:
        """Return the counts of a run, which may be one that is only to see that it runs."""
        return replace(self, divisor=_QUICK) if is_quick else self
