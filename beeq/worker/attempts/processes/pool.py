"""The pool of child processes for a worker's handler: as many as jobs run at once, started when needed.

A child runs one job at a time and is used again and again. When its job is given up (timeout,
cancellation, close) it is killed, and the next job gets another one.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

from beeq.job import Job
from beeq.worker.attempts.processes.child_process import ChildDied, ChildProcess
from beeq.worker.attempts.processes.group_keeper import GroupKeeper
from beeq.worker.attempts.processes.handler_ref import HandlerRef


class ProcessPool:
    """Runs a handler in up to ``limit`` child processes. Raises TypeError if a child could not find it."""

    def __init__(self, handler: Callable[[Any], Any], *, limit: int) -> None:
        self._handler = handler
        self._handler_ref = HandlerRef.of(handler)
        self._limit = limit
        self._keeper = GroupKeeper()
        self._children: set[ChildProcess] = set()  # all that live: starting, idle, busy, dying
        self._idle: list[ChildProcess] = []
        self._starts: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[ChildProcess]] = deque()  # jobs without a child
        self._is_closed = False

    async def run(self, job: Job, on_start: Callable[[], None]) -> Any:
        """Run the handler with ``job`` in a child; return its result. Cancelling this kills the child.

        ``on_start`` is called when a child takes the job, which may have to start first. Raises what the
        handler or its module raised, under its own name; ``ChildDied``; OSError if no child could be started.
        """
        while True:
            child = await self._take()
            was_used = child.is_used
            on_start()
            try:
                return await child.run(job)
            except ChildDied as died:
                # It may have died while idle, which is not the job's fault; a new one would not.
                if died.has_begun or not was_used:
                    raise
            finally:
                self._put(child)

    async def _take(self) -> ChildProcess:
        if self._idle:
            return self._idle.pop()
        waiting: asyncio.Future[ChildProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._start_more()
        try:
            return await waiting  # the start of a child, and the run before, have their bounds
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._put(waiting.result())  # it was ready just as the job was given up
            raise

    def _put(self, child: ChildProcess) -> None:
        """Give the child to the next job that waits, else keep it."""
        if not child.is_fit:
            return
        waiting = self._next_waiting()
        if waiting is not None:
            waiting.set_result(child)
        else:
            self._idle.append(child)

    def _next_waiting(self) -> asyncio.Future[ChildProcess] | None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                return waiting
        return None

    # Starting.

    def _start_more(self) -> None:
        needed = sum(not waiting.done() for waiting in self._waiting)
        while len(self._starts) < needed and len(self._children) < self._limit and not self._is_closed:
            child = ChildProcess(self._gone, self._keeper)
            self._children.add(child)
            start = asyncio.get_running_loop().create_task(
                self._start(child),
                name="beeq child's start",
                context=Context(),  # the child and its transports outlive the job that needs it first
            )
            self._starts.add(start)
            start.add_done_callback(self._started)

    async def _start(self, child: ChildProcess) -> None:
        """Start a child, even if its job is given up meanwhile: the next one will need it."""
        try:
            self._handler_ref.check(self._handler)
            await child.start(self._handler_ref)
        except Exception as error:  # noqa: BLE001 - it is the outcome of a job
            self._gone(child)
            waiting = self._next_waiting()
            if waiting is not None:  # else the next job tries again, and gets the error
                waiting.set_exception(error)
        else:
            self._put(child)

    def _started(self, start: asyncio.Task[None]) -> None:
        self._starts.discard(start)
        self._start_more()

    def _gone(self, child: ChildProcess) -> None:
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        self._start_more()

    # The end.

    async def close(self) -> None:
        """End all children: idle ones may do so by themselves, others are killed."""
        self._is_closed = True
        for start in self._starts:
            start.cancel()
        ends = [child.end() if child in self._idle else child.kill() for child in self._children]
        self._idle.clear()
        try:
            await asyncio.gather(*ends, *self._starts, return_exceptions=True)  # each has its bound
            await self._keeper.close()
        finally:  # a close has a bound, too
            for child in self._children:
                child.kill_now()
            self._keeper.leave()
