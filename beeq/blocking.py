"""Blocking twins of async objects: the way from a thread into a loop, how a twin is made, the blocking job.

A twin's methods are made from the async methods: ``stats = blocking(Queue.stats)`` has the name, the
parameters and the docstring of ``Queue.stats``, runs it in the loop's thread, and waits for it.
"""

import asyncio
import functools
import inspect
import math
import os
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from beeq.errors import JobLost, QueueClosed
from beeq.job import Data, Job, Result
from beeq.settings import Duration

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
Twin = TypeVar("Twin", bound="BlockingTwin")
#: How often a waiting thread asks whether its loop is still there.
_LOOK_AT_LOOP_S = 1.0
#: A loop that did not run at this many checks in a row counts as gone. Fewer: a program may run it piecewise.
_LOOKS_WITHOUT_LOOP = 5
_IS_ENDING = "the interpreter is ending, its event loops run no more: nothing was sent to Redis"
_HAS_STOPPED = "the event loop that the queue works in does not run any more"


class Portal:
    """Runs coroutines and calls in a loop's thread, from other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pid = os.getpid()

    def _open(self) -> asyncio.AbstractEventLoop:
        """Return the loop. Raises RuntimeError: it ran before a fork, and does not run here."""
        if self._pid != os.getpid():
            raise RuntimeError(
                "the job was handed out before a fork, and its loop runs in the parent only: "
                "make a queue in the child"
            )
        return self._loop

    def is_gone(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether the loop, which is open and does not run, will not run again, as far as is known."""
        del loop
        return False

    def run(self, coroutine: Coroutine[Any, Any, T], *, limit_s: float = math.inf) -> T:
        """Run the coroutine in the loop and return what it returns.

        Raises:
            RuntimeError: called in the loop's own thread, which would wait for itself; after a fork; while
                the interpreter ends, when the loop's thread has ended (only finalisers call so late); or the
                loop does not run, which takes seconds to find.
            QueueClosed: the loop has ended, and what ran there with it.
            TimeoutError: the coroutine, which has a bound of its own, took longer than ``limit_s``: the loop
                is blocked.

        An interrupted thread cancels the coroutine, which withdraws what it has not sent.
        """
        try:
            if sys.is_finalizing():  # before any lock: a thread that has ended may hold it
                raise RuntimeError(_IS_ENDING)  # noqa: TRY301 - the coroutine is to be closed
            loop = self._open()
        except BaseException:
            coroutine.close()
            raise
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is loop:
            coroutine.close()
            raise RuntimeError("a blocking call would wait for its own loop; use the async method")
        if loop.is_closed():
            coroutine.close()
            raise QueueClosed
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # closed just now
            coroutine.close()
            raise QueueClosed from None
        try:
            return self._outcome(future, loop, time.monotonic() + limit_s)
        except BaseException:
            future.cancel()  # this thread was interrupted and no longer waits
            raise

    def _outcome(self, future: Future[T], loop: asyncio.AbstractEventLoop, over_at_s: float) -> T:
        """Wait for the future; one of a loop that has ended, or stopped, would never be done."""
        looks = 0
        while True:
            try:
                return future.result(max(0.0, min(_LOOK_AT_LOOP_S, over_at_s - time.monotonic())))
            except TimeoutError:
                if future.done():  # just now, or the error is the coroutine's own
                    return future.result()
                if time.monotonic() >= over_at_s:
                    raise TimeoutError("the event loop is blocked: a listener has not returned") from None
                if loop.is_closed():
                    raise QueueClosed from None
                looks = 0 if loop.is_running() else looks + 1
                if looks >= _LOOKS_WITHOUT_LOOP or (looks and self.is_gone(loop)):
                    raise RuntimeError(_HAS_STOPPED) from None

    def call(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the loop's thread and return what it returns."""

        async def call() -> T:
            return function()

        return self.run(call())


class BlockingTwin:
    """An object whose methods run those of its async twin in the loop's thread, and wait for them."""

    __slots__ = ("_portal", "_twin")

    def __init__(self, twin: Any, portal: Portal) -> None:
        self._twin = twin
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._twin)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._portal.run(coroutine)


