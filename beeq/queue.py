"""The queue as its users see it: makes jobs, finds them, hears of them, works on them, closes.

It connects the parts: saving is ``producer.py``, reading ``reader.py``, working ``worker/``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from beeq.client.commands import Commands
from beeq.client.context import QueueContext
from beeq.client.event_hub import EventHub
from beeq.client.producer import Producer
from beeq.client.reader import Health, JobState, Reader, Stats
from beeq.client.results import Results
from beeq.client.session import CLOSE_TIMEOUT_MS, Session
from beeq.errors import JobUnreadable
from beeq.job import Job
from beeq.protocol.backoff import Strategy, builtin_strategies
from beeq.protocol.codec import decode_record
from beeq.protocol.keys import Keys
from beeq.protocol.options import check_job_id
from beeq.redis.connector import Connector
from beeq.redis.pipeline import Pipeline
from beeq.settings import Settings, milliseconds
from beeq.worker.consumer import Consumer

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Queue(Consumer):
    """A queue on Redis, shared with bee-queue's Node peers. Protocol: their wire format, unchanged.

    Args:
        name: the queue's name; any text.
        redis: a URL (``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://h1:26379,h2:26379/name/0``,
            ``redis+cluster://h1:6379,h2:6379``, ``embedded:``, see ``redis_url.py``), a
            ``redis.asyncio`` client, or None for ``redis://127.0.0.1:6379``.
        **settings: see ``Settings``; durations are ints in ms or timedeltas.

    Raises:
        TypeError, ValueError: a bad setting, name or URL; the message names it.

    Connects at the first await, in ``connect``, ``ready``, or ``async with``; works in that event loop only,
    and not beyond a fork: elsewhere its methods raise RuntimeError.
    """

    def __init__(self, name: str, *, redis: str | Redis | None = None, **settings: Any) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError("a queue needs a name, a str that is not empty")
        self.name = name
        unknown = settings.keys() - Settings.__dataclass_fields__.keys()
        if unknown:
            raise TypeError(f"unknown setting: {', '.join(sorted(unknown))}")
        self.settings = Settings(**settings)
        self.keys = Keys(self.settings.prefix, name)
        #: Strategies by name; add your own before a job asks for it.
        self.backoff_strategies: dict[str, Strategy] = builtin_strategies()
        super().__init__()
        #: Whether ``redis=`` was given.
        self.has_own_redis = redis is not None
        timeout_ms = self.settings.redis_timeout
        self.connector = Connector(redis, timeout_ms=timeout_ms, slot_key=self.keys.id)
        self.pipeline = Pipeline(self.connector, timeout_ms=timeout_ms)
        self.event_hub = EventHub(emit=self.emit, clock_ms=self.now_ms)
        self.context = QueueContext(
            name=name,
            settings=self.settings,
            keys=self.keys,
            connector=self.connector,
            pipeline=self.pipeline,
            event_hub=self.event_hub,
            emit=self.emit,
            report_error=self.report_error,
            now_ms=self.now_ms,
        )
        self.producer = Producer(self.context, on_saved=self.added)
        self._reader = Reader(self.pipeline, self.keys, scan_count=self.settings.redis_scan_count)
        self._moves = Commands(self.context, self._reader)
        self._results = Results(self.event_hub, self._reader)
        self._session = Session(self)

    def __repr__(self) -> str:
        return f"<Queue {self.name!r}>"

    def use_redis(self, redis: str | Redis) -> None:
        """Choose the Redis of a queue that was made without ``redis=`` and has not connected yet.

        Raises:
            RuntimeError: it has one of its own, or is connected. TypeError, ValueError: a bad one.
        """
        if self.has_own_redis or self._session.is_ready or self._session.worker is not None:
            raise RuntimeError(f"queue {self.name} has its Redis already")
        self.connector.set_target(redis)

    def to_key(self, suffix: str) -> str:
        """Return the full name of one of the queue's keys."""
        return self.keys.to_key(suffix)

    @staticmethod
    def now_ms() -> int:
        """Return this machine's clock, in ms since the epoch."""
        return time.time_ns() // 1_000_000

    # Session.

    async def connect(self) -> bool:
        """Connect, within bounded tries; fine when connected already.

        Raises:
            RedisUnavailable: Redis cannot be reached; call again to try again. QueueClosed.
        """
        await self._session.connect()
        return True

    async def ready(self) -> Self:
        """Return the queue once it is connected. Raises what ``connect`` raises."""
        await self._session.ensure()
        return self

    def is_running(self) -> bool:
        """Return whether the queue has not been closed."""
        return self._session.is_running

    async def close(self, timeout: int | timedelta | None = None) -> None:  # noqa: ASYNC109 - bee-queue's word for it, in ms
        """Stop taking jobs, wait for the running ones, and hang up. Calling it again is fine.

        Args:
            timeout: ms or timedelta; None, 0 and negatives mean 5000. What still runs then is
                cancelled and goes to the front of the queue, its retries untouched.

        Raises:
            TimeoutError: some jobs did not end in time (``Operation timed out.``). All is closed.
        """
        if isinstance(timeout, timedelta):
            timeout = round(timeout.total_seconds() * 1000)
        is_default = isinstance(timeout, bool) or not isinstance(timeout, int) or timeout <= 0
        await self._session.close(CLOSE_TIMEOUT_MS if is_default or timeout is None else timeout)

    async def __aenter__(self) -> Self:
        """Connect."""
        await self.connect()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Close."""
        await self.close()

    async def destroy(self) -> int:
        """Delete the queue: every key, bee-queue's and beeq's. Return how many there were."""
        await self._session.ensure()
        deleted = int(await self.pipeline.call("DEL", *self.keys.every()))
        self.event_hub.forget_all()
        return deleted

    # Jobs: making.

    def create_job(self, data: Any = None) -> Job:
        """Return a new job with ``data``, not yet saved. What JavaScript calls falsy becomes ``{}``."""
        return Job.new(self, data, now_ms=self.now_ms())

    async def enqueue(
        self,
        data: Any = None,
        *,
        id: str | int | None = None,  # noqa: A002 - the record's own word
        retries: int | None = None,
        backoff: str | tuple[str, int | timedelta] | None = None,
        timeout: int | timedelta | None = None,  # noqa: ASYNC109 - the job's, in ms
        delay_until: datetime | float | timedelta | None = None,
    ) -> Job:
        """Create, configure and save a job in one call; see ``Job`` for each option.

        Args:
            data: the payload.
            id: its name; None for the counter's next. If it exists, nothing is written and the
                returned job's id is None.
            retries: further attempts after a failed one.
            backoff: ``"immediate"``, or strategy and delay.
            timeout: limit of one attempt, ms or timedelta.
            delay_until: not before then.

        Raises:
            TypeError, ValueError: a bad option, named. RedisError: Redis did not take the job.
        """
        job = self.create_job(data)
        if id is not None:
            job.set_id(id)
        if retries is not None:
            job.retries(retries)
        if backoff is not None:
            job.backoff(*((backoff,) if isinstance(backoff, str) else backoff))
        if timeout is not None:
            job.timeout(timeout)
        if delay_until is not None:
            job.delay_until(delay_until)
        return await job.save()

    def add(self, job: Job) -> Awaitable[int]:
        """Put ``job`` into the queue; what is returned must be awaited, and its result given to ``added``.

        That is ``Job.save``'s affair. Nothing may come in between: whoever gets the job listens to it before
        any event of it is delivered.
        """
        loop = asyncio.get_running_loop()  # asked once: whoever asks for it asks the system, too
        if self._session.is_hearing_in(loop):
            return self.producer.save(job, loop)
        return self._add_patiently(job)

    async def _add_patiently(self, job: Job) -> int:
        await self._hearing()
        return await self.producer.save(job, asyncio.get_running_loop())

    def added(self, job: Job, since: int) -> None:
        """Deliver what is heard of ``job`` since that moment, and from now on."""
        if self.settings.store_jobs:
            self.event_hub.welcome(job, since=since)
        if self._session.activator is not None and (due_ms := job.due_ms):
            self._session.activator.schedule(due_ms)

    async def save_all(self, jobs: Iterable[Job]) -> dict[Job, Exception]:
        """Put many jobs into the queue, in order, in few script calls; return those that failed, and why.

        A job whose id exists is no failure: its id is then None. Not atomic as a whole.

        Raises:
            RedisUnavailable: none of them was saved, because Redis is away.
        """
        await self._hearing()
        return await self.producer.save_all(list(jobs))

    async def _hearing(self) -> None:
        await self._session.ensure()
        await self._session.hear_events()

    def keep(self, job: Job) -> None:
        """Hold a job object that has listeners until its final event."""
        self._session.home.refuse_elsewhere()
        if self.settings.store_jobs:
            self.event_hub.keep(job)

    # Jobs: finding.

    async def get_job(self, job_id: str | int) -> Job | None:
        """Return the job as Redis has it now, or None.

        Raises:
            JobUnreadable: its record is not one.
        """
        await self._session.ensure()
        text = check_job_id(job_id)
        if text is None:
            return None
        moment = self.event_hub.moment
        raw = await self._reader.record(text)
        if raw is None:
            return None
        return self._found(text, raw, since=moment)

    async def get_jobs(
        self,
        type: str,  # noqa: A002 - bee-queue's word for it
        start: int = 0,
        end: int = 100,
        size: int = 100,
    ) -> list[Job]:
        """Return jobs by state; one with an unreadable record is left out, with an ``error`` event.

        Args:
            type: ``waiting``, ``active``, ``delayed`` (by ``start`` and ``end``, both inclusive; index 0 of
                ``waiting`` was queued last), ``succeeded`` or ``failed`` (``size`` of them, in no order).
            start: the first index.
            end: the last index.
            size: how many.

        Raises:
            ValueError: no such state (``Improper queue type``).
        """
        await self._session.ensure()
        moment = self.event_hub.moment
        ids = await self._reader.ids(type, start=start, end=end, size=size)
        jobs = []
        for job_id, raw in await self._reader.records(ids):
            try:
                jobs.append(self._found(job_id, raw, since=moment))
            except JobUnreadable as error:
                self.report_error(error)
        return jobs

    def _found(self, job_id: str, raw: bytes, *, since: int) -> Job:
        """Return the job of a record that was read after the moment ``since``.

        Its end may have come while the record was on its way. An end heard before, where the record says that
        the job has not ended, was that of an earlier job of its id.
        """
        job = Job(self, decode_record(job_id, raw, now_ms=self.now_ms()), job_id)
        if job.status not in ("succeeded", "failed"):
            self.event_hub.forget(job_id, until=since)
            if self.settings.store_jobs:
                self.event_hub.register(job)
        self.event_hub.replay(job, since=since)
        return job

    async def check_health(self) -> Health:
        """Return how many jobs are in each state, and the newest automatic id."""
        return (await self.stats()).health()

    async def stats(self) -> Stats:
        """Return the counts of ``check_health``, living workers, and the age of the oldest waiting job."""
        await self._session.ensure()
        return await self._reader.stats()

    async def is_in_set(self, job_id: str, name: str) -> bool:
        """Return whether the id is in the named set."""
        await self._session.ensure()
        return await self._reader.is_in(job_id, name)

    async def job_state(self, job_id: str | int) -> JobState | None:
        """Return where a job stands: its state, its record, its end; None if it left no trace."""
        await self._session.ensure()
        text = check_job_id(job_id)
        return None if text is None else await self._reader.job_state(text)

    async def result_of(self, job: Job, timeout: int | timedelta | None) -> Any:  # noqa: ASYNC109 - in ms
        """Wait for the job's end; see ``Job.result``."""
        is_hearing = self._session.is_hearing_in(asyncio.get_running_loop())
        if not is_hearing:
            await self._hearing()
        timeout_ms = None if timeout is None else milliseconds("timeout", timeout)
        return await self._results.of(job, timeout_ms=timeout_ms, is_hearing=is_hearing)

    # Jobs: moving.

    async def remove_job(self, job_id: str | int) -> Self:
        """Remove a job from wherever it is. A running one is not stopped, but its outcome is dropped."""
        await self._hearing()  # a save asked for just before keeps its place before this
        text = check_job_id(job_id)
        if text is not None:
            await self._moves.remove(text)
        return self

    async def cancel_job(self, job_id: str | int) -> bool:
        """End a job that waits, is delayed, or runs; return whether there was one to end.

        Its record goes, its listeners and ``result`` hear that it failed, "was cancelled". One that
        runs on a beeq worker is stopped there: a coroutine is cancelled, a thread can only be left
        behind. A Node worker cannot be told; what it writes at its end is the job's record again.
        """
        await self._hearing()  # as in ``remove_job``
        text = check_job_id(job_id)
        return text is not None and await self._moves.cancel(text)

    async def retry_job(self, job: Job) -> bool:
        """Queue a failed job again; see ``Job.retry``."""
        await self._session.ensure()
        is_queued = await self._moves.retry(job)
        if is_queued and self.settings.store_jobs:
            self.event_hub.register(job)
        return is_queued

    async def report_progress(self, job: Job, value: Any) -> int:
        """Publish a job's progress; see ``Job.report_progress``."""
        await self._session.ensure()
        return await self._moves.report_progress(job, value)

    async def remember(self, job: Job, facts: dict[str, Any]) -> None:
        """Keep facts with a running job; see ``Job.remember``."""
        await self._session.ensure()
        await self._moves.remember(job, facts)

    async def clean(self, kind: str, older_than: int | timedelta) -> int:
        """Remove finished jobs created longer ago than ``older_than``; return how many.

        A job that is retried or saved anew meanwhile stays.

        Args:
            kind: ``succeeded`` or ``failed``.
            older_than: ms or timedelta, by the creation time in the record.

        Raises:
            ValueError: another kind of job.
        """
        await self._session.ensure()
        return await self._moves.clean(kind, older_than_ms=milliseconds("older_than", older_than))
