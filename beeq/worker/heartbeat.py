"""Signs of life for the jobs that run here, from a thread and a connection of their own.

A handler that blocks the loop then loses no job (flaw B8). Only reads what the pump holds.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from itertools import chain

from beeq.connection import Dialer
from beeq.errors import RedisError
from beeq.keys import Keys
from beeq.line import Line
from beeq.reader import WORKER_LIFETIME_MS
from beeq.scripts import BEAT

#: The registry of workers wants to hear more often than a long stall interval would tell.
_LONGEST_INTERVAL_MS = 10_000
_MAX_IDS = 1000


class Heartbeat:
    """Beats every half stall interval from ``start`` until ``stop``.

    Args:
        dialer: makes the connection; not shared with another thread's loop.
        keys: the queue's.
        stall_interval_ms: the queue's stall window.
        redis_timeout_ms: the longest wait for one answer.
        worker: this process's name in the registry.
        running: the jobs that run now, id → claim; copied in the thread, changed in the loop's.
        on_cancelled: called in the thread with the claims of jobs that were cancelled.
        on_error: called in the thread with each failure.
    """

    def __init__(
        self,
        dialer: Dialer,
        keys: Keys,
        *,
        stall_interval_ms: int,
        redis_timeout_ms: int,
        worker: str,
        running: Mapping[bytes, bytes],
        on_cancelled: Callable[[list[bytes]], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._dialer = dialer
        self._keys = keys
        self._interval_s = min(stall_interval_ms / 2, _LONGEST_INTERVAL_MS) / 1000
        self._line = Line(dialer, timeout_ms=min(redis_timeout_ms, max(1000, stall_interval_ms)))
        self._worker = worker
        self._running = running
        self._on_cancelled = on_cancelled
        self._on_error = on_error
        self._thread = threading.Thread(target=self._main, name="beeq-heartbeat", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None  # the thread's
        self._stopped: asyncio.Event | None = None  # the thread's
        self._is_ready = threading.Event()

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and to take this process out of the registry."""
        if not self._is_ready.wait(timeout=5) or self._loop is None or self._stopped is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._stopped.set)
        except RuntimeError:
            return  # it has ended already

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout_s)

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._is_ready.set()
        try:
            while not self._stopped.is_set():
                try:
                    await self.once()
                except RedisError as error:
                    self._on_error(error)
                try:
                    await asyncio.wait_for(self._stopped.wait(), self._interval_s)
                except TimeoutError:
                    continue
            await self._leave()
        finally:
            await self._line.close()
            await self._dialer.close()

    async def once(self) -> None:
        """Beat now.

        Raises:
            RedisError: nobody heard it.
        """
        jobs = list(dict(self._running).items())  # dict() copies at one go; items() would not
        keys = (self._keys.stalling, self._keys.workers, self._keys.cancelled)
        for start in range(0, max(1, len(jobs)), _MAX_IDS):
            pairs = chain.from_iterable(jobs[start : start + _MAX_IDS])
            cancelled = await self._line.run(BEAT, keys, (self._worker, WORKER_LIFETIME_MS, *pairs))
            if cancelled:
                self._on_cancelled(cancelled)

    async def _leave(self) -> None:
        try:
            await self._line.call("ZREM", self._keys.workers, self._worker)
        except RedisError as error:
            self._on_error(error)  # the registry forgets by itself
