"""Finds the encrypted tracks of MP4 and Matroska files, which ffmpeg would decode to noise. No IO.

ffmpeg says nothing of it: it shows the codec that the encrypted samples would have, and what its decoders
make of the noise may look like a picture.
"""

import itertools
from collections.abc import Iterator

from beeq.media.inputs.completeness import Read, boxes

_MAX_MOOV_BYTES = 64 * 1024 * 1024
_IN_ORDER = (b"mdia", b"minf", b"stbl", b"stsd")
#: Common encryption's kinds of samples, and those of FairPlay.
_ENCRYPTED = (b"encv", b"enca", b"encs", b"drms", b"drmi")


def encrypted_tracks(demuxer: str, size: int, read: Read, max_tracks: int) -> frozenset[int]:
    """Return the places, from 0 on, of the encrypted tracks among the first ``max_tracks`` of a file."""
    if demuxer != "mov":
        return frozenset()
    for kind, begin, end in boxes(read, 0, size):
        if kind == b"moov" and end - begin <= _MAX_MOOV_BYTES:
            tracks = itertools.islice(_inside(read, b"trak", begin, min(end, size)), max_tracks)
            return frozenset(place for place, track in enumerate(tracks) if _is_encrypted(read, *track))
    return frozenset()


def _is_encrypted(read: Read, begin: int, end: int) -> bool:
    for kind in _IN_ORDER:
        inner = next(_inside(read, kind, begin, end), None)
        if inner is None:
            return False
        begin, end = inner
    # The description's version and count go before its entries.
    return any(kind in _ENCRYPTED for kind, _, _ in boxes(read, begin + 8, end))


def _inside(read: Read, kind: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Return where each box of a kind begins and ends, within its parent even if it claims a larger length.

    One that reached out of it would have the rest of the file read again for each of its parents.
    """
    return ((first, min(last, end)) for found, first, last in boxes(read, begin, end) if found == kind)
