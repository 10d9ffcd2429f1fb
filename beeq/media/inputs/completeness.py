"""Finds out whether a file is whole by its container's own sizes. No IO.

ffmpeg reads a file that was cut off up to the cut, mostly without an error. Containers that do not say how
long they are (a recording that was never closed) count as whole, as far as they go.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Literal

from beeq.media.inputs.leading import samples_of

#: Reads bytes: offset and size.
Read = Callable[[int, int], bytes]

_SEGMENT = b"\x18\x53\x80\x67"
_EBML_HEAD_BYTES = 4096
#: Sizes that writers to a pipe leave in the header, where they cannot come back.
_STREAMED = 0x7FF0_0000
_BOXES = frozenset(
    (b"mdat", b"moov", b"moof", b"ftyp", b"free", b"skip", b"wide", b"styp", b"sidx", b"uuid", b"meta")
)
_LARGE_BOX, _BOX_HEADER_BYTES = 1, 8
#: A film of six hours in fragments of half a second has fewer.
MAX_BOXES = 100_000
_OGG_HEADER_BYTES, _OGG_PAGE_BYTES = 27, 65_307
_TAIL_BYTES = 2 * _OGG_PAGE_BYTES
_TS_PACKET_BYTES = 188
#: A frame of MPEG audio is shorter; Xing's byte count may or may not include its own frame.
_FRAME_BYTES = 4096
_JPEG_END = b"\xff\xd9"
_ID3_HEADER_BYTES = 10
_CHUNK_HEADER_BYTES = 8
_CHUNK_LISTS = frozenset((b"RIFF", b"RIFX", b"RF64", b"FORM"))


def missing_bytes(demuxer: str, size: int, read: Read) -> int | None:
    """Return how many bytes the file lacks; 0 if it seems whole.

    Returns None if its end is missing for certain, but nothing says how much that is.
    """
    checks: dict[str, Callable[[int, Read], int | None]] = {
        "mov": _of_boxes,
        "matroska": _of_segment,
        "wav": _of_chunks,
        "avi": _of_chunks,
        "aiff": _of_chunks,
        "webp_pipe": _of_chunks,
        "ogg": _of_pages,
        "mpegts": _of_packets,
        "mp3": _of_xing,
        "png_pipe": _of_png,
        "jpeg_pipe": _of_jpeg,
    }
    check = checks.get(demuxer)
    return check(size, read) if check is not None else 0


def boxes(read: Read, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the content's begin and the end of each box of an MP4 file between two offsets.

    The end of the last may lie behind ``end``.
    """
    for _ in range(MAX_BOXES):
        head = read(begin, 16) if begin + _BOX_HEADER_BYTES <= end else b""
        if len(head) < _BOX_HEADER_BYTES:
            return
        length, kind, content = int.from_bytes(head[:4]), head[4:8], begin + _BOX_HEADER_BYTES
        if length == _LARGE_BOX:
            length, content = int.from_bytes(head[8:16]), begin + 16
        elif length == 0:
            length = end - begin
        if begin + length < content:
            return
        yield kind, content, begin + length
        begin += length


def _of_boxes(size: int, read: Read) -> int:
    last = 0
    for kind, _, end in boxes(read, 0, size):
        # Behind the last box there may be anything.
        if kind in _BOXES:
            last = max(last, end)
    return max(0, last - size)


def _of_segment(size: int, read: Read) -> int:
    place = read(0, _EBML_HEAD_BYTES).find(_SEGMENT)
    head = read(place + 4, 8) if place >= 0 else b""
    if not head or not head[0]:
        return 0
    # The position of the first bit that is set says how many bytes there are; all ones: unknown.
    width = 9 - head[0].bit_length()
    length = int.from_bytes(head[:width]) & ((1 << 7 * width) - 1)
    if length == (1 << 7 * width) - 1:
        return 0
    return max(0, place + 4 + width + length - size)


