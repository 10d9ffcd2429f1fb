"""Reports what happens to one job, as it happens: from its events, and from reading Redis in between.

Events report progress and ends. Nothing is published when a job is taken, raised, given back or removed, and
messages published while the connection is down are lost: reading Redis finds these, a little later.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from beeq.client.context import QueueContext
from beeq.client.reader import Ended, JobState, Reader
from beeq.client.session import Session
from beeq.errors import RedisRefused, RedisUnavailable
from beeq.job import Job
from beeq.operations.inspection import Inspector, JobDetails
from beeq.protocol.events import JobEventName

NewsEvent: TypeAlias = Literal[
    "waiting",
    "active",
    "delayed",
    "progress",
    "retrying",
    "postponed",
    "succeeded",
    "failed",
    "cancelled",
    "gone",
]
#: After these nothing more happens to the job.
FINAL_EVENTS: tuple[NewsEvent, ...] = ("succeeded", "failed", "cancelled", "gone")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
#: A record may go with its job's end; the event is then about to arrive.
_GONE_AFTER_LOOKS = 3
#: How long to wait for the event after Redis shows an end: a Node worker's value is only in the event.
_EVENT_PATIENCE_S = 0.25
#: How many events are held for the caller; beyond that only the newest progress is.
_MOST_HELD = 1000
_HEARD: tuple[JobEventName, ...] = ("progress", "retrying", "postponed", "succeeded", "failed")


@dataclass(frozen=True, slots=True)
class JobNews:
    """Something that happened to a job.

    Attributes:
        event: ``waiting``, ``active`` or ``delayed``: where it is, at first and when that is seen to change;
            ``progress``; ``retrying``: an attempt failed and another one follows; ``postponed``; and at the
            end ``succeeded``, ``failed``, ``cancelled`` or ``gone`` (removed, or finished by a peer that kept
            nothing).
        value: the progress, the result, or the text of the error or reason; of ``waiting`` how many jobs run
            before it, of ``delayed`` when it is due, in ms since the epoch; None if unknown.
        at_ms: when this process saw it, in ms since the epoch.
    """

    event: NewsEvent
    value: Any
    at_ms: int

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.event in FINAL_EVENTS


class _Heard:
    """A job's events that were not yielded yet, and a signal."""

    def __init__(self) -> None:
        self._held: deque[tuple[NewsEvent, Any]] = deque()
        self._bell = asyncio.Event()

    def put(self, event: NewsEvent, value: Any) -> None:
        """Hold an event."""
        if len(self._held) >= _MOST_HELD and event == "progress" and self._held[-1][0] == "progress":
            self._held.pop()
        self._held.append((event, str(value) if isinstance(value, Exception) else value))
        self._bell.set()

    async def take(self, *, within_s: float) -> tuple[NewsEvent, Any] | None:
        """Return the next event; None when the time is over."""
        if not self._held:
            self._bell.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._bell.wait()
        return self._held.popleft() if self._held else None


class Watcher:
    """Watches single jobs of one queue."""

    def __init__(self, context: QueueContext, session: Session, inspector: Inspector) -> None:
        self._context = context
        self._session = session
        self._inspector = inspector
        self._reader = Reader(context.pipeline, context.keys, scan_count=context.settings.redis_scan_count)

    async def watch(self, job_id: str, *, timeout_ms: int | None) -> AsyncGenerator[JobNews, None]:
        """Yield what happens to the job until its end. Raises TimeoutError."""
        try:
            await self._session.ensure_hearing()
        except RedisRefused:
            await self._session.ensure()  # without the right to hear events, reading Redis is enough
        heard = _Heard()
        details = await self._inspector.inspect(job_id)
        job = None if details is None else details.job
        listeners = {name: partial(heard.put, name) for name in _HEARD}
        if job is not None:
            for name, listener in listeners.items():
                job.on(name, listener)
            self._context.event_hub.register(job)
        looks = _Looks(self._context, self._reader, self._inspector, job_id, heard)
        try:
            async for news in looks.news(details, timeout_ms=timeout_ms):
                yield news
        finally:
            if job is not None:
                for name, listener in listeners.items():
                    job.off(name, listener)


