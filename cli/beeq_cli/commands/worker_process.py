"""What ``beeq worker`` works on in one process: the user's queues, the built-in ones, and the mirror."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from beeq import Queue, RedisError
from beeq.mirror.mirror import Mirror
from beeq.processors.base import Processor
from beeq.worker import worker_process as process
from beeq_cli import logs
from beeq_cli.running import connect

#: How long the mirror may take to catch up in the end.
_SETTLE_S = 10.0


class WorkerProcess(process.WorkerProcess):
    """Works on queues, and says what happens in them.

    Args:
        queues: have their handlers already.
        mirror: written while the process lasts.
    """

    def __init__(self, queues: Sequence[Queue] = (), mirror: Mirror | None = None) -> None:
        super().__init__(queues)
        self._mirror = mirror
        self._processors: list[tuple[Queue, Processor[Any], int]] = []

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
    ) -> None:
        """Connect, work, and return when stopped, or done; see the base."""
        for queue in self._queues:
            logs.follow(queue)
        await super().work(
            burst=burst, shutdown_timeout_ms=shutdown_timeout_ms, on_started=on_started, stop_fd=stop_fd
        )

    async def _connect(self) -> None:
        await asyncio.gather(*map(connect, self._queues))

    def _begin(self) -> None:
        for queue, processor, concurrency in self._processors:
            queue.process(processor, concurrency)
        if self._mirror is not None:
            self._mirror.start()

    def _handed_back(self, queue: Queue) -> None:
        logs.logger.warning("running jobs were handed back", extra={"queue": queue.name})

    async def _end(self, runs: Sequence[asyncio.Task[None]]) -> None:
        await super()._end(runs)
        for _queue, processor, _concurrency in self._processors:
            await processor.close()
        if self._mirror is not None:
            await self._settle(self._mirror)

    async def _settle(self, mirror: Mirror) -> None:
        """Let the mirror catch up, if it can and nobody is in a hurry; what is owed stays in Redis."""
        try:
            timeout_s = 0 if self._urgency == process.HAND_BACK else _SETTLE_S
            if mirror.is_running and not await mirror.settle(timeout_s):
                logs.logger.warning("the mirror is behind; the next worker will write what is owed")
        except RedisError as error:
            logs.logger.warning("the mirror is behind: %s", error)
        finally:
            await mirror.stop()
