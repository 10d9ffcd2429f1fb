"""Calls one AI provider, and fetches files: the provider's, and pictures from untrusted URLs.

``responses`` reads what comes. The key is sent to the base URL's own origin only. A file of the provider's
may lie behind redirects: each is followed without the key, to public addresses and the hosts of
``BEEQ_AI_ALLOW_HOSTS`` only, and not through the proxy, which is for the provider.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import httpcore
import httpx

from beeq.ai.bodies.answers import EndedEarly, JSONAnswer, TextTooLong, TooLong, TooManyParts
from beeq.ai.bodies.gate import ByteGate
from beeq.ai.bodies.long_strings import TooManyStrings
from beeq.ai.dialect.refusals import is_no_credit, refusal_in
from beeq.ai.errors import AIFailed, AIRefused, AIUnusable
from beeq.ai.exchange import Exchanges, PieceCount, error_body, pieces
from beeq.ai.files import LongStrings
from beeq.ai.provider import PLAIN_HEADERS, Provider, http_url
from beeq.ai.responses import delay_ms_in, error_text
from beeq.http_client.addresses import AllowedHosts
from beeq.protocol.codec import dumps

ALLOW_HOSTS_SETTING = "BEEQ_AI_ALLOW_HOSTS"
TEXT_BYTES_SETTING = "BEEQ_AI_MAX_TEXT_BYTES"
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
#: A stream repeats the response's head around every word: it may be longer by so many times ``json_bytes``.
_STREAM_FACTOR = 7
#: In JSON each byte of a text may take so many.
_SPELLING_FACTOR = 6
#: How many bytes are parsed at once in a process; in memory that is some ten times as much.
_READING_BYTES = 12 * 1024 * 1024
_Result = TypeVar("_Result")
_ASKS_FOR_THE_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class Limits:
    """The longest times and largest sizes of the provider's responses."""

    connect_s: float = 10.0  # resolving, connecting and the TLS handshake
    request_s: float = 20 * 60.0  # to the end of the response; pictures and long texts take minutes
    poll_s: float = 60.0  # the same for the state of a video
    download_s: float = 60 * 60.0  # the same for a file
    silence_s: float = 60.0  # between two pieces of a file
    json_bytes: int = 8 * 1024 * 1024  # without the pictures and texts that are in it
    text_bytes: int = 1_000_000  # of what a model writes
    scenes: int = 1000  # of a script
    image_bytes: int = 64 * 1024 * 1024
    video_bytes: int = 2 * 1024 * 1024 * 1024
    reference_bytes: int = 20 * 1024 * 1024  # of a picture that a video begins with
    reference_s: float = 120.0  # to fetch it

    @property
    def image_response_bytes(self) -> int:
        """The largest JSON response that holds a picture in base64."""
        return self.image_bytes * 4 // 3 + self.json_bytes

    @property
    def text_response_bytes(self) -> int:
        """The largest JSON response that holds a text, and some thinking beside it."""
        return self.text_bytes * _SPELLING_FACTOR + self.json_bytes // 4


@dataclass(frozen=True, slots=True)
class Form:
    """The body of an upload (multipart/form-data): fields, and files as name, content and type."""

    fields: dict[str, str]
    files: dict[str, tuple[str, bytes, str]]

    def encoded(self, idempotency_key: str) -> tuple[bytes, str]:
        """Return the body and its content type, which are the same for the same key and content."""
        boundary = f"beeq-{self._digest(idempotency_key)[:40]}"
        # A part without a file name is a field; httpx makes no such upload of fields alone.
        parts: list[tuple[str, Any]] = [(name, (None, text)) for name, text in self.fields.items()]
        request = httpx.Request(
            "POST",
            "http://form",
            headers={"content-type": f"multipart/form-data; boundary={boundary}"},
            files=[*parts, *self.files.items()],
        )
        return request.read(), request.headers["content-type"]

    def _digest(self, idempotency_key: str) -> str:
        """Return a digest of the whole body, as a boundary that no part can contain."""
        files = (
            part for name, (file, content, kind) in self.files.items() for part in (name, file, content, kind)
        )
        texts = (part for field in self.fields.items() for part in field)
        digest = hashlib.sha256()
        for part in (idempotency_key, *texts, *files):
            whole = part if isinstance(part, bytes) else part.encode(errors="surrogatepass")
            digest.update(len(whole).to_bytes(8))  # where one part ends and the next begins
            digest.update(whole)
        return digest.hexdigest()


