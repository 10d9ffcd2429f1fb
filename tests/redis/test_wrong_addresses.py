"""A URL that leads to something else: one short sentence says what is there, and what to write."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from beeq import Queue, RedisUnavailable
from beeq.redis.connector import Connector
from beeq.redis.dialling import look
from tests.support.certificate import server_context
from tests.support.proxy import proxy_to
from tests.support.server import free_port
from tests.support.topologies import NAME, Cluster, Sentinel


@pytest.fixture
def sentinel(valkey, tmp_path) -> Iterator[Sentinel]:
    with Sentinel(tmp_path, valkey) as started:
        yield started


@contextlib.asynccontextmanager
async def answering(said: bytes) -> AsyncIterator[int]:
    """A port that says the same to everybody, and hangs up."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def failure_of(url: str, *, call: bool = False, redis_timeout: int = 6000, **settings: Any) -> str:
    """Return what connecting, or the first call, fails with."""
    queue = Queue(
        "lost", redis=url, redis_timeout=redis_timeout, is_worker=False, get_events=False, **settings
    )
    try:
        with pytest.raises(RedisUnavailable) as failed:
            await (queue.enqueue(1) if call else queue.connect())
    finally:
        await queue.close()
    said = str(failed.value)
    assert len(said) < 200
    assert "hunter2" not in said
    return said


async def test_a_server_without_a_place_says_so(own_valkey):
    with own_valkey.sync_client() as client:
        client.config_set("maxclients", 1)
        said = await failure_of(own_valkey.url)
    assert re.search("max number of clients: close some, or raise its maxclients$", said)


async def test_a_port_that_speaks_tls_is_said_so(valkey, tmp_path):
    async with proxy_to(valkey.port, tls=server_context(tmp_path)) as proxy:
        said = await failure_of(proxy.url.replace("rediss://", "redis://:hunter2@"))
    assert said == f"127.0.0.1:{proxy.port} speaks TLS: write rediss:// in the URL, or ssl=True"


async def test_a_port_that_does_not_speak_tls_is_said_so(own_valkey):
    url = f"rediss://:hunter2@127.0.0.1:{own_valkey.port}"
    said = await failure_of(url, redis_timeout=3000)
    assert (
        said == f"127.0.0.1:{own_valkey.port} does not speak TLS: write redis:// in the URL, or no ssl=True"
    )


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not a Redis server: it says 'HTTP/1.1 400 Bad Request'"),
        (
            b"-DENIED Redis is running in protected mode because\r\n",
            "is in protected mode: without a password it answers",
        ),
        (b"", "Redis closed the connection at once"),
    ],
)
async def test_what_else_answers_is_named(said, meant):
    async with answering(said) as port:
        assert meant in await failure_of(f"redis://:hunter2@127.0.0.1:{port}")


async def test_a_look_that_is_cancelled_hangs_up():
    came, left = asyncio.Event(), asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()
        writer.close()

    server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        looking = asyncio.ensure_future(look._heard(SimpleNamespace(host="127.0.0.1", port=port)))
        await came.wait()
        looking.cancel()
        await asyncio.wait([looking])
        await asyncio.wait_for(left.wait(), 30)


async def test_a_missing_password_is_a_connection_that_cannot_be_made(own_valkey):
    with own_valkey.sync_client() as client:
        client.config_set("requirepass", "word")
        said = await failure_of(f"redis://127.0.0.1:{own_valkey.port}")
    assert said == "NOAUTH Authentication required: no password was given"


async def test_a_sentinel_that_is_taken_for_redis_is_said_so(sentinel):
    url = f"redis://127.0.0.1:{sentinel.port}"
    for _ in range(2):
        said = await failure_of(url, call=True)
        assert said == (
            f"127.0.0.1:{sentinel.port} is a Sentinel: write "
            f"redis+sentinel://127.0.0.1:{sentinel.port}/name-of-the-master"
        )


async def test_a_sentinel_is_known_by_its_lack_of_databases_too(sentinel):
    said = await failure_of(f"redis://127.0.0.1:{sentinel.port}/3")
    assert said.startswith(f"127.0.0.1:{sentinel.port} is a Sentinel: write redis+sentinel://")


async def test_a_sentinel_that_is_taken_for_a_cluster_is_said_so(sentinel):
    said = await failure_of(f"redis+cluster://127.0.0.1:{sentinel.port}", prefix="{a}")
    assert said.startswith(
        f"127.0.0.1:{sentinel.port} is a Sentinel, no node of a cluster: write redis+sentinel:"
    )


@pytest.mark.parametrize("form", ["rediss+cluster://127.0.0.1:{}", "rediss+sentinel://127.0.0.1:{}/main"])
async def test_a_fleet_that_does_not_speak_tls_is_said_so(own_valkey, form):
    said = await failure_of(form.format(own_valkey.port), redis_timeout=3000, prefix="{a}")
    assert said.endswith(
        f"127.0.0.1:{own_valkey.port} does not speak TLS: write redis:// in the URL, or no ssl=True"
    )


async def test_redis_that_is_taken_for_a_sentinel_is_said_so(own_valkey):
    said = await failure_of(f"redis+sentinel://127.0.0.1:{own_valkey.port}/{NAME}")
    assert said == f"127.0.0.1:{own_valkey.port} is a Redis server, not a Sentinel: write redis://host:port"


async def test_redis_that_is_taken_for_a_cluster_is_said_so(own_valkey):
    port = own_valkey.port
    said = await failure_of(f"redis+cluster://127.0.0.1:{port}", prefix="{a}")
    assert said == f"127.0.0.1:{port} belongs to no cluster: write redis://127.0.0.1:{port}"


async def test_a_master_that_the_sentinels_do_not_know_is_said_so(sentinel):
    said = await failure_of(f"redis+sentinel://:hunter2@127.0.0.1:{sentinel.port}/other")
    assert said == f"no Sentinel of 127.0.0.1:{sentinel.port} knows a master 'other' that is up"


async def test_sentinels_that_do_not_answer_are_one_sentence():
    ports = [free_port() for _ in range(5)]
    url = f"redis+sentinel://:hunter2@{','.join(f'127.0.0.1:{port}' for port in ports)}/{NAME}"
    said = await failure_of(url)
    assert said.startswith(
        f"no Sentinel of 127.0.0.1:{ports[0]}, 127.0.0.1:{ports[1]}, 127.0.0.1:{ports[2]}, … "
    )
    assert "names the master 'mymaster': " in said


@pytest.mark.external
@pytest.mark.parametrize("prefix", ["bq", "{a}", "{b}"])
async def test_a_cluster_that_is_taken_for_one_server_is_said_so(tmp_path, prefix):
    """Also of the node that happens to own the slot, once something goes elsewhere."""
    with Cluster(tmp_path) as cluster:
        said = []
        for node in cluster.nodes:
            with contextlib.suppress(pytest.fail.Exception):
                said.append(await failure_of(f"redis://127.0.0.1:{node.port}", call=True, prefix=prefix))
        assert len(said) >= 2
        assert all(" is a node of a cluster: write redis+cluster://127.0.0.1:" in each for each in said)


async def test_a_doubt_ends_with_what_it_was_about(own_valkey):
    """Behind the address there may be another server some day."""
    connector = Connector(own_valkey.url, timeout_ms=5000, slot_key="bq:lost:id")
    resp = await connector.connect()
    assert resp.meaning_of("MOVED 1 127.0.0.1:1").startswith("MOVED 127.0.0.1:")
    resp.close()
    again = await connector.connect()
    assert again.is_open
    again.close()
    await connector.close()
