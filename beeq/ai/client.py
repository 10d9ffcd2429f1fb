"""HTTP with one AI provider, with limits on time and size. ``responses`` reads what comes back.

The key is sent to the base URL's own origin only. httpcore is used directly, on the same connections as
webhooks: it follows no redirect, keeps no cookie, reads no proxy or netrc from the environment, and logs
no URL. Certificates are always verified.
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpcore
import httpx

from beeq import __version__
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.redaction import Redactor
from beeq.ai.responses import error_text
from beeq.protocol.codec import dumps, loads
from beeq.webhooks.connections import Connections, OwnedNetwork
from beeq.webhooks.response import retry_after_in

BASE_URL_SETTING = "BEEQ_AI_BASE_URL"
KEY_SETTING = "BEEQ_AI_API_KEY"
#: The body of an error response is read for its reason: this far …
_MAX_ERROR_BYTES = 64 * 1024
#: … and this long.
_ERROR_S = 3.0
_MAX_URL_LENGTH = 8192
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError)
_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Limits:
    """The longest times and largest sizes of the provider's responses."""

    connect_s: float = 10.0  # resolving, connecting and the TLS handshake
    request_s: float = 20 * 60.0  # to the end of the response; pictures and long texts take minutes
    poll_s: float = 60.0  # the same for the state of a video
    download_s: float = 60 * 60.0  # the same for a file
    silence_s: float = 60.0  # between two pieces of a file
    json_bytes: int = 8 * 1024 * 1024  # except a response that holds a picture
    image_bytes: int = 64 * 1024 * 1024
    video_bytes: int = 2 * 1024 * 1024 * 1024

    @property
    def image_response_bytes(self) -> int:
        """The largest JSON response that holds a picture in base64."""
        return self.image_bytes * 4 // 3 + self.json_bytes


