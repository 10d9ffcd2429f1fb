"""The blocking move's end, at the one moment that is easily missed."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from beeq.errors import RedisUnavailable
from beeq.keys import Keys
from beeq.settings import Settings
from beeq.worker.mover import Mover


class DeadLine:
    """A connection that breaks at once."""

    is_connected = True
    client_id = 7

    async def call(self, *_command: Any, **_options: Any) -> Any:
        raise RedisUnavailable("gone")


@pytest.mark.parametrize("turns", range(5))
async def test_whenever_a_move_is_stopped_it_is_over_afterwards(turns):
    """Also when it had just ended, and its owner had not been told: that once kept a worker spinning."""
    told: list[bytes | None] = []
    errors: list[BaseException] = []
    mover = Mover(cast("Any", None), Keys("bq", "q"), Settings(), on_end=told.append, on_error=errors.append)
    mover._line = cast("Any", DeadLine())
    mover.start()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await mover.stop(cast("Any", DeadLine()))
    assert not mover.is_pending
    assert told
    assert set(told) == {None}
