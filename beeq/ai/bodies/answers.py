"""Reads the provider's responses in JSON as they come, also streams. No IO.

Some gateways stream although the request declines it. Only the needed parts of a stream and the current event
are held, so that its length costs no memory.
"""

import re
from typing import Any

from beeq.ai.bodies.long_strings import StringCutter
from beeq.ai.bodies.unpacking import BOM
from beeq.protocol.codec import loads

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
#: How many bytes show whether a body consists of server-sent events.
_TELLING = 6
_DONE = b"[DONE]"
_END = object()

#: The most values of a response, or an event of a stream: each takes some hundred bytes of memory.
MAX_PARTS = 250_000
MAX_LINES = 1_000_000
#: A string without its end goes to the end of the text, so that nothing is read twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EndedEarly(ValueError):
    """A stream ended before the response was whole."""


class TooManyParts(ValueError):
    """A response has so many small values that they would fill the memory."""


class TooLong(ValueError):
    """A response, or an event of a stream, is longer than it may be."""


class TextTooLong(ValueError):
    """The text that a stream's events make up is longer than it may be."""


class JSONAnswer:
    """Reads one response as its pieces come: a value in JSON, server-sent events, or lines of JSON.

    ``max_bytes`` is the longest value, or event of a stream, without its long strings if a ``cutter`` takes
    these out. ``max_text_bytes`` is the longest text, in UTF-8, that a stream's events may make up.
    """

    def __init__(
        self,
        max_bytes: int | None = None,
        *,
        max_text_bytes: int | None = None,
        cutter: StringCutter | None = None,
    ) -> None:
        self.max_bytes = max_bytes
        self._cutter = cutter
        # In pieces until it is parsed: a growing buffer is moved repeatedly, and fragments the memory.
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._half_end = b""  # "\r" at the end of what has come may be the first half of "\r\n"
        self._has_begun = self._is_one_value = self._is_of_events = self._is_of_lines = False
        self._lines = 0
        self._data = bytearray()  # of the event under way
        self._events = 0
        self._only: Any = None  # the first of several lines, which may be the only one
        self._stream = _Stream(max_text_bytes)

    @property
    def held_bytes(self) -> int:
        """How much is held, and still to be parsed."""
        return self._unread_bytes + len(self._data)

    def feed(self, data: bytes) -> None:
        """Read the next bytes.

        Raises TooLong, TooManyParts, TextTooLong or TooManyStrings, and another ValueError if it is not JSON.
        """
        data = self._half_end + (data if self._cutter is None else self._cutter.feed(data))
        self._half_end = b"\r" if data.endswith(b"\r") else b""
        self._read(data.removesuffix(b"\r"))
        if self.max_bytes is not None and self.held_bytes > self.max_bytes:
            raise TooLong

    def value(self) -> Any:
        """Return the response's value, or that of its events together, at the end of the body.

        Raises what ``feed`` does, and EndedEarly if a stream is not whole.
        """
        self._read(self._half_end + (b"" if self._cutter is None else self._cutter.rest()), is_end=True)
        if self._is_of_events or self._is_of_lines:
            self._read(b"\n\n")  # a stream may break off behind its last event
        if self._is_of_events or self._events > 1:
            return self._stream.response()
        return self._only if self._is_of_lines else _value(self._joined())

    def _joined(self) -> bytes:
        """Return the unread bytes, and drop them here."""
        text = b"".join(self._unread)
        self._unread, self._unread_bytes = [], 0
        return text

    def _hold(self, data: bytes) -> None:
        self._unread.append(data)
        self._unread_bytes += len(data)

    def _read(self, data: bytes, *, is_end: bool = False) -> None:
        """Read the lines that end in the ``data``, if lines count; the rest is held."""
        self._hold(data)
        if not self._has_begun:
            data = self._joined().removeprefix(BOM).lstrip()
            self._hold(data)
            if len(data) < _TELLING and not is_end:
                return
            self._has_begun = True
            self._is_of_events = data.startswith(_FIELDS)
            self._is_one_value = not self._is_of_events and not data.startswith(b"{")
        if self._is_one_value or (b"\n" not in data and b"\r" not in data):
            return
        text, place = self._joined(), 0
        for end in _LINE_END.finditer(text):
            self._lines += 1
            if self._lines > MAX_LINES:
                raise TooManyParts(f"it has more than {MAX_LINES} lines")
            self._take_line(text[place : end.start()])
            if self._is_one_value:
                break
            place = end.end()
        self._hold(text[place:])

    def _take_line(self, line: bytes) -> None:
        if self._stream.error is not None:
            return  # it counts even if the stream breaks off after it
        if self._is_of_events:
            if line.startswith(b"data:"):
                self._data += b"\n" + line.removeprefix(b"data:").removeprefix(b" ")
            elif not line and self._data:
                whole = bytes(self._data).strip()
                self._data.clear()
                if whole:
                    self._take(_END if whole == _DONE else _value(whole))
            return
        if not line.strip():
            return
        try:
            value = _value(line)
        except ValueError as error:
            if self._events or isinstance(error, TooManyParts):
                raise
            self._is_one_value = True  # one value, on several lines
            return
        self._is_of_lines = True
        if not self._events:
            self._only = value
        self._take(value)

    def _take(self, value: Any) -> None:
        self._events += 1
        self._stream.add(value)


