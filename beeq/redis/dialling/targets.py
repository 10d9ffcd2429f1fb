"""Turns what a queue was given, a URL or a client of redis-py's or valkey-py's, into connection settings.

The settings are a pool, which opens no connection itself, and for a cluster the nodes to ask. A client is
recognised by its class: a blocking client has the same attributes. Anything that cannot be used is refused
with a sentence that says what to pass instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis import exceptions
from redis.asyncio import Connection, ConnectionPool, Redis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from beeq.redis.urls import CLUSTER_SCHEMES, SENTINEL_SCHEMES, ServerGroup, parse_server_group, scheme_of

Address = tuple[str, int]

#: Options of a cluster's client that are not its connections'.
_NOT_OF_A_NODE = (
    "connection_class",
    "host",
    "max_connections",
    "port",
    "redis_connect_func",
    "response_callbacks",
)


@dataclass(frozen=True)
class Target:
    """The settings for connections.

    Attributes:
        pool: its connection class and options; None: known once the embedded server has been joined.
        sentinel: the Sentinel client that the pool asks for the master, to be closed; None: there is none.
        nodes: a cluster's nodes, to ask for the owner of a slot; empty without a cluster.
        remap: maps the address that a cluster node states to one where it can be reached; None: it is right.
    """

    pool: Any
    sentinel: Sentinel | None = None
    nodes: tuple[Address, ...] = ()
    remap: Callable[[Address], Address] | None = None


class OwnUsersConnection(UnixDomainSocketConnection):
    """A connection to the embedded server, which must run as this user; else no byte is sent."""

    async def on_connect(self) -> None:
        """Check whose server it is, before the first command."""
        from beeq.embedded.keeper import is_of_this_user  # noqa: PLC0415 - only here a server of its own

        assert self._writer is not None  # noqa: S101 - it is connected
        if not is_of_this_user(self._writer.get_extra_info("socket").fileno()):
            raise exceptions.ConnectionError("another user's server listens in the embedded server's place")
        await super().on_connect()


def pool_of_embedded(url: str) -> ConnectionPool:
    """Return a pool for the embedded server's URL; each of its connections checks whose server it is."""
    pool = ConnectionPool.from_url(url)
    pool.connection_class = OwnUsersConnection
    return pool


def target_of_url(url: str, *, share_s: float) -> Target:
    """Return a checked URL's target; each Sentinel has ``share_s`` to answer.

    Raises ValueError if an option is unknown; the message does not repeat it.
    """
    scheme = scheme_of(url)
    if scheme == "embedded":
        return Target(None)
    try:
        if scheme in SENTINEL_SCHEMES:
            return _of_sentinels(parse_server_group(url), share_s)
        if scheme in CLUSTER_SCHEMES:
            group = parse_server_group(url)
            return Target(_pool_for(group.url), nodes=tuple(group.addresses))
        return Target(_pool_for(url))
    except (ValueError, TypeError, exceptions.RedisError):
        raise ValueError("the Redis URL has an option that redis-py does not know, or not so") from None


def _pool_for(url: str, **options: Any) -> ConnectionPool:
    """Return a pool that holds a plain URL's settings, overridden by ``options``."""
    pool = ConnectionPool.from_url(url)
    pool.connection_kwargs.update(options)
    pool.connection_class(**pool.connection_kwargs)  # checks the options; connects nowhere
    return pool


def _of_sentinels(group: ServerGroup, share_s: float) -> Target:
    one_try = {
        "socket_timeout": share_s,
        "socket_connect_timeout": share_s,
        "retry": Retry(NoBackoff(), 0),  # the next try is the next Sentinel's
    }
    sentinel = Sentinel([])  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    for host, port in group.addresses:
        asked = _pool_for(group.sentinel_url, host=host, port=port, **one_try)
        sentinel.sentinels.append(Redis.from_pool(asked))
    _pool_for(group.url)
    options: dict[str, Any] = dict(parse_url(group.url))
    is_tls = options.pop("connection_class", Connection) is SSLConnection
    kind = SentinelManagedSSLConnection if is_tls else SentinelManagedConnection
    del options["host"], options["port"]  # a Sentinel's
    pool = SentinelConnectionPool(group.name, sentinel, connection_class=kind, **options)  # type: ignore[no-untyped-call]  # redis-py
    return Target(pool, sentinel)


