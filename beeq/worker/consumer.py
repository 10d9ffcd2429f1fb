"""The working part of a queue: its handler, how many jobs run at once, and for how long it works."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, overload

from beeq.client.announcer import Announcer
from beeq.settings import milliseconds, whole
from beeq.worker.runner import check_executor, check_handler

if TYPE_CHECKING:
    from beeq.worker.runner import Executor, Handler


class Consumer(Announcer):
    """What a queue is to whoever works on it; ``Queue`` is one."""

    @overload
    def process(self, handler: Handler, concurrency: int = 1, *, executor: Executor = "auto") -> Handler: ...
    @overload
    def process(
        self, handler: None = None, concurrency: int = 1, *, executor: Executor = "auto"
    ) -> Callable[[Handler], Handler]: ...
    def process(
        self, handler: Handler | None = None, concurrency: int = 1, *, executor: Executor = "auto"
    ) -> Handler | Callable[[Handler], Handler]:
        """Run ``handler`` for each job, up to ``concurrency`` at once. Also a decorator.

        Starts at once inside a running loop, else in ``run``. A coroutine function runs in the loop; a
        plain function in a thread, with the blocking face of the job.

        Args:
            handler: the function; None makes this a decorator, which returns the function itself.
            concurrency: how many jobs may run here at once.
            executor: ``thread`` insists on a plain function. ``process`` runs it in child processes, up
                to ``concurrency`` of them, each started when first needed and used again: for work
                that needs a core of its own, or must be stopped for certain. A timeout, a cancelled
                job and ``close`` kill the child, with all it has started in its process group; a
                child that dies fails the attempt. The child imports the handler by its name, so it is
                a function at the top level of a module, or something that can be pickled; what
                starts the work belongs below ``if __name__ == "__main__":``. Data, options and the
                result travel as JSON. The job has its blocking face, except that no events are heard.

        Raises:
            RuntimeError: the queue is no worker, or has a handler. QueueClosed.
            TypeError: the handler cannot run there: a coroutine function in a thread or process, a
                lambda or a function inside a function in a process.
            TypeError, ValueError: a concurrency that is no positive int, an unknown executor.
        """
        whole("concurrency", concurrency, at_least=1)
        check_executor(executor)
        if handler is None:

            def decorate(function: Handler) -> Handler:
                return self.process(function, concurrency, executor=executor)

            return decorate
        check_handler(handler, executor)
        self._session.process(handler, concurrency, executor)
        return handler

    @property
    def handler(self) -> Handler | None:
        """What ``process`` was given, or None."""
        return self._session.handler

    @property
    def concurrency(self) -> int:
        """How many jobs may run here at once; may be set until work begins."""
        return self._session.concurrency

    @concurrency.setter
    def concurrency(self, concurrency: int) -> None:
        self._session.concurrency = whole("concurrency", concurrency, at_least=1)

    async def run(self, burst: bool = False, *, catch_signals: bool = True) -> None:
        """Work until SIGINT, SIGTERM or ``close``; with ``burst`` until nothing is left that is due.

        The first signal lets running jobs end, the second hands them back. With ``catch_signals`` off
        they are left to whoever runs several queues in one process.
        """
        await self._session.run(burst=burst, catch_signals=catch_signals)

    async def check_stalled_jobs(self, interval: int | timedelta | None = None) -> int:
        """Look for stalled jobs now; return how many went back to the queue.

        Workers do this by themselves. With ``interval`` (ms or timedelta) it is repeated until ``close``.
        """
        await self._session.ensure()
        return await self._session.check_stalled_jobs(
            milliseconds("interval", interval, at_least=1) if interval else None
        )
