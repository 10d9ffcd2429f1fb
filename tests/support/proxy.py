"""A TCP proxy before a server, which a test can make misbehave: be late, swallow replies, hang up."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

from tests.support.server import free_port


class Proxy:
    """Forwards bytes both ways until told otherwise.

    Attributes:
        is_silent: nothing is forwarded any more, and no connection is closed.
        swallow: asked for each request; True lets it through, swallows the reply and hangs up.
        mute: asked for each request; True lets it through, and swallows its connection's replies from then on.
        hold: asked for each request; True keeps it, and what follows it, until ``released`` is set.
    """

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target_port = target_port
        self.tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = free_port()
        self.is_silent = False
        self.swallow: Callable[[bytes], bool] = lambda _request: False
        self.mute: Callable[[bytes], bool] = lambda _request: False
        self.hold: Callable[[bytes], bool] = lambda _request: False
        self.released = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, server_writer}
        swallowing, muted = asyncio.Event(), asyncio.Event()
        for pump in (
            self._requests(reader, server_writer, swallowing, muted),
            self._replies(server_reader, writer, swallowing, muted),
        ):
            task = asyncio.get_running_loop().create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        swallowing: asyncio.Event,
        muted: asyncio.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.is_silent:
                    continue
                if self.swallow(data):
                    swallowing.set()
                if self.mute(data):
                    muted.set()
                if self.hold(data):
                    await self.released.wait()
                writer.write(data)
        writer.close()

    async def _replies(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        swallowing: asyncio.Event,
        muted: asyncio.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if swallowing.is_set():
                    break
                if not self.is_silent and not muted.is_set():
                    writer.write(data)
        writer.close()

    def hang_up(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        """End what is left."""
        self.hang_up()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)


class FirstExchange:
    """Chooses the first call of the pump's script that is to come."""

    def __init__(self) -> None:
        self.has_come = asyncio.Event()

    def __call__(self, request: bytes) -> bool:
        if self.has_come.is_set() or b"EVALSHA" not in request or b"earlierDelayed" not in request:
            return False
        self.has_come.set()
        return True


@contextlib.asynccontextmanager
async def proxy_to(port: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """Start a proxy before the server on ``port``, with TLS or without; it ends with the block."""
    proxy = Proxy(port, tls=tls)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", proxy.port, ssl=tls)
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
