"""The background tasks of a queue, which end with it: errands of its own, and coroutine listeners."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

#: The listener on whose behalf a task runs, be it a task of its own (``gather``, ``wait_for``).
_listener: ContextVar[object] = ContextVar("beeq listener", default=None)


class Errands:
    """One queue's. A listener may close the queue, and must not be ended by what it waits for."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._spared: set[object] = set()  # listeners' coroutines

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, is_listener: bool) -> None:
        """Run the coroutine in the background."""
        context = copy_context()
        if is_listener:
            context.run(_listener.set, coroutine)
        task = asyncio.get_running_loop().create_task(coroutine, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextmanager
    def sparing_listener(self) -> Iterator[None]:
        """Meanwhile leave out of ``to_end`` the listener that enters this, or that has it entered."""
        listener = _listener.get()
        self._spared.add(listener)
        try:
            yield
        finally:
            self._spared.discard(listener)

    def to_end(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that are to end with the queue."""
        return [task for task in self._tasks if task.get_coro() not in self._spared]
