"""The blocking queue and queue service: the producer's methods, each of which waits for its async twin.

One background loop serves all blocking queues of a process. Objects may be used from several threads.
After a fork, those that have been used raise RuntimeError in the child; those only made work there. While the
interpreter ends, in finalisers say, no thread runs the loop any more: each call raises RuntimeError then.
(``atexit`` comes before that, and may still enqueue.)
"""

from __future__ import annotations

import asyncio
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Self, Unpack

from beeq import queue as asynchronous
from beeq import service
from beeq.blocking import BlockingJob, BlockingTwin, Portal, blocking, chained
from beeq.client.closing import CLOSE_GRACE_S, close_timeout_ms
from beeq.client.reader import UNBOUNDED
from beeq.job import Data, Result
from beeq.job import Job as AsyncJob
from beeq.operations.inspection import JobDetails
from beeq.operations.job_filter import Filters
from beeq.operations.many import FoundJob, JobPage, OnProgress
from beeq.operations.watching import JobNews
from beeq.protocol.backoff import Strategy
from beeq.protocol.codec import Model
from beeq.protocol.keys import JobSetName
from beeq.settings import Duration, QueueSettings, ServiceSettings, Settings
from beeq.worker.health import WorkerHealth

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["Job", "Queue", "QueueService"]

Job = BlockingJob
#: How many jobs are found before the thread that looks for them sees the first of them.
_FOUND_AT_ONCE = 100


