"""HTTP with one AI provider: what may be sent where, how long and how much is waited for.

The key goes to the base URL's own origin and nowhere else; no redirect is followed, no cookie is
kept, neither proxies nor netrc of the environment are asked. What answers mean is ``answers``' business.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import httpcore
import httpx

from beeq import __version__
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.redaction import Redactor
from beeq.ai.responses import error_text
from beeq.ai.transport import KeptConnections
from beeq.protocol.codec import dumps, loads
from beeq.webhooks.response import retry_after_ms

BASE_URL_SETTING = "BEEQ_AI_BASE_URL"
KEY_SETTING = "BEEQ_AI_API_KEY"
#: An answer that says no is read for its reason only: not far …
_MAX_ERROR_BYTES = 64 * 1024
#: … and not long.
_ERROR_S = 3.0
_MAX_URL_LENGTH = 8192
#: httpx's own are about what it reads by itself, such as where a redirect leads.
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, httpx.HTTPError)
_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much the provider may answer.

    Attributes:
        connect_s: resolving, connecting and the TLS handshake.
        order_s: from sending an order to the end of its answer; pictures and long texts take minutes.
        look_s: the same for a look at a video in the making.
        download_s: the same for a file.
        silence_s: between two pieces of a file.
        json_bytes: an answer in JSON, but one that holds a picture.
        image_bytes, video_bytes: a file.
    """

    connect_s: float = 10.0
    order_s: float = 20 * 60.0
    look_s: float = 60.0
    download_s: float = 60 * 60.0
    silence_s: float = 60.0
    json_bytes: int = 8 * 1024 * 1024
    image_bytes: int = 64 * 1024 * 1024
    video_bytes: int = 2 * 1024 * 1024 * 1024

    @property
    def image_answer_bytes(self) -> int:
        """The length of a JSON answer that holds a picture in base64."""
        return self.image_bytes * 4 // 3 + self.json_bytes


