"""Worker processes: ``WorkerProcess`` works on the queues of one process, ``run_workers`` starts several.

A process ends in time, whatever its handlers do. The loop closes the queues, but a handler may block the loop
for ever; so a thread keeps the time limit, too. Signal handlers and the parent's pipe start it. When the loop
has not closed the queues by then, the thread gives the jobs back over connections of its own, logs it, and
ends the process with code 1. A handler that holds the interpreter itself (in C code) stops that thread as
well: then the parent kills the process; without a parent a guard process does (``end_guard``), or
``faulthandler`` if the C code checks for signals, as regular expressions do. (If the parent was killed, too,
the process ends when the C code does.)
"""

import asyncio
import contextlib
import faulthandler
import functools
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NoReturn

from beeq.client.closing import AT_ONCE_MS, CLOSE_GRACE_S, Ending, ended
from beeq.errors import QueueClosed
from beeq.logs.records import HANDED_BACK, log_event, log_stop
from beeq.operations.pauses import QueuePaused
from beeq.process import (
    END_LIMIT_S,
    STOPS,
    LastResort,
    end_process,
    loop_factory,
    signal_name,
    stop_signals,
)
from beeq.queue import Queue
from beeq.settings import Duration, milliseconds, whole
from beeq.supervision.end_guard import EndGuard
from beeq.supervision.loop_watch import named
from beeq.supervision.signal_thread import signal_thread
from beeq.telemetry.tracing import flush_spans
from beeq.worker.heartbeat import LeftJobs, give_back_all
from beeq.worker.supervisor import HANDLERS_HANG, QUEUE_PAUSED, Lifeline, ProcessSupervisor

#: Logged once, when every queue is ready.
STARTED = "Queue worker started"
_FAILED = 1
SHUTDOWN_TIMEOUT_MS = 30_000
#: How urgently to stop: running jobs may end, or go back to their queue now.
DRAIN, HAND_BACK = 1, 2
#: A process in which too many handlers hang ends at the latest so long after its jobs' time.
_GRACE_S = 20.0
#: If the loop has not closed its queues so long after the jobs' time, it is blocked …
_BLOCKED_S = CLOSE_GRACE_S + 1.5
#: … and the thread gives the jobs back, and logs it.
_GIVE_BACK_S = 1.5
_SAY_S = 0.5
#: Where the thread has no chance, ``faulthandler`` ends the process so long after that, and shows the stack …
_FAULT_S = _GIVE_BACK_S + _SAY_S + 1
#: … a second process ends it if no handler of the signal ran, which would have started ``faulthandler`` …
_FORCE_S = _FAULT_S + 1
#: … and so long after the jobs' time where neither handler nor thread has heard the signal.
_UNREAD_S = 2.0
#: How long OpenTelemetry's spans may take to be sent in the end.
_SPANS_S = 1.0


def _warn_of_hand_back(queue: Queue) -> None:
    log_event(logging.WARNING, HANDED_BACK, queue=queue.name)


