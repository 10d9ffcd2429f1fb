"""The working part of a queue: its handler, how many jobs run at once, and for how long it works."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, overload

from beeq.announcer import Announcer
from beeq.settings import milliseconds, whole

if TYPE_CHECKING:
    from beeq.worker.runner import Handler


class Consumer(Announcer):
    """What a queue is to whoever works on it; ``Queue`` is one."""

    @overload
    def process(self, handler: Handler, concurrency: int = 1) -> Handler: ...
    @overload
    def process(self, handler: None = None, concurrency: int = 1) -> Callable[[Handler], Handler]: ...
    def process(
        self, handler: Handler | None = None, concurrency: int = 1
    ) -> Handler | Callable[[Handler], Handler]:
        """Run ``handler`` for each job, up to ``concurrency`` at once. Also a decorator.

        Starts at once inside a running loop, else in ``run``. A coroutine function runs in the loop; a
        plain function in a thread, with the blocking face of the job.

        Raises:
            RuntimeError: the queue is no worker, or has a handler. QueueClosed.
            TypeError, ValueError: a concurrency that is no positive int.
        """
        whole("concurrency", concurrency, at_least=1)
        if handler is None:

            def decorate(function: Handler) -> Handler:
                self._lifecycle.process(function, concurrency)
                return function

            return decorate
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
        self._lifecycle.process(handler, concurrency)
        return handler

    @property
    def handler(self) -> Handler | None:
        """What ``process`` was given, or None."""
        return self._lifecycle.handler

    @property
    def concurrency(self) -> int:
        """How many jobs may run here at once; may be set until work begins."""
        return self._lifecycle.concurrency

    @concurrency.setter
    def concurrency(self, concurrency: int) -> None:
        self._lifecycle.concurrency = whole("concurrency", concurrency, at_least=1)

    async def run(self, burst: bool = False, *, catch_signals: bool = True) -> None:
        """Work until SIGINT, SIGTERM or ``close``; with ``burst`` until nothing is left that is due.

        The first signal lets running jobs end, the second hands them back. With ``catch_signals`` off
        they are left to whoever runs several queues in one process.
        """
        await self._lifecycle.run(burst=burst, catch_signals=catch_signals)

    async def check_stalled_jobs(self, interval: int | timedelta | None = None) -> int:
        """Look for stalled jobs now; return how many went back to the queue.

        Workers do this by themselves. With ``interval`` (ms or timedelta) it is repeated until ``close``.
        """
        await self._lifecycle.ensure()
        return await self._lifecycle.check_stalled_jobs(
            milliseconds("interval", interval, at_least=1) if interval else None
        )
