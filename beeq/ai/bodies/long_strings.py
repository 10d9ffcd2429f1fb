"""Cuts the long strings out of JSON as it comes: pictures in base64, which need not be in memory. No IO."""

import re
import secrets

#: Shorter strings stay where they are.
LONG_BYTES = 64 * 1024
#: The most strings of a response with a picture; each takes time.
MAX_STRINGS = 500_000
#: The content of a string, up to its end or to a backslash whose second half has not come.
_INSIDE = re.compile(rb'(?:[^"\\\r\n]++|\\[^\r\n])*+')
_BACKSLASH = ord("\\")


class TooManyStrings(ValueError):
    """A response has so many strings that looking for pictures in them would take long."""

    def __init__(self) -> None:
        super().__init__(f"it has more than {MAX_STRINGS} texts")


class StringCutter:
    """Cuts one body's long strings out, and puts a short name in the place of each.

    Attributes:
        cut: the strings cut out since this was last taken, in order, as written in JSON.
        places: for each name, where its content begins in all that was cut out, and its length.
    """

    def __init__(self) -> None:
        self.cut: list[bytes] = []
        self.places: dict[str, tuple[int, int]] = {}
        self._label = secrets.token_hex(16)  # no response holds it by itself
        self._held = b""  # a backslash, until its second half has come
        self._is_inside = False
        self._string = bytearray()  # the beginning of the string under way, as long as it is short
        self._begin: int | None = None  # of the string under way, if it is long
        self._cut_bytes = 0
        self._strings = 0

    def feed(self, data: bytes) -> bytes:
        """Return the next bytes of a body without long strings. Raises TooManyStrings.

        The rest may lag behind: a string is kept until it ends, or is long.
        """
        data, self._held = self._held + data, b""
        kept = bytearray()
        place = 0
        while place < len(data):
            if not self._is_inside:
                end = data.find(b'"', place) + 1
                kept += data[place : end or None]
                if not end:
                    break
                self._begin_string()
                place = end
                continue
            match = _INSIDE.match(data, place)
            end = place if match is None else match.end()
            self._add(data[place:end], kept)
            if end == len(data):
                break
            if data[end] == _BACKSLASH and end + 1 == len(data):
                self._held = data[end:]
                break
            # A string of JSON ends in the line where it begins; else the text is not JSON.
            self._end_string(kept)
            kept += data[end : end + 1]
            place = end + 1
        return bytes(kept)

    def rest(self) -> bytes:
        """Return what was kept of a string that has not ended, at the body's end."""
        kept = bytearray()
        self._end_string(kept)
        return bytes(kept) + self._held

    def _begin_string(self) -> None:
        self._strings += 1
        if self._strings > MAX_STRINGS:
            raise TooManyStrings
        self._is_inside = True

    def _add(self, content: bytes, kept: bytearray) -> None:
        if self._begin is None:
            self._string += content
            if len(self._string) <= LONG_BYTES:
                return
            self._begin = self._cut_bytes
            kept += self._name().encode()
            content = bytes(self._string)
            self._string.clear()
        self.cut.append(content)
        self._cut_bytes += len(content)

    def _end_string(self, kept: bytearray) -> None:
        if self._begin is not None:
            self.places[self._name()] = (self._begin, self._cut_bytes - self._begin)
            self._begin = None
        kept += self._string
        self._string.clear()
        self._is_inside = False

    def _name(self) -> str:
        return f"{self._label}-{len(self.places)}"
