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
_HEAD_START_S = 0.1
_FIRST_LOOK_S = 0.25
_LONGEST_LOOK_S = 5.0
#: A record may go with its job's end; the event is then about to arrive.
_GONE_AFTER_LOOKS = 2


class Results:
    """Answers ``Job.result``."""

    def __init__(self, hub: Hub, reader: Reader) -> None:
        self._hub = hub
        self._reader = reader

    async def of(self, job: Job, *, timeout_ms: int | None, is_hearing: bool) -> Any:
        """Return the handler's value.

        Args:
            job: which one.
            timeout_ms: the longest wait.
            is_hearing: whether this queue has heard events for a while already.

        Raises:
            JobFailed: the job failed, or is gone without a trace.
            TimeoutError: ``timeout_ms`` is over.
        """
        job_id = job.saved_id()
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
                return await self._wait(job_id, is_hearing=is_hearing)
        except TimeoutError:
            raise TimeoutError(f"Job {job_id} did not end within {timeout_ms} ms") from None

    async def _wait(self, job_id: str, *, is_hearing: bool) -> Any:
        heard = self._hub.heard(job_id)
        if heard is not None:
            return _value_of(heard)
        waiter = self._hub.waiter(job_id)
        try:
            if is_hearing and self._hub.has(job_id):
                # Whoever listens since before the job was saved will be told; most jobs need no look.
                await asyncio.wait([waiter], timeout=_HEAD_START_S)
            if not waiter.done():
                ended = await self._look_until(waiter, job_id)
                if ended is not None:
                    if ended.error is not None:
                        raise ended.error
                    return ended.value
            return _value_of(waiter.result())
        finally:
            waiter.cancel()
            self._hub.drop_waiter(job_id, waiter)

    async def _look_until(self, waiter: asyncio.Future[JobEvent], job_id: str) -> Ended | None:
        """Return how the job ended, or None once ``waiter`` has heard it."""
        look_s = _FIRST_LOOK_S
        missing = 0
        while True:
            try:
                standing = await self._reader.standing(job_id)
            except RedisUnavailable:
                pass  # the caller's timeout decides how long to hope
            else:
                if waiter.done():
                    return None
                if standing is not None and standing.ended is not None:
                    return standing.ended
                missing = 0 if standing is not None else missing + 1
                if missing > _GONE_AFTER_LOOKS:
                    raise JobFailed(
                        job_id, "the job is gone: removed, or finished by a peer that kept nothing"
                    )
            await asyncio.wait([waiter], timeout=look_s)
            if waiter.done():
                return None
            look_s = min(look_s * 2, _LONGEST_LOOK_S)


def _value_of(event: JobEvent) -> Any:
    if event.name == "failed":
        raise failure_of(event)
    return event.value
