"""One request and its response over HTTP, with limits on time and size, and errors in plain sentences.

httpcore is used directly, on the same connections as webhooks: it follows no redirect, keeps no cookie,
reads no proxy or netrc from the environment, and logs no URL. Certificates are always verified, by the
authorities of ``SSL_CERT_FILE`` if that is set.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import partial

import httpcore
import httpx

from beeq.ai.bodies.unpacking import FILE_TIMES, STEP_BYTES, TEXT_TIMES, Unpacking, UnpacksTooFar, unpacked
from beeq.ai.errors import AIFailed, AIRefused, AIUnusable
from beeq.http_client.addresses import AllowedHosts
from beeq.http_client.connections import Connections, HTTPProxy, OwnedNetwork
from beeq.http_client.guard import GuardedBackend, Resolver, WebhookRefused
from beeq.http_client.head import MAX_HEAD_BYTES, EndlessResponse, ResponseHead
from beeq.http_client.local_failure import LocalFailure

#: The body of an error response is read for its reason: this far …
_MAX_ERROR_BYTES = 64 * 1024
#: … and this long.
_ERROR_S = 3.0
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError)
#: A body's framing may be as long as the largest body and this.
_FRAMING_BYTES = 1024 * 1024
#: A body may come in so many pieces of any size (a stream has one for each word) …
_MAX_SMALL_PIECES = 100_000
#: … beyond that they hold so many bytes on average; those of a file, which is longer, are larger.
_PIECE_BYTES = 128
_FILE_PIECE_BYTES = 1024


class Exchanges:
    """Sends requests, over connections that are kept for the next one.

    Used on one event loop from the first request to ``aclose``; it may be used again after that. There are
    as many connections as requests under way, and a few idle ones. With ``guarded`` they go to public
    addresses and to these hosts only; with a ``proxy`` all of them go through it. ``quote`` makes another
    program's text fit for a message.
    """

    def __init__(
        self,
        connect_s: float,
        quote: Callable[[str], str],
        *,
        guarded: AllowedHosts | None = None,
        proxy: HTTPProxy | None = None,
    ) -> None:
        self._connect_s = connect_s
        self._quote = quote
        self._guarded = guarded
        self._proxy = proxy
        self._connections: Connections | None = None

    @contextlib.asynccontextmanager
    async def ask(
        self,
        subject: str,
        method: str,
        url: httpx.URL,
        *,
        headers: dict[str, str],
        until_s: float,
        silence_s: float,
        max_bytes: int,
        content: bytes | None = None,
    ) -> AsyncIterator[httpcore.Response]:
        """Send a request and yield the response, of any status; messages begin with the ``subject``.

        ``until_s`` is the loop's time by which the response must have ended, that of all requests which make
        up one; ``silence_s`` is the time between two pieces of it.
        ``max_bytes`` is what its body may have, for a bound on the framing; the caller bounds the body.
        Raises AIRefused if the host must not be called, and AIFailed if there was no response, or it broke
        off.
        """
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        most_bytes = MAX_HEAD_BYTES + 2 * max_bytes + _FRAMING_BYTES
        timeouts = {"connect": self._connect_s, "read": silence_s, "write": silence_s}
        with self._explained(subject):
            async with (
                asyncio.timeout_at(until_s),
                self._open().borrow(
                    target.origin, lambda: ResponseHead(max_rest_bytes=most_bytes).feed
                ) as connection,
                connection.stream(
                    method,
                    target,
                    headers=[("host", url.netloc), *headers.items()],
                    content=content,
                    extensions={"timeout": timeouts},
                ) as response,
            ):
                yield response

    async def aclose(self) -> None:
        """Close all connections; requests under way fail."""
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.aclose()

    def _open(self) -> Connections:
        if self._connections is None:
            resolver = Resolver()  # its threads begin with the first name
            make_network: Callable[[], OwnedNetwork] = OwnedNetwork
            if self._guarded is not None:
                make_network = partial(GuardedBackend, self._guarded, resolver)
            self._connections = Connections(
                make_network, httpx.create_ssl_context(), self._proxy, on_close=resolver.close
            )
        return self._connections

    @contextlib.contextmanager
    def _explained(self, subject: str) -> Iterator[None]:
        """Turn HTTP errors into ``AIFailed``, without texts that may hold a secret."""
        try:
            yield
        except WebhookRefused as refused:
            raise AIRefused(f"{subject}: {refused}") from None
        except LocalFailure as failure:
            reason = str(failure)
        except httpcore.ConnectTimeout:
            reason = "could not connect in time"
        except httpcore.ConnectError as error:
            reason = f"could not connect: {self._quote(str(error)) or 'it broke off'}"
        except httpcore.ProxyError as error:
            reason = f"the proxy answered {self._quote(str(error))}"
        except EndlessResponse as endless:
            reason = f"its response did not end: {endless}"
        except (TimeoutError, httpcore.TimeoutException):
            reason = "no response in time"
        except _NETWORK_ERRORS:
            reason = "the connection broke off, or the response was not HTTP"
        else:
            return
        raise AIFailed(f"{subject}: {reason}") from None


class PieceCount:
    """Counts the pieces of one body: each costs time, however small it is."""

    def __init__(self, subject: str, piece_bytes: int = _FILE_PIECE_BYTES) -> None:
        self._subject = subject
        self._piece_bytes = piece_bytes
        self._pieces = self._received_bytes = 0

    def add(self, piece: bytes) -> None:
        """Count a piece; raises AIUnusable if there are too many small ones."""
        self._pieces += 1
        self._received_bytes += len(piece)
        if self._pieces > _MAX_SMALL_PIECES + self._received_bytes // self._piece_bytes:
            raise AIUnusable(f"{self._subject}: its response comes in too many small pieces")


async def pieces(
    subject: str, response: httpcore.Response, max_bytes: int, *, is_file: bool = False
) -> AsyncGenerator[bytes]:
    """Yield the body as it comes, unpacked, in pieces of some hundred kilobytes, the last may be shorter.

    Raises AIUnusable if it is longer than ``max_bytes``, or made to take time. ``is_file``: it is a picture
    or a film.
    """
    times = FILE_TIMES if is_file else TEXT_TIMES
    unpacking = Unpacking(header(response, b"content-encoding"), max_bytes, most_times=times)
    count = PieceCount(subject, _FILE_PIECE_BYTES if is_file else _PIECE_BYTES)
    received = 0
    collected = bytearray()
    try:
        async for packed in response.aiter_stream():
            count.add(packed)
            for piece in unpacking.pieces(packed):
                received += len(piece)
                if received > max_bytes:
                    raise AIUnusable(f"{subject}: its response is longer than {max_bytes} bytes")
                collected += piece
                if len(collected) >= STEP_BYTES:
                    yield bytes(collected)
                    collected.clear()
                if not unpacking.is_plain:
                    await asyncio.sleep(0)  # one piece may become a thousand
        collected += unpacking.rest()
    except UnpacksTooFar as error:
        raise AIUnusable(f"{subject}: its response cannot be read: {error}") from None
    except ValueError as error:
        raise AIFailed(f"{subject}: its response cannot be read: {error}") from None
    if collected:
        yield bytes(collected)


def header(response: httpcore.Response, name: bytes) -> str:
    """Return a header, by its name in lower case; empty if there is none."""
    found = next((value for key, value in response.headers if key.lower() == name), b"")
    return found.decode("latin-1")


async def error_body(response: httpcore.Response) -> bytes:
    """Return the body of an error response, as much as comes in time; the status is enough without it."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, httpcore.TimeoutException, EndlessResponse, *_NETWORK_ERRORS):
        async with asyncio.timeout(_ERROR_S):
            async for piece in response.aiter_stream():
                body += piece
                if len(body) > _MAX_ERROR_BYTES:
                    break
    packed = bytes(body[:_MAX_ERROR_BYTES])
    return unpacked(packed, header(response, b"content-encoding"), _MAX_ERROR_BYTES)
