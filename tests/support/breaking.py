"""Breaks a background duty, in the coroutine that it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from beeq.supervision.duty import Duty

#: How a duty may break.
WAYS = ("raises", "is cancelled", "returns", "hangs")


async def end(way: str) -> None:
    """End the running task in this way, or hang in it."""
    if way == "raises":
        raise ZeroDivisionError("a defect")
    if way == "is cancelled":
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
    if way == "hangs":
        await asyncio.Event().wait()


class Breaker:
    """Wraps the coroutine of a duty, and breaks it on command, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str) -> None:
        self._real = getattr(owner, name)
        self._way = ""
        self._order: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        breaker = self

        async def run(self: Any, duty: Duty, *arguments: Any) -> None:
            await breaker._run(lambda: breaker._real(self, duty, *arguments))

        monkeypatch.setattr(owner, name, run)

    async def _run(self, real: Callable[[], Awaitable[Any]]) -> None:
        order = asyncio.Event()
        self._order = asyncio.get_running_loop(), order
        working = asyncio.ensure_future(real())
        breaking = asyncio.ensure_future(order.wait())
        try:
            await asyncio.wait([working, breaking], return_when=asyncio.FIRST_COMPLETED)
        finally:
            breaking.cancel()
            is_broken = order.is_set()
            if is_broken or not working.done():
                working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.gather(working, return_exceptions=True))
        if is_broken:
            await end(self._way)
        else:
            working.result()

    def has_begun(self) -> bool:
        """Return whether the duty has begun."""
        return self._order is not None

    def break_it(self, way: str) -> None:
        """Break the duty in this way."""
        self._way = way
        assert self._order is not None, "the duty has begun"
        loop, order = self._order
        loop.call_soon_threadsafe(order.set)
