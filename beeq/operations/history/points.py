"""Makes the points of a queue's history from Redis's entries. Pure.

An entry is a minute's or an hour's; a point is of one or several of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from beeq.operations.history.estimates import uncounted, unnamed
from beeq.protocol.history import HOUR_MS, MINUTE_MS, Buckets, Entry

_MINUTES_AN_HOUR = 60
#: An hour with fewer samples is partly unknown.
_WHOLE_HOUR = 57


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """A part of a queue's history.

    Attributes:
        at_ms: when it begins, in ms since the epoch; it is as long as the history's ``step_ms``, but for the
            first and the last one.
        minutes: for how many minutes it has a count; 0: unknown.
        added: jobs that came in; those with ids of their own, and retries by hand, are an estimate.
        succeeded, failed: jobs that ended so; ``uncounted`` of these are an estimate: Node's workers.
        retried: attempts that failed and were followed by another one, on beeq's workers.
        waiting, active, delayed: how many jobs there were, the mean of the minutes; None: unknown.
        most_waiting: the most that waited.
        waits, durations: of jobs until their first attempt, and of attempts, on beeq's workers.
    """

    at_ms: int
    minutes: int = 0
    added: int = 0
    succeeded: int = 0
    failed: int = 0
    uncounted: int = 0
    retried: int = 0
    waiting: float | None = None
    active: float | None = None
    delayed: float | None = None
    most_waiting: int = 0
    waits: Buckets = field(default_factory=Buckets)
    durations: Buckets = field(default_factory=Buckets)

    @property
    def ended(self) -> int:
        """Jobs that ended."""
        return self.succeeded + self.failed

    def a_minute(self, count: int) -> float | None:
        """Return a count of this point as a rate a minute; None if unknown."""
        return count / self.minutes if self.minutes else None


@dataclass(frozen=True, slots=True)
class History:
    """A part of a queue's history, from ``HistoryPoint`` to point.

    Attributes:
        points: the oldest first.
        step_ms: how long each of them is.
        gaps: the times without samples, in ms since the epoch.
    """

    points: list[HistoryPoint]
    step_ms: int
    gaps: list[tuple[int, int]]

    @property
    def total(self) -> HistoryPoint:
        """All points together."""
        begin_ms = self.points[0].at_ms if self.points else 0
        return _together(begin_ms, self.points)

    @property
    def failure_rate(self) -> float | None:
        """The share of ended jobs that failed for good; None if none has ended."""
        total = self.total
        return total.failed / total.ended if total.ended else None

    @property
    def is_empty(self) -> bool:
        """Whether there are no samples in all that time."""
        return not any(point.minutes for point in self.points)


def of_minutes(first: int, entries: Sequence[Entry], *, step: int) -> History:
    """Return the history of successive minutes, ``step`` of them a point.

    Args:
        first: the first one's number since the epoch.
        entries: each minute's.
        step: minutes a point; the first point begins at a whole one.
    """
    more_succeeded = uncounted([e.more_succeeded for e in entries], [e.succeeded for e in entries])
    more_failed = uncounted([e.more_failed for e in entries], [e.failed for e in entries])
    succeeded = [e.succeeded + more for e, more in zip(entries, more_succeeded, strict=True)]
    failed = [e.failed + more for e, more in zip(entries, more_failed, strict=True)]
    ended = [sum(each) for each in zip(succeeded, failed, strict=True)]
    grown = [e.more_unfinished + out for e, out in zip(entries, ended, strict=True)]
    more_added = unnamed(grown, [e.new_ids for e in entries], ended)
    units = [
        _unit(
            (first + at) * MINUTE_MS,
            entry,
            minutes=bool(entry.samples),
            added=entry.new_ids + more_added[at],
            succeeded=succeeded[at],
            failed=failed[at],
            uncounted=more_succeeded[at] + more_failed[at],
        )
        for at, entry in enumerate(entries)
    ]
    gaps = _gaps(first, [bool(entry.samples) for entry in entries], MINUTE_MS)
    return History(_points(first, units, step), step * MINUTE_MS, gaps)


def of_hours(first: int, entries: Sequence[Entry], *, step: int) -> History:
    """Return the history of successive hours, ``step`` of them a point; see ``of_minutes``.

    A late report falls into the same hour as a rule, so each hour is judged for itself. The last entry's hour
    may not have ended.
    """
    units = []
    for at, entry in enumerate(entries):
        more_succeeded = max(0, entry.more_succeeded - entry.succeeded)
        more_failed = max(0, entry.more_failed - entry.failed)
        succeeded, failed = entry.succeeded + more_succeeded, entry.failed + more_failed
        units.append(
            _unit(
                (first + at) * HOUR_MS,
                entry,
                minutes=min(entry.samples, _MINUTES_AN_HOUR),
                added=max(entry.new_ids, entry.more_unfinished + succeeded + failed, 0),
                succeeded=succeeded,
                failed=failed,
                uncounted=more_succeeded + more_failed,
            )
        )
    has_all = [entry.samples >= _WHOLE_HOUR for entry in entries[:-1]]
    has_all += [bool(entry.samples) for entry in entries[-1:]]
    gaps = _gaps(first, has_all, HOUR_MS)
    return History(_points(first, units, step), step * HOUR_MS, gaps)


def _unit(at_ms: int, entry: Entry, *, minutes: int, **counts: int) -> HistoryPoint:
    """Return a point of one entry."""
    looks = entry.samples
    return HistoryPoint(
        at_ms,
        minutes,
        retried=entry.retried,
        waiting=entry.waiting / looks if looks else None,
        active=entry.active / looks if looks else None,
        delayed=entry.delayed / looks if looks else None,
        most_waiting=entry.most_waiting,
        waits=entry.waits,
        durations=entry.durations,
        **counts,
    )


def _points(first: int, units: Sequence[HistoryPoint], step: int) -> list[HistoryPoint]:
    points, at = [], 0
    while at < len(units):
        end = at + step - (first + at) % step
        points.append(units[at] if step == 1 else _together(units[at].at_ms, units[at:end]))
        at = end
    return points


def _together(at_ms: int, points: Sequence[HistoryPoint]) -> HistoryPoint:
    """Return one point from several; the means are weighted by the known minutes."""
    minutes = sum(point.minutes for point in points)
    waits, durations = Buckets(), Buckets()
    for point in points:
        waits.add(point.waits)
        durations.add(point.durations)

    def mean(name: str) -> float | None:
        found = [(getattr(point, name), point.minutes) for point in points if point.minutes]
        return sum(value * weight for value, weight in found) / minutes if minutes else None

    return HistoryPoint(
        at_ms,
        minutes,
        added=sum(point.added for point in points),
        succeeded=sum(point.succeeded for point in points),
        failed=sum(point.failed for point in points),
        uncounted=sum(point.uncounted for point in points),
        retried=sum(point.retried for point in points),
        waiting=mean("waiting"),
        active=mean("active"),
        delayed=mean("delayed"),
        most_waiting=max((point.most_waiting for point in points), default=0),
        waits=waits,
        durations=durations,
    )


def _gaps(first: int, are_known: Sequence[bool], unit_ms: int) -> list[tuple[int, int]]:
    gaps: list[tuple[int, int]] = []
    for at, is_known in enumerate(are_known):
        if is_known:
            continue
        from_ms = (first + at) * unit_ms
        if gaps and gaps[-1][1] == from_ms:
            gaps[-1] = gaps[-1][0], from_ms + unit_ms
        else:
            gaps.append((from_ms, from_ms + unit_ms))
    return gaps
