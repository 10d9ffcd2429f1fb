"""One process's work: several queues that start together, stop together, and share the signals."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from beeq import Queue, QueueClosed, RedisError
from beeq.mirror.mirror import Mirror
from beeq.processors.base import Processor
from beeq_cli import logs
from beeq_cli.running import connect

DRAIN, HAND_BACK = 1, 2
#: "Now", in the words of ``Queue.close``, for which 0 is the default.
_AT_ONCE_MS = 1
#: How long the mirror may take to catch up in the end.
_SETTLE_S = 10.0


class Shift:
    """Works on queues from ``work`` until stopped, or until they are empty.

    Args:
        queues: have their handlers already.
        mirror: written while the shift lasts.
    """

    def __init__(self, queues: Sequence[Queue] = (), mirror: Mirror | None = None) -> None:
        self._mirror = mirror
        self._queues = list(queues)
        self._processors: list[tuple[Queue, Processor[Any], int]] = []
        self._urgency = 0  # 0, DRAIN or HAND_BACK
        self._signals = 0
        self._shutdown_timeout_ms = 0
        self._stop_asked = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()

    def add(self, queue: Queue, processor: Processor[Any], concurrency: int) -> None:
        """Work on a built-in queue as well."""
        self._queues.append(queue)
        self._processors.append((queue, processor, concurrency))

    async def work(
        self,
        *,
        burst: bool,
        shutdown_timeout_ms: int,
        on_started: Callable[[], None],
        stop_fd: int | None = None,
    ) -> int:
        """Connect, work, and return the exit code.

        Args:
            burst: end when nothing is left that is due.
            shutdown_timeout_ms: how long running jobs may take to end once stopped.
            on_started: called once, when every queue is ready.
            stop_fd: the parent's pipe: a byte is an urgency, its end is DRAIN.

        Raises:
            RedisUnavailable: Redis is not there at the start. Later, the queues wait for it.
        """
        self._shutdown_timeout_ms = shutdown_timeout_ms
        for queue in self._queues:
            logs.follow(queue)
        self._catch_signals(stop_fd)
        runs: list[asyncio.Task[None]] = []
        try:
            if not await self._connected():
                return 0
            for queue, processor, concurrency in self._processors:
                queue.process(processor, concurrency)
            if self._mirror is not None:
                self._mirror.start()
            on_started()
            runs = [asyncio.create_task(self._run(queue, burst=burst)) for queue in self._queues]
            await asyncio.gather(*runs)
        finally:
            await self._end(runs)
        return 0

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
        await asyncio.gather(*map(connect, self._queues))

    async def _run(self, queue: Queue, *, burst: bool) -> None:
        try:
            # Signals belong to the process, not to one of its queues.
            await queue.run(burst, catch_signals=False)
        except (QueueClosed, TimeoutError):
            if not self._urgency:
                raise
            # Stopped before it began; or stopped, and late: ``_close_in_time`` says so.

    async def _end(self, runs: Sequence[asyncio.Task[None]]) -> None:
        for queue in self._queues:
            self._close(queue, _AT_ONCE_MS)
        await asyncio.gather(*self._closing, *runs, return_exceptions=True)
        for _queue, processor, _concurrency in self._processors:
            await processor.close()
        if self._mirror is not None:
            await self._settle(self._mirror)

    async def _settle(self, mirror: Mirror) -> None:
        """Let the mirror catch up, if it can and nobody is in a hurry; what is owed stays in Redis."""
        try:
            timeout_s = 0 if self._urgency == HAND_BACK else _SETTLE_S
            if mirror.is_running and not await mirror.settle(timeout_s):
                logs.logger.warning("the mirror is behind; the next worker will write what is owed")
        except RedisError as error:
            logs.logger.warning("the mirror is behind: %s", error)
        finally:
            await mirror.stop()

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
                logs.logger.warning("running jobs were handed back", extra={"queue": queue.name})
