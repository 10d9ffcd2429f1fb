"""Runs the application on uvicorn in this process, on one socket, until the first SIGTERM or SIGINT.

For ``beeq web``, and for the page that a worker or the demo serves; other servers (``uvicorn beeq.web:app``)
do not use this module.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

try:
    import uvicorn
except ImportError:
    raise ImportError("beeq.web.server needs uvicorn: pip install 'beequeue[web]'", name="uvicorn") from None

from starlette.types import Receive, Scope, Send

from beeq.process import stop_signals
from beeq.web.connections import (
    ACCEPTED_AT_ONCE,
    HEAD_TIMEOUT_S,
    MAX_CONNECTIONS,
    ClientConnection,
    ClientConnections,
    connections_possible,
)
from beeq.web.policy import address_of

#: How long requests under way may take to finish.
SHUTDOWN_TIMEOUT_S = 10
#: Connections that the system keeps until they are accepted.
_BACKLOG = 2048
#: Turns of uvicorn's main loop, ten a second, between two looks at the connections.
_TICKS_BETWEEN_LOOKS = 3


class ServedApplication(Protocol):
    """The served application: the routes with the page, or the page alone."""

    def bound_streams(self, count: int) -> None:
        """Limit the number of endless responses."""

    def end_streams(self) -> None:
        """End them: the server is about to stop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""


class ListenAddress(NamedTuple):
    """Where to listen: what ``socket`` calls a family, and an address of it."""

    family: socket.AddressFamily
    address: Any

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine's own programs can reach it."""
        address = address_of(str(self.address[0]))
        return address is not None and address.is_loopback


def address_to_listen_on(host: str, port: int) -> ListenAddress:
    """Return the first address of ``host``; port 0 is any that is free. Raises OSError if there is none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return ListenAddress(family, address)


def listen(where: ListenAddress) -> socket.socket:
    """Return a listening socket.

    Raises OSError if this machine does not have the address, or the port is in use or not allowed.
    """
    return socket.create_server(where.address, family=where.family, backlog=_BACKLOG)


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: ServedApplication,
    listener: socket.socket,
    *,
    on_serving: Callable[[], None],
    has_access_log: bool = False,
    max_connections: int = MAX_CONNECTIONS,
    head_timeout_s: float = HEAD_TIMEOUT_S,
) -> None:
    """Serve until a signal comes, then close ``listener``; a second signal ends requests under way.

    ``on_serving`` is called once, when requests are accepted. The access log is ``uvicorn.access``.
    It serves ``max_connections`` at once, fewer if the process may not open so many; a request's head must be
    complete after ``head_timeout_s``.
    """
    limit = connections_possible(max_connections)
    app.bound_streams(limit // 2)  # the others are for ordinary requests, and for probes
    connections = ClientConnections(limit=limit, head_timeout_s=head_timeout_s)
    http: Any = partial(ClientConnection, connections)  # uvicorn's annotation knows classes and names only
    config = uvicorn.Config(
        app,
        access_log=has_access_log,
        backlog=ACCEPTED_AT_ONCE,
        http=http,
        lifespan="on",
        log_config=None,
        proxy_headers=False,  # the client's address is the connection's, not what a header says
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        ws="none",
    )
    await _Server(config, connections, on_serving, app.end_streams).serve([listener])


class _Server(uvicorn.Server):
    """uvicorn, with a callback when it serves; it does not re-raise the signal that stopped it."""

    def __init__(
        self,
        config: uvicorn.Config,
        connections: ClientConnections,
        on_serving: Callable[[], None],
        on_stopping: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._on_stopping = on_stopping
        self._connections = connections
        self._on_serving = on_serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``on_serving``."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_BACKLOG)  # the loop has set it to what it accepts at once
        if self.started:
            self._on_serving()

    async def on_tick(self, counter: int) -> bool:
        """Check the connections now and then; return whether to stop."""
        if counter % _TICKS_BETWEEN_LOOKS == 0:
            self._connections.close_late(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal."""
        with stop_signals(self._signalled):
            yield

    def _signalled(self, _number: int) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._on_stopping()
