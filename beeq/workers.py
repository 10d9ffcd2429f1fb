"""Whole worker processes: ``WorkerProcess`` works on the queues of one, ``run_workers`` starts several."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from beeq.errors import QueueClosed
from beeq.process import loop_factory
from beeq.queue import Queue
from beeq.settings import milliseconds, whole
from beeq.worker.supervisor import Lifeline, ProcessSupervisor

logger = logging.getLogger("beeq")

_FAILED = 1
SHUTDOWN_TIMEOUT_MS = 30_000
#: How urgently to stop: running jobs may end, or go back to their queue now.
DRAIN, HAND_BACK = 1, 2
#: The shortest timeout that ``Queue.close`` takes, for which 0 is the default.
_AT_ONCE_MS = 1


def _warn_of_hand_back(queue: Queue) -> None:
    logger.warning("queue %s: running jobs were handed back", queue.name)


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
        self._shutdown_timeout_ms = 0
        self._stop_asked = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        #: 0, DRAIN or HAND_BACK.
        self.urgency = 0

    async def work(
        self,
        *,
        burst: bool,
        shutdown_timeout_ms: int,
        on_started: Callable[[], None],
        stop_fd: int | None = None,
    ) -> None:
        """Connect, work, and return when stopped, or done; with ``burst``, when nothing is left that is due.

        ``on_started`` is called once, when every queue is ready. ``stop_fd`` is the parent's pipe: a byte is
        an urgency, its end is DRAIN. Raises RedisUnavailable at the start; later, the queues wait for Redis.
        """
        self._shutdown_timeout_ms = shutdown_timeout_ms
        self._catch_signals(stop_fd)
        runs: list[asyncio.Task[None]] = []
        try:
            if await self._connected():
                on_started()
                runs = [asyncio.create_task(self._run(queue, burst=burst)) for queue in self._queues]
                await asyncio.gather(*runs)
        finally:
            self._close_all(_AT_ONCE_MS)
            await asyncio.gather(*self._closing, *runs, return_exceptions=True)

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
        except (QueueClosed, TimeoutError):
            if not self.urgency:
                raise
            # Stopped before it began; or stopped, and late: ``_close_in_time`` says so.

    # Stopping.

    def _catch_signals(self, stop_fd: int | None) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal)
        if stop_fd is None:
            loop.add_signal_handler(signal.SIGINT, self._on_signal)
        else:
            loop.add_reader(stop_fd, self._parent_wrote, stop_fd)

    def _on_signal(self) -> None:
        self._signals += 1
        self._stop(self._signals)

    def _parent_wrote(self, stop_fd: int) -> None:
        urgency = os.read(stop_fd, 1)
        if not urgency:
            asyncio.get_running_loop().remove_reader(stop_fd)
        self._stop(urgency[0] if urgency else DRAIN)

    def _stop(self, urgency: int) -> None:
        """Close the queues; close them again, and faster, when the urgency has grown."""
        if urgency <= self.urgency:
            return
        self.urgency = urgency
        self._stop_asked.set()
        self._close_all(self._shutdown_timeout_ms or _AT_ONCE_MS if urgency == DRAIN else _AT_ONCE_MS)

    def _close_all(self, timeout_ms: int) -> None:
        self._closing |= {
            asyncio.get_running_loop().create_task(self._close_in_time(queue, timeout_ms))
            for queue in self._queues
        }

    async def _close_in_time(self, queue: Queue, timeout_ms: int) -> None:
        try:
            await queue.close(timeout_ms)
        except TimeoutError:
            if timeout_ms != _AT_ONCE_MS or self._shutdown_timeout_ms in (0, _AT_ONCE_MS):
                self._on_hand_back(queue)


def run_workers(
    make: Callable[[], Queue | Iterable[Queue]],
    *,
    processes: int,
    burst: bool = False,
    shutdown_timeout: int | timedelta = SHUTDOWN_TIMEOUT_MS,
) -> None:
    """Work in several processes until SIGINT or SIGTERM comes; return when all have ended.

    The first signal lets running jobs end, the second hands them back to their queue. A process that dies
    is replaced; its jobs run again after two stall intervals at most. It forks: call it before anything has
    started threads, from a script's main thread, with no event loop running.

    Args:
        make: called in each process; returns a queue, or several, with their handlers (``process``).
        processes: how many.
        burst: end when nothing is left that is due.
        shutdown_timeout: how long running jobs may take to end (ms or timedelta); then they are handed back.

    Raises:
        RuntimeError: called in another thread or inside a running loop; or the first process could not begin:
            ``make`` raised, or Redis is not there. The log of "beeq" has the traceback.
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
    outcome = ProcessSupervisor(
        processes,
        is_burst=burst,
        shutdown_timeout_s=shutdown_timeout_ms / 1000,
        hopeless_codes=(_FAILED,),
        on_started=lambda: logger.info("%d worker processes started", processes),
    ).run()
    if isinstance(outcome, Lifeline):
        _be_child(make, outcome, burst=burst, shutdown_timeout_ms=shutdown_timeout_ms)
    if outcome:
        raise RuntimeError("the first worker process could not begin; the log says why")


def _be_child(
    make: Callable[[], Queue | Iterable[Queue]], lifeline: Lifeline, *, burst: bool, shutdown_timeout_ms: int
) -> NoReturn:
    """Work, and end the process: only the parent returns to the caller of ``run_workers``."""
    code = _FAILED
    try:
        made = make()
        process = WorkerProcess([made] if isinstance(made, Queue) else list(made))
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(
                process.work(
                    burst=burst,
                    shutdown_timeout_ms=shutdown_timeout_ms,
                    on_started=lifeline.report_ready,
                    stop_fd=lifeline.stop_fd,
                )
            )
        code = 0
    except BaseException:  # nothing may pass into the parent's code
        logger.exception("a worker process ended")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