@overload
def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]: ...
@overload
def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], convert: Callable[[T, Portal], U]
) -> Callable[Concatenate[Any, P], U]: ...
def blocking(method: Callable[..., Any], convert: Callable[[Any, Portal], Any] | None = None) -> Any:
    """Return the blocking twin of a coroutine method; ``convert`` makes what it returns of the result."""
    return _twin_of(
        method,
        lambda twin, value: value if convert is None else convert(value, twin._portal),  # noqa: SLF001 - a method of the twin's
    )


def chained(
    method: Callable[Concatenate[Any, P], object], *, in_loop: bool = False
) -> Callable[Concatenate[Twin, P], Twin]:
    """Return the blocking twin of a method that returns its object, as the twin does.

    With ``in_loop`` a plain function is called in the loop's thread: it changes more than its object.
    """
    return _twin_of(method, lambda twin, _value: twin, in_loop=in_loop)


def _twin_of(
    method: Callable[..., Any], convert: Callable[[Any, Any], Any], *, in_loop: bool = False
) -> Callable[..., Any]:
    @functools.wraps(method)
    def twin_method(self: BlockingTwin, *args: Any, **options: Any) -> Any:
        call = functools.partial(getattr(self._twin, method.__name__), *args, **options)
        value = self._portal.call(call) if in_loop else call()
        return convert(self, self._run(value) if inspect.iscoroutine(value) else value)

    return twin_method


class BlockingJob(BlockingTwin, Generic[Data, Result]):
    """A job whose methods block; otherwise each method and attribute is as in ``Job``.

    Handlers that are plain functions get one; so do the users of ``beeq.sync``.
    """

    __slots__ = ("_is_detached",)
    _twin: Job[Data, Result]

    def __init__(self, job: Job[Data, Result], portal: Portal) -> None:
        super().__init__(job, portal)
        self._is_detached = False

    @property
    def id(self) -> str | None:
        """The queue's name for the job."""
        return self._twin.id

    @property
    def options(self) -> dict[str, Any]:
        """The record's options under their wire names."""
        return self._twin.options

    @property
    def status(self) -> str:
        """What the record says."""
        return self._twin.status

    @property
    def progress(self) -> Any:
        """What was last reported."""
        return self._twin.progress

    @property
    def is_new(self) -> bool:
        """Whether a save of this object put the job into the queue."""
        return self._twin.is_new

    @property
    def memory(self) -> dict[str, Any]:
        """What this attempt and earlier ones have remembered; a copy."""
        return self._twin.memory

    @property
    def data(self) -> Data:
        """The payload."""
        return self._twin.data

    @data.setter
    def data(self, data: Data) -> None:
        self._twin.data = data

    @property
    def asynchronous(self) -> Job[Data, Result]:
        """The async job, for code in its queue's loop."""
        return self._twin

    def detach(self) -> None:
        """Let the job's commands raise JobLost from now on: the attempt is over, but its thread may go on."""
        self._is_detached = True

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._is_detached:
            coroutine.close()
            raise JobLost(self._twin.saved_id())
        return super()._run(coroutine)

    def remember(self, **facts: Any) -> None:
        """Keep facts with the job, for its next attempt."""
        self._run(self._twin.remember(**facts))

    def result(self, timeout: Duration | None = None) -> Result:
        """Return what the handler returned; wait for it if the job has not ended. See ``Job.result``."""
        return self._run(self._twin.result(timeout))

    set_id = chained(Job.set_id)
    retries = chained(Job.retries)
    backoff = chained(Job.backoff)
    delay_until = chained(Job.delay_until)
    timeout = chained(Job.timeout)
    save = chained(Job.save)
    report_progress = blocking(Job.report_progress)
    remove = chained(Job.remove)
    cancel = blocking(Job.cancel)
    retry = blocking(Job.retry)
    is_in_set = blocking(Job.is_in_set)
    on = chained(Job.on, in_loop=True)
    once = chained(Job.once, in_loop=True)
    off = chained(Job.off, in_loop=True)
