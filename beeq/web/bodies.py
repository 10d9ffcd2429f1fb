"""Reads a request's body, within bounds of size, time and depth, and checks it as a job.

A client may give its job a UUID as its id, and nothing else. Ids that queues count for themselves ("1", "2",
…) would otherwise be taken before their turn, and bee-queue's ``save`` of the job that should have got one
would write nothing. A UUID cannot be predicted, so no client can take that of a future job.

A body that is not used is still read, up to a bound, and discarded: a client that is still sending when the
connection is closed would get an error instead of the response.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, StrictStr, ValidationError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from beeq.jobs import AIGenerationJob, InvalidJob, Name, Reference, faults
from beeq.protocol.codec import loads
from beeq.web.bounds import HeldBytes
from beeq.web.responses import MAX_DEPTH, Refusal

#: A body holds a job's parameters, not its media.
MAX_BODY_BYTES = 1 << 20
#: The most values in a body: each costs time, and the loop has other requests to serve.
MAX_VALUES = 50_000
#: How much of a body that is too large is read before the response.
MAX_DISCARDED_BYTES = 16 << 20
#: The most pieces that the server may hand a body over in: each costs time, also of a body to discard.
MAX_PIECES = 10_000
#: The longest time from a body's first byte to its last.
READ_TIMEOUT_S = 10.0
#: As RFC 9562 writes one; digits in either case.
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


class RequestBody:
    """A request's body: read once, or not at all; only this object reads from the request."""

    def __init__(self, scope: Scope, receive: Receive, held_bytes: HeldBytes) -> None:
        self._headers = Headers(scope=scope)
        self._version = scope["http_version"]
        self._receive = receive
        self._held_bytes = held_bytes
        self._held = 0  # of them, by this body
        self._size = 0
        self._piece_count = 0
        self._is_at_end = False
        self._give_up_at: float | None = None  # by the loop's clock

    @property
    def accept(self) -> str:
        """The request's header ``Accept``."""
        return self._headers.get("accept", "")

    def check_framing(self) -> None:
        """Raise Refusal if it is not certain where the body ends: two programs might read two requests."""
        is_chunked = "transfer-encoding" in self._headers
        if is_chunked and ("content-length" in self._headers or not self._version_has_chunks()):
            error = "The length of the body is given in two ways"
            raise Refusal(400, error, headers={"connection": "close"})

    async def read(self, media_type: str = "application/json") -> bytes:
        """Return the body, which must be of this type; its bytes count as held until ``release``.

        Raises Refusal: 415, its content type is another; 413, it is too large, or in too many pieces; 408,
        it does not come in time; 503, too much is held; and ClientDisconnect.
        """
        self._check_type(media_type)
        if self._declared_size() > MAX_BODY_BYTES:
            raise _too_large()
        content = bytearray()
        while not self._is_at_end:
            try:
                piece = await self._next_piece()
            except TimeoutError:
                raise Refusal(408, "The body did not come in time") from None
            if self._size > MAX_BODY_BYTES:
                raise _too_large()
            if self._piece_count > MAX_PIECES:
                raise Refusal(413, f"The body comes in more than {MAX_PIECES} pieces")
            self._held_bytes.add(len(piece))
            self._held += len(piece)
            content += piece
        return bytes(content)

    def release(self) -> None:
        """Stop counting the body: the request is done."""
        self._held_bytes.remove(self._held)
        self._held = 0

    async def discard(self) -> bool:
        """Read and discard the rest of the body; return whether its end was reached."""
        if "expect" in self._headers and not self._size:
            return self._is_at_end  # the client waits for "100 Continue" before it sends
        if self._declared_size() > MAX_DISCARDED_BYTES:
            return False
        try:
            while not self._is_at_end and self._size <= MAX_DISCARDED_BYTES:
                if self._piece_count > MAX_PIECES:
                    return False
                await self._next_piece()
        except (TimeoutError, ClientDisconnect):
            return False
        return self._is_at_end

    def _check_type(self, media_type: str) -> None:
        types = self._headers.getlist("content-type")
        if [text.partition(";")[0].strip().lower() for text in types] != [media_type]:
            raise Refusal(415, f"The body must be {media_type}")
        if self._headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Refusal(415, "The body must not be compressed")

    def _version_has_chunks(self) -> bool:
        return self._version not in ("0.9", "1.0")

    def _declared_size(self) -> int:
        """Return the request's content length; 0 if it is missing or invalid."""
        text = self._headers.get("content-length", "")
        if not (text.isascii() and text.isdecimal()):
            return 0
        return int(text[:19])  # the first 19 digits alone are too large as well

    async def _next_piece(self) -> bytes:
        """Return the next piece; raises TimeoutError if it takes too long, and ClientDisconnect."""
        loop = asyncio.get_running_loop()
        if self._give_up_at is None:
            self._give_up_at = loop.time() + READ_TIMEOUT_S
        elif loop.time() > self._give_up_at:
            raise TimeoutError  # ``asyncio.timeout_at`` alone never ends a stream that is always ready
        async with asyncio.timeout_at(self._give_up_at):
            message = await self._receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        self._is_at_end = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        self._size += len(piece)
        self._piece_count += 1
        return piece


