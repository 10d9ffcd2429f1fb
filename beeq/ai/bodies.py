"""The bodies of the provider's responses: unpacked, and read as JSON also where they are streams. No IO.

Some gateways compress although it was not asked for, and stream although it was refused. What a packed body
becomes is bounded like any other: it is unpacked piece by piece.
"""

import contextlib
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from beeq.protocol.codec import loads

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
#: zlib's sign for a gzip or zlib head, told by its first bytes.
_ANY_HEAD = 32 + zlib.MAX_WBITS
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_DONE = b"[DONE]"
_END = object()
#: A packed body may be of so many parts: each costs time, also an empty one.
_MAX_PARTS = 10_000


#: The most values of a response, or an event of a stream: each takes up to a hundred bytes of memory.
MAX_PARTS = 1_000_000
MAX_LINES = 1_000_000
#: In a longer text what stands in strings is counted, too: it holds pictures, in base64.
_MAX_SEARCHED = 8 * 1024 * 1024
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_LINE = re.compile(rb"([^\r\n]*+)(?:\r\n|\r|\n|\Z)")


class EndedEarly(ValueError):
    """A stream ended before the response was whole."""


class TooManyParts(ValueError):
    """A response has so many small values that they would fill the memory."""


class Unpacking:
    """Unpacks one body as its pieces come; a body that is not packed stays as it is.

    gzip is told by its first bytes, which no JSON and no picture or film begins with; ``deflate`` by the
    ``content_encoding``. Of a packed body at most ``max_bytes`` and one more come out.
    """

    def __init__(self, content_encoding: str, max_bytes: int) -> None:
        self._encoding = content_encoding.strip().lower()
        self._left = max_bytes + 1
        self._held = b""  # the first byte, until there is a second
        self._is_plain = False
        self._part: Any = None  # the decompressor of the part under way; a body may be of several
        self._parts = 0

    def pieces(self, piece: bytes) -> Iterator[bytes]:
        """Yield what a piece becomes. Raises ValueError if it is damaged, or packed in another way."""
        if not self._is_plain and not self._parts:
            piece = self._held + piece
            if len(piece) < len(_GZIP):
                self._held = piece
                return
            self._held = b""
            self._part = self._begun(piece)
            self._is_plain = self._part is None
            self._parts = 1
        if self._is_plain:
            yield piece
        while piece and self._left > 0 and not self._is_plain:
            if self._part is None:
                if not piece.startswith(_GZIP[:1]):
                    return  # padding after the last part
                self._part = zlib.decompressobj(_ANY_HEAD)
                self._parts += 1
                if self._parts > _MAX_PARTS:
                    raise ValueError(f"it is packed in more than {_MAX_PARTS} parts")
            try:
                found = self._part.decompress(piece, self._left)
            except zlib.error:
                raise ValueError("it is packed, and damaged") from None
            self._left -= len(found)
            yield found
            piece = self._part.unconsumed_tail
            if self._part.eof:
                piece, self._part = self._part.unused_data, None

    def rest(self) -> bytes:
        """Return what was held back, at the body's end. Raises ValueError if a packed body broke off."""
        if self._part is not None and self._left > 0:
            raise ValueError("it is packed, and broke off")
        return self._held

    def _begun(self, head: bytes) -> Any:
        """Return the decompressor for a body that begins so; None if it is not packed."""
        if head.startswith(_GZIP):
            return zlib.decompressobj(_ANY_HEAD)
        if self._encoding == "deflate":
            has_head = head[0] & 0x0F == zlib.DEFLATED and int.from_bytes(head[:2]) % 31 == 0
            return zlib.decompressobj(zlib.MAX_WBITS if has_head else -zlib.MAX_WBITS)
        if self._encoding in ("br", "zstd", "compress"):
            raise ValueError(f"it is packed as {self._encoding}, which was not asked for")
        return None


