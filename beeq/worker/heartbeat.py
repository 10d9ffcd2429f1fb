"""Signs of life for the jobs that run here, from a thread and a connection of their own.

A claim is a job's first sign of life (``lua/exchange.lua``); beats follow every half stall interval. If the
process dies before the first of them, a stall check requeues the job just the same.

A handler that blocks the loop loses no job. The thread only reads what the scheduler holds. All queues of a
process beat in one thread: hundreds of threads, each with a loop, would cost more than the queues do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping

from beeq.client.reader import WORKER_LIFETIME_MS
from beeq.errors import RedisError
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.settings import Settings

#: The registry of workers needs more beats than a long stall interval would bring.
_LONGEST_INTERVAL_MS = 10_000
_MAX_IDS = 1000
#: How soon a beat that failed is repeated, the first time and later.
_FIRST_AGAIN_S = 0.1
_LONGEST_AGAIN_S = 1.0


class _Thread:
    """A thread with a loop, in which heartbeats run; it ends when the last of them has."""

    #: The one that takes further heartbeats.
    current: _Thread | None = None
    #: Held to enter or leave: queues may run in several threads.
    lock = threading.Lock()

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._beating = 0
        self._thread = threading.Thread(target=self._main, name="beeq-heartbeat", daemon=True)

    @classmethod
    def enter(cls) -> _Thread:
        """Return the process's thread, starting it for the first heartbeat; ``leave`` it in the end."""
        with cls.lock:
            thread = cls.current
            if thread is None:
                thread = _Thread()
                thread._thread.start()
                cls.current = thread
            thread._beating += 1
            return thread

    def leave(self) -> None:
        """One heartbeat has ended; called in the thread."""
        with self.lock:
            self._beating -= 1
            if not self._beating:
                _Thread.current = None  # the next heartbeat starts another one
                self.loop.stop()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end if no heartbeat is left in it."""
        if not self._beating:
            self._thread.join(timeout_s)

    def _main(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()


def _forget_thread() -> None:
    """A fork has its parent's memory and none of its threads."""
    _Thread.current, _Thread.lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_thread)


class Heartbeat:
    """Beats every half stall interval, from its construction until ``stop``.

    Args:
        connector: makes the connection; not shared with another thread's loop.
        keys: of the queue.
        settings: of the queue.
        worker: this process's name in the registry.
        running: the jobs that run now, id → claim; copied in the thread, changed in the loop's.
        on_cancelled: called in the thread with the claims of jobs that were cancelled.
        on_error: called in the thread with each failure.
    """

    def __init__(
        self,
        connector: Connector,
        keys: Keys,
        settings: Settings,
        *,
        worker: str,
        running: Mapping[bytes, bytes],
        on_cancelled: Callable[[list[bytes]], object],
        on_error: Callable[[BaseException], object],
    ) -> None:
        self._connector = connector
        self._keys = keys
        self._interval_s = min(settings.stall_interval / 2, _LONGEST_INTERVAL_MS) / 1000
        timeout_ms = min(settings.redis_timeout, max(1000, settings.stall_interval))
        self._connection = Connection(connector, timeout_ms=timeout_ms)
        self._worker = worker
        self._running = running
        self._on_cancelled = on_cancelled
        self._on_error = on_error
        self._task: asyncio.Task[None] | None = None  # the thread's, which is to be held
        self._stopped = asyncio.Event()  # the thread's
        self._has_ended = threading.Event()
        self._thread = _Thread.enter()
        self._thread.loop.call_soon_threadsafe(self._begin)

    def stop(self) -> None:
        """End, and take this process out of the registry; ``join`` waits for that."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._thread.loop.call_soon_threadsafe(self._stopped.set)

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        if self._has_ended.wait(timeout_s):
            self._thread.join(timeout_s)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._thread.leave()
        self._has_ended.set()
        defect = None if task.cancelled() else task.exception()
        if defect is not None:  # the task has no waiter, and jobs will stall
            self._on_error(defect)

    async def _run(self) -> None:
        again_s = _FIRST_AGAIN_S
        try:
            while not self._stopped.is_set():
                rest_s = self._interval_s
                try:
                    await self.once()
                    again_s = _FIRST_AGAIN_S
                except RedisError as error:
                    self._on_error(error)
                    # Once Redis is back, or failed over, a stall check may come before the next beat.
                    rest_s = min(rest_s, again_s)
                    again_s = min(again_s * 2, _LONGEST_AGAIN_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), rest_s)
            await self._leave()
        finally:
            await self._connection.close()
            await self._connector.close()

    async def once(self) -> None:
        """Beat now. Raises RedisError if Redis did not hear it."""
        jobs = list(dict(self._running).items())  # dict() copies at one go; items() would not
        for start in range(0, max(1, len(jobs)), _MAX_IDS):
            cancelled = await scripts.beat(
                self._connection,
                self._keys,
                worker=self._worker,
                lifetime_ms=WORKER_LIFETIME_MS,
                jobs=jobs[start : start + _MAX_IDS],
            )
            if cancelled:
                self._on_cancelled(cancelled)

    async def _leave(self) -> None:
        try:
            await self._connection.call("ZREM", self._keys.workers, self._worker)
        except RedisError as error:
            self._on_error(error)  # the registry forgets by itself
