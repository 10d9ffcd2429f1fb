"""Reads the queues' gauges from Redis at a scrape: over connections of its own, within a bounded time.

A handler may block the queue's own loop, and its connections may hang: neither is used, unless the queue was
given a client that works in its own loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from beeq.client.reader import Reader, Stats
from beeq.errors import BeeqError, RedisRefused, is_expected
from beeq.logs.records import log_event
from beeq.operations.pauses import read_pause
from beeq.queue import Queue
from beeq.redis.connector import Connector
from beeq.redis.pipeline import Pipeline

T = TypeVar("T")

#: The longest wait for Redis, all queues together.
READ_TIMEOUT_S = 2.0
#: How long saying goodbye may take.
_CLOSE_S = 0.5


@dataclass(frozen=True, slots=True)
class QueueGauges:
    """One queue's gauges."""

    stats: Stats
    is_paused: bool


class _QueueLooker:
    """Reads one queue, in the loop in which it is used first."""

    def __init__(self, queue: Queue, *, has_own_connection: bool) -> None:
        self._queue = queue
        self._timeout_ms = queue.settings.redis_timeout
        self._connector: Connector | None = None
        self._pipeline: Pipeline | None = None
        if has_own_connection and queue.connector.client is None:
            self._connector, _ = queue.connector.twin()

    async def read(self) -> QueueGauges:
        queue = self._queue
        if self._connector is None:
            return await self._in_loop_of_queue(self._of_queue)
        pipeline = self._own_pipeline(self._connector)
        reader = Reader(pipeline, queue.keys, scan_count=queue.settings.redis_scan_count)
        stats, pause = await asyncio.gather(reader.stats(), read_pause(pipeline, queue.keys))
        return QueueGauges(stats, is_paused=pause is not None)

    async def is_answered(self) -> bool:
        """Return whether Redis answers; a refusal is an answer, too."""
        with contextlib.suppress(RedisRefused):
            if self._connector is None:
                await self._in_loop_of_queue(self._queue.paused)
            else:
                await read_pause(self._own_pipeline(self._connector), self._queue.keys)
        return True

    def _own_pipeline(self, connector: Connector) -> Pipeline:
        if self._pipeline is None:
            self._pipeline = Pipeline(connector, timeout_ms=self._timeout_ms)
        return self._pipeline

    async def _in_loop_of_queue(self, look: Callable[[], Coroutine[Any, Any, T]]) -> T:
        loop = self._queue.loop
        if loop is None or loop is asyncio.get_running_loop():
            return await look()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(look(), loop))

    async def _of_queue(self) -> QueueGauges:
        return QueueGauges(await self._queue.stats(), is_paused=await self._queue.paused() is not None)

    async def close(self) -> None:
        if self._pipeline is not None:
            await self._pipeline.close()
        if self._connector is not None:
            await self._connector.close()


class GaugeReader:
    """Reads several queues; use it in one loop, and ``close`` it there.

    In the queues' own loop their connections can be used: ``has_own_connection=False``.
    """

    def __init__(self, queues: Iterable[Queue], *, has_own_connection: bool = True) -> None:
        self._lookers = {
            queue.name: _QueueLooker(queue, has_own_connection=has_own_connection) for queue in queues
        }

    async def read(self) -> Mapping[str, QueueGauges]:
        """Return each queue's gauges, without the queues that were not read in time."""
        return await _in_time({name: looker.read() for name, looker in self._lookers.items()})

    async def answered(self) -> set[str]:
        """Return the queues whose Redis answers."""
        return set(await _in_time({name: looker.is_answered() for name, looker in self._lookers.items()}))

    async def close(self) -> None:
        """Hang up."""
        closing: list[Awaitable[object]] = [looker.close() for looker in self._lookers.values()]
        with contextlib.suppress(TimeoutError, BeeqError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(*closing, return_exceptions=True)


async def _in_time(calls: Mapping[str, Coroutine[Any, Any, T]]) -> dict[str, T]:
    """Return what the calls return, by queue, without those that raise or take too long."""
    tasks = {name: asyncio.ensure_future(call) for name, call in calls.items()}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=READ_TIMEOUT_S)
    found = {}
    for name, task in tasks.items():
        if not task.done() or task.cancelled():
            task.cancel()
        elif (error := task.exception()) is None:
            found[name] = task.result()
        else:  # do not log at each scrape that Redis is away or refuses
            level = logging.DEBUG if is_expected(error) else logging.WARNING
            log_event(level, "cannot be looked at", queue=name, error=error, has_trace=True)
    return found
