"""The border to Redis: the one place that makes connections and turns redis-py's errors into beeq's.

It uses redis-py's own connection objects, which bring TLS, AUTH, Unix sockets and Sentinel, until the
connection is open; then ``resp.py`` takes it over, and says why. Knows nothing of queues or jobs. No
message that leaves here holds a password.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, cast

from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry as ConnectionRetry
from redis.backoff import NoBackoff

from beeq.environment import is_redis_configured, library_redis_url
from beeq.errors import QueueClosed, RedisError, RedisUnavailable
from beeq.redis.dialling import look
from beeq.redis.dialling.apart import Bound, Copy, copy_of, say_once
from beeq.redis.dialling.cluster import ClusterNodes
from beeq.redis.dialling.dial_errors import is_no_master, mapped, no_master, sentinels_of
from beeq.redis.dialling.misdirection import Misdirection
from beeq.redis.dialling.targets import pool_of_embedded, target_of_client, target_of_url
from beeq.redis.masters.fleet import Address, Fleet, OpenSentinel, Sentinels
from beeq.redis.masters.server_watch import ServerWatch
from beeq.redis.resp import RespProtocol
from beeq.redis.urls import check_hash_tag, check_url, shown_url
from beeq.supervision.fence import fenced

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

    from beeq.embedded.membership import Membership

#: Of the time that a connection may take, the part that one Sentinel or node gets to say where the master
#: is: a second one, and the master itself, must have theirs too.
_SHARE_OF_ONE_PEER = 1 / 3
#: Added to the error if Redis does not answer at the default address.
_UNCONFIGURED = (
    "no Redis is configured: set REDIS_URL, or BEEQ_REDIS_URL=embedded: to share the commands' own"
)
#: The options of a client that hold a password.
_PASSWORDS = ("password", "ssl_password")
#: Logged once of a client whose parts may belong to one loop.
_ASKED_IN_LOOP = (
    "the credential provider {} may belong to the queue's event loop, and is asked there: while a handler "
    "blocks the loop, heartbeats that lose their connection wait"
)
_BOUND = (
    "{} may belong to the queue's event loop, so heartbeats are made there: a handler that blocks the loop "
    "for longer than the stall interval loses its job to another worker"
)


def _address_of(connection: Any) -> Address:
    """Return where the connection leads to, as its maker has it."""
    return connection.host, int(connection.port)


def _take_over(connection: AbstractConnection, on_message: Callable[[Any], None] | None) -> RespProtocol:
    """Leave redis-py's connection with nothing to close, and drive its transport from here on."""
    writer = connection._writer  # noqa: SLF001 - redis-py has no other way to hand its socket over
    assert writer is not None  # noqa: S101 - it is connected
    connection._reader = connection._writer = None  # noqa: SLF001 - else it would close what is ours
    return RespProtocol(writer, on_message=on_message)


def _hang_up(connection: AbstractConnection) -> None:
    """End a connection that was ready only after its caller had given up."""
    _take_over(connection, None).close()


async def _connected(
    kind: type[AbstractConnection],
    options: dict[str, Any],
    timeout_s: float,
    *,
    address: Address | None = None,
) -> AbstractConnection:
    """Return a new connection of this kind; with an ``address`` no Sentinel is asked."""
    # Our own bounds: every wait for Redis is limited where it is awaited, and tries are counted
    # by the caller. redis-py's defaults (5 s a read, 3 hidden tries) would break blocking
    # fetches and multiply the waits. RESP2: pub/sub messages then arrive as plain replies.
    own_options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": min(options.get("socket_connect_timeout") or timeout_s, timeout_s),
        "retry": ConnectionRetry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": 0,
        "protocol": 2,
        "decode_responses": False,
    }
    given = {name: value for name, value in options.items() if name != "retry_on_timeout"}
    connection: Any = kind(**{**given, **own_options})
    try:
        connecting = connection.connect() if address is None else connection.connect_to(address)
        await look.connect(connection, connecting, timeout_s=timeout_s)
    except BaseException:
        with contextlib.suppress(Exception):  # a third-party class
            await connection.disconnect(nowait=True)
        raise
    return connection  # type: ignore[no-any-return]  # redis-py has no type for both


