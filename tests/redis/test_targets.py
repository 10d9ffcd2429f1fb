"""What ``redis=`` takes: clients of redis.asyncio and valkey.asyncio; all else is refused with what to pass."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import fakeredis
import pytest
import redis
import redis.asyncio
import valkey
import valkey.asyncio

from beeq import Queue
from beeq.redis.dialling.targets import target_of_client
from tests.support.server import Server


class Own(redis.asyncio.Redis):
    """A client as somebody derives it."""


REFUSED: dict[str, tuple[Any, str]] = {
    "blocking": (redis.Redis, "redis.client.Redis, which blocks: pass a client of redis.asyncio"),
    "blocking valkey": (valkey.Valkey, "valkey.client.Valkey, which blocks: pass a client of redis.asyncio"),
    "fake": (
        fakeredis.FakeRedis,
        "pass the URL of a server (embedded: starts one, and fakeredis.TcpFakeServer",
    ),
    "fake asyncio": (
        fakeredis.FakeAsyncRedis,
        "pass the URL of a server (embedded: starts one, and fakeredis.",
    ),
    "blocking pool": (redis.ConnectionPool, "pass redis.asyncio.Redis(connection_pool=…)"),
    "pool": (redis.asyncio.ConnectionPool, "pass redis.asyncio.Redis(connection_pool=…)"),
    "Sentinel": (
        lambda: redis.asyncio.Sentinel([("h", 1)]),
        "pass what master_for(name) of an asyncio Sentinel",
    ),
    "blocking Sentinel": (
        lambda: redis.Sentinel([("h", 1)]),
        "pass what master_for(name) of an asyncio Sentinel",
    ),
    "blocking master": (lambda: redis.Sentinel([("h", 1)]).master_for("m"), "which blocks: pass a client of"),
    "replica": (
        lambda: redis.asyncio.Sentinel([("h", 1)]).slave_for("m"),
        "of slave_for: a replica takes no writes; pass what master_for(name) returns",
    ),
    "pipeline": (lambda: redis.asyncio.Redis().pipeline(), "pass the client that it was made by"),
    "pubsub": (lambda: redis.asyncio.Redis().pubsub(), "pass the client that it was made by"),
    "class": (lambda: redis.asyncio.Redis, "redis.asyncio.client.Redis is a class; pass an object of it"),
    "mock": (MagicMock, "not unittest.mock.MagicMock"),
    "mock of a client": (lambda: MagicMock(spec=redis.asyncio.Redis()), "not unittest.mock.MagicMock"),
    "asyncio mock": (lambda: AsyncMock(redis.asyncio.Redis), "not unittest.mock.AsyncMock"),
    "bytes": (lambda: b"redis://h", "not builtins.bytes: pass its text, str(…)"),
    "number": (lambda: 6379, "redis must be a URL or a redis.asyncio client, not builtins.int"),
    "options": (lambda: {"host": "h"}, "not builtins.dict"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_at_once(kind):
    make, instead = REFUSED[kind]
    with pytest.raises(TypeError) as refused:
        Queue("targets", redis=make())
    said = str(refused.value)
    assert said.startswith("redis must be a URL or a redis.asyncio client, not ")
    assert instead in said
    assert len(said) < 250


def test_a_blocking_cluster_client_is_refused():
    """Made without its constructor, which would look for the cluster."""
    for kind in (redis.RedisCluster, valkey.ValkeyCluster):
        with pytest.raises(
            TypeError, match="which blocks: pass a RedisCluster of redis.asyncio, or a URL redis."
        ):
            target_of_client(kind.__new__(kind))


def test_a_client_of_other_connections_is_refused():
    pool: Any = redis.asyncio.ConnectionPool()
    pool.connection_class = dict
    with pytest.raises(TypeError, match="whose connections are not those of redis.asyncio"):
        Queue("targets", redis=redis.asyncio.Redis(connection_pool=pool))


def test_a_cluster_client_wants_a_hash_tag_as_its_url_does():
    client = redis.asyncio.RedisCluster("127.0.0.1", 6379)
    with pytest.raises(ValueError, match="hash tag"):
        Queue("targets", redis=client)
    Queue("targets", redis=client, prefix="{a}")


@pytest.mark.parametrize(
    "url",
    [
        "redis://h?no_such=1",
        "redis+cluster://h?no_such=1",
        "redis+sentinel://h/m?no_such=1",
        "rediss+sentinel://h/m?ssl_cert_reqs=sometimes",
        "redis+cluster://h?ssl_ca_certs=/x",  # of a URL that does not speak TLS
    ],
)
def test_an_option_unknown_to_redis_py_is_refused_at_once(url):
    with pytest.raises(
        ValueError, match="^the Redis URL has an option that redis-py does not know, or not so$"
    ):
        Queue("targets", redis=url, prefix="{a}")


CLIENTS = {
    "plain": lambda port, _path: redis.asyncio.Redis(port=port),
    "derived": lambda port, _path: Own(port=port),
    "one connection": lambda port, _path: redis.asyncio.Redis(port=port, single_connection_client=True),
    "decoding": lambda port, _path: redis.asyncio.Redis(port=port, decode_responses=True, protocol=3),
    "by URL": lambda port, _path: redis.asyncio.from_url(f"redis://localhost:{port}/3?client_name=me"),
    "strict": lambda port, _path: redis.asyncio.StrictRedis(port=port),
    "blocking pool": lambda port, _path: redis.asyncio.Redis(
        connection_pool=redis.asyncio.BlockingConnectionPool(port=port, max_connections=1, timeout=1)
    ),
    "of a pool": lambda port, _path: redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(port=port)),
    "socket": lambda _port, path: redis.asyncio.Redis(unix_socket_path=path),
    "provider": lambda port, _path: redis.asyncio.Redis(
        port=port, credential_provider=redis.UsernamePasswordCredentialProvider("worker", "word")
    ),
    "valkey": lambda port, _path: valkey.asyncio.Valkey(port=port, username="worker", password="word"),
    "valkey's pool": lambda port, _path: valkey.asyncio.Valkey(
        connection_pool=valkey.asyncio.BlockingConnectionPool(port=port)
    ),
    "valkey's socket": lambda _port, path: valkey.asyncio.Valkey(unix_socket_path=path),
}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory) -> Any:
    """A server with a Unix socket and a user of a name and a password; anybody else gets in, too."""
    folder = tmp_path_factory.mktemp("open")
    with Server(folder).start("--unixsocket", str(folder / "socket")) as server:
        with server.sync_client() as client:
            client.execute_command("ACL", "SETUSER", "worker", "on", ">word", "~*", "&*", "+@all")
        yield server, str(folder / "socket")


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_client_of_each_kind_works(open_server, kind):
    server, path = open_server
    client: Any = CLIENTS[kind](server.port, path)
    async with asyncio.timeout(20), Queue("targets", redis=client) as queue:

        @queue.process
        async def add(job):
            return job.data + 1

        assert await (await queue.enqueue(41)).result(timeout=10_000) == 42
        await queue.destroy()
    await client.aclose()
