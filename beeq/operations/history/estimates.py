"""Estimates uncounted jobs from the growth of sets and lists. Pure.

A worker reports its counts some seconds late, so a set's growth in one minute may be counted in the next:
such a passing difference between the two curves means nothing. Only a lasting one counts.
"""

from collections.abc import Sequence
from itertools import accumulate

#: Within so many minutes before and after, counts may make up for a difference.
_WINDOW = 3
#: A difference below this part of what was counted nearby may come from late reports alone.
_LATE = 1 / 6


def uncounted(grown: Sequence[int], counted: Sequence[int]) -> list[int]:
    """Return by minute the growth that is counted neither in its minute nor in the next ones.

    Args:
        grown: growth by minute.
        counted: exact counts by minute, perhaps late.
    """
    ahead = list(accumulate(more - known for more, known in zip(grown, counted, strict=True)))
    staying = [min(ahead[at : at + _WINDOW]) for at in range(len(ahead))]
    return _without_lateness(_steps_up(staying), counted)


def unnamed(grown: Sequence[int], named: Sequence[int], late: Sequence[int]) -> list[int]:
    """Return by minute the growth beyond the exact counts.

    Args:
        grown: growth by minute; some of it seen late.
        named: exact counts by minute, in time.
        late: by minute, the part of ``grown`` that is seen late.
    """
    differences = (more - known for more, known in zip(grown, named, strict=True))
    beyond = list(accumulate(differences, initial=0))
    reached = [max(beyond[max(0, at + 1 - _WINDOW) : at + 1]) for at in range(1, len(beyond))]
    return _without_lateness(_steps_up(reached), late)


def _steps_up(heights: Sequence[int]) -> list[int]:
    steps, before = [], 0
    for height in heights:
        steps.append(max(0, height - before))
        before = height
    return steps


def _without_lateness(found: list[int], counted: Sequence[int]) -> list[int]:
    return [
        each if each > _LATE * max(counted[max(0, at + 1 - _WINDOW) : at + _WINDOW], default=0) else 0
        for at, each in enumerate(found)
    ]
