"""A lenient parser of a response's head, fed with its bytes as they come. No IO, no clock.

The status line alone decides. The HTTP library rejects the whole response over one malformed line after it,
so the status is read here first. The library also reads interim responses (1xx) and empty lines without
limit; here both are limited.
"""

import re
from collections.abc import Callable

from beeq.errors import BeeqError

#: Any version; a space and a reason, or nothing, follow the status.
_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])?[ \t]+([1-9][0-9]{2})(?:[ \t\r\n]|\Z)", re.IGNORECASE)
#: The longest beginning of a status line that leaves the status open, with some spaces too many.
_LONGEST_BEGINNING = 64
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL = 200
#: The longest part of a head that is parsed, and the most bytes before the final status line.
MAX_HEAD_BYTES = 64 * 1024
#: More interim responses than any server has a use for.
MAX_INTERIM = 32


class EndlessResponse(BeeqError):
    """A response exceeds its limits. The message is half a sentence, without the response's text."""


class ResponseHead:
    """One response's head: its status, and its header lines, as far as they can be parsed.

    Interim ones (1xx) are left out, malformed ones too. ``on_status`` is called once the status is known.
    After the status line ``max_rest_bytes`` are read at most: the rest of the head, and the body as it is
    framed; None: the caller bounds it.

    Attributes:
        status: the final response's; None until it has come.
        headers: names and values as they came, without malformed lines.
    """

    def __init__(
        self, on_status: Callable[[], None] | None = None, *, max_rest_bytes: int | None = None
    ) -> None:
        self._on_status = on_status
        self._max_rest_bytes = max_rest_bytes
        self._rest_bytes = 0
        self._unread = b""
        self._left_out_bytes = 0
        self._interim_count = 0
        self._header_bytes = 0
        self._in_interim = False
        self._is_over = False  # nothing more is parsed
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> bytes:
        """Take the connection's next bytes, none at its end; return those for the HTTP library.

        These begin with the final response's status line, or are not HTTP. Raises EndlessResponse.
        """
        if self.status is not None:
            self._count_rest(len(data))
        if self._is_over:
            return data
        self._unread += data
        passed = data
        if self.status is None:
            self._leave_out_interim()
            self._read_status(is_end=not data)
            if self.status is None and not self._is_over:
                return b""
            passed = self._unread
            self._count_rest(len(passed))
        self._read_headers()
        return passed

    def _count_rest(self, size_bytes: int) -> None:
        self._rest_bytes += size_bytes
        if self._max_rest_bytes is not None and self._rest_bytes > self._max_rest_bytes:
            raise EndlessResponse(f"more than {self._max_rest_bytes} bytes")

    def _leave_out_interim(self) -> None:
        """Take out the interim responses, and empty lines in front of a status line."""
        read_to = 0
        while True:
            if not self._in_interim:
                read_to = len(self._unread) - len(self._unread[read_to:].lstrip(b"\r\n"))
                if not self._is_interim_at(read_to):
                    break
                self._in_interim = True
                self._interim_count += 1
            line_end = self._unread.find(b"\n", read_to) + 1
            if not line_end:
                break
            self._in_interim = bool(self._unread[read_to:line_end].strip(b"\r\n"))
            read_to = line_end
        self._unread = self._unread[read_to:]
        self._left_out_bytes += read_to
        held_bytes = len(self._unread) if self._in_interim else 0
        if self._interim_count > MAX_INTERIM or self._left_out_bytes + held_bytes > MAX_HEAD_BYTES:
            raise EndlessResponse(
                f"more than {MAX_INTERIM} interim responses, or {MAX_HEAD_BYTES} bytes of them"
            )

    def _is_interim_at(self, begin: int) -> bool:
        match = _STATUS_LINE.match(self._unread, begin)
        return match is not None and int(match[1]) < _FIRST_FINAL and int(match[1]) != _SWITCHING_PROTOCOLS

    def _read_status(self, *, is_end: bool) -> None:
        if self._in_interim:
            return
        match = _STATUS_LINE.match(self._unread)
        # At the end of what came so far three digits may be the first of more.
        if match and (match.end() > match.end(1) or is_end):
            self.status = int(match[1])
            if self._on_status is not None:
                self._on_status()
        elif is_end or b"\n" in self._unread or len(self._unread) > _LONGEST_BEGINNING:
            self._is_over = True

    def _read_headers(self) -> None:
        """Read the whole lines, up to the empty one."""
        while not self._is_over:
            line, newline, rest = self._unread.partition(b"\n")
            if not newline:
                self._is_over = len(line) > MAX_HEAD_BYTES
                return
            self._unread = rest
            self._header_bytes += len(line)
            name, colon, value = line.partition(b":")
            if colon:
                self.headers.append((name.strip(), value.strip()))
            self._is_over = not line.strip(b"\r") or self._header_bytes > MAX_HEAD_BYTES
