"""Finds the encrypted tracks of MP4 and Matroska files, which ffmpeg would decode to noise. No IO.

ffmpeg says nothing of it: it shows the codec that the encrypted samples would have, and what its decoders
make of the noise may look like a picture.
"""

from collections.abc import Iterator

from beeq.media.inputs.completeness import Read, boxes

_MAX_MOOV_BYTES = 64 * 1024 * 1024
_IN_ORDER = (b"mdia", b"minf", b"stbl", b"stsd")
#: Common encryption's kinds of samples, and those of FairPlay.
_ENCRYPTED = (b"encv", b"enca", b"encs", b"drms", b"drmi")


def encrypted_tracks(demuxer: str, size: int, read: Read) -> frozenset[int]:
    """Return the places, from 0 on, of the encrypted tracks among all tracks of a file."""
    if demuxer != "mov":
        return frozenset()
    for kind, begin, end in boxes(read, 0, size):
        if kind == b"moov" and end - begin <= _MAX_MOOV_BYTES:
            found = (b for b in boxes(read, begin, min(end, size)) if b[0] == b"trak")
            return frozenset(
                place for place, (_, first, last) in enumerate(found) if _is_encrypted(read, first, last)
            )
    return frozenset()


def _is_encrypted(read: Read, begin: int, end: int) -> bool:
    for kind in _IN_ORDER:
        inner = next((box for box in boxes(read, begin, end) if box[0] == kind), None)
        if inner is None:
            return False
        _, begin, end = inner
    # The description's version and count go before its entries.
    return any(kind in _ENCRYPTED for kind in _entries(read, begin + 8, end))


def _entries(read: Read, begin: int, end: int) -> Iterator[bytes]:
    for kind, _, _ in boxes(read, begin, end):
        yield kind
