"""Runs one attempt of a job: the handler, its timeout, its cancellation; reports its outcome. Knows no Redis.

An attempt ends once, by what comes first: the handler's return or error, its timeout, or being given up. A
later return or error of its handler is dropped; if the job was given back, it is reported (``on_late``).
Until then the handler hangs: hanging handlers are counted (``hung``).
"""

import asyncio
import contextlib
import functools
import inspect
import sys
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from beeq.blocking import BlockingJob, Portal
from beeq.client.job_actions import JobActions
from beeq.errors import Discard, JobTimedOut, kind_of
from beeq.job import Job
from beeq.logs.records import running_job
from beeq.protocol.options import timeout_ms_of
from beeq.protocol.outcome import Outcome, fail, succeed
from beeq.telemetry.attempt_report import AttemptReport
from beeq.worker.attempts.processes.handler_ref import HandlerRef
from beeq.worker.attempts.processes.pool import ProcessPool
from beeq.worker.attempts.thread_pool import ThreadPool

#: A handler that ignores its cancellation is given up after this long.
GRACE_S = 1.0

Handler = Callable[[Any], Any]
SomeHandler = TypeVar("SomeHandler", bound=Handler)
#: Where handlers run; ``auto``: coroutine functions on the loop, plain functions in threads.
Executor = Literal["auto", "thread", "process"]


@dataclass(slots=True, eq=False)
class Attempt:
    """One run of a handler. Its owner holds it until ``on_end`` was called."""

    job: Job
    #: The id as Redis has it, which need not be text.
    raw_id: bytes
    claim: bytes
    #: How often beeq workers have taken the job, this time included.
    deliveries: int = 1
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    #: The error that the timeout gave the attempt.
    timed_out: JobTimedOut | None = None
    has_ended: bool = False
    #: Whether ``stop`` was called: a later return or error of its handler is dropped.
    is_stopped: bool = False
    #: Whether it has ended without an outcome: its job went back to the queue.
    is_given_up: bool = False
    #: Whether it was stopped because this worker lost the job, rather than cancelled.
    is_lost: bool = False
    #: Whether it has ended, and its handler goes on.
    is_hung: bool = False
    #: If asked for: its OpenTelemetry span, and when it began, by the monotonic clock.
    span: Any = None
    started_s: float = 0.0
    #: How long it took, once it has ended.
    ran_s: float = 0.0


