"""Waits for a job's end, on any worker: takes it from the final event, or else from Redis."""

import asyncio
from contextvars import Context
from typing import Any

from beeq.client.events.event_hub import EventHub, failure_of
from beeq.client.reader import Ended, Reader
from beeq.errors import JobFailed, RedisUnavailable
from beeq.job import Job
from beeq.protocol.events import JobEvent
from beeq.protocol.options import created_ms_of
from beeq.supervision.fence import limit

#: Pub/sub loses messages while disconnected; so the job itself is read, ever less often.
_HEAD_START_S = 0.1
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0
#: A Node worker's outcome may be found just before the event that has all of it is read.
_TOLD_WITHIN_S = 0.25
#: A record may go with its job's end; the event is then about to arrive.
_GONE_AFTER_LOOKS = 2


class Results:
    """Implements ``Job.result``."""

    def __init__(self, event_hub: EventHub, reader: Reader) -> None:
        self._event_hub = event_hub
        self._reader = reader

    async def of(self, job: Job, *, timeout_ms: int | None, is_hearing: bool) -> Any:
        """Return the handler's value, or raise JobFailed: the job failed, or is gone without a trace.

        ``is_hearing``: whether this queue was already subscribed to events.
        """
        job_id = job.saved_id()
        limit_s = None if timeout_ms is None else timeout_ms / 1000
        # A queue that listened before the job was saved gets its final event: most jobs are not read.
        head_start_s = _HEAD_START_S if is_hearing and self._event_hub.has(job_id) else 0.0
        if limit_s is not None:
            head_start_s = min(head_start_s, limit_s)
        event = await self._hear(job_id, within_s=head_start_s)
        if event is not None:
            return _value_of(event)
        try:
            async with asyncio.timeout(None) as bound:
                limit(bound, None if limit_s is None else limit_s - head_start_s)
                end = await self._look(job_id, created_ms=creation_ms(job))
        except TimeoutError:
            raise TimeoutError(f"Job {job_id} did not end within {timeout_ms} ms") from None
        if isinstance(end, Ended) and not end.is_whole:
            return _value_of(await self._hear(job_id, within_s=_TOLD_WITHIN_S) or end)
        return _value_of(end)

    async def _look(self, job_id: str, *, created_ms: int) -> JobEvent | Ended:
        """Ask Redis, and listen in between, until the job has ended; return how."""
        pause_s = _FIRST_PAUSE_S
        missing = 0
        while True:
            try:
                is_there, ended = await self._reader.look(job_id, created_ms=created_ms)
            except RedisUnavailable:
                pass  # the caller's timeout decides how long to go on
            else:
                if ended is not None:
                    return self._event_hub.heard(job_id) or ended
                missing = 0 if is_there else missing + 1
                if missing > _GONE_AFTER_LOOKS:
                    raise gone(job_id)
            event = await self._hear(job_id, within_s=pause_s)
            if event is not None:
                return event
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _hear(self, job_id: str, *, within_s: float) -> JobEvent | None:
        """Return the job's final event as soon as it comes; None when the time is over.

        An earlier event may be forgotten by now, especially a large one; then reading Redis finds the end, if
        a record or a result is kept.
        """
        heard = self._event_hub.heard(job_id)
        if heard is not None or not within_s:
            return heard
        waiter = self._event_hub.waiter(job_id)
        timer = asyncio.get_running_loop().call_later(within_s, _hear_nothing, waiter, context=Context())
        try:
            return await waiter
        finally:
            timer.cancel()
            self._event_hub.drop_waiter(job_id, waiter)


def gone(job_id: str) -> JobFailed:
    """Return the failure of a job of which Redis has nothing."""
    return JobFailed(job_id, "the job is gone: removed, or finished by a peer that kept nothing")


def creation_ms(job: Job) -> int:
    """Return when the job was created; 0 if its options are malformed."""
    options: Any = job.options
    return created_ms_of(options) if isinstance(options, dict) else 0


def _hear_nothing(waiter: asyncio.Future[JobEvent | None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _value_of(end: JobEvent | Ended) -> Any:
    """Return how a job ended, or raise it."""
    if isinstance(end, Ended):
        if end.error is not None:
            raise end.error
    elif end.name == "failed":
        raise failure_of(end)
    return end.value
