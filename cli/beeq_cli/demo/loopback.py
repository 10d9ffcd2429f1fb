"""The smallest HTTP server that the demo's own helpers need: one request a connection, on loopback only."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_TIMEOUT_S = 10.0
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked; header names are in small letters."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class LoopbackResponse:
    """What is answered."""

    status: str
    body: bytes = b""
    media_type: str = "application/json"


class LoopbackServer(ABC):
    """Answers until its ``async with`` block is left."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None

    @property
    def host(self) -> str:
        """Host and port."""
        assert self._server is not None  # noqa: S101 - inside the block
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_MAX_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening."""
        assert self._server is not None  # noqa: S101 - inside the block
        self._server.close()
        async with asyncio.timeout(_TIMEOUT_S):
            await self._server.wait_closed()

    @abstractmethod
    def answer(self, request: Request) -> LoopbackResponse:
        """Return the answer to a request.

        Raises:
            ValueError: it is none; the connection is closed without a word.
        """

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = self.answer(await _read(reader))
                head = (
                    f"HTTP/1.1 {answer.status}\r\nContent-Type: {answer.media_type}\r\n"
                    f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + answer.body)
                await writer.drain()
        except (TimeoutError, OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            return  # it is no request, or nobody waits for the answer
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _version = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(min(int(headers.get("content-length", "0")), _MAX_BYTES))
    return Request(method, path, headers, body)
