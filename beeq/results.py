"""Waits for a job's end, whoever runs it: an event heard wins, else what Redis says (flaw B5b)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from beeq.errors import JobFailed, RedisUnavailable
from beeq.hub import failure_of

if TYPE_CHECKING:
    from beeq.events import JobEvent
    from beeq.hub import Hub
    from beeq.job import Job
    from beeq.reader import Ended, Reader

#: Pub/sub loses what is published while disconnected; so the job itself is looked at, ever less often.
_FIRST_LOOK_S = 0.25
_LONGEST_LOOK_S = 5.0
#: A record may go with its job's end; the event is then about to arrive.
_GONE_AFTER_LOOKS = 2


class Results:
    """Answers ``Job.result``."""

    def __init__(self, hub: Hub, reader: Reader) -> None:
        self._hub = hub
        self._reader = reader

    async def of(self, job: Job, *, timeout_ms: int | None) -> Any:
        """Return the handler's value.

        Raises:
            JobFailed: the job failed, or is gone without a trace.
            TimeoutError: ``timeout_ms`` is over.
        """
        job_id = job.saved_id()
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
                return await self._wait(job_id)
        except TimeoutError:
            raise TimeoutError(f"Job {job_id} did not end within {timeout_ms} ms") from None

    async def _wait(self, job_id: str) -> Any:
        heard = self._hub.heard(job_id)
        if heard is not None:
            return _value_of(heard)
        waiter = self._hub.waiter(job_id)
        look_s = _FIRST_LOOK_S
        missing = 0
        try:
            while True:
                try:
                    ended, exists = await self._look(job_id)
                except RedisUnavailable:
                    ended, exists = None, True  # the caller's timeout decides how long to hope
                if waiter.done():
                    return _value_of(waiter.result())
                if ended is not None:
                    if ended.error is not None:
                        raise ended.error
                    return ended.value
                missing = 0 if exists else missing + 1
                if missing > _GONE_AFTER_LOOKS:
                    raise JobFailed(
                        job_id, "the job is gone: removed, or finished by a peer that kept nothing"
                    )
                await asyncio.wait([waiter], timeout=look_s)
                if waiter.done():
                    return _value_of(waiter.result())
                look_s = min(look_s * 2, _LONGEST_LOOK_S)
        finally:
            waiter.cancel()
            self._hub.drop_waiter(job_id, waiter)

    async def _look(self, job_id: str) -> tuple[Ended | None, bool]:
        """Return how the job ended, if it has, and whether its record is there."""
        ended = await self._reader.ended(job_id)
        if ended is not None:
            return ended, True
        return None, await self._reader.record(job_id) is not None


def _value_of(event: JobEvent) -> Any:
    if event.name == "failed":
        raise failure_of(event)
    return event.value
