"""The blocking move's end, at the one moment that is easily missed."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from beeq.errors import RedisError, RedisRefused, RedisUnavailable
from beeq.protocol.keys import Keys
from beeq.redis.scripts import PEEK_ACTIVE
from beeq.settings import Settings
from beeq.worker.blocking_fetch import Mover


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


class AnsweringLine:
    """A connection whose server answers a move so, at once or after a while."""

    client_id = 7
    peer = None

    def __init__(self, replies: list[Any], error: RedisError | None, *, after_s: float = 0) -> None:
        self._replies = replies
        self._error = error
        self._after_s = after_s
        self.calls: list[Any] = []

    def ask(self, packed: Any, on_end: Any, **_options: Any) -> None:
        assert len(packed) == 2
        asyncio.get_running_loop().call_later(self._after_s, on_end, self._replies, self._error)

    async def learn_client_id(self) -> None:
        pass

    async def call(self, *command: Any, **_options: Any) -> Any:
        self.calls.append(command)

    async def close(self) -> None:
        pass


async def told_of(
    line: AnsweringLine, *, moves: int = 1, settings: Settings | None = None, blocked_s: float = 0
) -> list[tuple[bytes | None, bytes]]:
    """Return what a mover tells at the end of each of some moves, with the loop blocked after each start."""
    ends: asyncio.Queue[tuple[bytes | None, bytes]] = asyncio.Queue()
    mover = Mover(
        cast("Any", None),
        Keys("bq", "q"),
        settings or Settings(),
        on_end=lambda raw_id, record: ends.put_nowait((raw_id, record)),
        beside=cast("Any", line),
        on_error=lambda error: pytest.fail(str(error)),
    )
    mover._connection = cast("Any", line)
    told = []
    for _ in range(moves):
        mover.start()
        time.sleep(blocked_s)  # noqa: ASYNC251 - the loop is to stand still
        told.append(await asyncio.wait_for(ends.get(), 5))
    await mover.close()
    return told


GONE = RedisUnavailable("gone")


@pytest.mark.parametrize(
    ("replies", "error", "told"),
    [
        pytest.param([b"1", [b"1", b"{}"]], None, (b"1", b"{}"), id="its record came along"),
        pytest.param([b"1", [b"2", b"{}"]], None, (b"1", b""), id="another job had come into active"),
        pytest.param([b"1", None], None, (b"1", b""), id="nothing was seen"),
        pytest.param([b"1", RedisRefused("ERR no")], None, (b"1", b""), id="the look was refused"),
        pytest.param([None, [b"2", b"{}"]], None, (None, b""), id="nothing was moved"),
        pytest.param([b"1"], GONE, (b"1", b""), id="the connection ended between the replies"),
    ],
)
async def test_a_move_tells_of_its_own_job_and_of_no_other(replies, error, told):
    assert await told_of(AnsweringLine(replies, error)) == [told]


@pytest.mark.parametrize("after_s", [0, 0.06], ids=["before the clock is looked at", "after it"])
@pytest.mark.parametrize(
    ("stall_interval", "blocked_s", "record"), [(60_000, 0, b"{}"), (60_000, 0.3, b"{}"), (200, 0.3, b"")]
)
async def test_a_look_is_worth_nothing_if_the_loop_stood_still_for_half_a_stall_interval(
    after_s, stall_interval, blocked_s, record
):
    """The job may have stalled, and be done by now."""
    line = AnsweringLine([b"1", [b"1", b"{}"]], None, after_s=after_s)
    settings = Settings(stall_interval=stall_interval)
    told = await told_of(line, moves=2, settings=settings, blocked_s=blocked_s)
    assert told == [(b"1", record)] * 2


async def test_a_look_that_redis_does_not_know_is_loaded_before_the_next_move():
    line = AnsweringLine([b"1", RedisRefused("NOSCRIPT No matching script.")], None)
    assert await told_of(line, moves=2) == [(b"1", b"")] * 2
    assert line.calls == [("SCRIPT", "LOAD", PEEK_ACTIVE.source)]


@pytest.mark.parametrize("client_id", [None, 7])
@pytest.mark.parametrize("turns", range(5))
async def test_whenever_a_move_is_stopped_it_is_over_afterwards(turns, client_id):
    """Also when it had just ended, and its owner had not been told: that once kept a worker spinning."""
    told: list[tuple[bytes | None, bytes]] = []
    errors: list[BaseException] = []
    mover = Mover(
        cast("Any", None),
        Keys("bq", "q"),
        Settings(),
        on_end=lambda raw_id, record: told.append((raw_id, record)),
        beside=cast("Any", DeadLine(None)),
        on_error=errors.append,
    )
    mover._connection = cast("Any", DeadLine(client_id))
    mover.start()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await mover.stop(cast("Any", DeadLine(client_id)))
    assert not mover.is_pending
    assert told
    assert set(told) == {(None, b"")}