async def send_response(
    scope: Scope,
    receive: Receive,
    send: Send,
    held_bytes: HeldBytes,
    respond: Callable[[RequestBody], Awaitable[Response]],
) -> None:
    """Send the response that ``respond`` makes of the request's body, once the body's rest is discarded."""
    body = RequestBody(scope, receive, held_bytes)
    try:
        response = await respond(body)
    finally:
        body.release()
    if not await body.discard() and scope["http_version"].startswith("1"):
        response.headers["connection"] = "close"
    if scope["method"] == "HEAD":
        response.body = b""
    await response(scope, receive, send)


def _too_large() -> Refusal:
    return Refusal(413, f"The body is larger than {MAX_BODY_BYTES} bytes")


def parsed(content: bytes) -> Any:
    """Return a body's JSON value; raises Refusal if it is not JSON, too deep, or of too many values."""
    try:
        value = loads(content)
    except ValueError:
        raise Refusal(400, "The body is not JSON") from None
    _check_shape(value)
    return value


def _check_shape(value: Any) -> None:
    """Raise Refusal for a value nested too deeply, so many that reading takes long, or numbers like 1e999."""
    count, level = 0, [value]
    for _ in range(MAX_DEPTH + 1):
        # "1e999" is JSON, but it is read as infinity, which is not, and would be stored as null.
        if any(isinstance(entry, float) and math.isinf(entry) for entry in level):
            raise Refusal(400, "The body holds a number that is too large")
        containers = [entry for entry in level if isinstance(entry, dict | list)]
        if not containers:
            return
        count += sum(map(len, containers))
        if count > MAX_VALUES:
            raise Refusal(400, f"The body holds more than {MAX_VALUES} values")
        level = [
            entry
            for container in containers
            for entry in (container.values() if isinstance(container, dict) else container)
        ]
    raise Refusal(400, f"The body is nested deeper than {MAX_DEPTH} levels")


def _given(value: Any) -> Any:
    if value is None:
        raise ValueError("must be text or a whole number")
    return value


def _uuid(job_id: str | None) -> str | None:
    if job_id is not None and UUID.fullmatch(job_id) is None:
        raise ValueError("must be a UUID, or not given")
    return job_id


class ScriptRequest(AIGenerationJob):
    """The body of a request for a script: an AI job whose type the route gives, and that names its owner."""

    model_config = ConfigDict(populate_by_name=False)  # snake_case is for Python

    id: Annotated[Name | None, AfterValidator(_uuid)] = None
    project_id: Annotated[Reference, BeforeValidator(_given)]
    user_id: Annotated[Reference, BeforeValidator(_given)]
    parameters: dict[StrictStr, Any]


def script_job(content: Any) -> ScriptRequest:
    """Return the job in a body; raises Refusal if it is not an object, and InvalidJob with every fault."""
    if not isinstance(content, dict):
        raise Refusal(400, "The body must be a JSON object")
    found = [] if content.get("type", "script") == "script" else ["type: must be script, or not given"]
    try:
        job = ScriptRequest.model_validate({**content, "type": "script"})
    except ValidationError as error:
        # "from None": the cause's text repeats the input.
        raise InvalidJob(found + faults(error)) from None
    if found:
        raise InvalidJob(found)
    return job
