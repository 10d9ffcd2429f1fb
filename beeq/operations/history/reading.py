"""Reads a queue's history from Redis. Writes nothing."""

from beeq.operations.history.points import History, of_hours, of_minutes
from beeq.protocol.history import HOUR_MS, KEPT_HOURS, KEPT_MINUTES, MINUTE_MS, Entry
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline

#: A history has about so many points, unless the caller chooses a step.
_POINTS = 120
#: The automatic steps, in minutes and hours.
_MINUTE_STEPS = (1, 2, 5, 10, 15)
_HOUR_STEPS = (1, 2, 3, 6)


async def read_history(
    pipeline: Pipeline, keys: Keys, *, last_ms: int, step_ms: int | None = None
) -> History:
    """Return a queue's history of the last so many ms.

    Up to a day it is made of minutes, and ends with the last one that is over; beyond that of hours, and ends
    with the current one. The first point and the last may be shorter than the others.

    Raises:
        ValueError: more than is kept, or a step that is not a whole number of minutes or hours.
    """
    is_by_hour = last_ms > KEPT_MINUTES * MINUTE_MS
    unit_ms = HOUR_MS if is_by_hour else MINUTE_MS
    if not MINUTE_MS <= last_ms <= KEPT_HOURS * HOUR_MS:
        raise ValueError("history is kept from a minute to 30 days")
    count = -(-last_ms // unit_ms)
    step = _step(count, _HOUR_STEPS if is_by_hour else _MINUTE_STEPS)
    if step_ms is not None:
        step, rest = divmod(step_ms, unit_ms)
        if rest or step < 1:
            raise ValueError(f"step must be a whole number of {'hours' if is_by_hour else 'minutes'}")
    raw_now, raw_last, *raw_entries = await scripts.read_history(
        pipeline, keys, unit="hours" if is_by_hour else "minutes", count=count + 1
    )
    current = int(raw_now) // unit_ms
    if is_by_hour:
        entries = raw_entries[-count:]
        return of_hours(current + 1 - count, [_entry(raw) for raw in entries], step=step)
    # What came in the last minute is known with the first sample of this one.
    newest = raw_last.partition(b",")[0]
    end = current if newest.isdigit() and int(newest) >= current else current - 1
    entries = raw_entries[:-1] if end == current else raw_entries[:-2]
    entries = entries[-count:]
    return of_minutes(end - len(entries), [_entry(raw) for raw in entries], step=step)


def _step(count: int, steps: tuple[int, ...]) -> int:
    return next((step for step in steps if count / step <= _POINTS), steps[-1])


def _entry(raw: bytes) -> Entry:
    return Entry.of(raw.decode("ascii", "replace"))
