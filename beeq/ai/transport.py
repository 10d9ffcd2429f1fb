"""The way from httpx to the network: connections that no cancelled call can leave open.

httpcore's pool, which httpx uses otherwise, keeps the connection of a call that is cancelled at the wrong
moment, or twice, for good; and workers cancel calls. Here it is lent by ``Connections``, as it is for
webhooks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable

import httpcore
import httpx

from beeq.webhooks.connections import Connections

_SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class KeptConnections(httpx.AsyncBaseTransport):
    """Sends requests over HTTP/1.1. Errors are httpcore's own; certificates are always verified."""

    def __init__(self) -> None:
        self._connections = Connections(
            OwnedNetwork,  # type: ignore[arg-type]  # Connections only closes it, which this can do too
            httpx.create_ssl_context(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the connection is lent until the response is closed."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        sent = httpcore.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        async with contextlib.AsyncExitStack() as stack:
            connection = await stack.enter_async_context(self._connections.borrow(url.origin))
            response = await connection.handle_async_request(sent)
            stack.push_async_callback(response.aclose)
            body = _Body(response, stack.pop_all())
        return httpx.Response(
            response.status, headers=response.headers, stream=body, extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        await self._connections.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of a response, and what is to be given back with it."""

    def __init__(self, response: httpcore.Response, lent: contextlib.AsyncExitStack) -> None:
        self._response = response
        self._lent = lent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        await self._lent.aclose()


class OwnedNetwork(httpcore.AsyncNetworkBackend):
    """Opens one connection and owns it."""

    def __init__(self) -> None:
        self._network = httpcore.AnyIOBackend()
        self._stream: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to ``host`` at the first of its addresses that answers."""
        try:
            self._stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        except UnicodeError:  # an empty label, one of more than 63 characters
            raise httpcore.ConnectError("not a host name") from None
        except httpcore.ConnectError as error:
            raise httpcore.ConnectError(_cause(error)) from error
        return self._stream

    async def aclose(self) -> None:
        """Close the connection, whatever is going on on it."""
        if self._stream is not None:
            await self._stream.aclose()


def _cause(error: BaseException) -> str:
    """Return the system's word for why there is no connection ("Connection refused")."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ConnectionError) and found.errno:
            return os.strerror(found.errno)  # asyncio's own words are about its calls
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        # Of several addresses the first will do.
        found = found.exceptions[0] if isinstance(found, BaseExceptionGroup) else found.__cause__
    return str(error)
