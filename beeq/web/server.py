"""Runs the application on uvicorn in this process, on one socket, until the first SIGTERM or SIGINT.

For ``beeq web``; other servers (``uvicorn beeq.web:app``) do not use this module.
"""

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

#: How long requests under way may take to finish.
SHUTDOWN_TIMEOUT_S = 10
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, on the first address of ``host``; port 0 is any that is free.

    Raises OSError if this machine does not have the host, or the port is in use or not allowed.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(address, family=family, backlog=_BACKLOG)


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: Application, listener: socket.socket, *, on_serving: Callable[[], None], has_access_log: bool = False
) -> None:
    """Serve until a signal comes, and close ``listener``; a second signal ends requests under way.

    ``on_serving`` is called once, when requests are accepted. The access log is ``uvicorn.access``.
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
    """uvicorn, with a callback when it serves, and without raising the signal again that stopped it."""

    def __init__(self, config: uvicorn.Config, on_serving: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_serving = on_serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``on_serving``."""
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
