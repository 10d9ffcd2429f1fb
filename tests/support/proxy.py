"""A TCP proxy before a server, which a test can make misbehave: be slow, freeze, swallow replies, hang up."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

from tests.support.acl import UserOfUrls
from tests.support.server import free_port

#: A slow line carries what fits in so much time at once.
_STEP_S = 0.01


class _Line:
    """One direction of a line: all its connections share the bytes a second that it carries."""

    def __init__(self) -> None:
        self.bytes_per_s: float | None = None
        self._is_free_at = 0.0

    async def send(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Pass the data on, as fast as the line and the receiver take it."""
        rest = memoryview(data)
        while rest:
            size = len(rest) if self.bytes_per_s is None else max(1, int(self.bytes_per_s * _STEP_S))
            part, rest = rest[:size], rest[size:]
            await self._take_turn(len(part))
            writer.write(part)
            await writer.drain()

    async def _take_turn(self, size: int) -> None:
        if self.bytes_per_s is None:
            return
        loop = asyncio.get_running_loop()
        self._is_free_at = max(self._is_free_at, loop.time()) + size / self.bytes_per_s
        await asyncio.sleep(self._is_free_at - loop.time())


class Proxy:
    """Forwards bytes both ways until another mode is set.

    Nothing is held in memory: who sends faster than the other side reads waits, as on a real line.

    Attributes:
        is_silent: nothing is forwarded any more, and no connection is closed.
        swallow: asked for each request; True lets it through, swallows the reply and hangs up.
        mute: asked for each request; True lets it through, and swallows its connection's replies from then on.
        hold: asked for each request; True keeps it, and what follows it, until ``released`` is set.
        lag_s: asked for each part that comes, of requests and replies: how much later to pass it on.
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
        self.lag_s: Callable[[bytes], float] = lambda _data: 0
        self.released = asyncio.Event()
        self._is_closed = False
        self._requests_line = _Line()
        self._replies_line = _Line()
        self._is_running = asyncio.Event()
        self._is_running.set()

    def limit(self, bytes_per_s: float | None) -> None:
        """Carry at most so many bytes a second in each direction, all connections together; None: no limit."""
        self._requests_line.bytes_per_s = self._replies_line.bytes_per_s = bytes_per_s

    def lead_to(self, target_port: int) -> None:
        """Lead new connections to another server; open ones stay."""
        self._target_port = target_port

    def freeze(self) -> None:
        """Stop as a process stops on SIGSTOP: connections are accepted, and what is sent is held, not lost."""
        self._is_running.clear()

    def thaw(self) -> None:
        """Go on: what was held is delivered, in its order, also from connections that have since been closed."""
        self._is_running.set()

    @property
    def url(self) -> str:
        """Where it listens, and beeq's user."""
        return f"redis{'s' if self.tls else ''}://{UserOfUrls.credentials()}127.0.0.1:{self.port}"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        if self._is_closed:  # it came in the moment of the end
            writer.transport.abort()
            return
        self._writers.add(writer)
        accepting = asyncio.current_task()
        assert accepting is not None
        self._tasks.add(accepting)  # type: ignore[arg-type]  # asyncio's own task
        accepting.add_done_callback(self._tasks.discard)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers.add(server_writer)
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
                if lag_s := self.lag_s(data):
                    await asyncio.sleep(lag_s)
                await self._is_running.wait()
                await self._requests_line.send(data, writer)
        await self._is_running.wait()
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
                if lag_s := self.lag_s(data):
                    await asyncio.sleep(lag_s)
                if not self.is_silent and not muted.is_set():
                    await self._is_running.wait()
                    await self._replies_line.send(data, writer)
        await self._is_running.wait()
        writer.close()

    def hang_up(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        """End what is left."""
        self._is_closed = True
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
        # asyncio drops, open, a connection that it has taken when its server closes: it takes none from here on,
        # and hands over what it has.
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        await proxy.close()
