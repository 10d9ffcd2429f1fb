"""The blocking face of a job, and the way from a thread into a loop.

One core, two faces: every method here runs the coroutine of the same name and waits for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from beeq.errors import JobLost

if TYPE_CHECKING:
    from beeq.emitter import Listener
    from beeq.job import Job

T = TypeVar("T")


class Portal:
    """Runs coroutines and calls in a loop's thread, from other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pid = os.getpid()

    def _open(self) -> asyncio.AbstractEventLoop:
        """Return the loop, which runs. Raises RuntimeError: it ran before a fork, and does not run here."""
        if self._pid != os.getpid():
            raise RuntimeError(
                "the job was handed out before a fork, and its loop runs in the parent only: "
                "make a queue in the child"
            )
        return self._loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine in the loop and return what it returns.

        Raises:
            RuntimeError: called in the loop's own thread, which would wait for itself; or after a fork,
                where the loop does not run.
        """
        try:
            loop = self._open()
        except RuntimeError:
            coroutine.close()
            raise
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is loop:
            coroutine.close()
            raise RuntimeError("a blocking call would wait for its own loop; use the async method")
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # when this thread was interrupted: nobody waits any more
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the loop's thread and return what it returns."""

        async def call() -> T:
            return function()

        return self.run(call())


class BlockingJob:
    """A job whose moves block. What ``Job`` says of each method and attribute holds here.

    Handlers that are plain functions get one; so do the users of ``beeq.sync``.
    """

    __slots__ = ("_is_detached", "_job", "_portal")

    def __init__(self, job: Job, portal: Portal) -> None:
        self._job = job
        self._portal = portal
        self._is_detached = False

    def __repr__(self) -> str:
        return repr(self._job)

    @property
    def id(self) -> str | None:
        """The queue's name for the job."""
        return self._job.id

    @property
    def data(self) -> Any:
        """The payload."""
        return self._job.data

    @data.setter
    def data(self, data: Any) -> None:
        self._job.data = data

    @property
    def options(self) -> dict[str, Any]:
        """The record's options under their wire names."""
        return self._job.options

    @property
    def status(self) -> str:
        """What the record says."""
        return self._job.status

    @property
    def progress(self) -> Any:
        """What was last reported."""
        return self._job.progress

    @property
    def asynchronous(self) -> Job:
        """The same job with its async face."""
        return self._job

    def detach(self) -> None:
        """The attempt is over: moves of the job raise from now on, so a left-behind thread notices."""
        self._is_detached = True

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._is_detached:
            coroutine.close()
            raise JobLost(self._job.saved_id())
        return self._portal.run(coroutine)

    def set_id(self, job_id: str | int | None) -> Self:
        """Choose the id."""
        self._job.set_id(job_id)
        return self

    def retries(self, n: int) -> Self:
        """Allow ``n`` further attempts."""
        self._job.retries(n)
        return self

    def backoff(self, strategy: str, delay: int | timedelta | None = None) -> Self:
        """Wait between attempts."""
        self._job.backoff(strategy, delay)
        return self

    def delay_until(self, when: datetime | float | timedelta) -> Self:
        """Do not run the job before ``when``."""
        self._job.delay_until(when)
        return self

    def timeout(self, timeout: int | timedelta) -> Self:
        """Fail an attempt that runs longer."""
        self._job.timeout(timeout)
        return self

    def save(self) -> Self:
        """Put the job into its queue."""
        self._run(self._job.save())
        return self

    def report_progress(self, value: Any) -> int:
        """Tell whoever listens how far the job is."""
        return self._run(self._job.report_progress(value))

    @property
    def memory(self) -> dict[str, Any]:
        """What this attempt and earlier ones have remembered; a copy."""
        return self._job.memory

    def remember(self, **facts: Any) -> None:
        """Keep facts with the job, for its next attempt."""
        self._run(self._job.remember(**facts))

    def remove(self) -> Self:
        """Remove the job from the queue."""
        self._run(self._job.remove())
        return self

    def cancel(self) -> bool:
        """End the job, running or not; return whether it had not ended yet."""
        return self._run(self._job.cancel())

    def retry(self) -> bool:
        """Queue the failed job again."""
        return self._run(self._job.retry())

    def is_in_set(self, name: str) -> bool:
        """Return whether the job is in the named set."""
        return self._run(self._job.is_in_set(name))

    def result(self, timeout: int | timedelta | None = None) -> Any:
        """Wait for the job and return its handler's value."""
        return self._run(self._job.result(timeout))

    def on(self, event: str, fn: Listener) -> Self:
        """Call ``fn``, in the loop's thread, at every such event."""
        self._portal.call(lambda: self._job.on(event, fn))
        return self

    def once(self, event: str, fn: Listener) -> Self:
        """Call ``fn``, in the loop's thread, at the next such event."""
        self._portal.call(lambda: self._job.once(event, fn))
        return self

    def off(self, event: str, fn: Listener) -> Self:
        """Stop calling ``fn``."""
        self._portal.call(lambda: self._job.off(event, fn))
        return self
