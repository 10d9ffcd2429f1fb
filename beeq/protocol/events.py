"""The messages on a queue's ``events`` channel, and ``Backlog``, which remembers recent ones.

The rules are in protocol/README.md, "Events channel".

Text in, events out; no IO and no clock: callers pass the time.
"""

from collections import OrderedDict
from typing import Any, Final, Literal, NamedTuple

from beeq.protocol.codec import dumps, loads

#: The events of ``Queue.on``, which says what each is called with.
QueueEventName = Literal[
    "ready", "error", "reconnected", "stalled", "raised jobs", "hung",
    "succeeded", "retrying", "failed", "failed:fatal", "cancelled", "postponed",
    "job succeeded", "job retrying", "job failed", "job postponed", "job progress",
]  # fmt: skip
#: The events of ``Job.on``.
JobEventName = Literal["succeeded", "retrying", "failed", "postponed", "progress"]


class _Absent:
    """The type of ``ABSENT``: an event without a ``data`` key, as when a handler returns nothing."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


class JobEvent(NamedTuple):
    """One message: what happened to which job. ``data`` is ``ABSENT`` if the message has none."""

    job_id: str
    name: str
    data: Any = ABSENT

    @property
    def value(self) -> Any:
        """The data; both missing data and ``null`` are None."""
        return None if self.data is ABSENT else self.data


def encode_event(job_id: str, name: str, data: Any = ABSENT) -> bytes:
    """Return the message; the key order is bee-queue's. Raises what ``dumps`` raises."""
    if data is ABSENT:
        return dumps({"id": job_id, "event": name})
    return dumps({"id": job_id, "event": name, "data": data})


def decode_event(text: bytes) -> JobEvent | None:
    """Return the event in ``text``, or None if it is not an event.

    Anyone may publish anything; a bad message must never harm the receiver.
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


#: When an event was heard, by the backlog's count; the event; the size of its message in bytes.
_Entry = tuple[int, JobEvent, int]


class Backlog:
    """The latest events of jobs that were not known here yet, and the ends of known ones.

    A job's event travels on another connection than the reply to its save and may overtake it. A process
    that learns of a job looks here for events that have already come.

    Bounded in jobs, in bytes of their messages, and in time: the job that was silent longest is dropped
    first. Time passes with ``put`` and ``drop``. A dropped end, or one too large to keep, is not lost where
    queues keep records or results: ``Results`` reads it from Redis.
    """

    def __init__(
        self,
        *,
        max_jobs: int = 5000,
        max_events: int = 16,
        max_age_ms: int = 60_000,
        max_bytes: int = 16_000_000,
    ) -> None:
        self._max_jobs = max_jobs
        self._max_events = max_events
        self._max_age_ms = max_age_ms
        self._max_bytes = max_bytes
        #: By job, the longest silent first: when it was last heard of, its latest events, their size.
        self._heard: OrderedDict[str, tuple[int, list[_Entry], int]] = OrderedDict()
        self._size_bytes = 0
        self._young_until_ms = -1  # until then nothing is too old
        #: The jobs with remembered events.
        self.ids = self._heard.keys()
        #: How many events have been put: a clock for "since some moment".
        self.moment = 0

    def __len__(self) -> int:
        return len(self._heard)

    def put(self, event: JobEvent, *, size_bytes: int, now_ms: int) -> None:
        """Remember ``event``, whose message had that size, forgetting what is too old or too much."""
        self.moment += 1
        job_id = event.job_id
        events: list[_Entry] = []
        events_bytes = 0
        if job_id in self._heard:
            _heard_ms, events, events_bytes = self._heard.pop(job_id)
            self._size_bytes -= events_bytes
        if size_bytes <= self._max_bytes:  # else it is dropped, not all the others
            events.append((self.moment, event, size_bytes))
            events_bytes += size_bytes
            if len(events) > self._max_events:
                events_bytes -= events.pop(0)[2]
            self._heard[job_id] = (now_ms, events, events_bytes)
            self._size_bytes += events_bytes
            self._young_until_ms = min(self._young_until_ms, now_ms + self._max_age_ms)
        self.drop(now_ms=now_ms)

    def drop(self, *, now_ms: int) -> None:
        """Forget what is too old or too much."""
        heard = self._heard
        is_full = len(heard) > self._max_jobs or self._size_bytes > self._max_bytes
        if now_ms <= self._young_until_ms and not is_full:
            return
        self._young_until_ms = now_ms + self._max_age_ms  # unless one that stays is older
        oldest_ms = now_ms - self._max_age_ms
        while heard:
            heard_ms, _events, events_bytes = next(iter(heard.values()))
            is_full = len(heard) > self._max_jobs or self._size_bytes > self._max_bytes
            if heard_ms >= oldest_ms and not is_full:
                self._young_until_ms = min(self._young_until_ms, heard_ms + self._max_age_ms)
                break
            heard.popitem(last=False)
            self._size_bytes -= events_bytes

    def drop_until(self, job_id: str, moment: int) -> None:
        """Forget the events up to ``moment``: they belong to an earlier job of that id."""
        heard_ms, events, events_bytes = self._heard.get(job_id, (0, [], 0))
        left = [entry for entry in events if entry[0] > moment]
        left_bytes = sum(size_bytes for _moment, _event, size_bytes in left)
        self._size_bytes += left_bytes - events_bytes
        if left:
            self._heard[job_id] = (heard_ms, left, left_bytes)
        else:
            self._heard.pop(job_id, None)

    def clear(self) -> None:
        """Forget everything."""
        self._heard.clear()
        self._size_bytes = 0

    def all(self, job_id: str, *, since: int = 0) -> list[JobEvent]:
        """Return the job's events after the moment ``since``, in order."""
        _heard_ms, events, _size = self._heard.get(job_id, (0, [], 0))
        return [event for moment, event, _size in events if moment > since]

    def get(self, job_id: str, *, since: int = 0) -> JobEvent | None:
        """Return the job's last event after the moment ``since``, or None."""
        events = self.all(job_id, since=since)
        return events[-1] if events else None
