"""One attempt to deliver one message: a signed POST, and the head of its response.

The outcome is the status line: ``head`` reads it, so errors in the rest of the response do not matter.
httpcore is used directly, because it follows no redirect, decodes no body, keeps no cookie, reads no proxy
or netrc from the environment, and logs no URL. Its only network is the ``guard``.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import httpcore
import httpx

from beeq.errors import BeeqError
from beeq.http_client.addresses import AllowedHosts
from beeq.http_client.connections import Connections
from beeq.http_client.guard import GuardedBackend, Resolve, Resolver
from beeq.http_client.head import MAX_HEAD_BYTES, EndlessResponse, ResponseHead
from beeq.http_client.local_failure import local_failure
from beeq.http_client.network_limits import NetworkLimits
from beeq.http_client.retry_after import retry_after_in
from beeq.process import VERSION
from beeq.webhooks.keys import EndpointKeys
from beeq.webhooks.own_headers import ReceiverHeaders
from beeq.webhooks.response import WebhookResponse
from beeq.webhooks.signature import message_id, webhook_signature
from beeq.webhooks.urls import Target, target_of

#: Resolving and connecting; the TLS handshake gets the same time again.
CONNECT_TIMEOUT_S = 10.0
#: One write, or one read.
IO_TIMEOUT_S = 30.0
#: From the start to the status line, also if single bytes of it keep coming.
ATTEMPT_TIMEOUT_S = 60.0
#: After the status line, reading goes on for ``Retry-After``, and to reuse the connection: this long …
REST_TIMEOUT_S = 3.0
#: … and this far, without the framing of its chunks …
MAX_BODY_BYTES = 64 * 1024
#: … and with that and the rest of the head.
MAX_REST_BYTES = MAX_HEAD_BYTES + 2 * MAX_BODY_BYTES
_TIMEOUTS = {"connect": CONNECT_TIMEOUT_S, "read": IO_TIMEOUT_S, "write": IO_TIMEOUT_S}
_NETWORK_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    EndlessResponse,
    TimeoutError,
    OSError,
)


class DeliveryFailed(BeeqError):
    """The attempt got no response. The message is one sentence; of the URL it holds host and port at most.

    Attributes:
        is_connected: whether there was a connection, with TLS for https; without it the whole origin has
            failed.
    """

    def __init__(self, message: str, *, is_connected: bool = True) -> None:
        super().__init__(message)
        self.is_connected = is_connected


class DeliveryGivenUp(BeeqError):
    """The attempt got no response before its ``Patience`` was over."""


@dataclass(frozen=True, slots=True)
class Patience:
    """When to ask whether to give an attempt up.

    Attributes:
        wait_s: an attempt that has no status line by then …
        is_over: … calls this, once; True: it is to be given up.
    """

    wait_s: float
    is_over: Callable[[], bool]


class WebhookSender:
    """Delivers messages, keeping connections for the next one to the same origin.

    Used on one event loop from the first delivery to ``aclose``; it may be used again after that.
    There is one connection for each delivery under way, and a few idle ones.

    Messages to an endpoint without a key in ``keys`` are unsigned. Without ``resolve`` the system resolves
    names; without ``ssl_context`` certificates are verified by the usual authorities. ``headers`` are added
    by origin. ``limits`` are the configuration's on ports and networks; the guard's own always apply.
    """

    def __init__(
        self,
        allowed: AllowedHosts,
        keys: EndpointKeys | None = None,
        *,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
        headers: ReceiverHeaders | None = None,
        limits: NetworkLimits | None = None,
    ) -> None:
        self._allowed = allowed
        self._limits = limits
        self._keys = keys or EndpointKeys()
        self._receiver_headers = headers or ReceiverHeaders({})
        self._resolve = resolve
        self._ssl_context = ssl_context
        self._connections: Connections | None = None

    async def deliver(
        self,
        url: str | Target,
        job_id: str,
        body: bytes,
        *,
        timeout_s: float = ATTEMPT_TIMEOUT_S,
        patience: Patience | None = None,
    ) -> WebhookResponse:
        """POST ``body`` to ``url`` and return the response, with any status.

        ``job_id`` is the message's id, the same on every attempt. ``timeout_s`` is how long the caller will
        wait; reading after the status line takes at most half of the remaining time. Raises WebhookRefused if
        the URL must never be called, DeliveryFailed if no status line came, DeliveryGivenUp if ``patience``
        was over before, and LocalFailure if this worker cannot make calls at the moment.
        """
        target = target_of(url) if isinstance(url, str) else url
        request_url = httpcore.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
        )
        headers = self._headers(target, request_url.origin, job_id, body)
        connections = self._open()
        clock = asyncio.get_running_loop().time
        started_s = clock()
        elapsed_s = 0.0
        failure: Exception | None = None
        deadline = asyncio.timeout(ATTEMPT_TIMEOUT_S)

        def on_status() -> None:
            nonlocal elapsed_s
            elapsed_s = clock() - started_s
            rest_s = min(REST_TIMEOUT_S, max(timeout_s - elapsed_s, 0) / 2)
            deadline.reschedule(min(clock() + rest_s, started_s + ATTEMPT_TIMEOUT_S))

        is_connected = is_given_up = False

        async def on_event(name: str, _details: object) -> None:
            nonlocal is_connected
            is_connected = is_connected or name.startswith("http11.")

        def ask() -> None:
            nonlocal is_given_up
            if head.status is None and patience is not None and patience.is_over():
                is_given_up = True
                deadline.reschedule(clock())

        head = ResponseHead(on_status, max_rest_bytes=MAX_REST_BYTES)
        asking = None if patience is None else asyncio.get_running_loop().call_later(patience.wait_s, ask)
        try:
            async with (
                deadline,
                connections.borrow(request_url.origin, lambda: head.feed) as connection,
                connection.stream(
                    "POST",
                    request_url,
                    headers=headers,
                    content=body,
                    extensions={"timeout": _TIMEOUTS, "trace": on_event},
                ) as response,
            ):
                await _read_body(response)
        except _NETWORK_ERRORS as error:
            # Nothing after the status line changes the outcome, not even a malformed head, or a body that
            # breaks off or does not end.
            failure = error
        finally:
            if asking is not None:
                asking.cancel()
        if head.status is None and is_given_up:
            raise DeliveryGivenUp
        if head.status is None:
            raise DeliveryFailed(
                _failure_text(failure, target, is_connected=is_connected), is_connected=is_connected
            )
        retry_after_ms = retry_after_in(head.headers, datetime.now(UTC))
        return WebhookResponse(head.status, round(elapsed_s * 1000), retry_after_ms)

    async def aclose(self) -> None:
        """Close all connections; deliveries under way fail."""
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.aclose()

    def _open(self) -> Connections:
        if self._connections is None:
            own = Resolver()  # its threads begin with the first name
            self._connections = Connections(
                partial(GuardedBackend, self._allowed, self._resolve or own, self._limits),
                self._ssl_context or _usual_authorities(),
                on_close=own.close,
            )
        return self._connections

    def _headers(
        self, target: Target, origin: httpcore.Origin, job_id: str, body: bytes
    ) -> list[tuple[str, str]]:
        sent_id = message_id(job_id)
        timestamp_s = int(time.time())
        own = self._receiver_headers.of(origin)
        headers = [
            ("Host", target.netloc.decode("ascii")),
            ("User-Agent", f"beeq/{VERSION}"),
            ("Content-Type", "application/json"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("webhook-id", sent_id),
            ("webhook-timestamp", str(timestamp_s)),
        ]
        if keys := self._keys.of(target):
            headers.append(("webhook-signature", webhook_signature(keys, sent_id, timestamp_s, body)))
        return [(name, value) for name, value in headers if name.lower() not in own] + list(own.items())


def _usual_authorities() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise local_failure(error) or error from None


async def _read_body(response: httpcore.Response) -> None:
    """Read the body so that the connection can be used again; give up on long ones."""
    read_bytes = 0
    async for chunk in response.aiter_stream():
        read_bytes += len(chunk)
        if read_bytes > MAX_BODY_BYTES:
            return


def _failure_text(error: Exception | None, target: Target, *, is_connected: bool) -> str:
    """Return why there was no response, without quoting what the receiver sent."""
    where = target.netloc.decode("ascii")
    if not is_connected:
        return f"could not connect to {where}{_why_not_connected(error)}"
    if isinstance(error, EndlessResponse):
        return f"webhook at {where} did not come to its status line: {error}"
    if isinstance(error, httpcore.TimeoutException | TimeoutError):
        return f"webhook at {where} did not answer in time"
    if isinstance(error, httpcore.ProtocolError):
        return f"webhook at {where} closed the connection or did not answer in HTTP"
    return f"the connection to {where} broke off before the webhook answered"


def _why_not_connected(error: Exception | None) -> str:
    """Return the rest of the sentence."""
    tls_error = _tls_error(error)
    if tls_error is not None:
        return f": TLS failed ({tls_error})"
    if isinstance(error, httpcore.TimeoutException | TimeoutError):
        return " in time"
    return f": {str(error) or 'the TLS handshake broke off'}"


def _tls_error(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"certificate: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return str(error.reason)
        error = error.__cause__
    return None
