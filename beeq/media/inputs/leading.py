"""Finds where the sound of an MP3, ADTS or FLAC file begins: behind tags, zeros or other bytes. No IO.

Players look for the first frames. A frame counts if it says where the next one begins, and that one is there;
right behind a tag, where a sound is expected, one frame is enough.
"""

import itertools
import re
from collections.abc import Callable

Read = Callable[[int, int], bytes]

_WINDOW_BYTES = 128 * 1024
#: Of one file, between all of its tags.
_MAX_ZEROS = 16 * 1024 * 1024
_MAX_TAGS = 16
_ZEROS = bytes(_WINDOW_BYTES)
#: Places that may begin a frame and do not: any 128 KB without sound have some hundreds.
_MAX_TRIES = 4096
#: Frames of ADTS, and of MPEG audio by the first bits of its rate; in a run of 0xFF there is none.
_SYNC = re.compile(rb"\xff(?=[\xf0\xf1\xf8\xf9]|[\xe0-\xff][\x10-\xef])")
_ID3_HEADER_BYTES, _HAS_FOOTER = 10, 0x10
_FLAC = b"fLaC"
#: A block of 34 bytes, the stream's description, comes first.
_FLAC_BEGIN = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
_FRAMES = 3
_HEADER_BYTES = 6
#: Kilobits a second: of version 1 by layer, of versions 2 and 2.5 by layer.
_BIT_RATES = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44_100, 48_000, 32_000)
_LAYER_1, _VERSION_1, _RESERVED = 3, 3, 1


def sound_in(read: Read) -> tuple[str, int] | None:
    """Return the demuxer for a sound without a header, and where it begins; None if there is none."""
    place = _behind_tags(read)
    window = read(place, _WINDOW_BYTES)
    if window.startswith(_FLAC):
        return "flac", place
    if place and (demuxer := _frame(window[:_HEADER_BYTES].ljust(_HEADER_BYTES, b"\0"))[0]):
        return demuxer, place
    flac = min((at for begin in _FLAC_BEGIN if (at := window.find(begin)) >= 0), default=len(window))
    for sync in itertools.islice(_SYNC.finditer(window, 0, flac + 2), _MAX_TRIES):
        if demuxer := _frames_at(window, sync.start()):
            return demuxer, place + sync.start()
    return ("flac", place + flac) if flac < len(window) else None


def samples_of(head: bytes) -> tuple[int, int] | None:
    """Return the samples in a frame of MPEG audio, and those in a second; None for other bytes."""
    demuxer, _ = _frame(head[:_HEADER_BYTES])
    if demuxer != "mp3":
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    hz = _RATES_HZ[head[2] >> 2 & 3] // {3: 1, 2: 2, 0: 4}[version]
    if layer == _LAYER_1:
        return 384, hz
    return (576 if layer == 1 and version != _VERSION_1 else 1152), hz


def _behind_tags(read: Read) -> int:
    place, zeros = 0, _MAX_ZEROS
    for _ in range(_MAX_TAGS):
        head = read(place, _ID3_HEADER_BYTES)
        if head.startswith(b"ID3") and len(head) == _ID3_HEADER_BYTES:
            # Seven bits a byte.
            length = 0
            for byte in head[6:]:
                length = length << 7 | byte & 0x7F
            place += _ID3_HEADER_BYTES + length + (_ID3_HEADER_BYTES if head[5] & _HAS_FOOTER else 0)
        elif zeros > 0 and head.startswith(b"\0"):
            behind = _behind_zeros(read, place, zeros)
            place, zeros = behind, zeros - (behind - place)
        else:
            break
    return place


def _behind_zeros(read: Read, place: int, most: int) -> int:
    end = place + most
    while place < end and (chunk := read(place, _WINDOW_BYTES)):
        # Comparing whole windows takes a fiftieth of the time that stripping them does.
        rest = b"" if chunk == _ZEROS else chunk.lstrip(b"\0")
        place += len(chunk) - len(rest)
        if rest:
            break
    return place


def _frames_at(window: bytes, at: int) -> str | None:
    """Return the demuxer of some frames that follow each other; at a file's end fewer do."""
    demuxer, found = None, 0
    while found < _FRAMES and at < len(window):
        kind, length = _frame(window[at : at + _HEADER_BYTES])
        if kind is None or kind != (demuxer or kind):
            return None
        demuxer, found, at = kind, found + 1, at + length
    return demuxer if found == _FRAMES else None


def _frame(head: bytes) -> tuple[str | None, int]:
    """Return the demuxer and the length of a frame; none and 0 for other bytes."""
    if len(head) < _HEADER_BYTES or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:  # noqa: PLR2004 - the sync word
        return None, 0
    if head[1] & 0xF6 == 0xF0:  # noqa: PLR2004 - layer 0 is ADTS
        length = (head[3] & 0x03) << 11 | head[4] << 3 | head[5] >> 5
        return ("aac", length) if length > _HEADER_BYTES else (None, 0)
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate, frequency, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == _RESERVED or not layer or not 0 < rate < 15 or frequency >= len(_RATES_HZ):  # noqa: PLR2004 - no rate
        return None, 0
    family = _VERSION_1 if version == _VERSION_1 else 2
    bits = _BIT_RATES[family, layer][rate - 1] * 1000
    hz = _RATES_HZ[frequency] // {3: 1, 2: 2, 0: 4}[version]
    if layer == _LAYER_1:
        return "mp3", (12 * bits // hz + padding) * 4
    samples = 72 if layer == 1 and family != _VERSION_1 else 144
    return "mp3", samples * bits // hz + padding
