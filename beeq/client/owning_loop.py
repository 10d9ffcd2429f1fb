"""Where a queue lives: one event loop of one process. What it opened there works nowhere else."""

from __future__ import annotations

import asyncio
import os


class Home:
    """One queue's. Without it, whoever uses the queue elsewhere would wait for ever for an answer."""

    def __init__(self, queue_name: str) -> None:
        self._queue_name = queue_name
        self._pid = 0
        #: The queue's event loop; None while it has opened nothing.
        self.loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """Make the running loop the queue's, if it has none yet.

        Raises:
            RuntimeError: it has another one; or no loop runs.
        """
        running = asyncio.get_running_loop()
        if self.loop is None:
            self.loop, self._pid = running, os.getpid()
        elif self.loop is not running:
            raise self._refusal()

    def refuse_elsewhere(self) -> None:
        """Make sure that this is the queue's process, and that no loop but its own runs here.

        Raises:
            RuntimeError: it is not so.
        """
        if self.loop is not None and (self._pid != os.getpid() or self.loop is not _running_or(self.loop)):
            raise self._refusal()

    def leave(self) -> None:
        """Forget the loop: nothing that was opened there is left."""
        self.loop = None

    def _refusal(self) -> RuntimeError:
        if self._pid != os.getpid():
            return RuntimeError(
                f"queue {self._queue_name} was opened before a fork, and its connections are the parent's: "
                "make the queue in the child"
            )
        return RuntimeError(
            f"queue {self._queue_name} was opened in another event loop, and works in that one only: "
            "make a queue for each loop, or use one loop throughout"
        )


def _running_or(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return loop
