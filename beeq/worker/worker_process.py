"""One process's work: several queues that start together, stop together, and share the signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence

from beeq.errors import QueueClosed
from beeq.queue import Queue

logger = logging.getLogger("beeq")

DRAIN, HAND_BACK = 1, 2
#: "Now", in the words of ``Queue.close``, for which 0 is the default.
_AT_ONCE_MS = 1


class WorkerProcess:
    """Works on queues from ``work`` until stopped, or until they are empty.

    Args:
        queues: have their handlers already, or get them in ``_begin``.
    """

    def __init__(self, queues: Sequence[Queue] = ()) -> None:
        self._queues = list(queues)
        self._urgency = 0  # 0, DRAIN or HAND_BACK
        self._signals = 0
        self._shutdown_timeout_ms = 0
        self._stop_asked = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()

    async def work(
        self,
        *,
        burst: bool,
        shutdown_timeout_ms: int,
        on_started: Callable[[], None],
        stop_fd: int | None = None,
    ) -> None:
        """Connect, work, and return when stopped, or done.

        Args:
            burst: end when nothing is left that is due.
            shutdown_timeout_ms: how long running jobs may take to end once stopped.
            on_started: called once, when every queue is ready.
            stop_fd: the parent's pipe: a byte is an urgency, its end is DRAIN.

        Raises:
            RedisUnavailable: Redis is not there at the start. Later, the queues wait for it.
        """
        self._shutdown_timeout_ms = shutdown_timeout_ms
        self._catch_signals(stop_fd)
        runs: list[asyncio.Task[None]] = []
        try:
            if not await self._connected():
                return
            self._begin()
            on_started()
            runs = [asyncio.create_task(self._run(queue, burst=burst)) for queue in self._queues]
            await asyncio.gather(*runs)
        finally:
            await self._end(runs)

    async def _connected(self) -> bool:
        """Connect all queues; return whether nobody wants us to stop meanwhile."""
        connecting = asyncio.create_task(self._connect())
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

    async def _connect(self) -> None:
        await asyncio.gather(*(queue.connect() for queue in self._queues))

    async def _run(self, queue: Queue, *, burst: bool) -> None:
        try:
            # Signals belong to the process, not to one of its queues.
            await queue.run(burst, catch_signals=False)
        except (QueueClosed, TimeoutError):
            if not self._urgency:
                raise
            # Stopped before it began; or stopped, and late: ``_close_in_time`` says so.

    def _begin(self) -> None:
        """Do what belongs between connecting and working."""

    def _handed_back(self, queue: Queue) -> None:
        """Say that running jobs did not end in time."""
        logger.warning("queue %s: running jobs were handed back", queue.name)

    async def _end(self, runs: Sequence[asyncio.Task[None]]) -> None:
        for queue in self._queues:
            self._close(queue, _AT_ONCE_MS)
        await asyncio.gather(*self._closing, *runs, return_exceptions=True)

    # Stopping.

    def _catch_signals(self, stop_fd: int | None) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._signalled)
        if stop_fd is None:
            loop.add_signal_handler(signal.SIGINT, self._signalled)
        else:
            loop.add_reader(stop_fd, self._told, stop_fd)

    def _signalled(self) -> None:
        self._signals += 1
        self.stop(self._signals)

    def _told(self, stop_fd: int) -> None:
        word = os.read(stop_fd, 1)
        if not word:
            asyncio.get_running_loop().remove_reader(stop_fd)
        self.stop(word[0] if word else DRAIN)

    def stop(self, urgency: int) -> None:
        """Stop, or stop faster: with DRAIN running jobs may end, with HAND_BACK they go back now."""
        if urgency <= self._urgency:
            return
        self._urgency = urgency
        self._stop_asked.set()
        for queue in self._queues:
            self._close(queue, self._shutdown_timeout_ms or _AT_ONCE_MS if urgency == DRAIN else _AT_ONCE_MS)

    def _close(self, queue: Queue, timeout_ms: int) -> None:
        closing = asyncio.get_running_loop().create_task(self._close_in_time(queue, timeout_ms))
        self._closing.add(closing)

    async def _close_in_time(self, queue: Queue, timeout_ms: int) -> None:
        try:
            await queue.close(timeout_ms)
        except TimeoutError:
            if timeout_ms != _AT_ONCE_MS or self._shutdown_timeout_ms in (0, _AT_ONCE_MS):
                self._handed_back(queue)