class Runner:
    """Starts attempts and reports how they end.

    Args:
        handler: a coroutine function, run as a task on the loop; or a plain function, run in a
            thread or a child process with a ``BlockingJob``.
        executor: must suit the handler, see ``check_handler``.
        concurrency: how many attempts there may be at once.
        on_end: called in the loop with the attempt, its result, and its error or None; once.
        on_late: called with the job and the error or None when a handler ends whose attempt was given up.
        on_hung: called when ``hung`` has changed.
        variables: the context of which each attempt runs in a copy.
        default_timeout_ms: the limit of attempts whose job has none; 0: no limit.
        report: notified of the begin and the end of each attempt.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        executor: Executor,
        concurrency: int,
        on_end: Callable[[Attempt, Any, BaseException | None], None],
        on_late: Callable[[Job, BaseException | None], None],
        on_hung: Callable[[], None] = lambda: None,
        variables: Context | None = None,
        default_timeout_ms: int = 0,
        report: AttemptReport | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._on_late = on_late
        self._on_hung = on_hung
        self._report = report
        #: The context variables of each attempt, as it begins.
        self.variables = copy_context() if variables is None else variables
        self._default_timeout_ms = default_timeout_ms
        #: How many handlers go on though their attempts have ended.
        self.hung = 0
        self._threads = ThreadPool(self._loop)
        self._processes = ProcessPool(handler, limit=concurrency) if executor == "process" else None
        self._portal = Portal(self._loop)
        is_awaited = executor == "process" or is_coroutine_function(handler)
        self._handler = handler if is_awaited else None
        self._function = handler
        # Python 3.12 can run a handler's first step at once: a handler that does not wait needs no turn of
        # the loop.
        self._task_options: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}

    def start(self, attempt: Attempt) -> None:
        """Run the handler; ``on_end`` may be called before this returns."""
        options = attempt.job.options  # once: each access costs a call
        if self._processes is None and (self._default_timeout_ms or "timeout" in options):
            self._limit(attempt)
        variables = self.variables.copy()
        if self._report is not None:
            self._report.begins(attempt, options, variables)
        # Named, or asyncio would number it, which takes longer than all the rest of making it.
        attempt.task = asyncio.Task(
            self._run(attempt), loop=self._loop, name="beeq handler", context=variables, **self._task_options
        )

    def _limit(self, attempt: Attempt) -> None:
        """Start the attempt's timeout, unless something else ends it already."""
        timeout_ms = timeout_ms_of(attempt.job.options, self._default_timeout_ms)
        if timeout_ms and attempt.timer is None and not attempt.has_ended:
            attempt.timer = self._loop.call_later(timeout_ms / 1000, self._time_out, attempt, timeout_ms)

    async def _run(self, attempt: Attempt) -> None:
        running_job.set(attempt.job)  # the task's context is its own
        try:
            if self._handler is None:
                result = await self._call_in_thread(attempt)
            elif self._processes is None:
                result = await self._handler(attempt.job)
            else:
                # The timeout begins when the child has started: importing is not the handler's time.
                on_start = functools.partial(self._limit, attempt)
                result = await self._processes.run(attempt.job, on_start)
        except BaseException as error:
            if issubclass(type(error), GeneratorExit) and not self._loop.is_running():
                raise  # the handler has not ended: its loop is closed
            self._end(attempt, None, error)
        else:
            self._end(attempt, result, None)

    def _end(self, attempt: Attempt, result: Any, error: BaseException | None) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.has_ended:
            self._set_hung(attempt, is_hung=False)
            if not issubclass(type(error), asyncio.CancelledError):
                self._ended_late(attempt, error)
            return
        attempt.has_ended = True
        if attempt.timed_out is not None:
            attempt.timed_out.__context__ = error
            result, error = None, attempt.timed_out
        if self._report is not None and (attempt.started_s or attempt.span is not None):
            self._report.ends(attempt, error)
        self._on_end(attempt, result, error)

    def _ended_late(self, attempt: Attempt, error: BaseException | None) -> None:
        """Report it if the job was given back: one that was cancelled or timed out has its status."""
        if attempt.is_given_up and not attempt.is_stopped:
            self._on_late(attempt.job, error)

    def _time_out(self, attempt: Attempt, timeout_ms: int) -> None:
        attempt.timed_out = JobTimedOut(attempt.job.saved_id(), timeout_ms)
        self._cancel(attempt)
        attempt.timer = self._loop.call_later(GRACE_S, self._leave, attempt)

    def _leave(self, attempt: Attempt) -> None:
        """End an attempt whose handler ignores that it was cancelled, or was cancelled before it began."""
        self._set_hung(attempt, is_hung=attempt.task is not None and not attempt.task.done())
        self._end(attempt, None, None)

    def _set_hung(self, attempt: Attempt, *, is_hung: bool) -> None:
        if attempt.is_hung is not is_hung:
            attempt.is_hung = is_hung
            self.hung += 1 if is_hung else -1
            self._on_hung()

    def _cancel(self, attempt: Attempt) -> None:
        """Ask the handler to stop, or kill its process; its timeout is over.

        A thread cannot be stopped, but its job's commands raise JobLost from now on.
        """
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.task is not None:
            with contextlib.suppress(BaseException):  # what the handler awaits may raise anything
                attempt.task.cancel()

    def stop(self, attempt: Attempt) -> None:
        """Cancel the handler of an attempt whose outcome is not wanted; wait up to ``GRACE_S``."""
        if attempt.is_stopped or attempt.has_ended:
            return
        attempt.is_stopped = True
        self._cancel(attempt)
        attempt.timer = self._loop.call_later(GRACE_S, self._leave, attempt)

    def give_up(self, attempt: Attempt, *, was_cancelled: bool = False) -> None:
        """End the attempt without an outcome: its job goes back to the queue.

        A handler that ``was_cancelled`` with all tasks cleans up, and is left to that.
        """
        attempt.has_ended = attempt.is_given_up = True
        if self._report is not None:
            self._report.ends(attempt, None)
        if attempt.task is None or not (was_cancelled and attempt.task.cancelling()):
            self._cancel(attempt)
        elif attempt.timer is not None:
            attempt.timer.cancel()

    async def _call_in_thread(self, attempt: Attempt) -> Any:
        ended: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        blocking_job = BlockingJob(attempt.job, self._portal)
        is_over = False  # the thread may end between the cancellation of the future and this task's turn

        def on_end(result: Any, error: BaseException | None) -> None:
            nonlocal is_over
            is_over = True
            if not ended.done():
                ended.set_result((result, error))  # as a pair: a future treats some exceptions specially
                return
            self._set_hung(attempt, is_hung=False)
            self._ended_late(attempt, error)

        # In the attempt's context, as a task of its own would be.
        self._threads.run(functools.partial(copy_context().run, self._function, blocking_job), on_end)
        try:
            result, error = await ended
        finally:
            if not is_over and (not ended.done() or ended.cancelled()):
                self._set_hung(attempt, is_hung=True)
            blocking_job.detach()
        if issubclass(type(error), StopIteration):
            raise RuntimeError("handler raised StopIteration") from error  # noqa: TRY004 - no wrong type
        if error is not None:
            raise error
        return await result if inspect.isawaitable(result) else result

    def end_threads(self) -> None:
        """End idle threads, now, and the others after their calls; may be called in any thread."""
        self._threads.close()

    async def close(self) -> None:
        """End idle threads, and all child processes."""
        self.end_threads()
        if self._processes is not None:
            await self._processes.close()


