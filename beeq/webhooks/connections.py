"""Connections to receivers, kept a moment for the next delivery to the same origin.

httpcore has a pool of its own, but a task that is cancelled while its connection is given back
leaves that connection in it for good, and workers cancel tasks. Here nothing is awaited on the way
back: a connection is kept, or closed by a task of this object's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpcore

if TYPE_CHECKING:
    import ssl

    from beeq.webhooks.guard import GuardedBackend

#: Shorter than common servers' keep-alive (5 s), which might end just as a request goes out.
KEEPALIVE_S = 2.0
MAX_IDLE = 50


class _Connection:
    """One HTTP connection, and the network connection that carries it once it is open."""

    def __init__(self, origin: httpcore.Origin, network: GuardedBackend, ssl_context: ssl.SSLContext) -> None:
        self.origin = origin
        self.http = httpcore.AsyncHTTPConnection(
            origin, ssl_context, keepalive_expiry=KEEPALIVE_S, network_backend=network
        )
        self.network = network
        self.expiry: asyncio.TimerHandle | None = None  # set while it is idle


class Connections:
    """Lends connections, as many as are asked for at once; it belongs to one event loop.

    Args:
        guard: makes the way to the network for one connection.
        ssl_context: what certificates are verified with.
    """

    def __init__(self, guard: Callable[[], GuardedBackend], ssl_context: ssl.SSLContext) -> None:
        self._guard = guard
        self._ssl_context = ssl_context
        self._idle: list[_Connection] = []  # the longest idle first
        self._lent: set[_Connection] = set()
        self._closing: set[asyncio.Task[None]] = set()  # removed by the task's own end

    @asynccontextmanager
    async def borrow(self, origin: httpcore.Origin) -> AsyncIterator[httpcore.AsyncHTTPConnection]:
        """Lend a connection to ``origin``; it is opened by the first request on it.

        It is kept afterwards if its last response was read to the end, and closed otherwise.
        """
        connection = self._take(origin) or _Connection(origin, self._guard(), self._ssl_context)
        self._lent.add(connection)
        try:
            yield connection.http
        finally:
            if connection in self._lent and connection.http.is_available():
                self._keep(connection)
            else:
                self._close(connection)
            self._lent.discard(connection)

    async def aclose(self) -> None:
        """Close all connections, lent ones too, and return when that is done."""
        for connection in [*self._idle, *self._lent]:
            self._close(connection)
        self._lent.clear()
        while self._closing:
            await asyncio.wait(self._closing)

    def _take(self, origin: httpcore.Origin) -> _Connection | None:
        for connection in reversed(self._idle):
            if connection.origin != origin:
                continue
            if connection.http.has_expired():  # by time, or because the receiver hung up
                self._close(connection)
            else:
                self._leave_idle(connection)
                return connection
        return None

    def _keep(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.expiry = loop.call_later(KEEPALIVE_S, self._close, connection)
        self._idle.append(connection)
        if len(self._idle) > MAX_IDLE:
            self._close(self._idle[0])

    def _close(self, connection: _Connection) -> None:
        self._leave_idle(connection)
        task = asyncio.get_running_loop().create_task(connection.network.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _leave_idle(self, connection: _Connection) -> None:
        if connection.expiry is not None:
            connection.expiry.cancel()
            connection.expiry = None
            self._idle.remove(connection)
