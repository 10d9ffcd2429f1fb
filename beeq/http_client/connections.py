"""HTTP connections that are kept a moment for the next request to the same origin.

httpcore has a pool of its own, but a task that is cancelled while it returns a connection leaves that
connection in the pool for good, and workers cancel tasks. Here nothing is awaited when a connection is
returned: it is kept, or closed by a task of the pool's own. ``beeq.ai`` uses these connections too.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpcore

from beeq.http_client.header_lines import read_lines_in_one_pass

read_lines_in_one_pass()

#: Shorter than the keep-alive of common servers (5 s), which might close just as a request is sent.
KEEPALIVE_S = 2.0
MAX_IDLE = 50

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


#: Gets the bytes that a connection reads, none at its end; returns those for the HTTP library. An error that
#: it raises ends the request.
Watch = Callable[[bytes], bytes]


class OwnedNetwork(httpcore.AsyncNetworkBackend):
    """Opens one network connection, and can close it at any time.

    Attributes:
        watch: filters what is read, after TLS; None passes everything.
    """

    def __init__(self) -> None:
        self._network: httpcore.AsyncNetworkBackend = httpcore.AnyIOBackend()
        self._stream: httpcore.AsyncNetworkStream | None = None
        self._make_watch: Callable[[], Watch] | None = None
        self.watch: Watch | None = None

    def watch_by(self, make_watch: Callable[[], Watch] | None) -> None:
        """Set a new watch for the bytes read from now on, and another for those inside TLS."""
        self._make_watch = make_watch
        self.renew_watch()

    def renew_watch(self) -> None:
        """Replace the watch: a proxy's response ends where TLS through it begins."""
        self.watch = None if self._make_watch is None else self._make_watch()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to ``host`` at the first of its addresses that accepts."""
        try:
            self._stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        except UnicodeError:  # an empty label, or one of more than 63 characters
            raise httpcore.ConnectError("not a host name") from None
        except httpcore.ConnectError as error:
            raise httpcore.ConnectError(connect_error_text(error)) from error
        return WatchedStream(self._stream, self)

    async def aclose(self) -> None:
        """Close the connection, also during a request on it. Takes at most two turns of the loop."""
        if self._stream is not None:
            await self._stream.aclose()


class WatchedStream(httpcore.AsyncNetworkStream):
    """A network's stream: what it reads passes the network's ``watch``."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, network: OwnedNetwork) -> None:
        self._stream = stream
        self._network = network

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        """Read the next bytes; none at the end."""
        while True:
            data = await self._stream.read(max_bytes, timeout)
            passed = data if self._network.watch is None else self._network.watch(data)
            if passed or not data:
                return passed

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        """Write all of it."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        """Return the stream inside TLS."""
        inside = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        self._network.renew_watch()
        return WatchedStream(inside, self._network)

    def get_extra_info(self, info: str) -> Any:
        """Return the stream's extra info."""
        return self._stream.get_extra_info(info)


def connect_error_text(error: BaseException) -> str:
    """Return the system's text for why a connection failed ("Connection refused")."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, socket.gaierror) and found.strerror:
            return found.strerror
        if isinstance(found, OSError) and found.errno:
            return os.strerror(found.errno)  # asyncio's own text names its calls
        # Several addresses failed: take the first one's reason.
        found = found.exceptions[0] if isinstance(found, BaseExceptionGroup) else found.__cause__
    return str(error)


@dataclass(frozen=True, slots=True)
class HTTPProxy:
    """A proxy: its URL without user and password, which are sent as basic authentication if given."""

    url: str
    auth: tuple[bytes, bytes] | None = field(default=None, repr=False)


def _http_connection(
    origin: httpcore.Origin, network: OwnedNetwork, ssl_context: ssl.SSLContext, proxy: HTTPProxy | None
) -> httpcore.AsyncConnectionInterface:
    if proxy is None:
        return httpcore.AsyncHTTPConnection(
            origin, ssl_context, keepalive_expiry=KEEPALIVE_S, network_backend=network
        )
    # Only this pool's way to make one connection is used.
    return httpcore.AsyncHTTPProxy(
        proxy.url,
        proxy.auth,
        ssl_context=ssl_context,
        proxy_ssl_context=ssl_context if proxy.url.startswith("https:") else None,
        keepalive_expiry=KEEPALIVE_S,
        network_backend=network,
    ).create_connection(origin)


class _LentConnection:
    """One HTTP connection, and the network connection below it."""

    def __init__(
        self,
        origin: httpcore.Origin,
        network: OwnedNetwork,
        ssl_context: ssl.SSLContext,
        proxy: HTTPProxy | None,
    ) -> None:
        self.origin = origin
        self.http = _http_connection(origin, network, ssl_context, proxy)
        self.network = network
        self.expiry: asyncio.TimerHandle | None = None  # set while it is idle


class Connections:
    """Lends any number of connections at once; it belongs to one event loop.

    ``make_network`` returns the network for one new connection. With a ``proxy`` all of them go through it.
    ``on_close`` is called when they are closed: it closes what makes the networks.
    """

    def __init__(
        self,
        make_network: Callable[[], OwnedNetwork],
        ssl_context: ssl.SSLContext,
        proxy: HTTPProxy | None = None,
        *,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self._make_network = make_network
        self._on_close = on_close
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._idle: list[_LentConnection] = []  # the longest idle first
        self._lent: set[_LentConnection] = set()
        self._closing: set[asyncio.Task[None]] = set()  # each task removes itself at its end

    @property
    def lent_count(self) -> int:
        """How many connections are lent at the moment."""
        return len(self._lent)

    @asynccontextmanager
    async def borrow(
        self, origin: httpcore.Origin, make_watch: Callable[[], Watch] | None = None
    ) -> AsyncIterator[httpcore.AsyncConnectionInterface]:
        """Lend a connection to ``origin``; the first request on it opens it.

        Watches filter what is read meanwhile: one before TLS, and another inside it. Afterwards the
        connection is kept if its last response was read to the end, and closed otherwise.
        """
        connection = self._take(origin) or _LentConnection(
            origin, self._make_network(), self._ssl_context, self._proxy
        )
        self._lent.add(connection)
        connection.network.watch_by(make_watch)
        try:
            yield connection.http
        finally:
            connection.network.watch_by(None)
            if connection in self._lent and connection.http.is_available():
                self._keep(connection)
            else:
                self._close(connection)
            self._lent.discard(connection)

    async def aclose(self) -> None:
        """Close all connections, lent ones too, and return when that is done."""
        self._on_close()
        for connection in [*self._idle, *self._lent]:
            self._close(connection)
        self._lent.clear()
        while self._closing:
            await asyncio.wait(self._closing)

    def _take(self, origin: httpcore.Origin) -> _LentConnection | None:
        for connection in reversed(self._idle):
            if connection.origin != origin:
                continue
            if connection.http.has_expired():  # by time, or because the server closed it
                self._close(connection)
            else:
                self._leave_idle(connection)
                return connection
        return None

    def _keep(self, connection: _LentConnection) -> None:
        loop = asyncio.get_running_loop()
        connection.expiry = loop.call_later(KEEPALIVE_S, self._close, connection)
        self._idle.append(connection)
        if len(self._idle) > MAX_IDLE:
            self._close(self._idle[0])

    def _close(self, connection: _LentConnection) -> None:
        self._leave_idle(connection)
        task = asyncio.get_running_loop().create_task(connection.network.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _leave_idle(self, connection: _LentConnection) -> None:
        if connection.expiry is not None:
            connection.expiry.cancel()
            connection.expiry = None
            self._idle.remove(connection)
