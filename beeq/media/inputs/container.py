"""Asks a file's container what it says of the file: what is missing, how long it is, what is encrypted.

Who wrote the file chose how many boxes or chunks it has, and how they lie in each other. So they are read in
a thread, and all of them within one bound.
"""

import os
from dataclasses import dataclass

from beeq.media.inputs.completeness import MAX_BOXES, Read, counted_s, missing_bytes
from beeq.media.inputs.encryption import encrypted_tracks
from beeq.media.paths import OpenFile
from beeq.process import call_in_thread


@dataclass(frozen=True, slots=True)
class Told:
    """What a container says of its file.

    Attributes:
        lacking_bytes: how much of the file is missing; None if its end is, but not known how much.
        length_s: how long a sound is by the samples that its header counts; None without.
        encrypted: the places, from 0 on, of the encrypted tracks among all tracks.
    """

    lacking_bytes: int | None
    length_s: float | None
    encrypted: frozenset[int]


async def told_of(file: OpenFile, max_tracks: int) -> Told:
    """Return what a file's container says; raises OSError if the file cannot be read.

    Of ``max_tracks`` it is found out whether they are encrypted.
    """
    demuxer, begin, size = file.demuxer, file.begin, file.size() - file.begin
    # The thread's own: an attempt that is cancelled closes the file's, and the next file gets its number.
    fd = os.dup(file.fd)

    def tell() -> Told:
        try:
            read = _bounded(lambda place, count: os.pread(fd, count, begin + place))
            # First: of a film in many fragments the index is read, not only its fragments.
            encrypted = encrypted_tracks(demuxer, size, read, max_tracks)
            return Told(missing_bytes(demuxer, size, read), counted_s(demuxer, read), encrypted)
        finally:
            os.close(fd)

    try:
        telling = call_in_thread(tell)
    except RuntimeError:  # there can be no more threads
        os.close(fd)
        raise
    return await telling


def _bounded(read: Read) -> Read:
    """Return what reads a file so often, and then as if it had ended."""
    left = MAX_BOXES

    def read_bounded(place: int, count: int) -> bytes:
        nonlocal left
        left -= 1
        return read(place, count) if left >= 0 else b""

    return read_bounded