class AIClient:
    """Calls one provider, over connections that are kept for the next call.

    Used on one event loop from the first call to ``aclose``; it may be used again after that. Every call
    raises ``AIRefused`` if another attempt would fail as well, and ``AIFailed`` for everything else.

    ``headers`` is a JSON object of further headers, ``proxy`` the URL of the proxy for the provider,
    ``allow_hosts`` a list of hosts that files may be fetched from though their addresses are not public.
    Raises ValueError if a setting is invalid; the message names it and holds no secret.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        limits: Limits | None = None,
        *,
        headers: str | None = None,
        proxy: str | None = None,
        allow_hosts: str = "",
    ) -> None:
        self.limits = limits or Limits()
        self._provider = Provider(base_url, api_key, headers, proxy)
        self.redactor = self._provider.redactor
        self.endpoint = self._provider.endpoint
        allowed = AllowedHosts.parse(allow_hosts, ALLOW_HOSTS_SETTING)
        connect_s, quote = self.limits.connect_s, self.redactor.quoted
        #: The limit on parsing large responses.
        self.gate = ByteGate(_READING_BYTES)
        self._own = Exchanges(connect_s, quote, proxy=self._provider.proxy)
        self._public = Exchanges(connect_s, quote, guarded=allowed)

    def __repr__(self) -> str:
        return "AIClient(…)"

    def own_url(self, text: str) -> httpx.URL | None:
        """Return a URL from the provider's response; None if it is not of the base URL's origin.

        Raises AIFailed if it is not an http or https URL, or if it holds the key.
        """
        url = self._provider.url(text)
        return self._provider.checked(url) if self._provider.owns(url) else None

    async def post(
        self,
        operation: str,
        url: httpx.URL,
        body: Any,
        *,
        idempotency_key: str,
        read: Callable[[Any], _Result],
        is_for_text: bool = False,
        long_strings: LongStrings | None = None,
    ) -> _Result:
        """POST ``body`` as JSON, or a ``Form`` as upload, and return what ``read`` makes of the response.

        Messages name the ``operation``. ``idempotency_key`` is the same whenever the same request is
        repeated; then all its bytes are. The response holds ``json_bytes``, or a text that is asked for, and
        its ``long_strings`` go there: a picture may be among them. Large responses are parsed in threads, few
        at once, and only what ``read`` returns stays in memory.
        """
        content, content_type = (
            body.encoded(idempotency_key) if isinstance(body, Form) else (dumps(body), "application/json")
        )
        headers = {"content-type": content_type, "idempotency-key": idempotency_key}
        limits = self.limits
        most_bytes = limits.image_response_bytes if long_strings else limits.json_bytes
        if is_for_text:
            most_bytes = limits.text_response_bytes
        most_bytes += self._more_of_streams
        async with self._ask(
            operation,
            "POST",
            url,
            limit_s=limits.request_s,
            max_bytes=most_bytes,
            headers=headers,
            content=content,
        ) as response:
            answer = JSONAnswer(
                limits.text_response_bytes if is_for_text else limits.json_bytes,
                max_text_bytes=limits.text_bytes if is_for_text else None,
                cutter=None if long_strings is None else long_strings.begin(),
            )
            return await self._json(operation, response, most_bytes, answer, read, long_strings=long_strings)

    async def get(self, operation: str, url: httpx.URL, read: Callable[[Any], _Result]) -> _Result:
        """GET a URL of the provider's own and return what ``read`` makes of the JSON of the response."""
        most_bytes = self.limits.json_bytes + self._more_of_streams
        async with self._ask(
            operation, "GET", url, limit_s=self.limits.poll_s, max_bytes=most_bytes
        ) as response:
            return await self._json(operation, response, most_bytes, JSONAnswer(self.limits.json_bytes), read)

    @contextlib.asynccontextmanager
    async def download(
        self, operation: str, url: httpx.URL, max_bytes: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET a file from a URL of the provider's own, through redirects; yields its pieces as they come."""
        subject = f"AI provider, {operation}"
        until_s = _in(self.limits.download_s)
        with_key = True
        for _ in range(_MAX_REDIRECTS + 1):
            is_own = self._provider.owns(url)
            async with (self._own if is_own else self._public).ask(
                subject,
                "GET",
                url,
                headers=self._provider.headers if is_own and with_key else PLAIN_HEADERS,
                until_s=until_s,
                silence_s=self.limits.silence_s,
                max_bytes=max_bytes,
            ) as response:
                if is_own and not with_key and response.status in _ASKS_FOR_THE_KEY:
                    with_key = True  # a redirect within the provider's API
                    continue
                location = _location(response)
                if location is None:
                    if not is_own and not _is_success(response):
                        # Another request to the provider may lead to a link that is still valid.
                        raise AIFailed(f"{subject}: status {response.status} where its file lies")
                    await self._check(operation, response)
                    async with contextlib.aclosing(
                        pieces(subject, response, max_bytes, is_file=True)
                    ) as found:
                        yield found
                    return
            url = self._provider.checked(self._provider.url(location, url))
            with_key = False
        raise AIFailed(f"{subject}: more than {_MAX_REDIRECTS} redirects")

    async def strangers_file(self, subject: str, text: str, max_bytes: int) -> bytes:
        """GET a file from a URL that a job gives: without the key, from public and allowed hosts only."""
        until_s = _in(self.limits.reference_s)
        for _ in range(_MAX_REDIRECTS + 1):
            url = self._strangers_url(subject, text)
            async with self._public.ask(
                subject,
                "GET",
                url,
                headers=PLAIN_HEADERS,
                until_s=until_s,
                silence_s=self.limits.silence_s,
                max_bytes=max_bytes,
            ) as response:
                location = _location(response)
                if location is None:
                    if not _is_success(response):
                        raise _failure(response, f"{subject}: status {response.status}")
                    body = bytearray()
                    count = PieceCount(subject)
                    async for piece in response.aiter_stream():
                        count.add(piece)
                        body += piece
                        if len(body) > max_bytes:
                            raise AIRefused(f"{subject} is longer than {max_bytes} bytes")
                    return bytes(body)
            try:
                text = str(url.join(location))
            except (httpx.InvalidURL, ValueError):
                raise AIRefused(f"{subject}: its redirect is not a valid URL") from None
        raise AIRefused(f"{subject}: more than {_MAX_REDIRECTS} redirects")

    async def read(
        self,
        answer: JSONAnswer,
        found: AsyncIterator[bytes],
        read: Callable[[Any], _Result],
        long_strings: LongStrings | None = None,
    ) -> _Result:
        """Return what ``read`` makes of the pieces of a body, see ``post``.

        Raises what ``answer`` and ``read`` do, and MediaFailed.
        """
        async for piece in found:
            await self.gate.call(answer.held_bytes + len(piece), partial(answer.feed, piece))
            if long_strings is not None:
                long_strings.keep()
        return await self.gate.call(answer.held_bytes, lambda: read(answer.value()))

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        await self._own.aclose()
        await self._public.aclose()

    def _strangers_url(self, subject: str, text: str) -> httpx.URL:
        url = http_url(text)
        if url is None:
            raise AIRefused(f"{subject} is not a valid http or https URL")
        if url.userinfo:
            raise AIRefused(f"{subject}: a URL with a user name or password is refused")
        if self.redactor.is_in(text):
            raise AIRefused(f"{subject}: its URL holds the provider's key")
        return url

    @contextlib.asynccontextmanager
    async def _ask(
        self,
        operation: str,
        method: str,
        url: httpx.URL,
        *,
        limit_s: float,
        max_bytes: int,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> AsyncIterator[httpcore.Response]:
        async with self._own.ask(
            f"AI provider, {operation}",
            method,
            url,
            headers=self._provider.headers | (headers or {}),
            until_s=_in(limit_s),
            silence_s=limit_s,
            max_bytes=max_bytes,
            content=content,
        ) as response:
            await self._check(operation, response)
            yield response

    @property
    def _more_of_streams(self) -> int:
        return _STREAM_FACTOR * self.limits.json_bytes

    async def _json(
        self,
        operation: str,
        response: httpcore.Response,
        most_bytes: int,
        answer: JSONAnswer,
        read: Callable[[Any], _Result],
        *,
        long_strings: LongStrings | None = None,
    ) -> _Result:
        subject = f"AI provider, {operation}"
        try:
            return await self.read(answer, pieces(subject, response, most_bytes), read, long_strings)
        except EndedEarly:
            raise AIFailed(f"{subject}: its stream ended early") from None
        except TooLong:
            raise AIUnusable(f"{subject}: its response is longer than {answer.max_bytes} bytes") from None
        except TextTooLong:
            raise text_too_long(self.limits.text_bytes) from None
        except (TooManyParts, TooManyStrings) as error:
            raise AIUnusable(f"{subject}: its response cannot be read: {error}") from None
        except ValueError:
            raise AIFailed(f"{subject}: its response is not JSON") from None

    async def _check(self, operation: str, response: httpcore.Response) -> None:
        """Raise the error for a response of the provider, unless it is a success."""
        if _is_success(response):
            return
        message = f"AI provider, {operation}: status {response.status}"
        if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
            raise AIFailed(f"{message}, and redirects are not followed")
        body = await error_body(response)
        text = self.redactor.quoted(error_text(body))
        message += f": {text}" if text else ""
        failure = _failure(response, message)
        if isinstance(failure, AIRefused) or is_no_credit(body.decode(errors="replace")):
            objection = refusal_in(body, self.redactor.quoted)
            failure = AIRefused(message, status=response.status, refusal=objection)
        raise failure


def text_too_long(max_bytes: int) -> AIRefused:
    """Return the error of a model's text that is too long."""
    return AIRefused(f"AI provider: the model's text is longer than {max_bytes} bytes ({TEXT_BYTES_SETTING})")


def _in(limit_s: float) -> float:
    """Return the running loop's time when so many seconds will have passed."""
    return asyncio.get_running_loop().time() + limit_s


def _is_success(response: httpcore.Response) -> bool:
    return HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES


def _location(response: httpcore.Response) -> str | None:
    """Return where a redirect leads; None if the response is not a redirect."""
    if response.status not in _REDIRECTS:
        return None
    found = [value for name, value in response.headers if name.lower() == b"location"]
    return found[0].decode("latin-1").strip() if found else None


def _failure(response: httpcore.Response, message: str) -> AIFailed | AIRefused:
    status = response.status
    is_client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    if is_client_error and status != HTTPStatus.TOO_MANY_REQUESTS:
        return AIRefused(message, status=status)
    return AIFailed(message, retry_after_ms=delay_ms_in(response.headers, datetime.now(UTC)))
