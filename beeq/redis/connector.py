"""The border to Redis: the one place that makes connections and turns redis-py's errors into beeq's.

It uses redis-py's own connection objects, which bring TLS, AUTH, Unix sockets and Sentinel, until the
connection is open; then ``resp.py`` takes it over, and says why. Knows nothing of queues or jobs. No
message that leaves here holds a password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import Connection as TCPConnection
from redis.asyncio.retry import Retry as ConnectionRetry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot

from beeq.errors import RedisRefused, RedisUnavailable
from beeq.redis.resp import RespProtocol
from beeq.redis.urls import (
    DEFAULT_URL,
    ServerGroup,
    check_hash_tag,
    check_url,
    parse_server_group,
    redact,
    scheme_of,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

    from beeq.embedded.membership import Membership

#: Of the time that a connection may take, the part that one Sentinel or node gets to say where the master
#: is: a second one, and the master itself, must have theirs too.
_SHARE_OF_ONE_PEER = 1 / 3
#: The first word of a reply, which redis-py's parser cuts off.
_CODES = {
    exceptions.OutOfMemoryError: "OOM",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
}


#: What redis-py raises, and the operating system through it.
_FAILURES = (exceptions.RedisError, OSError, asyncio.IncompleteReadError)


def _mapped(error: BaseException) -> RedisUnavailable | RedisRefused:
    """Return beeq's error for redis-py's, or the operating system's."""
    text = redact(str(error)) or type(error).__name__
    if isinstance(error, exceptions.ResponseError):
        code = _CODES.get(type(error))
        return RedisRefused(f"{code} {text}" if code and not text.startswith(code) else text)
    if isinstance(error, TimeoutError) and not isinstance(error, exceptions.RedisError):
        return RedisUnavailable("Redis did not answer in time")
    return RedisUnavailable(text)


def _pool_for(url: str) -> ConnectionPool:
    """Return a pool that holds the URL's settings, options included; an error's message repeats none."""
    try:
        pool = ConnectionPool.from_url(url)
        pool.connection_class(**pool.connection_kwargs)  # connects nowhere; is the proof of the options
    except (ValueError, TypeError, exceptions.RedisError):
        raise ValueError("the Redis URL has an option that redis-py does not know, or not so") from None
    return pool


def _address(node: Any, asked_host: str) -> tuple[str, int]:
    """Return where a node of a cluster is; one that does not say its host is where it was asked."""
    return node[0].decode() if node[0] else asked_host, int(node[1])


def _take_over(connection: AbstractConnection, on_message: Callable[[Any], None] | None) -> RespProtocol:
    """Leave redis-py's connection with nothing to close, and drive its transport from here on."""
    writer = connection._writer  # noqa: SLF001 - redis-py has no other way to hand its socket over
    assert writer is not None  # noqa: S101 - it is connected
    connection._reader = connection._writer = None  # noqa: SLF001 - else it would close what is ours
    return RespProtocol(writer, on_message=on_message)


