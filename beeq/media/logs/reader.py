"""Separates ffmpeg's complaints from what it says of a file, in which any text of the file may be.

``COLOURED`` makes ffmpeg colour its warnings and errors, and the names in brackets of those who speak. Other
lines stay plain. The escape character that begins a colour is in no text that ffmpeg logs, because it
replaces control characters by question marks. So what is coloured is ffmpeg's own line from its first to its
last character, and a title or a tag that looks like an error stays among the plain text.
"""

import re
from collections import deque

from beeq.media.logs.complaints import Complaint

#: The environment that ffmpeg needs for this.
COLOURED = {"AV_LOG_FORCE_COLOR": "1"}
_COLOUR = re.compile(rb"\x1b\[([0-9;]{1,20})m")
_ESCAPE, _LONGEST_COLOUR = b"\x1b", 24
_PLAIN, _RED = b"0", b"31"
_CONTEXT = re.compile(r"\[(.{1,200} @ (?:0x)?[0-9a-fA-F]{1,16})\] ?")
_INPUT = b"Input #"
_REPEATED = b"    Last message repeated"
#: The first complaints, among which the cause is, and the last.
_FIRST, _LAST = 1000, 50
_MAX_BYTES = 2048
#: Of the plain text so much is kept before the mark (without one: of the end), and from there on.
_BEFORE_BYTES, _BEHIND_BYTES = 64 * 1024, 256 * 1024


class LogReader:
    """Reads the log of one run, in pieces of any size; keeps a bounded part of it.

    Of the plain text the surroundings of ``mark`` are kept, a text that no file can have; without a mark, the
    end. Plain lines before ffmpeg has opened a file are complaints, too, of what starts it; so are all where
    ``only_complaints`` are logged.
    """

    def __init__(self, mark: str = "", *, only_complaints: bool = False) -> None:
        self._mark, self._only_complaints = mark.encode(), only_complaints
        self._rest = b""
        self._colour = b""
        self._said = b""
        self._has_input = False
        #: How much more of the plain text is kept; None before the mark.
        self._room_bytes: int | None = None
        #: The complaint that is being read: who says it, and what.
        self._contexts: list[str] = []
        self._text = b""
        self._is_error = False
        self._first: list[Complaint] = []
        self._last = deque[Complaint](maxlen=_LAST)

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        data, place = self._rest + chunk, 0
        for colour in _COLOUR.finditer(data):
            self._take(data[place : colour.start()])
            self._change(colour[1])
            place = colour.end()
        # A colour may go on in the next piece.
        cut = data.rfind(_ESCAPE, max(place, len(data) - _LONGEST_COLOUR))
        end = cut if cut >= 0 else len(data)
        self._take(data[place:end])
        self._rest = data[end:]

    def complaints(self) -> tuple[Complaint, ...]:
        """Return the complaints so far; of very many, the first and the last."""
        unfinished = [self._complaint(self._text)] if self._text else []
        plain = [] if self._has_input else self._said[:_MAX_BYTES].split(b"\n")
        started = [self._complaint(line, is_error=True) for line in plain if line.strip()]
        return (*started, *self._first, *self._last, *unfinished)

    def said(self) -> str:
        """Return the plain text that was kept; anything in it may be a text of a file."""
        return self._said.decode(errors="replace")

    def _take(self, text: bytes) -> None:
        if not text:
            return
        if self._colour:
            self._text += text[: _MAX_BYTES - len(self._text)]
            self._is_error = self._colour.endswith(_RED)
        elif self._only_complaints:
            self._complain_plainly(text)
        else:
            # Who says a plain line is coloured, and of no interest here.
            self._contexts.clear()
            if self._text:
                self._finish()
            self._keep(text)

    def _change(self, colour: bytes) -> None:
        if colour != _PLAIN:
            self._colour = colour
            return
        self._colour = b""
        if not self._contexts and not self._text:
            return
        text = self._text.decode(errors="replace")
        if context := _CONTEXT.fullmatch(text):
            self._contexts.append(context[1])
            self._text = b""
        elif text.endswith("\n") or len(self._text) >= _MAX_BYTES:
            self._finish()

    def _complain_plainly(self, text: bytes) -> None:
        *lines, rest = text.split(b"\n")
        for line in lines:
            self._text += line[: _MAX_BYTES - len(self._text)]
            if self._text and not self._text.startswith(_REPEATED):
                self._is_error = True
                self._finish()
            self._text = b""
        self._text += rest[: _MAX_BYTES - len(self._text)]
        self._is_error = True

    def _finish(self) -> None:
        complaint = self._complaint(self._text)
        if len(self._first) < _FIRST:
            self._first.append(complaint)
        else:
            self._last.append(complaint)
        self._contexts.clear()
        self._text = b""

    def _complaint(self, said: bytes, *, is_error: bool = False) -> Complaint:
        text = " ".join(said.decode(errors="replace").split())
        printable = "".join(each if each.isprintable() else "?" for each in text)
        # A long text of a file must not choose where a complaint ends: there the cause is looked for.
        cut = "…" if len(said) >= _MAX_BYTES else ""
        return Complaint(tuple(self._contexts), printable + cut, is_error or self._is_error)

    def _keep(self, text: bytes) -> None:
        if self._room_bytes is not None:
            self._said += text[: self._room_bytes]
            self._room_bytes = max(0, self._room_bytes - len(text))
            return
        self._said += text
        self._has_input = self._has_input or _INPUT in self._said
        place = self._said.find(self._mark) if self._mark else -1
        if place >= 0:
            self._room_bytes = _BEHIND_BYTES
            self._said = self._said[max(0, place - _BEFORE_BYTES) :]
        else:
            self._said = self._said[-_BEFORE_BYTES:]
