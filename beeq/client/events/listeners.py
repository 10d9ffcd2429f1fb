"""The listeners of a queue, its ``error`` event among them."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

from beeq.client.owning_loop import OwningLoop
from beeq.emitter import Emitter, Subscription
from beeq.errors import ListenerTooSlow
from beeq.logs.records import log_event, log_queue_error
from beeq.supervision.fence import is_ended_by

#: So many calls of one coroutine listener run at once …
MAX_RUNNING = 1000
#: … and so many more wait, in order. Further events are dropped until there is room.
MAX_WAITING = 10_000


class Listeners(Emitter):
    """One queue's listeners. Coroutine listeners run as tasks, which end with the queue."""

    def __init__(self, queue_name: str, owning_loop: OwningLoop) -> None:
        super().__init__(on_awaitable=self._await, on_error=self._listener_failed)
        self._queue_name = queue_name
        self._owning_loop = owning_loop

    def want_job_events(self) -> bool:
        """Return whether anyone listens to what happens to jobs wherever they run."""
        return any(name.startswith("job ") for name in self.names())

    def report_error(self, error: BaseException) -> None:
        """Emit ``error``; without a listener it is logged."""
        if not self.emit("error", error):
            log_queue_error(self._queue_name, error)

    def new_emitter(self) -> Emitter:
        """Return an emitter for the listeners of one job."""
        return Emitter(on_awaitable=self._await, on_error=self._listener_failed)

    def _await(self, subscription: Subscription, awaitable: Awaitable[Any]) -> None:
        line: _ListenerLine | None = subscription.line
        if line is None:
            spawn = partial(self._spawn, subscription.variables)
            line = subscription.line = _ListenerLine(subscription.event, spawn, self._listener_failed)
        line.put(awaitable)

    def _spawn(self, variables: Context, coroutine: Coroutine[Any, Any, Any]) -> bool:
        return self._owning_loop.spawn(coroutine, listens_in=variables)

    def _listener_failed(self, event: str, error: BaseException) -> None:
        if event == "error":
            log_event(
                logging.ERROR,
                "an error listener failed",
                queue=self._queue_name,
                error=error,
                has_trace=True,
            )
        else:
            self.report_error(error)


class _ListenerLine:
    """The calls that one coroutine listener has not finished yet."""

    def __init__(
        self,
        event: str,
        spawn: Callable[[Coroutine[Any, Any, Any]], bool],
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self._event = event
        self._spawn = spawn
        self._on_error = on_error
        self._tasks = 0
        self._running = 0  # calls that tasks await
        self._waiting: deque[Awaitable[Any]] = deque()
        self._dropped = 0  # since the line became full

    def put(self, awaitable: Awaitable[Any]) -> None:
        """Await it now, or when its turn comes; drop it if the line is full."""
        if self._running + len(self._waiting) >= MAX_RUNNING + MAX_WAITING:
            self._dropped += 1
            _close(awaitable)
            if self._dropped == 1:
                self._on_error(self._event, ListenerTooSlow(self._event, MAX_RUNNING + MAX_WAITING))
            return
        self._waiting.append(awaitable)
        self._add_task()

    def _add_task(self) -> None:
        if self._tasks >= MAX_RUNNING:
            return
        self._tasks += 1
        if not self._spawn(self._work()):  # the queue is closed
            self._tasks -= 1
            while self._waiting:
                _close(self._waiting.popleft())

    async def _work(self) -> None:
        """Await what waits, in order: a listener that is fast needs no further task."""
        task = asyncio.current_task()
        try:
            while self._waiting:
                awaitable = self._waiting.popleft()
                self._running += 1
                try:
                    await awaitable
                except BaseException as error:
                    if is_ended_by(error, task):
                        raise
                    self._on_error(self._event, error)
                finally:
                    self._running -= 1
        finally:
            self._tasks -= 1
            if self._waiting:
                self._add_task()
            elif self._dropped:
                what = f"a listener to {self._event!r} was too slow: {self._dropped} events dropped"
                log_event(logging.WARNING, what)
                self._dropped = 0


def _close(awaitable: Any) -> None:
    """Let a coroutine that will not be awaited end without a warning."""
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
