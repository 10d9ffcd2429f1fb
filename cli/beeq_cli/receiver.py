"""The demo's own webhook receiver: listens on loopback, believes nothing that is not signed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from types import TracebackType
from typing import Any, Self

_TIMEOUT_S = 10.0
_MAX_BYTES = 1 << 20
_TOLERANCE_S = 300


class Receiver:
    """Receives until its ``async with`` block is left; ``received``: genuine payloads by webhook-id."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(24)
        self._server: asyncio.Server | None = None
        self.received: dict[str, Any] = {}

    @property
    def secret(self) -> str:
        """What senders sign with."""
        return "whsec_" + base64.b64encode(self._key).decode()

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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status = await self._receive(reader)
                writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
        except (TimeoutError, OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            return  # it is no request, or nobody waits for the answer
        finally:
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader) -> str:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(min(int(headers.get("content-length", "0")), _MAX_BYTES))
        if not self._is_genuine(headers, body):
            return "401 Unauthorized"
        self.received[headers["webhook-id"]] = json.loads(body)
        return "204 No Content"

    def _is_genuine(self, headers: dict[str, str], body: bytes) -> bool:
        """Check the signature (Standard Webhooks), by no code that made it."""
        sent = headers.get("webhook-timestamp", "")
        if not sent.isdecimal() or abs(time.time() - int(sent)) > _TOLERANCE_S:
            return False
        signed = f"{headers.get('webhook-id', '')}.{sent}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        given = headers.get("webhook-signature", "").split(" ")
        return any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in given)
