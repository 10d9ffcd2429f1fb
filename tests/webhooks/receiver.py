"""A webhook receiver on loopback that can misbehave in every way, for the tests beside it.

A ``Script`` answers one request with what bytes it likes; unless it closed the connection, the next
request on it is read when it returns.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.certificate import server_context

WAIT_S = 30.0


@dataclass
class Request:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reply(status: int = 200, body: bytes = b"ok", **headers: str) -> Script:
    """Return a script that answers as a good server does; ``retry_after="1"`` sets a header."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()

    return answer


def send(*parts: bytes, hang_up: bool = True) -> Script:
    """Return a script that writes these bytes, and then hangs up or says nothing more."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await writer.drain()
        if hang_up:
            writer.close()
        else:
            await reader.read(1)  # the client's hanging up

    return answer


def send_for_ever(head: bytes, part: bytes) -> Script:
    """Return a script that writes ``head`` and then ``part`` as fast as it is taken."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()

    return answer


def drip(head: bytes, part: bytes, pause_s: float = 0.01) -> Script:
    """Return a script that writes ``head``, and then ``part`` again and again, slowly."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)  # the slowness is what is being played

    return answer


class Receiver:
    """A server on a free port of a loopback address that plays its scripts in turn, the last one for ever.

    Attributes:
        requests: what came, in order.
        connections: how many connections were opened.
        server_names: the names asked for by TLS clients.
    """

    def __init__(self, *scripts: Script, tls: Path | None = None, address: str = "127.0.0.1") -> None:
        self._address = address
        self._scripts = list(scripts or [reply()])
        self._tls_folder = tls
        self._open = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()  # added by a connection, removed at its end
        self.requests: list[Request] = []
        self.connections = 0
        self.server_names: list[str | None] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, self._address, 0, ssl=self._tls() if self._tls_folder else None
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, path: str = "/hook", host: str | None = None) -> str:
        """Return the URL of ``path`` at this server."""
        return f"{'https' if self._tls_folder else 'http'}://{host or self._address}:{self.port}{path}"

    async def until_requests(self, count: int) -> None:
        """Wait until that many requests have come."""
        await self._until(lambda: len(self.requests) >= count)

    async def until_open(self, count: int) -> None:
        """Wait until exactly that many connections are open."""
        await self._until(lambda: self._open == count)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(condition)

    def _tls(self) -> ssl.SSLContext:
        assert self._tls_folder is not None
        context = server_context(self._tls_folder)
        context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        await self._count(opened=1)
        try:
            while not writer.is_closing():
                request = await _read(reader)
                self.requests.append(request)
                await self._count()
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, which some tests wait for, or the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            await self._count(opened=-1)

    async def _count(self, opened: int = 0) -> None:
        async with self._changed:
            self._open += opened
            self.connections += max(opened, 0)
            self._changed.notify_all()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    return Request(line, headers, await reader.readexactly(int(headers["content-length"])))
