"""``run_workers``: what ``beeq worker -w N`` does, from Python."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import NoReturn

from beeq.process import loop_factory
from beeq.queue import Queue
from beeq.settings import milliseconds, whole
from beeq.worker.supervisor import Lifeline, ProcessSupervisor
from beeq.worker.worker_process import WorkerProcess

logger = logging.getLogger("beeq")

_FAILED = 1
SHUTDOWN_TIMEOUT_MS = 30_000


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
            ``make`` raised, or Redis is not there. What it was is in the log of "beeq".
        TypeError, ValueError: a bad argument.
    """
    whole("processes", processes, at_least=1)
    shutdown_timeout_ms = milliseconds("shutdown_timeout", shutdown_timeout)
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_workers catches signals: call it in the main thread")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass  # none runs, as it should be
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
    """Work, and end the process: what the caller of ``run_workers`` does next is its parent's."""
    code = _FAILED
    try:
        made = make()
        process = WorkerProcess([made] if isinstance(made, Queue) else list(made))
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(
                process.work(
                    burst=burst,
                    shutdown_timeout_ms=shutdown_timeout_ms,
                    on_started=lifeline.tell_ready,
                    stop_fd=lifeline.stop_fd,
                )
            )
        code = 0
    except BaseException:  # the process ends here, whatever it was
        logger.exception("a worker process ended")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
