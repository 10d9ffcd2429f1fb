"""Waiting in tests, always with a bound: for a condition, or for events. Nothing here sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol

#: The bound of a wait that says nothing else.
PATIENCE_S = 30.0
#: How often a condition without a signal is looked at.
_LOOK_S = 0.01


async def pause(seconds: float) -> None:
    """Let the loop go on for a moment, by its own timer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


def skip_time(seconds: float) -> None:
    """Let the running loop's clock go on by so much at once: whatever was to end until then ends now.

    A limit can so be as long as it is in production, and be over when a test knows that it began.
    """
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]  # of this loop alone


async def eventually(
    holds: Callable[[], Any], within_s: float = PATIENCE_S, *, every_s: float = _LOOK_S
) -> Any:
    """Return the first truthy value of ``holds()``, which may be a coroutine function.

    A look that is expensive is taken less often: ``every_s``.

    Raises:
        AssertionError: there was none in time; the message has the last value.
    """
    loop = asyncio.get_running_loop()
    over = loop.time() + within_s
    while True:
        value = holds()
        if inspect.isawaitable(value):
            value = await asyncio.wait_for(value, max(0.1, over - loop.time()))
        if value:
            return value
        if loop.time() > over:
            raise AssertionError(
                f"{getattr(holds, '__name__', holds)} did not hold within {within_s} s: {value!r}"
            )
        await pause(every_s)


class _Emits(Protocol):
    def on(self, event: str, fn: Callable[..., Any]) -> Any: ...


class Recorder:
    """Writes down the named events of a queue or job, and waits for their number.

    ``record.calls`` has every event in order as ``(name, *arguments)``.
    """

    def __init__(self, emitter: _Emits, *events: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._news = asyncio.Event()
        for event in events:
            emitter.on(event, self._listener(event))

    def _listener(self, event: str) -> Callable[..., None]:
        def write_down(*arguments: Any) -> None:
            self.calls.append((event, *arguments))
            self._news.set()

        return write_down

    def of(self, event: str) -> list[tuple[Any, ...]]:
        """Return the arguments of each ``event`` so far."""
        return [call[1:] for call in self.calls if call[0] == event]

    async def until(self, event: str, count: int = 1, within_s: float = PATIENCE_S) -> list[tuple[Any, ...]]:
        """Wait until ``event`` was heard ``count`` times; return their arguments.

        Raises:
            AssertionError: they did not come in time; the message has what did.
        """
        try:
            async with asyncio.timeout(within_s):
                while len(self.of(event)) < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{count} × {event!r} did not come within {within_s} s: {self.calls}"
            ) from None
        return self.of(event)