def target_of_client(client: Any) -> Target:
    """Return a client's target. Raises TypeError for anything else, and for a client that cannot be used."""
    fault = _fault_of(client)
    if fault is not None:
        raise TypeError(f"redis must be a URL or a redis.asyncio client, not {_name(type(client))}{fault}")
    if _is_a(type(client), *_CLUSTERS):
        options = {
            name: value for name, value in client.connection_kwargs.items() if name not in _NOT_OF_A_NODE
        }
        manager = client.nodes_manager
        kind = client.connection_kwargs["connection_class"]
        pool_class = ConnectionPool if kind.__module__.startswith("redis.") else _pool_class_beside(kind)
        return Target(
            pool_class(connection_class=kind, **options),
            nodes=tuple((node.host, int(node.port)) for node in manager.startup_nodes.values()),
            remap=getattr(manager, "address_remap", None),
        )
    return Target(client.connection_pool)


def _pool_class_beside(kind: type[Any]) -> Any:
    """Return the pool of the library that the connection class is of; redis-py's adds options of its own."""
    library = next(each.__module__ for each in kind.__mro__ if _is_a(each, *_CONNECTIONS))
    return sys.modules[library].ConnectionPool


_CLIENTS = ("redis.asyncio.client.Redis", "valkey.asyncio.client.Valkey")
_CLUSTERS = ("redis.asyncio.cluster.RedisCluster", "valkey.asyncio.cluster.ValkeyCluster")
_CONNECTIONS = ("redis.asyncio.connection.AbstractConnection", "valkey.asyncio.connection.AbstractConnection")
#: Objects mistaken for a client, and what to pass instead. The first match counts.
_MISTAKEN = (
    (
        ("redis.client.Redis", "valkey.client.Valkey"),
        ", which blocks: pass a client of redis.asyncio or valkey.asyncio, or a URL",
    ),
    (
        ("redis.cluster.RedisCluster", "valkey.cluster.ValkeyCluster"),
        ", which blocks: pass a RedisCluster of redis.asyncio, or a URL redis+cluster://…",
    ),
    (
        (
            "redis.asyncio.client.Pipeline",
            "redis.asyncio.client.PubSub",
            "redis.asyncio.cluster.ClusterPipeline",
            "valkey.asyncio.client.Pipeline",
            "valkey.asyncio.client.PubSub",
            "valkey.asyncio.cluster.ClusterPipeline",
        ),
        ": pass the client that it was made by",
    ),
    (
        (
            "redis.sentinel.Sentinel",
            "redis.asyncio.sentinel.Sentinel",
            "valkey.sentinel.Sentinel",
            "valkey.asyncio.sentinel.Sentinel",
        ),
        ": pass what master_for(name) of an asyncio Sentinel returns, or a URL redis+sentinel://…",
    ),
    (
        (
            "redis.connection.ConnectionPool",
            "redis.asyncio.connection.ConnectionPool",
            "valkey.connection.ConnectionPool",
            "valkey.asyncio.connection.ConnectionPool",
        ),
        ": pass redis.asyncio.Redis(connection_pool=…) with a pool of redis.asyncio, or a URL",
    ),
)
_FAKE = (
    ", which makes no connections of its own: pass the URL of a server (embedded: starts one, and "
    "fakeredis.TcpFakeServer is one)"
)


def _fault_of(client: Any) -> str | None:
    """Return why an object cannot be used as a client; None if it can."""
    if isinstance(client, type):
        return f": {_name(client)} is a class; pass an object of it"
    kind = type(client)
    connection = _connection_class_of(client)
    its_classes = (*kind.__mro__, *(connection.__mro__ if isinstance(connection, type) else ()))
    if any(each.__module__.partition(".")[0] == "fakeredis" for each in its_classes):
        return _FAKE
    fault = next((instead for names, instead in _MISTAKEN if _is_a(kind, *names)), None)
    if fault is None and not _is_a(kind, *_CLIENTS, *_CLUSTERS):
        fault = ": pass its text, str(…)" if isinstance(client, bytes) or hasattr(client, "scheme") else ""
    elif fault is None and not (isinstance(connection, type) and _is_a(connection, *_CONNECTIONS)):
        fault = ", whose connections are not those of redis.asyncio"
    elif fault is None and _is_a(kind, *_CLIENTS) and not getattr(client.connection_pool, "is_master", True):
        fault = " of slave_for: a replica takes no writes; pass what master_for(name) returns"
    return fault


def _connection_class_of(client: Any) -> Any:
    if _is_a(type(client), *_CLUSTERS):
        return client.connection_kwargs.get("connection_class")
    if _is_a(type(client), *_CLIENTS):
        return getattr(getattr(client, "connection_pool", None), "connection_class", None)
    return None


def _is_a(kind: type[Any], *names: str) -> bool:
    """Return whether the class, or one that it derives from, has one of these names."""
    return any(_name(each) in names for each in kind.__mro__)


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