def unpacked(body: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """Return a whole body unpacked, as much as there is of it, up to ``max_bytes``."""
    unpacking = Unpacking(content_encoding, max_bytes)
    found = bytearray()
    with contextlib.suppress(ValueError):
        for piece in unpacking.pieces(body):
            found += piece
        found += unpacking.rest()
    return bytes(found[:max_bytes]).removeprefix(_BOM)


def json_of(body: bytes) -> Any:
    """Return the value of a body in JSON, or what the events of a stream make up.

    Raises ValueError if it is neither, EndedEarly if a stream is not whole, and TooManyParts if reading it
    would take too much memory.
    """
    text = body.removeprefix(_BOM).lstrip()
    if text.startswith(_FIELDS):
        return _joined(_events(text))
    try:
        return _value(text)
    except ValueError:
        lines = (line for line in _lines(text) if line.strip())
        first, second = next(lines, b""), next(lines, b"")
        if not second or not first.startswith(b"{"):  # no stream of JSON lines
            raise
        return _joined(map(_value, itertools.chain((first, second), lines)))


def _value(text: bytes) -> Any:
    """Return the value of a text in JSON, if it has no more parts than a response may have."""
    if _parts(text) > MAX_PARTS and (len(text) > _MAX_SEARCHED or _parts(_STRING.sub(b"", text)) > MAX_PARTS):
        raise TooManyParts(f"it has more than {MAX_PARTS} parts")
    return loads(text)


def _parts(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _lines(text: bytes) -> Iterator[bytes]:
    """Yield the lines, without their ends, and an empty one at the end."""
    for count, line in enumerate(_LINE.finditer(text)):
        if count > MAX_LINES:
            raise TooManyParts(f"it has more than {MAX_LINES} lines")
        yield line[1]


def _events(text: bytes) -> Iterator[Any]:
    """Yield the data of server-sent events."""
    data: list[bytes] = []
    for line in _lines(text):
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
        elif not line and data:
            whole = b"\n".join(data).strip()
            data = []
            if whole:
                yield _END if whole == _DONE else _value(whole)


def _joined(events: Iterable[Any]) -> Any:
    """Return the response whose pieces the events are. Of each is kept what counts, so that none piles up."""
    chat = _Chat()
    picture = last = None
    for event in events:
        if event is _END:
            chat.is_whole = True
        if not isinstance(event, dict):
            continue
        if event.get("error"):
            return event
        if "choices" in event:
            chat.add(event)
        elif isinstance(event.get("data"), list):
            picture = event
        elif isinstance(event.get("b64_json"), str):
            picture = {"data": [event]}  # the last is the finished picture
        last = event
    if last is None:
        raise ValueError("an empty stream")
    return chat.completion() if chat.has_begun else picture or last


class _Chat:
    """The chat completion of a stream; only the first choice of a chunk is read."""

    def __init__(self) -> None:
        self.has_begun = False
        self.is_whole = False
        self._texts: dict[str, list[str]] = {"content": [], "refusal": []}
        self._reason: Any = None

    def add(self, event: dict[str, Any]) -> None:
        """Add a chunk."""
        self.has_begun = True
        choice = _first_choice(event)
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            for name, texts in self._texts.items():
                texts.append(_text_of(delta.get(name)))
        self._reason = choice.get("finish_reason") or self._reason

    def completion(self) -> dict[str, Any]:
        """Return the whole. Raises EndedEarly if its end is missing."""
        if self._reason is None and not self.is_whole:
            raise EndedEarly
        message = {name: "".join(texts) for name, texts in self._texts.items()}
        return {"choices": [{"message": message, "finish_reason": self._reason}]}


def _first_choice(event: dict[str, Any]) -> dict[str, Any]:
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    return {}


def _text_of(value: Any) -> str:
    """Return the text of a delta: a text, or a list of parts."""
    if isinstance(value, list):
        return "".join(part["text"] for part in value if is_answer_part(part))
    return value if isinstance(value, str) else ""


def is_answer_part(part: Any) -> bool:
    """Return whether a part of a message is text of the answer; some parts hold the model's thinking."""
    if not isinstance(part, dict) or not isinstance(part.get("text"), str):
        return False
    kind = part.get("type")
    is_thinking = isinstance(kind, str) and kind.startswith(("thinking", "reasoning", "thought"))
    return not is_thinking and part.get("thought") is not True