class AIClient:
    """Asks one provider, over connections that are kept for the next call.

    Used on one event loop from the first call to ``aclose``; it may be used again after that. There
    are as many connections as calls under way, and a few idle ones. Every call raises ``AIRefused``
    if asking again is of no use, and ``AIFailed`` for everything else.

    Args:
        base_url: of an OpenAI-compatible API, with its ``/v1``. User and password in it are sent as
            basic authentication if there is no key.
        api_key: sent as bearer token.
        limits: how long and how much is waited for.

    Raises:
        ValueError: URL or key is of no use. The message names the setting and holds neither.
    """

    def __init__(self, base_url: str, api_key: str | None = None, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        url = _base(base_url)
        self._base = url.copy_with(userinfo=b"")
        self._headers = {
            "user-agent": f"beeq/{__version__}",
            "accept": "*/*",
            # A bound on packed bytes would be none on what they unpack to.
            "accept-encoding": "identity",
        }
        # A user without a password is a token, as often as not.
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
        self._client: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return "AIClient(…)"

    def endpoint(self, *segments: str) -> httpx.URL:
        """Return a URL below the base URL; no segment can leave its place in it."""
        path = "/".join(quote(segment, safe="") for segment in segments)
        return httpx.URL(f"{str(self._base).rstrip('/')}/{path}")

    def own_url(self, text: str) -> httpx.URL | None:
        """Return a URL that the provider named, if it is of the base URL's own origin, else None.

        Raises:
            AIFailed: it is no http or https URL, or one that holds the key.
        """
        try:
            url = self._base.join(text) if len(text) <= _MAX_URL_LENGTH and text.isprintable() else None
        except (httpx.InvalidURL, ValueError):
            url = None
        if url is None or not text or url.scheme not in _PORTS or not url.host:
            raise AIFailed("AI provider: the url in its answer is not one")
        if _origin(url) != _origin(self._base):
            return None
        if self.redactor.is_in(str(url)):
            # URLs get into logs.
            raise AIFailed("AI provider: the url in its answer holds the key, and is not fetched")
        # A user in it would take the place of the key.
        return url.copy_with(userinfo=b"", fragment=None)

    async def order(
        self, operation: str, url: httpx.URL, body: Any, *, idempotency_key: str, max_bytes: int | None = None
    ) -> Any:
        """POST ``body`` as JSON and return the JSON of the answer.

        Args:
            operation: what it is for, for messages.
            url: an ``endpoint``.
            body: a JSON value.
            idempotency_key: the same whenever the same order is repeated.
            max_bytes: of the answer, if it is not ``json_bytes``.
        """
        headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
        limit_s = self.limits.order_s
        async with self._ask(
            operation, "POST", url, limit_s=limit_s, silence_s=limit_s, headers=headers, content=dumps(body)
        ) as response:
            return await self._json(operation, response, max_bytes or self.limits.json_bytes)

    async def look(self, operation: str, url: httpx.URL) -> Any:
        """GET a URL of the provider's own and return the JSON of the answer."""
        limit_s = self.limits.look_s
        async with self._ask(operation, "GET", url, limit_s=limit_s, silence_s=limit_s) as response:
            return await self._json(operation, response, self.limits.json_bytes)

    @contextlib.asynccontextmanager
    async def download(
        self, operation: str, url: httpx.URL, max_bytes: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET a file from a URL of the provider's own; yields its pieces as they come."""
        limits = self.limits
        async with self._ask(
            operation, "GET", url, limit_s=limits.download_s, silence_s=limits.silence_s
        ) as response:
            pieces = _pieces(operation, response, max_bytes)
            try:
                yield pieces
            finally:
                await pieces.aclose()

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

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
    ) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(silence_s, connect=self.limits.connect_s)
        with self._explained(operation):
            async with (
                asyncio.timeout(limit_s),
                self._open().stream(
                    method,
                    url,
                    content=content,
                    headers={**self._headers, **(headers or {})},
                    timeout=timeout,
                ) as response,
            ):
                if not response.is_success:
                    raise self._refusal(operation, response, await _error_body(response))
                yield response

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=KeptConnections(),
                trust_env=False,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        return self._client

    async def _json(self, operation: str, response: httpx.Response, max_bytes: int) -> Any:
        body = bytearray()
        async for piece in _pieces(operation, response, max_bytes):
            body += piece
        try:
            return loads(bytes(body))
        except ValueError:
            raise AIFailed(f"AI provider, {operation}: its answer is not JSON") from None

    def _refusal(self, operation: str, response: httpx.Response, body: bytes) -> AIFailed | AIRefused:
        status = response.status_code
        text = self.redactor.quoted(error_text(body))
        message = f"AI provider, {operation}: status {status}"
        if response.is_redirect:
            return AIFailed(f"{message}, and redirects are not followed")
        message += f": {text}" if text else ""
        if response.is_client_error and status != HTTPStatus.TOO_MANY_REQUESTS:
            return AIRefused(message, status=status)
        wait = response.headers.get("retry-after")
        return AIFailed(
            message, retry_after_ms=None if wait is None else retry_after_ms(wait, datetime.now(UTC))
        )

    @contextlib.contextmanager
    def _explained(self, operation: str) -> Iterator[None]:
        """Turn HTTP's errors into ours. Their own texts are used where they cannot hold a secret."""
        try:
            yield
        except httpcore.ConnectTimeout:
            reason = "could not connect in time"
        except httpcore.ConnectError as error:
            reason = f"could not connect: {self.redactor.quoted(str(error)) or 'it broke off'}"
        except (TimeoutError, httpcore.TimeoutException):
            reason = "no answer in time"
        except _NETWORK_ERRORS:
            reason = "the connection broke off, or the answer was not HTTP"
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


async def _pieces(operation: str, response: httpx.Response, max_bytes: int) -> AsyncGenerator[bytes]:
    received = 0
    async for piece in response.aiter_raw():
        received += len(piece)
        if received > max_bytes:
            raise AIFailed(f"AI provider, {operation}: its answer is longer than {max_bytes} bytes")
        yield piece


async def _error_body(response: httpx.Response) -> bytes:
    """Return what can be had of a body; the status says enough without it."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, httpcore.TimeoutException, *_NETWORK_ERRORS):
        async with asyncio.timeout(_ERROR_S):
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > _MAX_ERROR_BYTES:
                    break
    return bytes(body[:_MAX_ERROR_BYTES])