class WorkerProcess:
    """Works on several queues, which start together, stop together, and share the process's signals.

    ``on_hand_back`` is called with a queue whose running jobs did not end in time.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        *,
        connect: Callable[[Queue], Awaitable[object]] = Queue.connect,
        on_hand_back: Callable[[Queue], None] = _warn_of_hand_back,
    ) -> None:
        self._queues = queues
        self._connect = connect
        self._on_hand_back = on_hand_back
        self._signals = 0
        self._guard: EndGuard | None = None
        self._signals_heard = {"handler": 0, "thread": 0}
        self._deadline: LastResort | None = None
        self._shutdown_timeout_ms = 0
        self._stop_asked = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._last_resort: LastResort | None = None
        #: 0, DRAIN or HAND_BACK.
        self.urgency = 0
        #: The exit code: 0, ``HANDLERS_HANG`` or ``QUEUE_PAUSED``.
        self.code = 0

    async def work(
        self,
        *,
        burst: bool,
        shutdown_timeout_ms: int,
        on_started: Callable[[], None],
        stop_fd: int | None = None,
        is_guarded: bool = False,
    ) -> None:
        """Connect, work, and return when stopped, or done; with ``burst``, when nothing is left that is due.

        ``on_started`` is called once, when every queue is ready. ``stop_fd`` is the parent's pipe: a byte is
        an urgency, its end means DRAIN. When too many handlers hang, this also drains and returns if it has a
        parent (which starts another process) or is a burst (which would not end); end the process with
        ``code`` then. If the loop does not close its queues in time, this never returns: the process is
        ended, with ``is_guarded`` even when nothing inside it can do so.

        Raises RedisUnavailable at the start; later, the queues wait for Redis.
        """
        if burst or stop_fd is not None:
            for queue in self._queues:
                queue.on("hung", self._handlers_hang)
        self._shutdown_timeout_ms = shutdown_timeout_ms
        self._deadline = LastResort(math.inf, code=_FAILED, last_act=_give_back_and_say)
        numbers: Sequence[int] = STOPS
        loop = asyncio.get_running_loop()
        if stop_fd is not None:
            listen = functools.partial(self._listen_to_parent, stop_fd, loop)
            threading.Thread(target=listen, name="beeq-parent", daemon=True).start()
            numbers = (signal.SIGTERM,)  # SIGINT is the parent's to pass on
        at_once = functools.partial(self._signal_heard, "handler")

        def heard(number: int) -> None:
            if number in numbers:
                self._signal_heard("thread")
                # Of two signals that come during one call of C code, the main thread's handler hears one.
                with contextlib.suppress(RuntimeError):  # the loop has closed
                    urgency = min(self._signals_heard["thread"], HAND_BACK)
                    loop.call_soon_threadsafe(self._stop, urgency, signal_name(number))

        with stop_signals(self._on_signal, numbers=numbers, at_once=at_once), signal_thread(heard) as signals:
            if is_guarded and signals is not None:
                self._guard = EndGuard(signals, (shutdown_timeout_ms / 1000 + _UNREAD_S, _UNREAD_S))
            try:
                await self._work(burst=burst, on_started=on_started)
            finally:
                for last_resort in filter(None, (self._last_resort, self._deadline)):
                    last_resort.cancel()
                faulthandler.cancel_dump_traceback_later()
                if self._guard is not None:
                    self._guard.close()

    async def _work(self, *, burst: bool, on_started: Callable[[], None]) -> None:
        runs: list[asyncio.Task[None]] = []
        try:
            if await self._connected():
                on_started()
                runs = [asyncio.create_task(self._run(queue, burst=burst)) for queue in self._queues]
                await asyncio.gather(*runs)
        finally:
            self._close_all(AT_ONCE_MS)
            ending = Ending()  # this may be cancelled meanwhile, and the jobs go back all the same
            tasks = [*self._closing, *runs]
            await ending.step(2 * CLOSE_GRACE_S, lambda: [ended(tasks)])
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.exception()  # it was logged already, or is raised
            ending.over()

    async def _connected(self) -> bool:
        """Connect all queues; return whether that was done before anything asked to stop."""
        connecting: asyncio.Future[Any] = asyncio.gather(*map(self._connect, self._queues))
        stop = asyncio.create_task(self._stop_asked.wait())
        try:
            await asyncio.wait([connecting, stop], return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                connecting.result()
            return not stop.done()
        finally:
            connecting.cancel()
            stop.cancel()
            await asyncio.gather(connecting, stop, return_exceptions=True)

    async def _run(self, queue: Queue, *, burst: bool) -> None:
        try:
            # Signals belong to the process, not to one of its queues.
            await queue.run(burst, catch_signals=False)
        except QueuePaused as paused:  # the other queues are worked off
            log_event(logging.WARNING, f"the burst ends here: {paused.left}", queue=queue.name)
            self.code = self.code or QUEUE_PAUSED
        except (QueueClosed, TimeoutError):
            if not self.urgency:
                raise
            # Stopped before it began; or stopped, and late: ``_close_in_time`` says so.

    # Stopping.

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        self._stop(self._signals, signal_name(number))

    def _signal_heard(self, where: str) -> None:
        """Start the time limit; called by the signal's handler, and in a thread: the loop may be blocked."""
        self._signals_heard[where] += 1
        limit_s = self._limit_end(max(self._signals_heard.values()))
        with contextlib.suppress(Exception):  # there is no standard error
            faulthandler.dump_traceback_later(limit_s + _FAULT_S, exit=True)

    def _limit_end(self, urgency: int) -> float:
        """Limit the process's remaining time, even if the loop is blocked; return it in s. For any thread."""
        limit_s = _BLOCKED_S + (self._shutdown_timeout_ms / 1000 if urgency == DRAIN else 0)
        if self._deadline is not None:
            self._deadline.begin(limit_s)
        if self._guard is not None:
            self._guard.begin(limit_s + _FORCE_S)
        return limit_s

    def _handlers_hang(self, _count: int) -> None:
        """Start to end, unless that is under way: the other jobs may end, or go back."""
        if not self.urgency:
            self.code = HANDLERS_HANG
            # Neither its parent nor a signal has asked the process to stop: nothing else would end it.
            self._last_resort = LastResort(self._shutdown_timeout_ms / 1000 + _GRACE_S, code=HANDLERS_HANG)
            self._last_resort.begin()
            self._stop(DRAIN, "too many handlers hang")

    def _listen_to_parent(self, stop_fd: int, loop: asyncio.AbstractEventLoop) -> None:
        """Read the parent's pipe in a thread of its own: the loop may be blocked."""
        while True:
            wrote = os.read(stop_fd, 1)
            urgency = wrote[0] if wrote else DRAIN
            self._limit_end(urgency)
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(self._stop, urgency, "" if wrote else "the parent process is gone")
            if not wrote:
                return

    def _stop(self, urgency: int, why: str) -> None:
        """Close the queues; close them again, and faster, when the urgency has grown.

        ``why`` is logged; empty: the parent asks for it, and has said so.
        """
        if urgency <= self.urgency:
            return
        self.urgency = urgency
        if why:
            running = sum(queue.worker_health().running for queue in self._queues)
            allowed_s = self._shutdown_timeout_ms / 1000 if urgency == DRAIN else None
            log_stop(why, running, allowed_s=allowed_s)
        self._stop_asked.set()
        self._close_all(self._shutdown_timeout_ms or AT_ONCE_MS if urgency == DRAIN else AT_ONCE_MS)

    def _close_all(self, timeout_ms: int) -> None:
        self._closing |= {
            asyncio.get_running_loop().create_task(self._close_in_time(queue, timeout_ms))
            for queue in self._queues
        }

    async def _close_in_time(self, queue: Queue, timeout_ms: int) -> None:
        try:
            await queue.close(timeout_ms)
        except TimeoutError:
            if timeout_ms != AT_ONCE_MS or self._shutdown_timeout_ms in (0, AT_ONCE_MS):
                self._on_hand_back(queue)


