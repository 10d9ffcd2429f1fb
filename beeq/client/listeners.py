"""The speaking part of a queue: its listeners, its ``error`` event, and who listens to other processes."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Self

from beeq.emitter import Emitter, Listener
from beeq.errors import RedisError

if TYPE_CHECKING:
    from beeq.client.session import Session

logger = logging.getLogger("beeq")


class Announcer:
    """What a queue is to its listeners; ``Queue`` is one."""

    name: str
    _session: Session

    def __init__(self) -> None:
        self._emitter = self.new_emitter()

    def on(self, event: str, fn: Listener) -> Self:
        """Call ``fn`` at every ``event``; it may be a coroutine function.

        ``ready()``, ``error(error)``, ``stalled(id)``, ``raised jobs(count)``; of jobs that run here
        ``succeeded(job, result)``, ``retrying(job, error)``, ``failed(job, error)`` at every failed
        attempt, ``failed:fatal(job, error)``, ``cancelled(job)``; of all jobs, wherever they run,
        ``job succeeded``, ``job retrying``, ``job failed``, ``job progress`` with id and data.
        """
        self._emitter.on(event, fn)
        self._listen(event)
        return self

    def once(self, event: str, fn: Listener) -> Self:
        """Call ``fn`` at the next ``event`` only."""
        self._emitter.on(event, fn, once=True)
        self._listen(event)
        return self

    def off(self, event: str, fn: Listener) -> Self:
        """Stop calling ``fn``."""
        self._emitter.off(event, fn)
        return self

    def _listen(self, event: str) -> None:
        self._session.home.refuse_elsewhere()
        if event.startswith("job ") and self._session.is_ready:
            self._session.spawn(self._hear_events())

    async def _hear_events(self) -> None:
        try:
            await self._session.hear_events()
        except RedisError as error:
            self.report_error(error)

    def has_event_listeners(self) -> bool:
        """Return whether anyone wants to hear of jobs that run elsewhere."""
        return any(name.startswith("job ") for name in self._emitter.names())

    def emit(self, event: str, *args: Any) -> bool:
        """Tell the queue's listeners; return whether there were any."""
        return self._emitter.emit(event, *args)

    def new_emitter(self) -> Emitter:
        """Return an emitter whose coroutine listeners end with the queue."""
        return Emitter(spawn=self._spawn, on_error=self._listener_failed)

    def _spawn(self, errand: Coroutine[Any, Any, Any]) -> None:
        self._session.spawn(errand, is_listener=True)

    def _listener_failed(self, event: str, error: BaseException) -> None:
        if event == "error":
            logger.error("an error listener of queue %s failed", self.name, exc_info=error)
        else:
            self.report_error(error)

    def report_error(self, error: BaseException) -> None:
        """Emit ``error``; without a listener it is logged."""
        if not self.emit("error", error):
            logger.error("queue %s: %s: %s", self.name, type(error).__name__, error)
