"""The listeners of a queue, its ``error`` event among them."""

import logging
from collections.abc import Coroutine
from typing import Any

from beeq.client.owning_loop import OwningLoop
from beeq.emitter import Emitter

logger = logging.getLogger("beeq")


class Listeners(Emitter):
    """One queue's listeners. Coroutine listeners run as tasks, which end with the queue."""

    def __init__(self, queue_name: str, owning_loop: OwningLoop) -> None:
        super().__init__(spawn=self._run, on_error=self._listener_failed)
        self._queue_name = queue_name
        self._owning_loop = owning_loop

    def want_job_events(self) -> bool:
        """Return whether anyone listens to what happens to jobs wherever they run."""
        return any(name.startswith("job ") for name in self.names())

    def report_error(self, error: BaseException) -> None:
        """Emit ``error``; without a listener it is logged."""
        if not self.emit("error", error):
            logger.error("queue %s: %s: %s", self._queue_name, type(error).__name__, error)

    def new_emitter(self) -> Emitter:
        """Return an emitter for the listeners of one job."""
        return Emitter(spawn=self._run, on_error=self._listener_failed)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._owning_loop.spawn(coroutine, is_listener=True)

    def _listener_failed(self, event: str, error: BaseException) -> None:
        if event == "error":
            logger.error("an error listener of queue %s failed", self._queue_name, exc_info=error)
        else:
            self.report_error(error)
