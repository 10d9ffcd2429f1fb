"""Delivers the messages of the ``events`` channel: to listeners, to job objects, to callers of ``result``.

Events of any name are delivered. Those of jobs not known here yet are remembered for a while. Does not talk
to Redis: the session hands it each message.
"""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from beeq.errors import JobFailed, QueueClosed
from beeq.job import Job
from beeq.protocol.events import Backlog, JobEvent, decode_event
from beeq.protocol.options import retries_left

_FINAL = ("succeeded", "failed")
_STATUSES = (*_FINAL, "retrying")
#: From this number of ids on, live or dead, the dead ones are swept out.
_FIRST_SWEEP = 1000


class EventHub:
    """Delivers job events. Job objects are held weakly unless someone listens to them."""

    def __init__(self, *, emit: Callable[..., bool], clock_ms: Callable[[], int]) -> None:
        self._emit = emit
        self._clock_ms = clock_ms
        # Dead references are swept out now and then: a WeakValueDictionary's callback costs twice as much as
        # all the rest of a save.
        self._jobs: dict[str, weakref.ref[Job]] = {}
        self._sweep_at = _FIRST_SWEEP
        self._twins: dict[str, weakref.WeakSet[Job]] = {}  # further objects of the same id
        self._kept: dict[str, set[Job]] = {}  # jobs with listeners, until their final event
        # Jobs that are being saved under ids of their own, and the ids' events since then: they may be the
        # job's, if they overtake the reply, or those of a job that already has the id.
        self._expected: dict[str, dict[Job, list[JobEvent]]] = {}
        self._is_closed = False
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

    def is_known(self, job_id: str) -> bool:
        """Return whether a caller here waits for the job, or holds an object of it."""
        return job_id in self._waiters or job_id in self._expected or self.has(job_id)

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
            self._keep(job, job_id)

    def _sweep(self) -> None:
        """Forget the ids whose objects are gone; so seldom that it costs each object next to nothing."""
        self._jobs = {job_id: ref for job_id, ref in self._jobs.items() if ref() is not None}
        self._twins = {job_id: twins for job_id, twins in self._twins.items() if twins}
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._jobs))

    def _keep(self, job: Job, job_id: str) -> None:
        self._kept.setdefault(job_id, set()).add(job)

    def _drop_kept(self, job: Job, job_id: str) -> None:
        kept = self._kept.get(job_id)
        if kept is not None:
            kept.discard(job)
            if not kept:
                del self._kept[job_id]

    def hold_or_let_go(self, job: Job) -> None:
        """Hold ``job`` until its final event if events are delivered to it and it has listeners."""
        job_id = job.id
        if job_id is None:
            return
        if job.has_listeners() and self._delivers_to(job, job_id):
            self._keep(job, job_id)
        else:
            self._drop_kept(job, job_id)

    def _delivers_to(self, job: Job, job_id: str) -> bool:
        return self._job(job_id) is job or job in self._twins.get(job_id, ())

    def expect(self, job: Job) -> None:
        """Hold back the events of the id of ``job``, which is being saved, until its save has ended."""
        self._expected.setdefault(job.saved_id(), {}).setdefault(job, [])

    def _end_expecting(self, job: Job, job_id: str) -> list[JobEvent] | None:
        expected = self._expected.get(job_id)
        if expected is None or job not in expected:
            return None
        held = expected.pop(job)
        if not expected:
            del self._expected[job_id]
        return held

    def unregister(self, job: Job) -> None:
        """Deliver nothing to ``job``: it was not saved, or has ended."""
        if job.id is None:
            return
        if self._expected:
            self._end_expecting(job, job.id)
        if self._job(job.id) is job:
            del self._jobs[job.id]
            for twin in self._twins.pop(job.id, ()):
                self.register(twin)
        elif job.id in self._twins:
            self._twins[job.id].discard(job)
        self._drop_kept(job, job.id)

    @property
    def moment(self) -> int:
        """The number of events remembered so far, which orders them: a later event has a larger one."""
        return self._backlog.moment

    def forget(self, job_id: str, *, until: int | None = None) -> None:
        """Drop the remembered events of the job, or those until a moment: it is gone, or starts over."""
        self._backlog.drop_until(job_id, self.moment if until is None else until)

    def forget_all(self) -> None:
        """Drop all remembered events: the queue was destroyed, and its ids start over."""
        self._backlog.clear()

    def release(self, job_id: str) -> None:
        """Deliver nothing more to the objects of this id."""
        self._jobs.pop(job_id, None)
        self._twins.pop(job_id, None)
        self._kept.pop(job_id, None)

    def deliver_to(self, job: Job, *, since: int) -> None:
        """Deliver events to ``job``, which has just been saved, and those since that moment.

        Earlier events belong to an earlier job of its id.
        """
        job_id = job.id or job.saved_id()
        if not (
            self._expected or job_id in self._jobs or job_id in self._backlog.ids or job.has_listeners()
        ):  # as for nearly all jobs
            self._jobs[job_id] = weakref.ref(job)
            if len(self._jobs) > self._sweep_at:
                self._sweep()
            return
        held = self._end_expecting(job, job_id)
        self.register(job)
        if job_id in self._backlog.ids:
            self._backlog.drop_until(job_id, since)
            if held is None:
                self.replay(job)
        for event in held or ():
            self._deliver_late(job, event)

    def replay(self, job: Job, *, since: int = 0) -> None:
        """Deliver to ``job`` the events that came before it was known here.

        In the loop's next turn: the caller has just got the job and adds its listeners first.
        """
        self._backlog.drop(now_ms=self._clock_ms())
        for event in self._backlog.all(job.saved_id(), since=since):
            self._deliver_late(job, event)

    def _deliver_late(self, job: Job, event: JobEvent) -> None:
        """Change the job's state now; call its listeners once the caller could add them."""
        self._change(job, event.name, _payload(event))
        asyncio.get_running_loop().call_soon(self._tell_late, job, event)

    def _tell_late(self, job: Job, event: JobEvent) -> None:
        self._tell(job, event.name, _payload(event))
        if event.name in _FINAL:
            self.unregister(job)

    def heard(self, job_id: str) -> JobEvent | None:
        """Return the job's final event if it has been heard lately, and was not too large to be kept."""
        self._backlog.drop(now_ms=self._clock_ms())
        if job_id not in self._backlog.ids:
            return None
        event = self._backlog.get(job_id)
        return event if event is not None and event.name in _FINAL else None

    def waiter(self, job_id: str) -> asyncio.Future[JobEvent | None]:
        """Return a future of the job's final event; ``drop_waiter`` it in the end.

        It raises QueueClosed once the queue is closed.
        """
        future: asyncio.Future[JobEvent | None] = asyncio.get_running_loop().create_future()
        if self._is_closed:
            _end(future)
            return future
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
        if self._expected:
            for held in self._expected.get(job_id, {}).values():
                held.append(event)
        self._emit(f"job {name}", job_id, payload)
        if job is not None:
            self._deliver(job, name, payload)
        for twin in list(self._twins.get(job_id, ())) if self._twins else ():
            self._deliver(twin, name, payload)
        if is_final:
            self.release(job_id)
            self._tell_waiters(event)

    def _tell_waiters(self, event: JobEvent) -> None:
        for future in self._waiters.pop(event.job_id, ()):
            if not future.done():
                future.set_result(event)

    # Events missed while the connection was down.

    def awaited_ids(self) -> list[str]:
        """Return the ids of jobs whose end a listener or a caller of ``result`` waits for."""
        return list(dict.fromkeys([*self._kept, *self._waiters]))

    @property
    def is_awaited(self) -> bool:
        """Whether any caller or listener waits for the end of a job."""
        return bool(self._kept or self._waiters)

    def objects(self, job_id: str) -> list[Job]:
        """Return the job objects of the id that events are delivered to."""
        first = self._job(job_id)
        return [*(() if first is None else (first,)), *self._twins.get(job_id, ())]

    def deliver_missed(self, event: JobEvent, jobs: list[Job]) -> None:
        """Deliver the end of a job, read from Redis because its event was not heard.

        ``jobs`` are its objects as they were before Redis was asked: an object saved under the id since then
        is another job. Objects that have got the end meanwhile are left out.
        """
        payload = _payload(event)
        for job in jobs:
            if job.id == event.job_id and self._delivers_to(job, event.job_id):
                self.unregister(job)
                self._deliver(job, event.name, payload)
        self._tell_waiters(event)

    def close(self) -> None:
        """Let go of everything; callers that wait get QueueClosed."""
        self._is_closed = True
        waiters, self._waiters = self._waiters, {}
        for future in (future for futures in waiters.values() for future in futures):
            _end(future)
        self._jobs, self._twins, self._kept, self._expected = {}, {}, {}, {}

    def _deliver(self, job: Job, name: str, payload: Any) -> None:
        self._change(job, name, payload)
        self._tell(job, name, payload)

    @staticmethod
    def _change(job: Job, name: str, payload: Any) -> None:
        if name == "progress":
            job.progress = payload
        elif name in _STATUSES:
            job.status = name
            if name == "retrying" and (retries := retries_left(job.options)) > 0:
                job.options["retries"] = retries - 1  # bee-queue would count to NaN

    def _tell(self, job: Job, name: str, payload: Any) -> None:
        job.emit(name, payload)
        if self._kept:
            self.hold_or_let_go(job)  # the last listener may have wanted one event only


def _end(waiter: asyncio.Future[JobEvent | None]) -> None:
    """Make the waiter raise QueueClosed; asyncio does not log it if it is no longer awaited."""
    if not waiter.done():
        waiter.set_exception(QueueClosed())
        waiter.exception()


def _payload(event: JobEvent) -> Any:
    """Return what listeners get: an exception for a failure."""
    return failure_of(event) if event.name in ("failed", "retrying") else event.value


def failure_of(event: JobEvent) -> JobFailed:
    """Return a ``failed`` or ``retrying`` event as an exception."""
    text = event.value
    return JobFailed(event.job_id, text if isinstance(text, str) else "" if text is None else str(text))