def _give_back_and_say() -> str:
    """Give back what the blocked loop holds, and log what is left; the log may hang, too."""
    said = threading.Thread(target=_say_left, args=(give_back_all(_GIVE_BACK_S),), daemon=True)
    said.start()
    said.join(_SAY_S)
    return ""


def _say_left(left: Sequence[LeftJobs]) -> None:
    parts = [
        f"{what} of queue {jobs.queue_name}: {named(ids)}"
        for jobs in left
        for what, ids in (("handed back", jobs.given_back), ("left to a stall check", jobs.ids))
        if ids
    ]
    what = "the process did not stop in time and is ended: its event loop is blocked"
    log_event(logging.ERROR, f"{what}; {'; '.join(parts) or 'no jobs are left'}")


def started_line(queues: Iterable[Queue], processes: int, *facts: str) -> str:
    """Return what the log says once all queues are ready: which, where, their places, and ``facts``."""
    places: dict[str, list[str]] = {}
    for queue in queues:
        where = f"on {queue.connector.shown}, prefix {queue.settings.prefix}"
        count = f"{queue.concurrency} place{'s' if queue.concurrency > 1 else ''}"
        places.setdefault(where, []).append(f"{queue.name} ({count})")
    groups = [f"{', '.join(names)} {where}" for where, names in places.items()]
    count = f"{processes} process{'es' if processes > 1 else ''}"
    return f"{STARTED}: {'; '.join((*groups, count, *facts))}"


