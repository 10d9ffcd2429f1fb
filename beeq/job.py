"""A job: its data, its options, and what can be done with it.

A job object has an owner, by way of the queue that made, read or claimed it: each method that needs Redis
makes one call to the owner. Objects are copies: two reads of one id give two objects.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Coroutine
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, Self, cast

from typing_extensions import TypeVar  # with defaults, which typing has from Python 3.13 on

from beeq.emitter import Emitter, Listener
from beeq.protocol.codec import Record, encode_new_record, encode_record, plain, read_record
from beeq.protocol.events import JobEventName
from beeq.protocol.options import (
    check_backoff,
    check_delay,
    check_due_ms,
    check_job_id,
    check_retries,
    check_timeout_ms,
)
from beeq.settings import Duration

#: In place of options that have not been read yet.
_LATER = object()
_LOOKING = threading.Lock()


SomeJob = TypeVar("SomeJob", bound="Job")
#: What a queue's jobs carry …
Data = TypeVar("Data", default=Any)
#: … and what their handler returns.
Result = TypeVar("Result", default=Any)


class JobOwner(Protocol):
    """What a job needs of its owner; ``Job`` documents what each method promises.

    In the process of a queue the owner is ``JobActions``, in a worker's child process ``RemoteQueue``.
    """

    @property
    def queue(self) -> Any:
        """What ``job.queue`` gives."""

    @property
    def name(self) -> str:
        """The queue's name."""

    @property
    def backoff_strategies(self) -> Collection[str]:
        """The names of the queue's strategies."""

    def now_ms(self) -> int:
        """Return this machine's clock, in ms since the epoch."""

    def save(self, job: SomeJob) -> Coroutine[Any, Any, SomeJob]:
        """Put the job into the queue; return it."""

    async def report_progress(self, job: Job, value: Any) -> int:
        """Publish the job's progress; return how many heard it."""

    async def remember(self, job: Job, facts: dict[str, Any]) -> None:
        """Keep facts with the running job."""

    async def remove(self, job: Job) -> None:
        """Remove the job from wherever it is."""

    async def cancel(self, job: Job) -> bool:
        """End the job; return whether it had not ended."""

    async def retry(self, job: Job) -> bool:
        """Queue the failed job again; return whether it was one."""

    async def is_in_set(self, job_id: str, name: str) -> bool:
        """Return whether the job is in the named list or set."""

    async def result(self, job: Job, timeout: Duration | None) -> Any:  # noqa: ASYNC109 - in ms
        """Wait for the job's end; return its result, or raise its failure."""

    def new_emitter(self) -> Emitter:
        """Return an emitter for the listeners of a job."""

    def listening_changed(self, job: Job) -> None:
        """Hold the job until its final event, as long as it has listeners."""


class RunningJob(Protocol):
    """What a processor sees of the job it runs; ``Job`` is one."""

    @property
    def id(self) -> str | None:
        """The job's id in the queue."""

    @property
    def data(self) -> Any:
        """The payload, unchecked."""

    @property
    def options(self) -> dict[str, Any]:
        """The record's options under their wire names (``retries``, ``backoff``, ``timeout``, …)."""

    @property
    def memory(self) -> dict[str, Any]:
        """What this attempt and earlier ones have remembered."""

    async def report_progress(self, value: Any) -> Any:
        """Publish the job's progress."""

    async def remember(self, **facts: Any) -> None:
        """Keep facts with the job, for its next attempt, in any process."""


