"""An httpx transport whose connections are closed however a call is cancelled.

httpcore's pool, which httpx uses otherwise, never closes the connection of a call that is cancelled twice,
or at certain moments; and workers cancel calls. Here the connections are lent by ``Connections``, as for
webhooks.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpcore
import httpx

from beeq.webhooks.connections import Connections, OwnedNetwork


class KeptConnections(httpx.AsyncBaseTransport):
    """Sends requests over HTTP/1.1. Errors are httpcore's own; certificates are always verified."""

    def __init__(self) -> None:
        self._connections = Connections(OwnedNetwork, httpx.create_ssl_context())

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
            body = _ResponseBody(response, stack.pop_all())
        return httpx.Response(
            response.status, headers=response.headers, stream=body, extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        await self._connections.aclose()


class _ResponseBody(httpx.AsyncByteStream):
    """The body of a response; closing it returns the connection."""

    def __init__(self, response: httpcore.Response, lent: contextlib.AsyncExitStack) -> None:
        self._response = response
        self._lent = lent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        await self._lent.aclose()
