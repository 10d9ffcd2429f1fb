"""Delivers the ends of jobs whose events were published while the event connection was down.

Each time the subscription is back, it reads from Redis the state of the jobs whose end is awaited.
"""

import asyncio
from typing import Any

from beeq.client.context import QueueContext
from beeq.client.owning_loop import OwningLoop
from beeq.client.reader import Ended, Reader
from beeq.client.results import creation_ms, gone
from beeq.errors import RedisError, RedisUnavailable
from beeq.job import Job
from beeq.protocol.events import JobEvent
from beeq.redis.retry_delay import RetryDelay

#: So many jobs are read at once: each may have a large result.
_AT_ONCE = 20
#: A record may go with its job's end; the event is then about to arrive.
_GONE_PATIENCE_S = 1.0


class MissedEnds:
    """One queue's lookup."""

    def __init__(self, context: QueueContext, reader: Reader, owning_loop: OwningLoop) -> None:
        self._name = context.name
        self._pipeline = context.pipeline
        self._event_hub = context.event_hub
        self._report_error = context.report_error
        self._reader = reader
        self._owning_loop = owning_loop
        self._is_looking = False
        self._must_look = False

    def look(self) -> None:
        """Look, in the background; a look under way may have come too early, and is repeated afterwards."""
        self._must_look = True
        if not self._is_looking:
            self._is_looking = True
            self._owning_loop.spawn(self._look(), name=f"beeq look for missed ends of {self._name}")

    async def _look(self) -> None:
        delay = RetryDelay(100, 5000)
        try:
            while self._must_look:
                self._must_look = False
                try:
                    await self._tell_all()
                except RedisUnavailable:
                    self._must_look = True
                    await delay.wait()
                except RedisError as error:
                    self._report_error(error)
        finally:
            self._is_looking = False

    async def _tell_all(self) -> None:
        # A job that was saved, and ended, before the events were heard again may still wait for its save's
        # reply: that comes before this one's.
        await self._pipeline.connect()
        missing = await self._deliver(self._event_hub.awaited_ids())
        if missing:
            await asyncio.sleep(_GONE_PATIENCE_S)
            await self._deliver(missing, is_last=True)

    async def _deliver(self, ids: list[str], *, is_last: bool = False) -> list[str]:
        """Deliver the ends found in Redis; return the ids not found, or with ``is_last`` end these, too."""
        missing = []
        for start in range(0, len(ids), _AT_ONCE):
            page = ids[start : start + _AT_ONCE]
            jobs = {job_id: self._event_hub.objects(job_id) for job_id in page}
            for job_id, (is_there, ended) in zip(page, await self._look_at(jobs), strict=True):
                if ended is not None:
                    self._event_hub.deliver_missed(_event_of(job_id, ended), jobs[job_id])
                elif not is_there and is_last:
                    self._event_hub.deliver_missed(_event_of(job_id, Ended(error=gone(job_id))), jobs[job_id])
                elif not is_there:
                    missing.append(job_id)
        return missing

    async def _look_at(self, jobs: dict[str, list[Job]]) -> list[tuple[bool, Ended | None]]:
        looks = (
            self._reader.look(job_id, created_ms=creation_ms(objects[0]) if objects else 0)
            for job_id, objects in jobs.items()
        )
        found: list[Any] = await asyncio.gather(*looks, return_exceptions=True)
        for outcome in found:
            if isinstance(outcome, BaseException):
                raise outcome
        return found


def _event_of(job_id: str, ended: Ended) -> JobEvent:
    if ended.error is not None:
        return JobEvent(job_id, "failed", str(ended.error))
    return JobEvent(job_id, "succeeded", ended.value)