def json_of(body: bytes) -> Any:
    """Return the value of a whole body in JSON, or what the events of a stream make up.

    Raises ValueError if it is neither, EndedEarly if a stream is not whole, and TooManyParts if reading it
    would take too much memory.
    """
    answer = JSONAnswer()
    answer.feed(body)
    return answer.value()


def _value(text: bytes) -> Any:
    """Return the value of a text in JSON, if it has no more parts than a response may have."""
    if _parts(text) > MAX_PARTS and _parts(_STRING.sub(b"", text)) > MAX_PARTS:
        raise TooManyParts(f"it has more than {MAX_PARTS} parts")
    return loads(text)


def _parts(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


class _Stream:
    """Assembles a response from the events of a stream, and keeps only the needed parts."""

    def __init__(self, max_text_bytes: int | None) -> None:
        self._chat = _Chat(max_text_bytes)
        self.error: Any = None
        self._picture: Any = None
        self._last: Any = None

    def add(self, event: Any) -> None:
        """Add an event, or ``_END`` for the mark at the end. Raises TextTooLong."""
        if event is _END:
            self._chat.is_whole = True
        if not isinstance(event, dict):
            return
        if event.get("error"):
            self.error = event
        elif "choices" in event:
            self._chat.add(event)
        elif isinstance(event.get("data"), list):
            self._picture = event
        elif isinstance(event.get("b64_json"), str):
            self._picture = {"data": [event]}  # the last is the finished picture
        self._last = True if self._chat.has_begun else event

    def response(self) -> Any:
        """Return the response. Raises ValueError without events, and EndedEarly if the end is missing."""
        if self.error is not None:
            return self.error
        if self._last is None:
            raise ValueError("an empty stream")
        return self._chat.completion() if self._chat.has_begun else self._picture or self._last


class _Chat:
    """The chat completion of a stream; only the first choice of a chunk is read."""

    def __init__(self, max_text_bytes: int | None) -> None:
        self.has_begun = False
        self.is_whole = False
        self._texts: dict[str, list[str]] = {"content": [], "refusal": []}
        self._max_text_bytes = max_text_bytes
        self._text_bytes = 0
        self._reason: Any = None

    def add(self, event: dict[str, Any]) -> None:
        """Add a chunk. Raises TextTooLong."""
        self.has_begun = True
        choice = _first_choice(event)
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            for name, texts in self._texts.items():
                if text := _text_of(delta.get(name)):
                    self._count(text)
                    texts.append(text)
        self._reason = choice.get("finish_reason") or self._reason

    def completion(self) -> dict[str, Any]:
        """Return the whole. Raises EndedEarly if its end is missing."""
        if self._reason is None and not self.is_whole:
            raise EndedEarly
        message = {name: "".join(texts) for name, texts in self._texts.items()}
        return {"choices": [{"message": message, "finish_reason": self._reason}]}

    def _count(self, text: str) -> None:
        self._text_bytes += len(text.encode(errors="surrogatepass"))
        if self._max_text_bytes is not None and self._text_bytes > self._max_text_bytes:
            raise TextTooLong


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
