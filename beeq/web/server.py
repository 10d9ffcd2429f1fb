"""Runs the application in this process, on uvicorn: on one socket, until the first SIGTERM or SIGINT.

For ``beeq web``. With a server of your own (``uvicorn beeq.web:app``) none of this is used.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

try:
    import uvicorn
except ImportError:
    raise ImportError("beeq.web.server needs uvicorn: pip install 'beequeue[web]'", name="uvicorn") from None

from beeq.web.application import Application

#: How long requests under way may take to end.
SHUTDOWN_TIMEOUT_S = 10
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: a name or an address; of several addresses the first.
        port: 0 for any that is free.

    Raises:
        OSError: there is no such host here, or the port is taken or forbidden.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address, family=family, backlog=_BACKLOG)


def url_of(listener: socket.socket) -> str:
    """Return where a socket listens, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: Application,
    listener: socket.socket,
    *,
    on_serving: Callable[[], None],
    has_access_log: bool = False,
) -> None:
    """Serve until a signal comes; a second one waits for nobody.

    Args:
        app: what to serve.
        listener: from ``listen``; closed in the end.
        on_serving: called once, when requests are taken.
        has_access_log: log a line a request, as ``uvicorn.access``.
    """
    config = uvicorn.Config(
        app,
        access_log=has_access_log,
        lifespan="on",
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        ws="none",
    )
    await _Server(config, on_serving).serve([listener])


class _Server(uvicorn.Server):
    """uvicorn, but it says when it serves, and does not die of the signal that stopped it."""

    def __init__(self, config: uvicorn.Config, on_serving: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_serving = on_serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_serving()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _signalled(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