class _Looks:
    """One watch of one job: what was yielded last, and when to read again."""

    def __init__(
        self, context: QueueContext, reader: Reader, inspector: Inspector, job_id: str, heard: _Heard
    ) -> None:
        self._now_ms = context.now_ms
        self._pipeline, self._keys = context.pipeline, context.keys
        self._reader = reader
        self._inspector = inspector
        self._job_id = job_id
        self._heard = heard
        self._place: NewsEvent | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._missing = 0

    async def news(
        self, details: JobDetails[Job] | None, *, timeout_ms: int | None
    ) -> AsyncIterator[JobNews]:
        """Yield the news; ``details`` are what was found at first."""
        loop = asyncio.get_running_loop()
        over_at_s = math.inf if timeout_ms is None else loop.time() + timeout_ms / 1000
        for news in self._first(details):
            yield news
            if news.is_final:
                return
        while (left_s := over_at_s - loop.time()) > 0:
            event = await self._heard.take(within_s=min(self._pause_s, left_s))
            for news in await self._look() if event is None else await self._news_of(*event):
                yield news
                if news.is_final:
                    return
        raise TimeoutError(f"Job {self._job_id} did not end within {timeout_ms} ms")

    def _first(self, details: JobDetails[Job] | None) -> list[JobNews]:
        if details is None:
            return [self._of("gone")]
        if details.ended is not None or details.state in ("succeeded", "failed", "cancelled"):
            return [self._end_of(details.ended or Ended(), details.state)]
        first = self._at(details)
        if details.job is not None and details.job.progress:
            return [first, self._of("progress", details.job.progress)]
        return [first]

    async def _news_of(self, event: NewsEvent, value: Any) -> list[JobNews]:
        """Return the news of an event."""
        self._pause_s = _FIRST_PAUSE_S
        if event == "failed" and (found := await self._found()) is not None and found.state == "cancelled":
            event = "cancelled"
        before = [self._of("active")] if event == "progress" and self._place != "active" else []
        self._place = "active" if event == "progress" else "waiting"
        return [*before, self._of(event, value)]

    async def _look(self) -> list[JobNews]:
        """Return the news that no event has reported."""
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        try:
            found = await self._reader.job_state(self._job_id)
            self._missing = self._missing + 1 if found is None else 0
            if found is None:
                return [self._of("gone")] if self._missing >= _GONE_AFTER_LOOKS else []
            if found.ended is not None:
                heard = [] if found.ended.value is not None else await self._last_heard()
                return heard or [self._end_of(found.ended, found.state)]
            if (found.state == "active") == (self._place == "active") and not await self._was_raised():
                return []
            details = await self._inspector.inspect(self._job_id)
        except RedisUnavailable:
            return []  # the caller's timeout decides how long to go on
        place = self._place
        news = [] if details is None else self._first(details)[:1]
        return [each for each in news if each.event != place]

    async def _was_raised(self) -> bool:
        """Return whether the job was reported as delayed, and no longer is."""
        if self._place != "delayed":
            return False
        due = await self._pipeline.call("ZSCORE", self._keys.delayed, self._job_id, repeatable=True)
        return due is None

    async def _last_heard(self) -> list[JobNews]:
        """Wait a moment for the job's final event; return its news."""
        news: list[JobNews] = []
        while (event := await self._heard.take(within_s=_EVENT_PATIENCE_S)) is not None:
            news += await self._news_of(*event)
            if news[-1].is_final:
                return news
        return []

    async def _found(self) -> JobState | None:
        try:
            return await self._reader.job_state(self._job_id)
        except RedisUnavailable:
            return None

    def _at(self, details: JobDetails[Job]) -> JobNews:
        """Return the news of where the job is."""
        place: NewsEvent = "waiting"
        if details.state in ("active", "delayed"):
            place = "active" if details.state == "active" else "delayed"
        self._place = place
        return self._of(place, details.due_ms if place == "delayed" else details.ahead)

    def _end_of(self, ended: Ended, state: str) -> JobNews:
        if ended.is_cancelled or state == "cancelled":
            return self._of("cancelled", None if ended.error is None else str(ended.error))
        if ended.error is None and state != "failed":
            return self._of("succeeded", ended.value)
        return self._of("failed", None if ended.error is None else str(ended.error))

    def _of(self, event: NewsEvent, value: Any = None) -> JobNews:
        return JobNews(event, value, self._now_ms())
