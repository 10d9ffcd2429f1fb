"""The event loop that owns a queue, and the background tasks that end with the queue.

A queue works only in the event loop and the process in which it was opened.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any

#: The listener that a task runs for, also if the listener made the task (``gather``, ``wait_for``).
_listener: ContextVar[object] = ContextVar("beeq listener", default=None)


class OwningLoop:
    """One queue's loop. Unchecked, a command in another event loop would wait forever for its reply."""

    def __init__(self, queue_name: str) -> None:
        self._queue_name = queue_name
        self._pid = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._spared: set[object] = set()  # coroutines of listeners that wait for the queue to close
        self._is_over = False
        #: The queue's event loop; None while nothing is open.
        self.loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """Make the running loop the queue's; raise RuntimeError if it has another one, or no loop runs."""
        running = asyncio.get_running_loop()
        if self.loop is None:
            self.loop, self._pid = running, os.getpid()
        elif self.loop is not running:
            raise self._refusal()

    def refuse_elsewhere(self) -> None:
        """Raise RuntimeError in another process than the queue's, or where another loop runs."""
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = self.loop
        if self.loop is not None and (self._pid != os.getpid() or self.loop is not running):
            raise self._refusal()

    def leave(self) -> None:
        """Forget the loop: everything opened in it has been closed."""
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

    # Background tasks.

    def spawn(
        self,
        coroutine: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        listens_in: Context | None = None,
    ) -> bool:
        """Run the coroutine in the background until it ends or the queue is closed.

        It runs in a copy of the context ``listens_in`` if it is a listener's, else in an empty one: it may
        outlive its caller. Once the queue is closed the coroutine is closed unrun, and this returns False.
        """
        if self._is_over:
            coroutine.close()
            return False
        context = Context()
        if listens_in is not None:
            context = listens_in.copy()
            context.run(_listener.set, coroutine)
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    @contextmanager
    def sparing_listener(self) -> Iterator[None]:
        """Do not cancel the listener inside this block: it closes the queue, and waits for that."""
        listener = _listener.get()
        self._spared.add(listener)
        try:
            yield
        finally:
            self._spared.discard(listener)

    def end_spawning(self) -> list[asyncio.Task[Any]]:
        """Refuse further coroutines; return the tasks that end with the queue."""
        self._is_over = True
        return [task for task in self._tasks if task.get_coro() not in self._spared]
