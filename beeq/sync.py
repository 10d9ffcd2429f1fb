"""The blocking face of a queue: the same producer methods, each waiting for its async twin.

One background loop serves all blocking queues of a process. Objects may be used from several threads.
After a fork, those that have been used raise RuntimeError in the child; those only made work there.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from beeq import queue as asynchronous
from beeq.blocking import BlockingJob, Portal
from beeq.client.reader import Health, Stats

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from beeq import service
    from beeq.emitter import Listener
    from beeq.job import Job as AsyncJob

__all__ = ["Job", "Queue", "QueueService"]

T = TypeVar("T")

Job = BlockingJob


class _Background(Portal):
    """The way into this process's background loop, which runs from the first call on.

    A fork starts one of its own: what was made before it, and not opened, works there.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self.forget()

    def forget(self) -> None:
        """A fork has its parent's memory and none of its threads."""
        self._lock = threading.Lock()
        self._running: asyncio.AbstractEventLoop | None = None

    def _open(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._running is None:
                self._running = asyncio.new_event_loop()
                threading.Thread(target=self._running.run_forever, name="beeq-sync", daemon=True).start()
            return self._running


_background = _Background()
os.register_at_fork(after_in_child=_background.forget)


class Queue:
    """A queue whose methods block. What ``beeq.Queue`` says of each method holds here.

    ``with Queue("addition") as queue: …`` connects and closes. Working is the async queue's affair,
    or ``beeq worker``'s.
    """

    def __init__(self, name: str, *, redis: str | Redis | None = None, **settings: Any) -> None:
        self._portal = _background
        settings.setdefault("is_worker", False)
        self._queue = self._portal.call(lambda: asynchronous.Queue(name, redis=redis, **settings))

    def __repr__(self) -> str:
        return repr(self._queue)

    def __enter__(self) -> Self:
        """Connect."""
        self.connect()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close."""
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._portal.run(coroutine)

    def _face(self, job: AsyncJob) -> Job:
        return BlockingJob(job, self._portal)

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def settings(self) -> Any:
        """The queue's settings, frozen."""
        return self._queue.settings

    @property
    def backoff_strategies(self) -> Any:
        """Strategies by name; add your own before a job asks for it."""
        return self._queue.backoff_strategies

    def to_key(self, suffix: str) -> str:
        """Return the full name of one of the queue's keys."""
        return self._queue.to_key(suffix)

    def connect(self) -> bool:
        """Connect."""
        return self._run(self._queue.connect())

    def ready(self) -> Self:
        """Return the queue once it is connected."""
        self._run(self._queue.ready())
        return self

    def is_running(self) -> bool:
        """Return whether the queue has not been closed."""
        return self._queue.is_running()

    def close(self, timeout: int | timedelta | None = None) -> None:
        """Hang up."""
        self._run(self._queue.close(timeout))

    def destroy(self) -> int:
        """Delete the queue; return how many keys there were."""
        return self._run(self._queue.destroy())

    def on(self, event: str, fn: Listener) -> Self:
        """Call ``fn``, in the background loop's thread, at every ``event``."""
        self._portal.call(lambda: self._queue.on(event, fn))
        return self

    def once(self, event: str, fn: Listener) -> Self:
        """Call ``fn``, in the background loop's thread, at the next ``event``."""
        self._portal.call(lambda: self._queue.once(event, fn))
        return self

    def off(self, event: str, fn: Listener) -> Self:
        """Stop calling ``fn``."""
        self._portal.call(lambda: self._queue.off(event, fn))
        return self

    def create_job(self, data: Any = None) -> Job:
        """Return a new job, not yet saved."""
        return self._face(self._queue.create_job(data))

    def enqueue(
        self,
        data: Any = None,
        *,
        id: str | int | None = None,  # noqa: A002 - the record's own word
        retries: int | None = None,
        backoff: str | tuple[str, int | timedelta] | None = None,
        timeout: int | timedelta | None = None,
        delay_until: datetime | float | timedelta | None = None,
    ) -> Job:
        """Create, configure and save a job."""
        return self._face(
            self._run(
                self._queue.enqueue(
                    data,
                    id=id,
                    retries=retries,
                    backoff=backoff,
                    timeout=timeout,
                    delay_until=delay_until,
                )
            )
        )

    def save_all(self, jobs: Iterable[Job]) -> dict[Job, Exception]:
        """Save many jobs; return those that failed, and why."""
        faces = {job.asynchronous: job for job in jobs}
        errors = self._run(self._queue.save_all(list(faces)))
        return {faces[job]: error for job, error in errors.items()}

    def get_job(self, job_id: str | int) -> Job | None:
        """Return the job as Redis has it now, or None."""
        job = self._run(self._queue.get_job(job_id))
        return None if job is None else self._face(job)

    def get_jobs(
        self,
        type: str,  # noqa: A002 - bee-queue's word for it
        start: int = 0,
        end: int = 100,
        size: int = 100,
    ) -> list[Job]:
        """Return jobs by state."""
        return [self._face(job) for job in self._run(self._queue.get_jobs(type, start, end, size))]

    def remove_job(self, job_id: str | int) -> Self:
        """Remove a job from wherever it is."""
        self._run(self._queue.remove_job(job_id))
        return self

    def cancel_job(self, job_id: str | int) -> bool:
        """End a job that waits, is delayed, or runs; return whether there was one to end."""
        return self._run(self._queue.cancel_job(job_id))

    def check_health(self) -> Health:
        """Return how many jobs are in each state."""
        return self._run(self._queue.check_health())

    def stats(self) -> Stats:
        """Return the counts, living workers, and the age of the oldest waiting job."""
        return self._run(self._queue.stats())

    def check_stalled_jobs(self, interval: int | timedelta | None = None) -> int:
        """Look for stalled jobs now; return how many went back to the queue."""
        return self._run(self._queue.check_stalled_jobs(interval))

    def clean(self, kind: str, older_than: int | timedelta) -> int:
        """Remove finished jobs created longer ago than that; return how many."""
        return self._run(self._queue.clean(kind, older_than))


class QueueService:
    """The queue service whose methods block. What ``beeq.service.QueueService`` says holds here.

    ``with QueueService(redis=…) as service: …`` connects and closes.
    """

    def __init__(
        self,
        *,
        redis: str | Redis | None = None,
        mongo_url: str | None = None,
        prefix: str = "bq",
        **settings: Any,
    ) -> None:
        from beeq.service import QueueService as AsyncService  # noqa: PLC0415 - with it come the job models

        self._portal = _background
        self._service = self._portal.call(
            lambda: AsyncService(redis=redis, mongo_url=mongo_url, prefix=prefix, **settings)
        )

    def __enter__(self) -> Self:
        """Connect."""
        self._run(self._service.__aenter__())
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close."""
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._portal.run(coroutine)

    def _added(self, coroutine: Coroutine[Any, Any, AsyncJob]) -> Job:
        return BlockingJob(self._run(coroutine), self._portal)

    def connect(self) -> None:
        """Connect all four queues."""
        self._run(self._service.connect())

    def close(self) -> None:
        """Hang up."""
        self._run(self._service.close())

    def add_ai_generation_job(self, job: service.JobData, options: service.Options | None = None) -> Job:
        """Put a job into ``ai-generation``."""
        return self._added(self._service.add_ai_generation_job(job, options))

    def add_media_processing_job(self, job: service.JobData, options: service.Options | None = None) -> Job:
        """Put a job into ``media-processing``."""
        return self._added(self._service.add_media_processing_job(job, options))

    def add_video_assembly_job(self, job: service.JobData, options: service.Options | None = None) -> Job:
        """Put a job into ``video-assembly``."""
        return self._added(self._service.add_video_assembly_job(job, options))

    def add_webhook_job(self, job: service.JobData, options: service.Options | None = None) -> Job:
        """Put a job into ``webhook-processing``."""
        return self._added(self._service.add_webhook_job(job, options))

    def cancel_job(self, job_id: str, *, queue_name: str | None = None) -> bool:
        """End a job that waits, is delayed, or runs; return whether there was one to end."""
        return self._run(self._service.cancel_job(job_id, queue_name=queue_name))

    def get_job_status(self, job_id: str, *, queue_name: str | None = None) -> dict[str, Any] | None:
        """Return the job's status document, or None if nothing is known of it."""
        return self._run(self._service.get_job_status(job_id, queue_name=queue_name))

    def update_job_status(
        self, job_id: str, status: str, result: Any = None, error: str | None = None
    ) -> None:
        """Write a job's status into the mirror."""
        self._run(self._service.update_job_status(job_id, status, result, error))

    def queue_stats(self) -> dict[str, Stats]:
        """Return each queue's counts."""
        return self._run(self._service.queue_stats())

    def active_counts(self) -> dict[str, int]:
        """Return how many jobs run in each queue now."""
        return self._run(self._service.active_counts())