def _of_chunks(size: int, read: Read) -> int:
    head = read(0, 12)
    order: Literal["big", "little"] = "big" if head[:4] in (b"FORM", b"RIFX") else "little"
    if head[:4] not in _CHUNK_LISTS or not 0 < int.from_bytes(head[4:8], order) < _STREAMED:
        return 0
    place = 12
    for _ in range(MAX_BOXES):
        chunk = read(place, 8)
        if len(chunk) < _CHUNK_HEADER_BYTES or not chunk[:4].isascii():
            break
        length = int.from_bytes(chunk[4:], order)
        if chunk[:4] in (b"data", b"SSND", b"VP8 ", b"VP8L") or (
            chunk[:4] == b"LIST" and length > size - place
        ):
            return max(0, place + 8 + length - size) if 0 < length < _STREAMED else 0
        place += 8 + length + length % 2
    return 0


def _of_pages(size: int, read: Read) -> int | None:
    begin = max(0, size - _TAIL_BYTES)
    tail = read(begin, size - begin)
    place = tail.rfind(b"OggS")
    if place < 0:
        return 0
    header = tail[place : place + _OGG_HEADER_BYTES]
    segments = header[26] if len(header) == _OGG_HEADER_BYTES else None
    if segments is None:
        return None
    lacing = tail[place + _OGG_HEADER_BYTES : place + _OGG_HEADER_BYTES + segments]
    if len(lacing) < segments or place + _OGG_HEADER_BYTES + segments + sum(lacing) > len(tail):
        return None
    return 0


def _of_packets(size: int, read: Read) -> int | None:
    head = read(0, 2 * _TS_PACKET_BYTES)
    is_plain = head[:1] == b"G" and head[_TS_PACKET_BYTES : _TS_PACKET_BYTES + 1] == b"G"
    last = size - size % _TS_PACKET_BYTES
    return None if is_plain and size != last and read(last, 1) == b"G" else 0


def _of_xing(size: int, read: Read) -> int:
    begin, counted = _xing(read)
    lacking = begin + (counted[1] or 0) - size if counted else 0
    return lacking if lacking > _FRAME_BYTES // 4 else 0


def counted_s(demuxer: str, read: Read) -> float | None:
    """Return the length in seconds by the samples that an MP3's or FLAC's header counts; None without."""
    if demuxer == "flac":
        head = read(0, 26)
        if len(head) < 26 or head[:4] != b"fLaC" or head[4] & 0x7F:  # noqa: PLR2004 - up to the count's end
            return None
        rate_hz, samples = int.from_bytes(head[18:21]) >> 4, int.from_bytes(head[21:26]) & (1 << 36) - 1
        return samples / rate_hz if samples and rate_hz else None
    if demuxer != "mp3":
        return None
    begin, counted = _xing(read)
    known = samples_of(read(begin, 6))
    return counted[0] * known[0] / known[1] if counted and counted[0] and known else None


def _xing(read: Read) -> tuple[int, tuple[int | None, int | None] | None]:
    """Return where the first frame of an MP3 begins, and the frames and bytes that its Xing header counts."""
    begin = 0  # tags may be left before it
    head = read(0, 10)
    if head[:3] == b"ID3" and len(head) == _ID3_HEADER_BYTES:
        begin = 10 + sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
    head = read(begin, _FRAME_BYTES)
    place = max(head[:64].find(b"Xing"), head[:64].find(b"Info"))
    if place < 0 or len(head) < place + 16:
        return begin, None
    flags, first, second = struct.unpack_from(">3I", head, place + 4)
    frames = int(first) if flags & 1 else None
    length = int(second if flags & 1 else first) if flags & 2 else None
    return begin, (frames, length)


def _of_png(size: int, read: Read) -> int | None:
    place = 8
    for _ in range(MAX_BOXES):
        chunk = read(place, 8)
        if len(chunk) < _CHUNK_HEADER_BYTES:
            return None
        place += 12 + int.from_bytes(chunk[:4])
        if chunk[4:] == b"IEND":
            break
    return max(0, place - size)


def _of_jpeg(size: int, read: Read) -> int | None:
    # Cameras add data behind the picture.
    tail = read(max(0, size - _TAIL_BYTES), _TAIL_BYTES)
    return 0 if _JPEG_END in tail else None
