"""The findings of a diagnosis. Pure."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

FindingKind: TypeAlias = Literal[
    "ghosts", "strays", "doubles", "leftovers", "wrong-type", "overdue", "not-looked-at",
    "rights", "server-version", "eviction-policy", "memory", "persistence", "clock",
    "stall-intervals", "versions", "sandbox", "ffmpeg",
]  # fmt: skip
#: The lists and sets of a queue, in the order of the digits that ``find_places`` returns behind the record's.
PLACES = ("waiting", "hidden", "active", "delayed", "succeeded", "failed")
#: Where an id of several places stays: where its job runs, or is the first to run.
_STAYS = ("active", "hidden", "waiting", "delayed", "failed", "succeeded")
#: How many ids a sentence names.
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Move:
    """One id to repair: where it was seen, in the digits of ``find_places``, and where it belongs."""

    job_id: bytes
    seen: bytes
    wanted: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a diagnosis.

    Attributes:
        kind: its kind, in one word.
        text: what is wrong, as a sentence without its full stop.
        fix: what ``repair`` does about it, likewise; "" if a person must repair it.
        count: how many ids are concerned; 0 where it is not about ids.
        ids: some of them, or all: those that ``repair`` acts on, and no others.
        is_problem: False for what is only worth knowing.
    """

    kind: FindingKind
    text: str
    fix: str = ""
    count: int = 0
    is_problem: bool = True
    moves: tuple[Move, ...] = field(default=(), repr=False)

    @property
    def ids(self) -> list[str]:
        """The ids that ``repair`` acts on."""
        return [move.job_id.decode(errors="replace") for move in self.moves]


def places_in(digits: bytes) -> list[str]:
    """Return the names of the places; one that has the id more than once is named twice."""
    return [name for name, times in zip(PLACES, digits[1:], strict=True) for _ in range(times - ord("0"))]


def wanted_of_several(places: list[str], status: str) -> str:
    """Return where an id of several places is to stay; the record's ``status`` decides between two ends."""
    if set(places) == {"succeeded", "failed"} and status == "succeeded":
        return "succeeded"
    return next(place for place in _STAYS if place in places)


def wanted_of_stray(status: str) -> str:
    """Return where the job of a record that is in no list and no set belongs."""
    return status if status in ("succeeded", "failed") else "waiting"


def plural(count: int, one: str, many: str) -> str:
    """Return the number with its noun."""
    return f"{count} {one if count == 1 else many}"


def named(ids: list[bytes]) -> str:
    """Return some of the ids as text."""
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(each.decode(errors="replace") for each in ids[:MOST_NAMED]) + more
