"""Unpacks bodies that were packed, piece by piece. No IO.

Requests decline packing, and some gateways pack anyway. The output is bounded twice: by the caller's largest
body, and by the bytes received, since a few bytes can unpack to endless zeros.
"""

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any

BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
#: zlib's flag for detecting a gzip or zlib head.
_ANY_HEAD = 32 + zlib.MAX_WBITS
#: The most parts of a packed body: each costs time, even an empty one.
_MAX_PARTS = 10_000
#: The output of one step; other tasks get a turn in between.
STEP_BYTES = 256 * 1024
#: How much may come out of a body of any size: a short answer may repeat one letter.
FREE_BYTES = 1024 * 1024
#: A stream repeats the head of the response around every word, and shrinks by so many times at most.
TEXT_TIMES = 256
#: Pictures and films are packed in themselves.
FILE_TIMES = 16


class UnpacksTooFar(ValueError):
    """A packed body is many times longer than any that a provider has a reason to send."""


class Unpacking:
    """Unpacks one body as its pieces come; a body that is not packed stays as it is.

    gzip is recognised by its first bytes, with which no JSON, picture or film begins; ``deflate`` by the
    ``content_encoding``. A packed body yields at most ``max_bytes`` and one more, and at most ``FREE_BYTES``
    and ``most_times`` the bytes received.
    """

    def __init__(self, content_encoding: str, max_bytes: int, *, most_times: int = TEXT_TIMES) -> None:
        self._encoding = content_encoding.strip().lower()
        self._left = max_bytes + 1
        self._most_times = most_times
        self._allowed = FREE_BYTES
        self._held = b""  # the first byte, until there is a second
        self._is_plain = False
        self._part: Any = None  # the decompressor of the part under way; a body may be of several
        self._parts = 0

    def pieces(self, piece: bytes) -> Iterator[bytes]:
        """Yield a piece unpacked, in pieces of at most ``STEP_BYTES``; a plain one as it is.

        Raises ValueError if it is damaged, or packed in another way, and UnpacksTooFar.
        """
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
        else:
            yield from self._unpacked(piece)

    def _unpacked(self, piece: bytes) -> Iterator[bytes]:
        self._allowed += self._most_times * len(piece)
        is_full = False
        while (piece or is_full) and self._left > 0:
            if self._part is None:
                if not piece.startswith(_GZIP[:1]):
                    return  # padding after the last part
                self._part = zlib.decompressobj(_ANY_HEAD)
                self._parts += 1
                if self._parts > _MAX_PARTS:
                    raise ValueError(f"it is packed in more than {_MAX_PARTS} parts")
            most_bytes = min(self._left, STEP_BYTES)
            try:
                found = self._part.decompress(piece, most_bytes)
            except zlib.error:
                raise ValueError("it is packed, and damaged") from None
            # zlib may have read all of the piece, and hold the rest of what comes out.
            is_full = len(found) == most_bytes and not self._part.eof
            self._left -= len(found)
            self._allowed -= len(found)
            if self._allowed < 0:
                raise UnpacksTooFar(
                    f"it is packed, and unpacks to more than {self._most_times} times its size"
                )
            yield found
            piece = self._part.unconsumed_tail
            if self._part.eof:
                piece, self._part = self._part.unused_data, None

    @property
    def is_plain(self) -> bool:
        """Whether the body is not packed, as far as it has come."""
        return self._is_plain

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
    return bytes(found[:max_bytes]).removeprefix(BOM)
