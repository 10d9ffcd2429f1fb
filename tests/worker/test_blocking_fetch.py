"""The end of a blocking fetch, at the one moment that is easily missed."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from beeq.errors import RedisError, RedisRefused, RedisUnavailable
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.settings import Settings
from beeq.worker.pump.blocking_fetch import BlockingFetch
from tests.support.queues import unwatched_duties


class DeadConnection:
    """A connection that breaks at once."""

    def __init__(self, client_id: int | None) -> None:
        self.client_id = client_id
        self.is_connected = client_id is not None

    def ask(self, _packed: Any, on_end: Any, **_options: Any) -> None:
        asyncio.get_running_loop().call_soon(on_end, [], RedisUnavailable("gone"))

    async def learn_client_id(self) -> None:
        raise RedisUnavailable("gone")

    async def call(self, *_command: Any, **_options: Any) -> Any:
        raise RedisUnavailable("gone")

    async def close(self) -> None:
        pass


class AnsweringConnection:
    """A connection whose server answers a fetch so, at once or after a while."""

    client_id = 7
    is_connected = True
    peer = None

    def __init__(self, replies: list[Any], error: RedisError | None, *, after_s: float = 0) -> None:
        self._replies = replies
        self._error = error
        self._after_s = after_s
        self.loaded: list[Any] = []

    def ask(self, packed: Any, on_end: Any, **_options: Any) -> None:
        assert len(packed) == 2
        asyncio.get_running_loop().call_later(self._after_s, on_end, self._replies, self._error)

    async def learn_client_id(self) -> None:
        pass

    async def call(self, *_command: Any) -> Any:
        return 0

    async def load(self, script: Any) -> None:
        self.loaded.append(script)

    async def close(self) -> None:
        pass


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.ends: asyncio.Queue[tuple[bytes | None, bytes]] = asyncio.Queue()
        self.errors: list[BaseException] = []

    def fetched(self, raw_id: bytes, record: bytes) -> None:
        self.ends.put_nowait((raw_id, record))

    def fetch_ended(self) -> None:
        self.ends.put_nowait((None, b""))

    def fetch_rests(self) -> None:
        pass


def fetch_over(connection: Any, listener: Listener, settings: Settings | None = None) -> BlockingFetch:
    context = SimpleNamespace(
        connector=None,
        keys=Keys("bq", "q"),
        settings=settings or Settings(),
        report_error=listener.errors.append,
        duties=unwatched_duties(listener.errors.append),
    )
    fetch = BlockingFetch(cast("Any", context), beside=connection, listener=listener)
    fetch._connection = connection
    return fetch


async def ends_of(
    connection: AnsweringConnection,
    *,
    fetches: int = 1,
    settings: Settings | None = None,
    blocked_s: float = 0,
) -> list[tuple[bytes | None, bytes]]:
    """Return how each of some fetches ends, with the loop blocked after each start."""
    listener = Listener()
    fetch = fetch_over(connection, listener, settings)
    ends = []
    for _ in range(fetches):
        fetch.start()
        time.sleep(blocked_s)  # noqa: ASYNC251 - the loop is to be blocked
        ends.append(await asyncio.wait_for(listener.ends.get(), 5))
    await fetch.close()
    assert listener.errors == []
    return ends


GONE = RedisUnavailable("gone")


@pytest.mark.parametrize(
    ("replies", "error", "end"),
    [
        pytest.param([b"1", [b"1", b"{}"]], None, (b"1", b"{}"), id="its record came along"),
        pytest.param([b"1", [b"2", b"{}"]], None, (b"1", b""), id="another job had come into active"),
        pytest.param([b"1", None], None, (b"1", b""), id="nothing was seen"),
        pytest.param([b"1", RedisRefused("ERR no")], None, (b"1", b""), id="the look was refused"),
        pytest.param([None, [b"2", b"{}"]], None, (None, b""), id="nothing was moved"),
        pytest.param([b"1"], GONE, (b"1", b""), id="the connection ended between the replies"),
    ],
)
async def test_a_fetch_brings_its_own_job_and_no_other(replies, error, end):
    assert await ends_of(AnsweringConnection(replies, error)) == [end]


@pytest.mark.parametrize("after_s", [0, 0.06], ids=["before the clock is looked at", "after it"])
@pytest.mark.parametrize(
    ("stall_interval", "blocked_s", "record"), [(60_000, 0, b"{}"), (60_000, 0.3, b"{}"), (200, 0.3, b"")]
)
async def test_a_record_is_stale_after_half_a_stall_interval(after_s, stall_interval, blocked_s, record):
    """The job may have stalled, and be done by now."""
    connection = AnsweringConnection([b"1", [b"1", b"{}"]], None, after_s=after_s)
    settings = Settings(stall_interval=stall_interval)
    ends = await ends_of(connection, fetches=2, settings=settings, blocked_s=blocked_s)
    assert ends == [(b"1", record)] * 2


async def test_an_unknown_look_is_loaded_before_the_next_fetch():
    connection = AnsweringConnection([b"1", RedisRefused("NOSCRIPT No matching script.")], None)
    assert await ends_of(connection, fetches=2) == [(b"1", b"")] * 2
    assert connection.loaded == [scripts.peek_active]


@pytest.mark.parametrize("client_id", [None, 7])
@pytest.mark.parametrize("turns", range(5))
async def test_whenever_a_fetch_is_stopped_it_is_over_afterwards(turns, client_id):
    """Also when it had just ended, and its owner had not heard of it: that once kept a worker spinning."""
    listener = Listener()
    fetch = fetch_over(DeadConnection(client_id), listener)
    fetch.start()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await fetch.stop(cast("Any", DeadConnection(client_id)))
    ends = [listener.ends.get_nowait() for _ in range(listener.ends.qsize())]
    assert ends == [(None, b"")]