class Connector:
    """Makes connections to one Redis, given by URL, by a ``redis.asyncio`` client, or not at all.

    ``embedded:`` starts or joins the folder's own server at the first ``dial``, and again at one that finds
    nobody there: its keeper may have been killed. ``close`` leaves it. With Sentinels, each ``dial`` asks
    for the master of the moment; with a cluster, for the owner of the slot.

    ``target`` is what was given as ``redis=``: ValueError says that its URL is malformed, TypeError that it
    is neither URL nor client. ``slot_key`` is a key of the queue; in a cluster all of them share its slot.
    """

    def __init__(self, target: str | Redis | None, *, timeout_ms: int, slot_key: str) -> None:
        self._timeout_s = timeout_ms / 1000
        self._slot_key = slot_key
        self._membership: Membership | None = None
        self._sentinel: Sentinel | None = None
        self._cluster: ServerGroup | None = None
        #: The cluster's nodes, those of the URL and those they named, in the order to be asked in.
        self._nodes: list[tuple[str, int]] = []
        self.set_target(target)

    def set_target(self, target: str | Redis | None) -> None:
        """Choose which Redis to dial, before the first ``dial``. Raises what making a connector raises."""
        self._target = target
        self.client: Redis | None = None
        self._pool: ConnectionPool | None = None
        self._url = ""
        if target is None or isinstance(target, str):
            self._url = check_url(DEFAULT_URL if target is None else target)
            scheme = scheme_of(self._url)
            if scheme == "redis+cluster":
                check_hash_tag(self._slot_key)
            elif scheme in ("redis", "rediss", "unix"):
                self._pool = _pool_for(self._url)
        elif hasattr(target, "connection_pool"):
            self.client = target
            self._pool = target.connection_pool
        else:
            raise TypeError(
                "redis must be a URL or a redis.asyncio client, "
                f"not {type(target).__module__}.{type(target).__name__}"
            )

    def __repr__(self) -> str:
        return f"Connector({redact(self._url) or type(self.client).__name__})"

    def twin(self) -> Connector:
        """Return a connector of the same Redis for another thread's loop."""
        timeout_ms = round(self._timeout_s * 1000)
        return Connector(self._target, timeout_ms=timeout_ms, slot_key=self._slot_key)

    async def connect(self, *, on_message: Callable[[Any], None] | None = None) -> RespProtocol:
        """Return a new connection, connected within the timeout; ``on_message`` as in ``RespProtocol``.

        Raises RedisUnavailable: nobody there, wrong password, or no answer in time.
        """
        pool = await self._choose()  # joining the embedded server has its own bound
        try:
            try:
                connection = await self._open(pool)
            except exceptions.ConnectionError:
                if self._membership is None:
                    raise
                connection = await self._open(await self._choose(instead_of=pool))
        except _FAILURES as error:
            raise _mapped(error) from None
        return _take_over(connection, on_message)

    async def _open(self, pool: ConnectionPool) -> AbstractConnection:
        connection: AbstractConnection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._cluster is not None:
                    connection = await self._connect_to_owner(self._cluster)
                else:
                    connection = await self._connected(pool.connection_class, pool.connection_kwargs)
        except BaseException:
            if connection is not None:  # the time was over just as it stood
                await connection.disconnect(nowait=True)
            raise
        return connection

    async def _connected(self, kind: type[AbstractConnection], options: dict[str, Any]) -> AbstractConnection:
        # Our own bounds: every wait for Redis is limited where it is awaited, and tries are counted
        # by the caller. redis-py's defaults (5 s a read, 3 hidden tries) would break blocking
        # fetches and multiply the waits. RESP2: pub/sub messages then arrive as plain replies.
        own_options: dict[str, Any] = {
            "socket_timeout": None,
            "socket_connect_timeout": self._timeout_s,
            "retry": ConnectionRetry(NoBackoff(), 0),
            "retry_on_error": [],
            "health_check_interval": 0,
            "protocol": 2,
            "decode_responses": False,
        }
        given = {name: value for name, value in options.items() if name != "retry_on_timeout"}
        connection = kind(**{**given, **own_options})
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _choose(self, *, instead_of: ConnectionPool | None = None) -> ConnectionPool:
        """Return the pool whose settings connections are made with; it opens none itself.

        One that led to nobody is passed as ``instead_of``: the embedded server is then joined again.
        """
        if self._pool is not None and self._pool is not instead_of:
            return self._pool
        scheme = scheme_of(self._url)
        if scheme == "embedded":
            if self._membership is None:
                from beeq import embedded  # noqa: PLC0415 - only this URL needs a server of its own
                from beeq.embedded.membership import Membership  # noqa: PLC0415

                self._membership = Membership(embedded.folder_of(self._url))
            url = await self._membership.join()
            if self._pool is None or self._pool is instead_of:  # those who waited along share one pool
                self._pool = ConnectionPool.from_url(url)
        elif scheme == "redis+sentinel":
            self._pool = self._sentinel_pool(parse_server_group(self._url))
        elif scheme == "redis+cluster":
            self._cluster = parse_server_group(self._url)
            self._nodes = list(self._cluster.addresses)
            self._pool = ConnectionPool()  # never asked: the owner of the slot is
        else:
            raise AssertionError(scheme)  # the others' pools were made by ``set_target``
        return self._pool

    def _sentinel_pool(self, fleet: ServerGroup) -> ConnectionPool:
        share_s = self._timeout_s * _SHARE_OF_ONE_PEER
        one_try = {
            "socket_timeout": share_s,
            "socket_connect_timeout": share_s,
            "retry": ConnectionRetry(NoBackoff(), 0),  # the next try is the next Sentinel's
        }
        self._sentinel = Sentinel(fleet.addresses, sentinel_kwargs=one_try)  # type: ignore[no-untyped-call]  # redis-py
        options: dict[str, Any] = dict(fleet.options)
        pool: ConnectionPool = self._sentinel.master_for(fleet.name, **options).connection_pool
        return pool

    async def _connect_to_owner(self, cluster: ServerGroup) -> AbstractConnection:
        """Connect to the node that owns the queue's slot, as the first node that answers says.

        Who was asked this time is asked last the next time: it may be cut off from the others.
        """
        slot = key_slot(self._slot_key.encode())
        failure: Exception = RedisUnavailable("no node of the cluster answers")
        asked: list[tuple[str, int]] = []
        for host, port in list(self._nodes):
            asked.append((host, port))
            self._nodes.sort(key=asked.__contains__)
            try:
                async with asyncio.timeout(self._timeout_s * _SHARE_OF_ONE_PEER):
                    ranges = await self._slots({**cluster.options, "host": host, "port": port})
            except _FAILURES as error:
                failure = error
                continue
            # Whom the URL names may be gone some day; those it led to remain.
            named = [_address(node, host) for _first, _last, *nodes in ranges for node in nodes]
            self._nodes = sorted(dict.fromkeys([*named, *cluster.addresses]), key=asked.__contains__)
            for first, last, owner, *_replicas in ranges:
                if first <= slot <= last:
                    owner_host, owner_port = _address(owner, host)
                    address = {"host": owner_host, "port": owner_port}
                    return await self._connected(TCPConnection, {**cluster.options, **address})
            failure = RedisUnavailable("no node of the cluster owns the queue's slot")
        raise failure

    async def _slots(self, options: dict[str, Any]) -> list[Any]:
        """Return what a node says of who has which slots."""
        node = await self._connected(TCPConnection, options)
        try:
            await node.send_command("CLUSTER", "SLOTS")
            ranges: list[Any] = await node.read_response()
        finally:
            await node.disconnect(nowait=True)
        return ranges

    async def close(self, *, close_client: bool = False) -> None:
        """Leave the embedded server, and close the client that was passed in if asked to."""
        if close_client and self.client is not None:
            await self.client.aclose()
        if self._sentinel is not None:
            for sentinel in self._sentinel.sentinels:
                await sentinel.aclose()
            self._sentinel = None
        membership, self._membership = self._membership, None
        if membership is not None:
            self._pool = None
            membership.leave()