def log_end(began_s: float) -> None:
    """Log that the work has ended, which began then by the monotonic clock."""
    ran_s = time.monotonic() - began_s
    log_event(logging.INFO, f"Queue worker stopped after {ran_s:.1f} s", duration_ms=round(ran_s * 1000))


def run_workers(
    make: Callable[[], Queue | Iterable[Queue]],
    *,
    processes: int,
    burst: bool = False,
    shutdown_timeout: Duration = SHUTDOWN_TIMEOUT_MS,
) -> None:
    """Work in several processes until SIGINT or SIGTERM comes; return when all have ended.

    The first signal lets running jobs end, the second hands them back to their queue. A process that a
    handler keeps from stopping is ended some seconds after its time; the log says what was left. One that
    dies is replaced; its jobs run again after two stall intervals at most. One in which too many handlers
    hang (``max_hung``) takes no more jobs, lets those that run end, and is replaced, too. It forks: call it
    before anything has started threads, from a script's main thread, with no event loop running.

    Args:
        make: called in each process; returns a queue, or several, with their handlers (``process``).
        processes: how many.
        burst: end when nothing is left that is due.
        shutdown_timeout: how long running jobs may take to end (ms, timedelta or text like ``30s``), after a
            signal or when too many handlers hang; then they are handed back.

    Raises:
        RuntimeError: called in another thread or inside a running loop; or the first process could not begin:
        ``make`` raised, or Redis could not be reached; or a burst has left jobs in a paused queue. The log
            of "beeq" has the traceback, or names the queue.
        TypeError, ValueError: a bad argument.
    """
    whole("processes", processes, at_least=1)
    shutdown_timeout_ms = milliseconds("shutdown_timeout", shutdown_timeout)
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_workers catches signals: call it in the main thread")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass  # no loop runs: a fork is safe
    else:
        raise RuntimeError("run_workers forks: call it while no event loop runs")
    began_s = time.monotonic()
    outcome = ProcessSupervisor(
        processes,
        is_burst=burst,
        shutdown_timeout_s=shutdown_timeout_ms / 1000,
        hopeless_codes=(_FAILED,),
        on_started=functools.partial(log_event, logging.INFO),
    ).run()
    if isinstance(outcome, Lifeline):
        _be_child(make, outcome, processes=processes, burst=burst, shutdown_timeout_ms=shutdown_timeout_ms)
    if outcome == QUEUE_PAUSED:
        raise RuntimeError("jobs are left in a queue that is paused; the log says which")
    if outcome:
        raise RuntimeError("the first worker process could not begin; the log says why")
    log_end(began_s)


def _be_child(
    make: Callable[[], Queue | Iterable[Queue]],
    lifeline: Lifeline,
    *,
    processes: int,
    burst: bool,
    shutdown_timeout_ms: int,
) -> NoReturn:
    """Work, and end the process: only the parent returns to the caller of ``run_workers``."""
    code = _FAILED
    try:
        made = make()
        queues = [made] if isinstance(made, Queue) else list(made)
        process = WorkerProcess(queues)
        runner = asyncio.Runner(loop_factory=loop_factory())
        try:
            runner.run(
                process.work(
                    burst=burst,
                    shutdown_timeout_ms=shutdown_timeout_ms,
                    on_started=lambda: lifeline.report_ready(started_line(queues, processes)),
                    stop_fd=lifeline.stop_fd,
                )
            )
            code = process.code
        finally:
            LastResort(END_LIMIT_S, code=code).begin()  # the runner's own end waits for what hangs
            runner.close()
    except BaseException as ending:  # noqa: BLE001 - nothing may pass into the parent's code
        log_event(logging.ERROR, "a worker process ended", error=ending, has_trace=True)
    finally:
        flush_spans(_SPANS_S)
        end_process(code)