class Job(Generic[Data, Result]):
    """One job of a queue. Made by ``Queue.create_job``, not by hand.

    Attributes:
        id: the queue's name for it; None before ``save``, and after a ``save`` of an id that exists.
        data: the payload, any JSON value. What a handler changes here is kept with the job.
        options: the record's options under their wire names (``timestamp``, ``retries``, …).
        status: what the record says: ``created``, ``retrying``, ``succeeded`` or ``failed``.
        progress: what was last reported.
        queue: the ``Queue`` it belongs to.
        is_new: whether the last ``save`` of this object put the job into the queue: False if its id existed.
            False also for a job that was not saved, or was found in the queue.
    """

    __slots__ = (
        "__weakref__",
        "_created_ms",
        "_listeners",
        "_options",
        "claim",
        "claim_known",
        "claimed_record",
        "data",
        "id",
        "is_new",
        "owner",
        "progress",
        "started_ms",
        "status",
    )
    _created_ms: int  # of a new job
    #: When this process took the job, in ms since the epoch; only of one that runs here.
    started_ms: int
    data: Data

    def __init__(self, owner: JobOwner, record: Record, job_id: str | None = None) -> None:
        self.owner = owner
        self.id = job_id
        self.data = record.data
        self._options: Any = record.options
        self.status = record.status
        self.progress = record.progress
        self.is_new = False
        self._listeners: Emitter | None = None
        #: The claim by which this process runs the job; empty when it does not.
        self.claim = b""
        #: While Redis has not granted the claim yet: done when that is known.
        self.claim_known: asyncio.Future[None] | None = None
        #: The record as it was claimed.
        self.claimed_record = b""

    @classmethod
    def new(cls, owner: JobOwner, data: Any, *, now_ms: int) -> Self:
        """Return a job that begins now, with ``data`` as ``plain`` makes it."""
        job = cls.__new__(cls)
        job._begin(owner, data if type(data) is dict else plain(data), now_ms)  # noqa: SLF001 - its own
        return job

    def _begin(self, owner: JobOwner, data: Any, now_ms: int) -> None:
        """Do what ``__init__`` does, without a record that would be made for it."""
        self.owner = owner
        self.id = None
        self.data = data
        # Its options are made when first read: the garbage collector's visits to them would take a sixth of
        # the time of 20 000 saves at once.
        self._options = _LATER
        self._created_ms = now_ms
        self.status = "created"
        self.progress = 0
        self.is_new = False
        self._listeners = self.claim_known = None
        self.claim = self.claimed_record = b""

    @classmethod
    def claimed(cls, owner: JobOwner, job_id: str, raw_record: bytes, claim: bytes, *, now_ms: int) -> Self:
        """Return the job that this process runs from now on by ``claim``, as ``raw_record`` says.

        Raises:
            JobUnreadable: the text is not a JSON object.
        """
        job = cls.__new__(cls)  # what ``__init__`` does, without a Record in between: each job pays for it
        record = read_record(job_id, raw_record, now_ms=now_ms)
        job.data, job._options, job.status, job.progress = record  # noqa: SLF001 - its own
        job.owner = owner
        job.id = job_id
        job.is_new = False
        job._listeners = job.claim_known = None  # noqa: SLF001 - its own
        job.claim = claim
        job.claimed_record = raw_record
        job.started_ms = now_ms
        return job

    @property
    def queue(self) -> Any:
        """The ``Queue`` it belongs to."""
        return self.owner.queue

    @property
    def options(self) -> dict[str, Any]:
        """The record's options under their wire names."""
        if self._options is _LATER:
            with _LOOKING:  # the blocking face shows a job to several threads
                if self._options is _LATER:
                    self._options = {"timestamp": self._created_ms, "stacktraces": []}
        return self._options  # type: ignore[no-any-return]  # a handler may make it anything

    @options.setter
    def options(self, options: dict[str, Any]) -> None:
        self._options = options

    @property
    def due_ms(self) -> int:
        """When the job may run, in ms since the epoch; 0: at once.

        Raises:
            TypeError: the options are not a dict. ValueError: the option ``delay`` is not such a time.
        """
        return 0 if self._options is _LATER else check_delay(self._options)

    def encoded(self) -> tuple[bytes, int]:
        """Return the job's record, and ``due_ms``, whose errors it raises too.

        Raises:
            TypeError: data, options or progress cannot be written as JSON.
        """
        if self._options is not _LATER:
            return encode_record(self), check_delay(self._options)
        if self.status == "created" and self.progress == 0:
            return encode_new_record(self.data, self._created_ms), 0
        return encode_record(self), 0

    def __repr__(self) -> str:
        return f"<Job {self.id!r} of {self.owner.name!r}: {self.status}>"

    # What is asked of the job before it is saved. Each returns the job.

    def set_id(self, job_id: str | int | None) -> Self:
        """Choose the id; None, "" and 0 leave it to the queue's counter.

        Raises:
            TypeError: neither str nor int. ValueError: not valid Unicode.
        """
        self.id = check_job_id(job_id)
        return self

    def retries(self, n: int) -> Self:
        """Allow ``n`` further attempts after a failed one.

        Raises:
            TypeError: not an int. ValueError: negative.
        """
        self.options["retries"] = check_retries(n)
        return self

    def backoff(self, strategy: str, delay: Duration | None = None) -> Self:
        """Wait between attempts: ``immediate``, ``fixed``, ``exponential``, or one of the queue's own.

        Args:
            strategy: its name in ``queue.backoff_strategies``.
            delay: ms, timedelta or text like ``30s``; every strategy but ``immediate`` needs it.

        Raises:
            ValueError: an unknown strategy, or a delay that is not a positive integer.
        """
        self.options["backoff"] = check_backoff(strategy, delay, self.owner.backoff_strategies)
        return self

    def delay_until(self, when: datetime | float | timedelta | str) -> Self:
        """Do not run the job before ``when``; a time that has passed changes nothing.

        Args:
            when: a datetime (naive means local time), ms since the epoch, or how long from now: a
                timedelta, or text like ``5m``.

        Raises:
            ValueError: it is not such a time.
        """
        now_ms = self.owner.now_ms()
        due_ms = check_due_ms(when, now_ms=now_ms)
        if due_ms > now_ms:
            self.options["delay"] = due_ms
        return self

    def timeout(self, timeout: Duration) -> Self:
        """Fail an attempt that runs longer than this (ms, timedelta, or text like ``30s``); 0 means no limit.

        Raises:
            TypeError: not a duration. ValueError: text without a unit, negative, or above 2^31 - 1 ms.
        """
        self.options["timeout"] = check_timeout_ms(timeout)
        return self

    # Commands. Each raises RedisUnavailable or RedisRefused when Redis does not do its part. Where the queue
    # has ``wait_replicas``, save, remove, cancel and retry raise NotReplicated when replicas do not confirm.

    def save(self) -> Coroutine[Any, Any, Self]:
        """Put the job into its queue; ``id`` is set, or None if the chosen id exists already.

        Raises:
            RuntimeError: the job is running here: it is saved already.
            TypeError: data or options cannot be written as JSON; nothing was sent.
            ValueError: the option ``delay`` is not a time; nothing was sent.
            QueueClosed: the queue is closed.
            CancelledError: it was cancelled; a note says whether the job was withdrawn before it was sent, or
                was sent and may have been added. With an id of its own, ``Queue.get_job`` shows which.
        """
        return self.owner.save(self)  # no coroutine of its own: saves are to be fast

    async def report_progress(self, value: Any) -> int:
        """Publish how far the job is; return how many subscribers heard it.

        Raises:
            ValueError: nothing was given, or the job has no id.
            TypeError: the value cannot be written as JSON.
        """
        if value is None:
            raise ValueError("Progress cannot be empty")
        return await self.owner.report_progress(self, value)

    @property
    def memory(self) -> dict[str, Any]:
        """What this attempt and earlier ones have remembered; a copy."""
        beeq = self.options.get("beeq")
        memory = beeq.get("memory") if isinstance(beeq, dict) else None
        return dict(memory) if isinstance(memory, dict) else {}

    async def remember(self, **facts: Any) -> None:
        """Keep facts with the job, for its next attempt, on any worker; they are in Redis on return.

        Raises:
            RuntimeError: the job does not run here.
            JobLost: it belongs to someone else by now; nothing was kept.
            TypeError: a fact cannot be written as JSON.
        """
        await self.owner.remember(self, facts)

    async def remove(self) -> Self:
        """Remove the job from the queue, wherever it is; one that is gone already is fine."""
        await self.owner.remove(self)
        return self

    async def cancel(self) -> bool:
        """End the job, running or not; return whether it had not ended yet. See ``Queue.cancel_job``."""
        return await self.owner.cancel(self)

    async def retry(self) -> bool:
        """Queue the failed job again; return whether it was one."""
        return await self.owner.retry(self)

    async def is_in_set(self, name: str) -> bool:
        """Return whether the job is in the list or set ``name``, such as ``waiting`` or ``stalling``.

        Raises:
            ValueError: the queue has no such list or set.
        """
        return await self.owner.is_in_set(self.saved_id(), name)

    async def result(self, timeout: Duration | None = None) -> Result:  # noqa: ASYNC109 - bee-queue's word for it, in ms
        """Return what the handler returned, on any worker; wait for it if the job has not ended.

        Args:
            timeout: how long to wait, in ms, as a timedelta, or text like ``30s``; None: as long as it takes.

        Raises:
            JobFailed: the job failed for good; the message is its last error's.
            TimeoutError: the time is over. QueueClosed: the queue was closed meanwhile.
        """
        return cast("Result", await self.owner.result(self, timeout))  # whichever worker ran it returned it

    # Listeners.

    def on(self, event: JobEventName, fn: Listener) -> Self:
        """Call ``fn`` at each ``succeeded``, ``retrying``, ``failed``, ``postponed`` or ``progress`` of it.

        Events are lost while their connection is down, except the job's end, which is delivered once the
        connection is back. A job that is gone by then, no result kept, is reported as failed.
        """
        self._emitter().on(event, fn)
        self.owner.listening_changed(self)
        return self

    def once(self, event: JobEventName, fn: Listener) -> Self:
        """Call ``fn`` at the next such event only."""
        self._emitter().on(event, fn, once=True)
        self.owner.listening_changed(self)
        return self

    def off(self, event: JobEventName, fn: Listener) -> Self:
        """Stop calling ``fn``."""
        self._emitter().off(event, fn)
        self.owner.listening_changed(self)
        return self

    def emit(self, event: str, *args: Any) -> None:
        """Call the listeners; the event hub does this when it hears of the job."""
        if self._listeners is not None:
            self._listeners.emit(event, *args)

    def has_listeners(self) -> bool:
        """Return whether anyone listens to this object."""
        return self._listeners is not None and bool(self._listeners.names())

    def _emitter(self) -> Emitter:
        if self._listeners is None:
            self._listeners = self.owner.new_emitter()
        return self._listeners

    def saved_id(self) -> str:
        """Return the id.

        Raises:
            ValueError: the job has none: it was not saved, or its id existed.
        """
        if self.id is None:
            raise ValueError("the job has no id: it was not saved, or its id existed already")
        return self.id
