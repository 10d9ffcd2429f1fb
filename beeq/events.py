"""The messages on a queue's ``events`` channel (protocol section 5), and a memory of the latest.

Text in, events out; no IO and no clock: who receives a message says when.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, NamedTuple

from beeq.codec import dumps, loads


class _Absent:
    """The type of ``ABSENT``: an event without a ``data`` key, as when a handler returns nothing."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


class JobEvent(NamedTuple):
    """One message: what happened to which job. ``data`` is ``ABSENT`` when the key is."""

    job_id: str
    name: str
    data: Any = ABSENT

    @property
    def value(self) -> Any:
        """The data, with nothing said and ``null`` said being the same ``None``."""
        return None if self.data is ABSENT else self.data


def encode_event(job_id: str, name: str, data: Any = ABSENT) -> bytes:
    """Return the message; the key order is bee-queue's.

    Raises:
        TypeError: ``data`` cannot be written as JSON.
    """
    if data is ABSENT:
        return dumps({"id": job_id, "event": name})
    return dumps({"id": job_id, "event": name, "data": data})


def decode_event(text: bytes) -> JobEvent | None:
    """Return the event in ``text``, or None for what is no event.

    Anyone may publish anything; a bad message must never harm the receiver (flaw B6).
    """
    try:
        message = loads(text)
    except ValueError:
        return None
    if not isinstance(message, dict):
        return None
    job_id, name = message.get("id"), message.get("event")
    if not isinstance(name, str) or isinstance(job_id, bool) or not isinstance(job_id, str | int):
        return None
    return JobEvent(str(job_id), name, message.get("data", ABSENT))


class Backlog:
    """The latest events of jobs nobody here knew yet, and how known ones ended (flaw B5a).

    A job's event travels on another connection than the reply to its save and may win. Whoever
    learns of a job asks here what has been heard of it already.
    """

    def __init__(self, *, max_jobs: int = 5000, max_events: int = 16, max_age_ms: int = 60_000) -> None:
        self._max_jobs = max_jobs
        self._max_events = max_events
        self._max_age_ms = max_age_ms
        #: By job, the longest silent first: when it was last heard of, and its latest events.
        self._heard: OrderedDict[str, tuple[int, list[tuple[int, JobEvent]]]] = OrderedDict()
        #: How many events have been put: a clock by which "heard since then" can be told.
        self.moment = 0

    def __len__(self) -> int:
        return len(self._heard)

    def put(self, event: JobEvent, *, now_ms: int) -> None:
        """Remember ``event``, forgetting what is too old or too much."""
        self.moment += 1
        heard = self._heard
        earlier = heard.pop(event.job_id, None)
        events = [] if earlier is None else earlier[1]
        events.append((self.moment, event))
        del events[: -self._max_events]
        heard[event.job_id] = (now_ms, events)
        while heard:
            heard_ms, _events = next(iter(heard.values()))
            if len(heard) <= self._max_jobs and heard_ms >= now_ms - self._max_age_ms:
                break
            heard.popitem(last=False)

    def knows(self, job_id: str) -> bool:
        """Return whether anything was heard of the job."""
        return job_id in self._heard

    def drop_until(self, job_id: str, moment: int) -> None:
        """Forget what was heard of the job up to ``moment``: it told of an earlier job of that id."""
        heard_ms, events = self._heard.get(job_id, (0, []))
        left = [entry for entry in events if entry[0] > moment]
        if left:
            self._heard[job_id] = (heard_ms, left)
        else:
            self._heard.pop(job_id, None)

    def clear(self) -> None:
        """Forget everything."""
        self._heard.clear()

    def all(self, job_id: str, *, since: int = 0) -> list[JobEvent]:
        """Return what was heard of the job after the moment ``since``, in order."""
        _, events = self._heard.get(job_id, (0, []))
        return [event for moment, event in events if moment > since]

    def get(self, job_id: str, *, since: int = 0) -> JobEvent | None:
        """Return what was last heard of the job, after the moment ``since``, or None."""
        events = self.all(job_id, since=since)
        return events[-1] if events else None
