"""One attempt to deliver one message: a signed POST, and the head of its response.

httpcore is used directly, because it follows no redirect, decodes no body, keeps no cookie, reads no proxy
or netrc from the environment, and logs no URL. Its only network is the ``guard``.
"""

import asyncio
import ssl
import time
from datetime import UTC, datetime
from functools import partial

import httpcore
import httpx

from beeq import __version__
from beeq.errors import BeeqError
from beeq.webhooks.addresses import ALLOW_HOSTS_SETTING, AllowedHosts
from beeq.webhooks.connections import Connections
from beeq.webhooks.guard import GuardedBackend, Resolve, Resolver, WebhookRefused
from beeq.webhooks.response import WebhookResponse, retry_after_in
from beeq.webhooks.signature import Signer, message_id

#: Resolving and connecting; the TLS handshake gets the same time again.
CONNECT_TIMEOUT_S = 10.0
#: One write, or one read.
IO_TIMEOUT_S = 30.0
#: From the start to the head of the response, also if single bytes of it keep coming.
ATTEMPT_TIMEOUT_S = 60.0
#: A response's body is read only so that the connection can be used again: this long …
BODY_TIMEOUT_S = 3.0
#: … and this far.
MAX_BODY_BYTES = 64 * 1024
_MAX_PORT = 65535
_TIMEOUTS = {"connect": CONNECT_TIMEOUT_S, "read": IO_TIMEOUT_S, "write": IO_TIMEOUT_S}
_NETWORK_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    TimeoutError,
    OSError,
)


class DeliveryFailed(BeeqError):
    """The attempt got no response. The message is one sentence; of the URL it holds host and port at most."""


class WebhookSender:
    """Delivers messages, keeping connections for the next one to the same origin.

    Used on one event loop from the first delivery to ``aclose``; it may be used again after that.
    The number of connections is that of the deliveries under way, and a few idle ones.

    Without a ``signer`` messages are sent unsigned; without ``resolve`` the system's resolver is used, and
    without ``ssl_context`` the usual authorities verify certificates.
    """

    def __init__(
        self,
        allowed: AllowedHosts,
        signer: Signer | None = None,
        *,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = allowed
        self._signer = signer
        self._resolve = resolve
        self._ssl_context = ssl_context
        self._resolver: Resolver | None = None  # made and closed here, if the caller gave no ``resolve``
        self._connections: Connections | None = None

    async def deliver(
        self, url: str, job_id: str, body: bytes, *, timeout_s: float = ATTEMPT_TIMEOUT_S
    ) -> WebhookResponse:
        """POST ``body`` to ``url`` and return the response, with any status.

        ``job_id`` is the message's id, the same on every attempt. ``timeout_s`` is how long the caller will
        wait; reading a body takes at most half of the rest of it. Raises WebhookRefused if the URL must not
        be called, now or later, and DeliveryFailed if there was no response.
        """
        target = _target(url)
        request_url = httpcore.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
        )
        headers = self._headers(target, job_id, body)
        connections = self._open()
        started_s = time.monotonic()
        received: WebhookResponse | None = None
        failure: Exception | None = None
        try:
            async with (
                asyncio.timeout(ATTEMPT_TIMEOUT_S),
                connections.borrow(request_url.origin) as connection,
                connection.stream(
                    "POST", request_url, headers=headers, content=body, extensions={"timeout": _TIMEOUTS}
                ) as response,
            ):
                elapsed_s = time.monotonic() - started_s
                retry_after_ms = retry_after_in(response.headers, datetime.now(UTC))
                received = WebhookResponse(response.status, round(elapsed_s * 1000), retry_after_ms)
                await _read_body(response, min(BODY_TIMEOUT_S, max(timeout_s - elapsed_s, 0) / 2))
        except _NETWORK_ERRORS as error:
            # After the head of a response, a body that breaks off or never ends changes nothing.
            failure = error
        if received is None:
            raise DeliveryFailed(_sentence(failure, target))
        return received

    async def aclose(self) -> None:
        """Close all connections; deliveries under way fail."""
        connections, self._connections = self._connections, None
        resolver, self._resolver = self._resolver, None
        if resolver is not None:
            resolver.close()
        if connections is not None:
            await connections.aclose()

    def _open(self) -> Connections:
        if self._connections is None:
            resolve = self._resolve
            if resolve is None:
                resolve = self._resolver = Resolver()
            self._connections = Connections(
                partial(GuardedBackend, self._allowed, resolve),
                self._ssl_context or httpx.create_ssl_context(),
            )
        return self._connections

    def _headers(self, target: httpx.URL, job_id: str, body: bytes) -> list[tuple[str, str]]:
        sent_id = message_id(job_id)
        timestamp_s = int(time.time())
        headers = [
            ("Host", target.netloc.decode("ascii")),
            ("User-Agent", f"beeq/{__version__}"),
            ("Content-Type", "application/json"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("webhook-id", sent_id),
            ("webhook-timestamp", str(timestamp_s)),
        ]
        if self._signer is not None:
            headers.append(("webhook-signature", self._signer.sign(sent_id, timestamp_s, body)))
        return headers


def _target(url: str) -> httpx.URL:
    """Parse the URL of a webhook; raises WebhookRefused with a message that repeats nothing of the URL."""
    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise WebhookRefused(
            "the webhook URL cannot be read, or spells an address in a way that is always refused"
            f" ({ALLOW_HOSTS_SETTING} is for plain hosts)"
        ) from None
    if target.scheme not in {"http", "https"}:
        raise WebhookRefused("the webhook URL must begin with http:// or https://")
    if target.userinfo:
        raise WebhookRefused(
            "the webhook URL holds a user name or password, which is always refused"
            f" ({ALLOW_HOSTS_SETTING} is for plain hosts)"
        )
    if not target.host or not 0 < (1 if target.port is None else target.port) <= _MAX_PORT:
        raise WebhookRefused("the webhook URL has no usable host and port")
    return target


async def _read_body(response: httpcore.Response, timeout_s: float) -> None:
    """Read the body so that the connection can be used again; give up on long and slow ones."""
    read_bytes = 0
    async with asyncio.timeout(timeout_s):
        async for chunk in response.aiter_stream():
            read_bytes += len(chunk)
            if read_bytes > MAX_BODY_BYTES:
                return


def _sentence(error: Exception | None, target: httpx.URL) -> str:
    """Return why there was no response, without quoting what the receiver sent."""
    where = target.netloc.decode("ascii")
    tls_error = _tls_error(error)
    if tls_error is not None:
        return f"could not connect to {where}: TLS failed ({tls_error})"
    if isinstance(error, httpcore.ConnectTimeout):
        return f"could not connect to {where} in time"
    if isinstance(error, httpcore.ConnectError):
        return f"could not connect to {where}: {str(error) or 'the TLS handshake broke off'}"
    if isinstance(error, httpcore.TimeoutException | TimeoutError):
        return f"webhook at {where} did not answer in time"
    if isinstance(error, httpcore.ProtocolError):
        return f"webhook at {where} closed the connection or did not answer in HTTP"
    return f"the connection to {where} broke off before the webhook answered"


def _tls_error(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"certificate: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return str(error.reason)
        error = error.__cause__
    return None