class AIClient:
    """Calls one provider, over connections that are kept for the next call.

    Used on one event loop from the first call to ``aclose``; it may be used again after that. There
    are as many connections as calls under way, and a few idle ones. Every call raises ``AIRefused``
    if another attempt would fail as well, and ``AIFailed`` for everything else.

    The key is sent as bearer token; without one, user and password in the base URL are sent as basic
    authentication. Raises ValueError if URL or key is invalid; the message names the setting and holds
    neither.
    """

    def __init__(self, base_url: str, api_key: str | None = None, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        url = _base(base_url)
        self._base = url.copy_with(userinfo=b"")
        self._headers = {
            "user-agent": f"beeq/{__version__}",
            "accept": "*/*",
            # The bounds on responses would not bound what compressed bytes expand to.
            "accept-encoding": "identity",
        }
        # A user without a password is often a token.
        secrets = [api_key or "", url.password or url.username]
        if api_key:
            if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
                raise ValueError(f"{KEY_SETTING} must be printable ASCII without spaces")
            self._headers["authorization"] = f"Bearer {api_key}"
        elif url.userinfo:
            token = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
            self._headers["authorization"] = f"Basic {token}"
            secrets.append(token)
        self.redactor = Redactor(secrets)
        self._connections: Connections | None = None

    def __repr__(self) -> str:
        return "AIClient(…)"

    def endpoint(self, *segments: str) -> httpx.URL:
        """Return a URL below the base URL; each segment is encoded, so it stays one segment."""
        path = "/".join(quote(segment, safe="") for segment in segments)
        return httpx.URL(f"{str(self._base).rstrip('/')}/{path}")

    def own_url(self, text: str) -> httpx.URL | None:
        """Return a URL from the provider's response; None if it is not of the base URL's origin.

        Raises AIFailed if it is not an http or https URL, or if it holds the key.
        """
        try:
            url = self._base.join(text) if len(text) <= _MAX_URL_LENGTH and text.isprintable() else None
        except (httpx.InvalidURL, ValueError):
            url = None
        if url is None or not text or url.scheme not in _PORTS or not url.host:
            raise AIFailed("AI provider: the url in its response is not a valid URL")
        if _origin(url) != _origin(self._base):
            return None
        if self.redactor.is_in(str(url)):
            # URLs get into logs.
            raise AIFailed("AI provider: the url in its response holds the key, and is not fetched")
        return url.copy_with(userinfo=b"", fragment=None)

    async def post(
        self, operation: str, url: httpx.URL, body: Any, *, idempotency_key: str, max_bytes: int | None = None
    ) -> Any:
        """POST ``body`` as JSON and return the JSON of the response; messages name the ``operation``.

        ``idempotency_key`` is the same whenever the same request is repeated. ``max_bytes`` bounds the
        response, in place of ``json_bytes``.
        """
        headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
        limit_s = self.limits.request_s
        async with self._ask(
            operation, "POST", url, limit_s=limit_s, silence_s=limit_s, headers=headers, content=dumps(body)
        ) as response:
            return await self._json(operation, response, max_bytes or self.limits.json_bytes)

    async def get(self, operation: str, url: httpx.URL) -> Any:
        """GET a URL of the provider's own and return the JSON of the response."""
        limit_s = self.limits.poll_s
        async with self._ask(operation, "GET", url, limit_s=limit_s, silence_s=limit_s) as response:
            return await self._json(operation, response, self.limits.json_bytes)

    @contextlib.asynccontextmanager
    async def download(
        self, operation: str, url: httpx.URL, max_bytes: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET a file from a URL of the provider's own; yields its pieces as they come."""
        limit_s, silence_s = self.limits.download_s, self.limits.silence_s
        async with (
            self._ask(operation, "GET", url, limit_s=limit_s, silence_s=silence_s) as response,
            contextlib.aclosing(_pieces(operation, response, max_bytes)) as pieces,
        ):
            yield pieces

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.aclose()

    @contextlib.asynccontextmanager
    async def _ask(
        self,
        operation: str,
        method: str,
        url: httpx.URL,
        *,
        limit_s: float,
        silence_s: float,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> AsyncIterator[httpcore.Response]:
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        timeouts = {"connect": self.limits.connect_s, "read": silence_s, "write": silence_s}
        if self._connections is None:
            self._connections = Connections(OwnedNetwork, httpx.create_ssl_context())
        with self._explained(operation):
            async with (
                asyncio.timeout(limit_s),
                self._connections.borrow(target.origin) as connection,
                connection.stream(
                    method,
                    target,
                    headers=[("host", url.netloc), *self._headers.items(), *(headers or {}).items()],
                    content=content,
                    extensions={"timeout": timeouts},
                ) as response,
            ):
                if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
                    raise self._refusal(operation, response, await _error_body(response))
                yield response

    async def _json(self, operation: str, response: httpcore.Response, max_bytes: int) -> Any:
        body = bytearray()
        async for piece in _pieces(operation, response, max_bytes):
            body += piece
        try:
            return loads(bytes(body))
        except ValueError:
            raise AIFailed(f"AI provider, {operation}: its response is not JSON") from None

    def _refusal(self, operation: str, response: httpcore.Response, body: bytes) -> AIFailed | AIRefused:
        status = response.status
        text = self.redactor.quoted(error_text(body))
        message = f"AI provider, {operation}: status {status}"
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return AIFailed(f"{message}, and redirects are not followed")
        message += f": {text}" if text else ""
        is_client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        if is_client_error and status != HTTPStatus.TOO_MANY_REQUESTS:
            return AIRefused(message, status=status)
        return AIFailed(message, retry_after_ms=retry_after_in(response.headers, datetime.now(UTC)))

    @contextlib.contextmanager
    def _explained(self, operation: str) -> Iterator[None]:
        """Turn HTTP's errors into ``AIFailed``, without texts that may hold a secret."""
        try:
            yield
        except httpcore.ConnectTimeout:
            reason = "could not connect in time"
        except httpcore.ConnectError as error:
            reason = f"could not connect: {self.redactor.quoted(str(error)) or 'it broke off'}"
        except (TimeoutError, httpcore.TimeoutException):
            reason = "no response in time"
        except _NETWORK_ERRORS:
            reason = "the connection broke off, or the response was not HTTP"
        else:
            return
        raise AIFailed(f"AI provider, {operation}: {reason}") from None


def _base(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    port = _PORTS.get(url.scheme, 0) if url.port is None else url.port
    if url.scheme not in _PORTS or not url.host or not 0 < port <= _MAX_PORT or url.query or url.fragment:
        raise ValueError(f"{BASE_URL_SETTING} must be an http or https URL with a host, and no query")
    return url


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port or _PORTS.get(url.scheme)


async def _pieces(operation: str, response: httpcore.Response, max_bytes: int) -> AsyncGenerator[bytes]:
    received = 0
    async for piece in response.aiter_stream():
        received += len(piece)
        if received > max_bytes:
            raise AIFailed(f"AI provider, {operation}: its response is longer than {max_bytes} bytes")
        yield piece


async def _error_body(response: httpcore.Response) -> bytes:
    """Return the body of an error response, as much as comes in time; the status is enough without it."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, httpcore.TimeoutException, *_NETWORK_ERRORS):
        async with asyncio.timeout(_ERROR_S):
            async for piece in response.aiter_stream():
                body += piece
                if len(body) > _MAX_ERROR_BYTES:
                    break
    return bytes(body[:_MAX_ERROR_BYTES])