class _Background(Portal):
    """The way into this process's background loop, which runs from the first call on.

    A fork starts one of its own: what was made before it, and not opened, works there.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self.forget()

    def forget(self) -> None:
        """Drop the loop: after a fork, the child has the parent's memory and none of its threads."""
        self._lock = threading.RLock()  # a finaliser may call in the midst of ``_open``
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None

    def _open(self) -> asyncio.AbstractEventLoop:
        """Return the loop; start another where its thread has ended (what was opened there is lost).

        Raises RuntimeError: the interpreter is about to end, and starts no thread.
        """
        running = self._running
        if running is None or not running[1].is_alive():
            with self._lock:
                running = self._running
                if running is None or not running[1].is_alive():
                    started = _started()
                    if self._running is running:  # else a finaliser has opened one meanwhile
                        self._running = started
                    else:
                        started[0].call_soon_threadsafe(started[0].stop)
                    running = self._running or started
        return running[0]

    def is_gone(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether the loop's thread has ended."""
        running = self._running
        return running is None or running[0] is not loop or not running[1].is_alive()


def _started() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """Return a loop, and the thread that runs it."""
    loop = Context().run(asyncio.new_event_loop)  # its handles keep the context that they are made in
    thread = threading.Thread(
        target=Context().run,  # some Pythons let a thread inherit its starter's
        args=(loop.run_forever,),
        name="beeq-sync",
        daemon=True,
    )
    try:
        thread.start()
    except BaseException:
        loop.close()
        raise
    return loop, thread


_background = _Background()
os.register_at_fork(after_in_child=_background.forget)


def _jobs(jobs: list[AsyncJob], portal: Portal) -> list[Job]:
    return [BlockingJob(job, portal) for job in jobs]


def _job_or_none(job: AsyncJob | None, portal: Portal) -> Job | None:
    return None if job is None else BlockingJob(job, portal)


def _found(each: FoundJob[AsyncJob], portal: Portal) -> FoundJob[Job]:
    job = BlockingJob(each.job, portal)
    return FoundJob(job, each.state, each.created_ms, each.due_ms, each.error, each.failed_ms)


def _page(page: JobPage[AsyncJob], portal: Portal) -> JobPage[Job]:
    return JobPage([_found(each, portal) for each in page.jobs], page.next_at)


def _details_or_none(details: JobDetails[AsyncJob] | None, portal: Portal) -> JobDetails[Job] | None:
    if details is None:
        return None
    return JobDetails(
        _job_or_none(details.job, portal),
        details.state,
        details.created_ms,
        details.due_ms,
        details.ahead,
        details.deliveries,
        details.ended,
        details.attempts,
        details.problem,
        details.record_bytes,
        details.result_bytes,
        details.is_too_long,
    )


class _Connected(BlockingTwin, ABC):
    """A twin in the background loop, connected while its ``with`` block lasts."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__(_background.call(make), _background)

    def __enter__(self) -> Self:
        """Connect."""
        self._run(self._twin.__aenter__())
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close."""
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close, within a bounded time even if a listener blocks the loop."""


class Queue(_Connected, Generic[Data, Result]):
    """A queue whose methods block; otherwise each method is as in ``beeq.Queue``.

    ``with Queue("addition") as queue: …`` connects and closes. It does not work on jobs: the async queue
    does, or ``beeq worker``.
    """

    _twin: asynchronous.Queue[Data, Result]

    def __init__(
        self, name: str, *, redis: str | Redis | None = None, **settings: Unpack[QueueSettings]
    ) -> None:
        settings.setdefault("is_worker", False)
        super().__init__(lambda: asynchronous.Queue(name, redis=redis, **settings))

    @property
    def twin(self) -> asynchronous.Queue[Data, Result]:
        """The ``beeq.Queue`` in the background loop whose methods these are."""
        return self._twin

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._twin.name

    @property
    def settings(self) -> Settings:
        """The queue's settings, frozen."""
        return self._twin.settings

    @property
    def backoff_strategies(self) -> dict[str, Strategy]:
        """Strategies by name; add your own before a job asks for it."""
        return self._twin.backoff_strategies

    def to_key(self, suffix: str) -> str:
        """Return the full name of one of the queue's keys."""
        return self._twin.to_key(suffix)

    def use(self, *, redis: str | Redis | None = None, **changes: Unpack[QueueSettings]) -> None:
        """Use another Redis, or other settings, as the async method does: while the queue is not open."""
        self._portal.call(lambda: self._twin.use(redis=redis, **changes))

    def close(self, timeout: Duration | None = None) -> None:
        """Close, as the async method does.

        Raises TimeoutError also if a listener, which never returns, blocks the loop of all blocking queues.
        """
        limit_s = close_timeout_ms(timeout) / 1000 + CLOSE_GRACE_S
        self._portal.run(self._twin.close(timeout), limit_s=limit_s)

    def is_running(self) -> bool:
        """Return whether the queue has not been closed."""
        return self._twin.is_running()

    def create_job(self, data: Data | Model | None = None) -> Job[Data, Result]:
        """Return a new job with ``data``, not yet saved. What JavaScript calls falsy becomes ``{}``."""
        return BlockingJob(self._twin.create_job(data), self._portal)

    if TYPE_CHECKING:  # the decorator, which makes these, would forget the types of the jobs

        def enqueue(  # noqa: D102 - see beeq.Queue
            self,
            data: Data | Model | None = None,
            *,
            id: str | int | None = None,  # noqa: A002 - the record's own word
            retries: int | None = None,
            backoff: str | tuple[str, Duration] | None = None,
            timeout: Duration | None = None,
            delay_until: datetime | float | timedelta | str | None = None,
        ) -> Job[Data, Result]: ...
        def get_job(self, job_id: str | int) -> Job[Data, Result] | None: ...  # noqa: D102 - see beeq.Queue
        def get_jobs(  # noqa: D102 - see beeq.Queue
            self,
            type: JobSetName,  # noqa: A002 - bee-queue's word for it
            start: int = 0,
            end: int = 100,
            size: int = 100,
        ) -> list[Job[Data, Result]]: ...

    else:
        enqueue = blocking(asynchronous.Queue.enqueue, BlockingJob)
        get_job = blocking(asynchronous.Queue.get_job, _job_or_none)
        get_jobs = blocking(asynchronous.Queue.get_jobs, _jobs)

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError; of a method that only the async queue has, it says so."""
            if name in {"process", "run", "handler", "concurrency"}:
                raise AttributeError(
                    f"a blocking queue has no {name!r}: it works on no jobs. beeq.Queue does, in an event "
                    "loop or in `beeq worker --app`"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def save_all(self, jobs: Iterable[Job[Data, Result]]) -> dict[Job[Data, Result], Exception]:
        """Put many jobs into the queue, as the async method does; return those that failed, and why."""
        blocking_jobs = {job.asynchronous: job for job in jobs}
        errors = self._run(self._twin.save_all(list(blocking_jobs)))
        return {blocking_jobs[job]: error for job, error in errors.items()}

    def find_jobs(
        self,
        *,
        max_bytes: int = UNBOUNDED,
        on_progress: OnProgress | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[FoundJob[Job]]:
        """Yield the jobs that the filters mean, as the async method does; each page when it is needed."""
        found = aiter(self._twin.find_jobs(max_bytes=max_bytes, on_progress=on_progress, **filters))

        async def some() -> list[FoundJob[AsyncJob]]:
            portion: list[FoundJob[AsyncJob]] = []
            async for each in found:
                portion.append(each)
                if len(portion) == _FOUND_AT_ONCE:
                    break
            return portion

        while portion := self._run(some()):
            for each in portion:
                yield _found(each, self._portal)

    def watch_job(self, job_id: str | int, timeout: Duration | None = None) -> Iterator[JobNews]:
        """Yield what happens to a job until it has ended, as the async method does."""
        news = aiter(self._twin.watch_job(job_id, timeout))

        async def next_news() -> JobNews | None:
            return await anext(news, None)

        while (each := self._run(next_news())) is not None:
            yield each

    def worker_health(self) -> WorkerHealth:
        """Return the state of the queue's background duties; it has no worker here."""
        return self._twin.worker_health()

    connect = blocking(asynchronous.Queue.connect)
    ready = chained(asynchronous.Queue.ready)
    destroy = blocking(asynchronous.Queue.destroy)
    on = chained(asynchronous.Queue.on, in_loop=True)
    once = chained(asynchronous.Queue.once, in_loop=True)
    off = chained(asynchronous.Queue.off, in_loop=True)
    remove_job = chained(asynchronous.Queue.remove_job)
    cancel_job = blocking(asynchronous.Queue.cancel_job)
    check_health = blocking(asynchronous.Queue.check_health)
    stats = blocking(asynchronous.Queue.stats)
    check_stalled_jobs = blocking(asynchronous.Queue.check_stalled_jobs)
    clean = blocking(asynchronous.Queue.clean)
    retry_many = blocking(asynchronous.Queue.retry_many)
    run_many = blocking(asynchronous.Queue.run_many)
    cancel_many = blocking(asynchronous.Queue.cancel_many)
    remove_many = blocking(asynchronous.Queue.remove_many)
    purge = blocking(asynchronous.Queue.purge)
    explain = blocking(asynchronous.Queue.explain)
    diagnose = blocking(asynchronous.Queue.diagnose)
    diagnose_server = blocking(asynchronous.Queue.diagnose_server)
    repair = blocking(asynchronous.Queue.repair)
    run_job = blocking(asynchronous.Queue.run_job)
    pause = blocking(asynchronous.Queue.pause)
    resume = blocking(asynchronous.Queue.resume)
    paused = blocking(asynchronous.Queue.paused)
    workers = blocking(asynchronous.Queue.workers)
    activity = blocking(asynchronous.Queue.activity)
    history = blocking(asynchronous.Queue.history)
    inspect_job = blocking(asynchronous.Queue.inspect_job, _details_or_none)
    page_of_jobs = blocking(asynchronous.Queue.page_of_jobs, _page)

    def duplicate_job(self, job: Job) -> Job:
        """Save a new job with the data of one, as the async method does; return it."""
        return BlockingJob(self._run(self._twin.duplicate_job(job.asynchronous)), self._portal)


class QueueService(_Connected):
    """A queue service whose methods block; otherwise each method is as in ``beeq.service.QueueService``.

    ``with QueueService(redis=…) as service: …`` connects and closes.
    """

    _twin: service.QueueService

    def __init__(
        self,
        *,
        redis: str | Redis | None = None,
        mongo_url: str | None = None,
        mongo_project_id: str = "auto",
        prefix: str = "bq",
        **settings: Unpack[ServiceSettings],
    ) -> None:
        super().__init__(
            lambda: service.QueueService(
                redis=redis,
                mongo_url=mongo_url,
                mongo_project_id=mongo_project_id,
                prefix=prefix,
                **settings,
            )
        )

    def close(self) -> None:
        """Close, as the async method does. Raises TimeoutError if a listener blocks the loop."""
        limit_s = close_timeout_ms(None) / 1000 + 2 * CLOSE_GRACE_S  # its queues, and its mirror
        self._portal.run(self._twin.close(), limit_s=limit_s)

    connect = blocking(service.QueueService.connect)
    add_ai_generation_job = blocking(service.QueueService.add_ai_generation_job, BlockingJob)
    add_media_processing_job = blocking(service.QueueService.add_media_processing_job, BlockingJob)
    add_video_assembly_job = blocking(service.QueueService.add_video_assembly_job, BlockingJob)
    add_webhook_job = blocking(service.QueueService.add_webhook_job, BlockingJob)
    cancel_job = blocking(service.QueueService.cancel_job)
    get_job_status = blocking(service.QueueService.get_job_status)
    update_job_status = blocking(service.QueueService.update_job_status)
    queue_stats = blocking(service.QueueService.queue_stats)
    active_counts = blocking(service.QueueService.active_counts)
