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

    def __init__(self, client_id: int | None) -> None:
        self.client_id = client_id

    def ask(self, _packed: Any, on_end: Any, **_options: Any) -> None:
        asyncio.get_running_loop().call_soon(on_end, [], RedisUnavailable("gone"))

    async def learn_client_id(self) -> None:
        raise RedisUnavailable("gone")

    async def call(self, *_command: Any, **_options: Any) -> Any:
        raise RedisUnavailable("gone")

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("client_id", [None, 7])
@pytest.mark.parametrize("turns", range(5))
async def test_whenever_a_move_is_stopped_it_is_over_afterwards(turns, client_id):
    """Also when it had just ended, and its owner had not been told: that once kept a worker spinning."""
    told: list[bytes | None] = []
    errors: list[BaseException] = []
    mover = Mover(
        cast("Any", None),
        Keys("bq", "q"),
        Settings(),
        on_end=told.append,
        beside=cast("Any", DeadLine(None)),
        on_error=errors.append,
    )
    mover._line = cast("Any", DeadLine(client_id))
    mover.start()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await mover.stop(cast("Any", DeadLine(client_id)))
    assert not mover.is_pending
    assert told
    assert set(told) == {None}
