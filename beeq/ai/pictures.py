"""Pictures in a text: bytes from base64 in its forms, and what kind of picture the bytes are. No IO.

Providers write base64 in one line or in several, in the alphabet of URLs, without padding, or as the content
of a ``data:`` URL. The first bytes decide what a picture is, not the type or suffix that comes with it.
"""

import base64
import binascii
import re
import string
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from beeq.ai.errors import AIFailed

#: The formats that are kept, for messages.
KNOWN = "PNG, JPEG, WebP, AVIF, GIF, BMP, TIFF, HEIC or JPEG XL"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
    (b"II*\0", ".tiff"),
    (b"MM\0*", ".tiff"),
    (b"\xff\x0a", ".jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", ".jxl"),
)
#: Brands of a file's first box. ``mif1`` and ``msf1`` may mean any of them: the brands after them decide.
_BRANDS = {
    b"avif": ".avif", b"avis": ".avif", b"heic": ".heic", b"heix": ".heic", b"heim": ".heic",
    b"heis": ".heic", b"hevc": ".heic", b"hevx": ".heic",
}  # fmt: skip
_ANY_BRAND = (b"mif1", b"msf1")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_URL_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_SPACES = string.whitespace.encode()
_NOT_BASE64 = "AI provider: the picture in its response is not base64"
_TOO_MANY_ESCAPES = "AI provider: the picture in its response has too many characters in percent encoding"
_DATA_URL = re.compile(r"data:([^,]{0,200}),", re.IGNORECASE)
#: How JSON may write base64's characters, and the spaces between them.
_ESCAPES = (
    (b"\\/", b"/"), (b"\\n", b""), (b"\\r", b""), (b"\\t", b""),
    *((b"\\u%04x" % ord(mark), mark.encode()) for mark in "+/=-_%"),
    *((b"\\u%04X" % ord(mark), mark.encode()) for mark in "+/=-_%"),
)  # fmt: skip
#: The longest of them; in a piece's last bytes one may begin.
_LONGEST_ESCAPE = 6
#: How much of a long string shows whether it is a ``data:`` URL.
_HEAD_BYTES = 256
#: The most characters in percent encoding; each is decoded by itself.
_MAX_ESCAPES = 1_000_000
#: How many of the first characters distinguish base64 from a URL.
_TELLING = 1000
#: Not a URL: much base64 without a dot or colon. Shorter texts count as paths.
_BARE_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{200,}={0,2}\s*")


def image_suffix(head: bytes) -> str | None:
    """Return the suffix for a picture that begins with ``head``; None if its format is not known."""
    for magic, suffix in _MAGIC:
        if head.startswith(magic):
            return suffix
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return ".bmp"
    return _boxed(head) if head[4:8] == b"ftyp" else None


def _boxed(head: bytes) -> str | None:
    major, box = head[8:12], head[: int.from_bytes(head[:4])]
    if major in _BRANDS:
        return _BRANDS[major]
    brands = [box[place : place + 4] for place in range(16, len(box), 4)] if major in _ANY_BRAND else []
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def is_data_url(text: str) -> bool:
    """Return whether the text is a ``data:`` URL."""
    return _DATA_URL.match(text.lstrip()) is not None


def is_bare_base64(text: str) -> bool:
    """Return whether a text that should be a URL is base64 instead."""
    return _BARE_BASE64.fullmatch(text[:_TELLING]) is not None


def decoded(text: str) -> bytes:
    """Return the bytes in base64, or in a ``data:`` URL. Raises AIFailed if it is neither."""
    text = text.strip()
    found = _DATA_URL.match(text)
    if found is None:
        return _from_base64(text)
    rest = text[found.end() :]
    if rest.count("%") > _MAX_ESCAPES:
        raise AIFailed(_TOO_MANY_ESCAPES)
    if not re.search(r";\s*base64\s*$", found[1], re.IGNORECASE):
        return _unquoted(rest)
    return _from_base64(_unquoted(rest).decode("latin-1") if "%" in rest else rest)


def decoded_pieces(content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes in base64, or in a ``data:`` URL, of a long string as JSON writes it.

    The ``content`` comes in pieces, and is never in memory as a whole. Raises AIFailed if it is neither.
    """
    plain = _unescaped(content)
    head = b""
    while len(head) < _HEAD_BYTES and (piece := next(plain, None)) is not None:
        head = (head + piece).lstrip()
    found = _DATA_URL.match(head[:_HEAD_BYTES].decode("latin-1"))
    rest = _with_first(head if found is None else head[found.end() :], plain)
    if found is None:
        yield from _base64_decoded(rest)
    elif re.search(r";\s*base64\s*$", found[1], re.IGNORECASE):
        yield from _base64_decoded(_percent_decoded(rest))
    else:
        yield from _percent_decoded(rest)


def _with_first(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _unescaped(content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces without JSON's escapes; one that base64 has no use for stays, and is not base64."""
    held = b""
    for piece in content:
        whole = held + piece
        escape = whole.rfind(b"\\", -_LONGEST_ESCAPE)
        end = len(whole) if escape < 0 else escape
        yield _without_escapes(whole[:end])
        held = whole[end:]
    yield _without_escapes(held)


def _without_escapes(text: bytes) -> bytes:
    if b"\\" in text:
        for escape, plain in _ESCAPES:
            text = text.replace(escape, plain)
    return text


def _percent_decoded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held, escapes = b"", 0
    for piece in pieces:
        whole = held + piece
        percent = whole.rfind(b"%", -2)
        end = len(whole) if percent < 0 else percent
        held = whole[end:]
        escapes += whole.count(b"%", 0, end)
        if escapes > _MAX_ESCAPES:
            raise AIFailed(_TOO_MANY_ESCAPES)
        yield unquote_to_bytes(whole[:end])
    yield unquote_to_bytes(held)


def _base64_decoded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held, has_ended = b"", False
    try:
        for piece in pieces:
            plain = piece.translate(_URL_TO_BASE64, _SPACES)
            digits, padding, behind = plain.partition(b"=")
            if (has_ended and digits) or behind.strip(b"="):
                raise AIFailed(_NOT_BASE64)
            has_ended = has_ended or bool(padding)
            whole = held + digits
            end = len(whole) - len(whole) % 4
            held = whole[end:]
            yield binascii.a2b_base64(whole[:end], strict_mode=True)
        if held:
            yield base64.b64decode(held + b"=" * (-len(held) % 4), validate=True)
    except ValueError:
        raise AIFailed(_NOT_BASE64) from None


def _unquoted(text: str) -> bytes:
    try:
        return unquote_to_bytes(text)
    except UnicodeEncodeError:  # half a character
        raise AIFailed("AI provider: the picture in its response is not a data URL") from None


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)  # the usual form
    except ValueError:
        pass
    try:
        # As bytes: of a text in many small pieces no list is made.
        plain = text.encode("ascii").translate(_URL_TO_BASE64, _SPACES).rstrip(b"=")
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise AIFailed(_NOT_BASE64) from None
