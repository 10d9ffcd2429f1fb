"""Delivers the messages of the ``events`` channel: to listeners, to job objects, to callers of ``result``.

An event of any name is delivered. What is heard of jobs that nobody here knows yet is remembered for a while.
Does not talk to Redis: the session hands it each message.
"""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from beeq.errors import JobFailed
from beeq.job import Job
from beeq.protocol.events import Backlog, JobEvent, decode_event
from beeq.protocol.options import retries_left

_FINAL = ("succeeded", "failed")
_STATUSES = (*_FINAL, "retrying")
#: The number of ids, gone or not, from which on those that are gone are swept out.
_FIRST_SWEEP = 1000


class EventHub:
    """Delivers job events. Job objects are held weakly unless someone listens to them."""

    def __init__(self, *, emit: Callable[..., bool], clock_ms: Callable[[], int]) -> None:
        self._emit = emit
        self._clock_ms = clock_ms
        # References to objects that are gone are swept out now and then: a WeakValueDictionary pays
        # for each of them twice as much as for all the rest of a save.
        self._jobs: dict[str, weakref.ref[Job]] = {}
        self._sweep_at = _FIRST_SWEEP
        self._twins: dict[str, weakref.WeakSet[Job]] = {}  # further objects of the same id
        self._kept: dict[str, set[Job]] = {}  # jobs with listeners, until their final event
        self._waiters: dict[str, set[asyncio.Future[JobEvent | None]]] = {}
        self._backlog = Backlog()

    @property
    def jobs(self) -> dict[str, Job]:
        """The job objects that events are delivered to, by id."""
        return {job_id: job for job_id, ref in self._jobs.items() if (job := ref()) is not None}

    def _job(self, job_id: str) -> Job | None:
        ref = self._jobs.get(job_id)
        return None if ref is None else ref()

    def has(self, job_id: str) -> bool:
        """Return whether events of this id are delivered to an object."""
        return self._job(job_id) is not None

    def register(self, job: Job) -> None:
        """Deliver events to ``job`` from now on; it has an id."""
        job_id = job.saved_id()
        known = self._job(job_id)
        if known is None:
            self._jobs[job_id] = weakref.ref(job)
            if len(self._jobs) > self._sweep_at:
                self._sweep()
        elif known is not job:
            self._twins.setdefault(job_id, weakref.WeakSet()).add(job)
        if job.has_listeners():
            self.keep(job)

    def _sweep(self) -> None:
        """Forget the ids whose objects are gone; so seldom that it costs each object next to nothing."""
        self._jobs = {job_id: ref for job_id, ref in self._jobs.items() if ref() is not None}
        self._twins = {job_id: twins for job_id, twins in self._twins.items() if twins}
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._jobs))

    def keep(self, job: Job) -> None:
        """Hold ``job`` until its final event: somebody listens to it."""
        if job.id is not None:
            self._kept.setdefault(job.id, set()).add(job)

    def unregister(self, job: Job) -> None:
        """Deliver nothing to ``job``: it was not saved."""
        if job.id is None:
            return
        if self._job(job.id) is job:
            del self._jobs[job.id]
            for twin in self._twins.pop(job.id, ()):
                self.register(twin)
        elif job.id in self._twins:
            self._twins[job.id].discard(job)
        self._kept.get(job.id, set()).discard(job)

    @property
    def moment(self) -> int:
        """How much has been remembered: what is heard later has a larger one."""
        return self._backlog.moment

    def forget(self, job_id: str, *, until: int | None = None) -> None:
        """Drop what was heard of the job so far, or until that moment: it is gone, or starts over."""
        self._backlog.drop_until(job_id, self.moment if until is None else until)

    def forget_all(self) -> None:
        """Drop all that was heard: the queue was destroyed, and its ids start over."""
        self._backlog.clear()

    def release(self, job_id: str) -> None:
        """Deliver nothing more to the objects of this id."""
        self._jobs.pop(job_id, None)
        self._twins.pop(job_id, None)
        self._kept.pop(job_id, None)

    def deliver_to(self, job: Job, *, since: int) -> None:
        """Deliver events to ``job``, which has just been saved, and what was heard of it since that moment.

        Events heard before that moment were of an earlier job of its id.
        """
        job_id = job.saved_id()
        self.register(job)
        if self._backlog.knows(job_id):
            self._backlog.drop_until(job_id, since)
            self.replay(job)

    def replay(self, job: Job, *, since: int = 0) -> None:
        """Deliver to ``job`` what was heard before anyone here knew it.

        In the loop's next turn: the caller, who has just got the job, adds listeners first.
        """
        self._backlog.drop(now_ms=self._clock_ms())
        for event in self._backlog.all(job.saved_id(), since=since):
            asyncio.get_running_loop().call_soon(self._deliver_late, job, event)

    def _deliver_late(self, job: Job, event: JobEvent) -> None:
        self._deliver(job, event.name, _payload(event))
        if event.name in _FINAL:
            self.release(event.job_id)

    def heard(self, job_id: str) -> JobEvent | None:
        """Return the job's final event if it has been heard lately, and was not too large to be kept."""
        self._backlog.drop(now_ms=self._clock_ms())
        event = self._backlog.get(job_id)
        return event if event is not None and event.name in _FINAL else None

    def waiter(self, job_id: str) -> asyncio.Future[JobEvent | None]:
        """Return a future of the job's final event; ``drop_waiter`` it in the end."""
        future: asyncio.Future[JobEvent | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(future)
        return future

    def drop_waiter(self, job_id: str, future: asyncio.Future[JobEvent | None]) -> None:
        """Forget a waiter."""
        waiters = self._waiters.get(job_id, set())
        waiters.discard(future)
        if not waiters:
            self._waiters.pop(job_id, None)

    def receive(self, message: bytes) -> None:
        """Take one message of the events channel; what is not an event is ignored."""
        event = decode_event(message)
        if event is None:
            return
        job_id, name = event.job_id, event.name
        is_final = name in _FINAL
        payload = _payload(event)
        job = self._job(job_id)
        if is_final or job is None:
            self._backlog.put(event, size_bytes=len(message), now_ms=self._clock_ms())
        self._emit(f"job {name}", job_id, payload)
        if job is not None:
            self._deliver(job, name, payload)
        for twin in list(self._twins.get(job_id, ())) if self._twins else ():
            self._deliver(twin, name, payload)
        if is_final:
            self.release(job_id)
            for future in self._waiters.pop(job_id, ()):
                if not future.done():
                    future.set_result(event)

    def _deliver(self, job: Job, name: str, payload: Any) -> None:
        if name == "progress":
            job.progress = payload
        elif name in _STATUSES:
            job.status = name
            if name == "retrying" and (retries := retries_left(job.options)) > 0:
                job.options["retries"] = retries - 1  # bee-queue would count to NaN
        job.emit(name, payload)


def _payload(event: JobEvent) -> Any:
    """Return what listeners get: an exception for a failure."""
    return failure_of(event) if event.name in ("failed", "retrying") else event.value


def failure_of(event: JobEvent) -> JobFailed:
    """Return a ``failed`` or ``retrying`` event as an exception."""
    text = event.value
    return JobFailed(event.job_id, text if isinstance(text, str) else "" if text is None else str(text))