def check_handler(handler: Handler, executor: Executor) -> None:
    """Raise TypeError unless ``handler`` can run in this executor."""
    if not callable(handler):
        raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
    if executor != "auto" and is_coroutine_function(handler):
        raise TypeError(f"executor={executor!r} runs plain functions; a coroutine function runs on the loop")
    if executor == "process":
        HandlerRef.of(handler)


def check_executor(executor: Executor) -> None:
    """Raise ValueError if it is not one of ``Executor``."""
    if executor not in get_args(Executor):
        known = ", ".join(map(repr, get_args(Executor)))
        raise ValueError(f"executor must be one of {known}, not {executor!r}")


def is_coroutine_function(handler: Handler) -> bool:
    """Return whether calling ``handler`` gives a coroutine; also for callable objects and partials."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - asking for the method's own kind
    )


def outcome_of(
    attempt: Attempt,
    result: Any,
    error: BaseException | None,
    owner: JobActions,
    *,
    report_error: Callable[[BaseException], object],
) -> Outcome:
    """Return the attempt's outcome, even if its job, result or error is malformed."""
    try:
        if error is None:
            return succeed(attempt.job, result)
        return fail(attempt.job, error, owner.backoff_strategies)
    except BaseException as broken:  # noqa: BLE001 - options that are not a dict, …
        report_error(broken)
    try:
        job = _as_claimed(attempt, owner)
        return succeed(job, result) if error is None else fail(job, error, owner.backoff_strategies)
    except BaseException as worse:  # noqa: BLE001 - a result or an error that cannot even be looked at
        what = "result" if error is None else f"{kind_of(error)}"
        reason = Discard(f"the {what} cannot be read: {kind_of(worse)}")
        return fail(_as_claimed(attempt, owner), reason, {})


def _as_claimed(attempt: Attempt, owner: JobActions) -> Job:
    """Return the attempt's job as it was claimed, without what its handler changed."""
    raw_record, started_ms = attempt.job.claimed_record, attempt.job.started_ms
    job_id = attempt.raw_id.decode(errors="replace")
    return Job.claimed(owner, job_id, raw_record, attempt.claim, now_ms=started_ms)
