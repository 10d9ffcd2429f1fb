"""Programs that end without closing their queues leave connections open, of which Python warns."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from beeq.redis.masters.server_watch import ServerWatch

#: How long a thread that refers to a connection may take to end.
_PATIENCE_S = 10.0


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect what a test has left here, and not in another test, where a warning is an error."""
    yield
    over = time.monotonic() + _PATIENCE_S
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        _forget_closed_loops()
        while (left := _connections_left()) and time.monotonic() < over:
            del left
            threading.Event().wait(0.02)  # a thread that is about to end may still refer to some
    assert not left, "connections of closed loops are left, whose end would fail another test"


def _forget_closed_loops() -> None:
    """Let go of the connections of closed loops, as the process does when another loop connects."""

    async def forget() -> None:
        ServerWatch.here()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(forget())
    loop.close()


def _connections_left() -> list[Any]:
    """Return the open connections of loops that are closed: nobody can close them any more."""
    gc.collect()
    writers: list[Any] = [thing for thing in gc.get_objects() if type(thing) is asyncio.StreamWriter]
    return [each for each in writers if each._loop.is_closed() and not each.transport.is_closing()]
