"""A queue for tests: remembers its ``error`` events, and whether the test listened for them itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Self

from beeq import Queue
from beeq.supervision.duties import Duties


def unwatched_duties(on_error: Callable[[BaseException], object]) -> Duties:
    """Return duties for a part that is tested alone: nothing counts as a hang."""

    async def nobody_knows() -> bool:
        return False

    return Duties(on_error=on_error, patience_s=1.0, is_redis_there=nobody_knows)


class WatchedQueue(Queue):
    """A ``Queue`` that writes its errors into ``errors``."""

    def __init__(self, name: str, *, redis: Any, errors: list[BaseException], **settings: Any) -> None:
        super().__init__(name, redis=redis, **settings)
        self._errors: list[BaseException] = []
        self._test_listens = False

        def write_down(error: BaseException) -> None:
            errors.append(error)
            self._errors.append(error)

        super().on("error", write_down)

    def on(self, event: str, fn: Callable[..., Any]) -> Self:
        """Listen; a test that listens for errors answers for them."""
        self._test_listens |= event == "error"
        return super().on(event, fn)

    def once(self, event: str, fn: Callable[..., Any]) -> Self:
        """Listen once."""
        self._test_listens |= event == "error"
        return super().once(event, fn)

    def is_heard(self, error: BaseException) -> bool:
        """Return whether the error is this queue's and the test listened for it."""
        return self._test_listens and any(own is error for own in self._errors)

    async def end(self) -> None:
        """Close; jobs that do not end are handed back."""
        with contextlib.suppress(TimeoutError):
            await self.close(timeout=2000)
