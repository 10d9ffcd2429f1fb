"""Scripts that Redis has forgotten are loaded again when needed, one or many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from beeq.errors import RedisRefused
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.redis.pipeline import Pipeline
from beeq.redis.scripts import ALL, Script
from tests.support.server import Server

KEYS = Keys("bq", "loading")


@pytest.fixture
def connector(own_valkey: Server) -> Connector:
    """Flushing scripts is for a server of one's own."""
    return Connector(own_valkey.url, timeout_ms=5000, slot_key=KEYS.id)


@pytest.fixture
async def line(connector: Connector) -> AsyncIterator[Connection]:
    line = Connection(connector, timeout_ms=5000)
    yield line
    await line.close()


@pytest.fixture
async def shared(connector: Connector) -> AsyncIterator[Pipeline]:
    shared = Pipeline(connector, timeout_ms=5000)
    yield shared
    await shared.close()


def exists(server: Server, *asked: Script) -> list[bool]:
    with server.sync_client() as client:
        return [bool(found) for found in client.script_exists(*(script.sha for script in asked))]


def added(pipeline: Pipeline, count: int) -> Coroutine[Any, Any, int]:
    return scripts.add_jobs(
        pipeline,
        KEYS,
        earlier_delayed=KEYS.earlier_delayed,
        outbox_limit="0",
        jobs=[("", "r", "")] * count,
    )


def flush(server: Server) -> None:
    with server.sync_client() as client:
        client.script_flush()


def test_every_script_is_known_to_redis_by_its_digest(own_valkey):
    with own_valkey.sync_client() as client:
        assert [client.script_load(script.source) for script in ALL] == [script.sha for script in ALL]


async def test_a_line_loads_what_it_needs(own_valkey, line):
    for _ in range(2):
        flush(own_valkey)
        assert (await scripts.count_jobs(line, KEYS, lifetime_ms=30_000, with_oldest="1"))[0] == 0
        assert exists(own_valkey, scripts.count_jobs, scripts.read_outcome) == [True, False]


async def test_a_shared_line_loads_what_it_needs(own_valkey, shared):
    for _ in range(2):
        flush(own_valkey)
        assert await scripts.read_outcome(shared, KEYS, job_id="1", longest=1000, with_record="") == [
            0,
            None,
            0,
            0,
            None,
            0,
        ]
        assert exists(own_valkey, scripts.count_jobs, scripts.read_outcome) == [False, True]


async def test_several_at_once_are_loaded_and_each_call_is_made_once(own_valkey, shared):
    for n in range(3):
        flush(own_valkey)
        calls = [
            scripts.count_jobs(shared, KEYS, lifetime_ms=30_000, with_oldest="1"),
            added(shared, 1),
            shared.call("PING"),
            scripts.read_outcome(shared, KEYS, job_id="1", longest=1000, with_record=""),
            added(shared, 2),
        ]
        replies = await asyncio.wait_for(asyncio.gather(*calls), 5)
        assert (replies[1], replies[4]) == (3 * n + 1, 3 * n + 3)
        assert replies[2] == b"PONG"
    with own_valkey.sync_client() as client:
        assert client.lrange(KEYS.waiting, 0, -1) == [str(n) for n in range(9, 0, -1)]
    assert exists(own_valkey, scripts.count_jobs, scripts.add_jobs, scripts.read_outcome) == [
        True,
        True,
        True,
    ]


async def test_a_hundred_callers_share_the_reload(own_valkey, shared):
    flush(own_valkey)
    calls = [added(shared, 1) for _ in range(100)]
    ids = await asyncio.wait_for(asyncio.gather(*calls), 5)
    assert ids == list(range(1, 101))


async def test_a_script_redis_refuses_is_an_error_for_its_caller_only(shared):
    broken = Script("broken", b"this is no Lua", "0" * 40)
    refused, fine = await asyncio.wait_for(
        asyncio.gather(broken(shared, KEYS), shared.call("PING"), return_exceptions=True), 5
    )
    assert isinstance(refused, RedisRefused)
    assert fine == b"PONG"


async def test_a_script_with_a_wrong_digest_is_refused_for_good(line, shared):
    wrong = Script("wrong", b"return 1", "0" * 40)
    with pytest.raises(RedisRefused, match="NOSCRIPT"):
        await asyncio.wait_for(wrong(line, KEYS), 5)
    with pytest.raises(RedisRefused, match="NOSCRIPT"):
        await asyncio.wait_for(wrong(shared, KEYS), 5)
    assert await asyncio.wait_for(shared.call("PING"), 5) == b"PONG"


async def test_a_refusal_names_redis_own_word(own_valkey, line):
    with own_valkey.sync_client() as client:
        client.set(KEYS.waiting, "of the wrong type")
    with pytest.raises(RedisRefused, match="WRONGTYPE") as refused:
        await scripts.count_jobs(line, KEYS, lifetime_ms=30_000, with_oldest="1")
    assert refused.value.code == "WRONGTYPE"
