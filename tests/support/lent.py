"""One queue with one child process for all tests of a module, lent to one after another.

A child's start is most of a short test's time. Tests that use such a queue run on the module's loop:
``@on_the_modules_loop``. What one of them leaves in the queue, the next one finds.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import pytest

from tests.support import audit
from tests.support.queues import WatchedQueue

on_the_modules_loop = pytest.mark.asyncio(loop_scope="module")


class LentQueue(WatchedQueue):
    """A queue that forgets a test's listeners at the test's end, and passes its errors to that test."""

    def __init__(self, name: str, *, redis: Any) -> None:
        self.errors: list[BaseException] = []
        self._lent: list[tuple[str, Callable[..., Any]]] = []
        super().__init__(name, redis=redis, errors=self.errors)

    def on(self, event: str, fn: Callable[..., Any]) -> Self:
        """Listen until the test's end."""
        self._lent.append((event, fn))
        return super().on(event, fn)

    @contextmanager
    def lent(self) -> Iterator[Self]:
        """Lend the queue; afterwards there may be errors only where the test listened for them."""
        self._test_listens = False
        yield self
        for event, fn in self._lent:
            self.off(event, fn)
        self._lent.clear()
        found = list(self.errors)
        self.errors.clear()
        assert self._test_listens or not found, f"unexpected errors: {found!r}"


@asynccontextmanager
async def queue_with_one_child(valkey: Any, handler: Callable[[Any], Any]) -> AsyncIterator[LentQueue]:
    """Give a queue whose handler runs in one child process; audit and delete it afterwards."""
    queue = LentQueue(f"test-{uuid.uuid4().hex[:12]}", redis=valkey.url)
    queue.process(handler, executor="process")
    yield queue
    await queue.end()
    with valkey.sync_client() as client:
        faults = audit.faults(client, queue.keys)
        audit.delete(client, queue.keys)
    assert not faults, f"the queue is inconsistent: {faults[:20]}"