async def _open_by(
    pool: Any,
    timeout_s: float,
    on_message: Callable[[Any], None] | None = None,
    *,
    address: Address | None = None,
) -> RespProtocol:
    """Return a new connection as the pool makes them, to ``address`` if it is given. Raises RedisError."""
    kind, options = pool.connection_class, pool.connection_kwargs
    try:
        connection = await fenced(
            lambda: _connected(kind, options, timeout_s, address=address),
            limit_s=timeout_s,
            on_late=_hang_up,
        )
    except Exception as error:  # noqa: BLE001 - the client's own code may raise anything
        raise mapped(error, secrets=_secrets_in(options)) from None
    return _take_over(connection, on_message)


def _secrets_in(options: Any) -> list[str]:
    """Return the passwords in the options: a third-party error may repeat them."""
    named = [options.get(name) for name in _PASSWORDS] if isinstance(options, dict) else []
    return [password for password in named if isinstance(password, str) and password]


class Connector:
    """Makes connections to one Redis: of a URL, of a ``redis.asyncio`` client, or the one on this machine.

    ``embedded:`` starts or joins the folder's own server at the first ``connect``, and again when no server
    answers: its keeper may have been killed. ``close`` leaves it. With Sentinels, each ``connect`` asks for
    the current master; with a cluster, for the owner of the slot.

    ``target`` is what was given as ``redis=``: a malformed URL raises ValueError, what is neither URL nor
    client TypeError. ``slot_key`` is a key of the queue; in a cluster all of them share its slot.
    """

    def __init__(self, target: str | Redis | None, *, timeout_ms: int, slot_key: str) -> None:
        self._timeout_s = timeout_ms / 1000
        self._slot_key = slot_key
        self._membership: Membership | None = None
        #: The master behind the Sentinels.
        self._fleet: Fleet | None = None
        self._is_closed = False
        self.set_target(target)

    def set_target(self, target: str | Redis | None) -> None:
        """Choose the Redis, before the first ``connect``. Raises what making a connector raises."""
        self._target = target
        self.client: Redis | None = None
        self._url = ""
        self._is_unconfigured = target is None and not is_redis_configured(os.environ)
        share_s = self._timeout_s * _SHARE_OF_ONE_PEER
        if target is None or isinstance(target, str):
            self._url = library_redis_url(os.environ) if target is None else check_url(target)
            self._target = self._url
            found = target_of_url(self._url, share_s=share_s)
        else:
            found = target_of_client(target)
            self.client = target
        self._given_pool: Any = found.pool
        self._pool: Any = found.pool
        self._sentinel: Any = found.sentinel
        if self.client is not None:
            self._pool = self._own_pool_of(found.pool)
        self._cluster: ClusterNodes | None = None
        self._misdirection: Misdirection | None = None
        if found.nodes:
            check_hash_tag(self._slot_key)
            self._cluster = ClusterNodes(
                found.nodes, self._slot_key, connect=self._connected_to_node, remap=found.remap
            )
        elif found.pool is not None and not hasattr(found.pool, "sentinel_manager"):
            options = found.pool.connection_kwargs
            is_tls = look.is_for_tls(found.pool.connection_class)
            self._misdirection = Misdirection(options, is_tls=is_tls)

    def __repr__(self) -> str:
        return f"Connector({shown_url(self._url) if self._url else type(self.client).__name__})"

    @property
    def is_of_cluster(self) -> bool:
        """Whether it connects to a cluster, there to the owner of the queue's slot."""
        return self._cluster is not None

    @property
    def url(self) -> str:
        """The URL, with its secrets; "" if it was given a client."""
        return self._url

    @property
    def shown(self) -> str:
        """The server's address, for a person; without secrets."""
        if self._url:
            return shown_url(self._url).partition("?")[0]
        server, db = self.place
        parts = ":".join(str(part) for part in cast("tuple[object, ...]", server) if part is not None)
        return f"{type(self.client).__name__}({parts}, db {db})"

    def _own_pool_of(self, pool: Any) -> Any:
        """Return the pool, or a copy if its connections to Sentinels may belong to another loop."""
        if hasattr(pool, "sentinel_manager"):
            with contextlib.suppress(Bound):
                copy = self._copy_of(pool)
                self._sentinel = copy.sentinel
                return copy.pool
        return pool

    def _copy_of(self, pool: Any, owner: asyncio.AbstractEventLoop | None = None) -> Copy:
        share_s = self._timeout_s * _SHARE_OF_ONE_PEER
        return copy_of(pool, limit_s=self._timeout_s, sentinel_limit_s=share_s, owner=owner)

    def twin(self) -> tuple[Connector, bool]:
        """Return a connector to the same Redis for another thread's loop; True if it works here only.

        That is so where a part of the client may belong to the running loop, see ``apart.py``.
        """
        timeout_ms = round(self._timeout_s * 1000)
        twin = Connector(self._target, timeout_ms=timeout_ms, slot_key=self._slot_key)
        if self.client is None:
            return twin, False
        pool = self._given_pool
        try:
            copy = self._copy_of(pool, asyncio.get_running_loop())
        except Bound as bound:
            say_once(self.client, _BOUND.format(bound))
            return twin, True
        twin._pool, twin._sentinel = copy.pool, copy.sentinel
        if copy.asked_elsewhere:
            say_once(self.client, _ASKED_IN_LOOP.format(copy.asked_elsewhere))
        return twin, False

    async def connect(self, *, on_message: Callable[[Any], None] | None = None) -> RespProtocol:
        """Return a new connection, connected within the timeout; ``on_message`` as in ``RespProtocol``.

        ``ServerWatch`` ends it when its server is no longer the master.

        Raises RedisUnavailable: no server there, wrong password, or no answer in time. QueueClosed.
        """
        if self._is_closed:
            raise QueueClosed
        watch = ServerWatch.here()
        try:
            pool = await self._choose()  # joining the embedded server has its own bound
            self._fleet = self._joined_fleet(pool, watch)
            try:
                connection = await self._open(pool)
            except exceptions.ConnectionError:
                if self._membership is None:
                    raise
                connection = await self._open(await self._choose(instead_of=pool))
            named = _address_of(connection) if self._fleet is not None else None
            resp = _take_over(connection, on_message)
            if self._misdirection is not None:
                resp.meaning_of = self._misdirection.meaning_of
        except Exception as error:  # noqa: BLE001 - the client's own code may raise anything
            raise await self._meaning_of(error) from None
        watch.add(resp, timeout_s=self._timeout_s, fleet=self._fleet, named=named)
        return resp

    async def _meaning_of(self, error: Exception) -> RedisError:
        sentinels = sentinels_of(self._pool)
        if not is_no_master(error):
            secrets = _secrets_in(getattr(self._pool, "connection_kwargs", None))
            meant = mapped(error, secrets=secrets, sentinels=sentinels)
            if self._is_unconfigured and isinstance(meant, RedisUnavailable):
                meant = RedisUnavailable(f"{str(meant).rstrip('.')}; {_UNCONFIGURED}")
            return meant if self._misdirection is None else self._misdirection.of_a_dial(meant)
        its_pool = self._pool.sentinel_manager.sentinels[0].connection_pool  # it speaks for all
        kind, options = its_pool.connection_class, its_pool.connection_kwargs
        reason = ""
        try:
            async with asyncio.timeout(self._timeout_s * _SHARE_OF_ONE_PEER):
                asked = await _connected(kind, options, self._timeout_s)
                try:
                    await asked.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._pool.service_name)
                    await asked.read_response()
                finally:
                    await asked.disconnect(nowait=True)
        except Exception as failure:  # noqa: BLE001 - the client's own code may raise anything
            reason = str(mapped(failure, secrets=_secrets_in(options))).rstrip(".")
        return no_master(self._pool.service_name, sentinels, reason)

    @property
    def switches(self) -> int:
        """How often another master was announced; a change ends the delay after a failure early."""
        return 0 if self._fleet is None else self._fleet.switches

    def _joined_fleet(self, pool: Any, watch: ServerWatch) -> Fleet | None:
        """Return the master behind the Sentinels, if there are any, and follow its changes from now on."""
        if not hasattr(pool, "sentinel_manager") or not pool.is_master:
            return None
        members: dict[Address, OpenSentinel] = {}
        for sentinel in pool.sentinel_manager.sentinels:
            its_pool = sentinel.connection_pool
            options = its_pool.connection_kwargs
            address = options.get("host", "localhost"), int(options.get("port", 26379))
            members[address] = functools.partial(_open_by, its_pool, self._timeout_s)
        timeout_s = self._timeout_s  # the callback must not hold a reference to this connector
        return watch.join(
            self,
            Sentinels(pool.service_name, members, lambda address: _open_by(pool, timeout_s, address=address)),
        )

    @property
    def place(self) -> tuple[Hashable, int]:
        """The server, and the number of the database, as far as URL or client show them."""
        options: Any = getattr(self._pool, "connection_kwargs", None)
        named = options if isinstance(options, dict) else {}
        master = getattr(self._pool, "service_name", None)
        server = (master, *(named.get(part) for part in ("host", "port", "path")))
        return server, int(named.get("db") or 0)

    @property
    def names_user(self) -> bool:
        """Whether it logs in under a user name, given or from a provider; known once connected."""
        options: Any = getattr(self._pool, "connection_kwargs", None)
        named = options if isinstance(options, dict) else {}
        return bool(named.get("username")) or named.get("credential_provider") is not None

    async def _open(self, pool: ConnectionPool) -> AbstractConnection:
        """Return a connection; made in an empty context, for it outlives the caller."""
        return await fenced(lambda: self._dial(pool), limit_s=self._timeout_s, on_late=_hang_up)

    async def _dial(self, pool: ConnectionPool) -> AbstractConnection:
        """Return a connection; start over if another master is announced before it is ready."""
        while True:
            connection: AbstractConnection | None = None
            async with ServerWatch.here().dialling(self._fleet) as dial:
                connection = await self._dial_once(pool)
            if not dial.is_outdated:
                assert connection is not None  # noqa: S101 - what ends a dial is its end, or an error
                return connection
            if connection is not None:
                _hang_up(connection)

    async def _dial_once(self, pool: ConnectionPool) -> AbstractConnection:
        if self._cluster is not None:
            share_s = self._timeout_s * _SHARE_OF_ONE_PEER
            owner: AbstractConnection = await self._cluster.connect_to_owner(share_s=share_s)
            return owner
        kind, options = pool.connection_class, pool.connection_kwargs
        promoted = self._fleet.fresh_address if self._fleet is not None else None
        if self._fleet is not None and promoted is not None:
            try:
                async with asyncio.timeout(self._timeout_s * _SHARE_OF_ONE_PEER):
                    return await _connected(kind, options, self._timeout_s, address=promoted)
            except Exception:  # noqa: BLE001 - the Sentinels are asked instead
                self._fleet.is_wrong(promoted)
        connection = await _connected(kind, options, self._timeout_s)
        if self._misdirection is not None:
            try:
                await self._misdirection.check(connection)
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        return connection

    async def _choose(self, *, instead_of: Any = None) -> Any:
        """Return the pool whose settings connections are made with; it opens none itself.

        A pool whose server did not answer is passed as ``instead_of``: the embedded server is then joined
        again.
        """
        if self._pool is not None and self._pool is not instead_of:
            return self._pool
        if self._membership is None:
            from beeq import embedded  # noqa: PLC0415 - only this URL needs a server of its own
            from beeq.embedded.membership import Membership  # noqa: PLC0415

            self._membership = Membership(embedded.folder_of(self._url))
        url = await self._membership.join()
        if self._pool is None or self._pool is instead_of:  # callers that waited together share one pool
            self._pool = pool_of_embedded(url)
        return self._pool

    async def _connected_to_node(self, address: Address) -> AbstractConnection:
        host, port = address
        options = {**self._pool.connection_kwargs, "host": host, "port": port}
        return await _connected(self._pool.connection_class, options, self._timeout_s)

    async def close(self, *, close_client: bool = False) -> None:
        """Make no more connections. Leave the embedded server; close the client passed in if asked to."""
        self._is_closed = True
        await ServerWatch.here().leave(self)
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
