"""Reads from a file's container what is missing, how long it is, and what is encrypted.

An untrusted file may have any number of boxes or chunks, nested in any way. So they are read in a thread, and
all of them within one bound.
"""

import os
from dataclasses import dataclass

from beeq.media.inputs.completeness import MAX_BOXES, Read, counted_s, missing_bytes
from beeq.media.inputs.encryption import encrypted_tracks
from beeq.media.paths import OpenFile
from beeq.process import call_in_thread


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """A container's facts about its file.

    Attributes:
        lacking_bytes: how much of the file is missing; None if its end is, but not known how much.
        length_s: how long a sound is by the samples that its header counts; None without.
        encrypted: the places, from 0 on, of the encrypted tracks among all tracks.
    """

    lacking_bytes: int | None
    length_s: float | None
    encrypted: frozenset[int]


async def container_facts(file: OpenFile, max_tracks: int) -> ContainerFacts:
    """Return the facts in a file's container; raises OSError if the file cannot be read.

    Only ``max_tracks`` are checked for encryption.
    """
    demuxer, begin, size = file.demuxer, file.begin, file.size() - file.begin
    # The thread's own: an attempt that is cancelled closes the file's, and the next file gets its number.
    fd = os.dup(file.fd)

    def read_all() -> ContainerFacts:
        try:
            read = _bounded(lambda place, count: os.pread(fd, count, begin + place))
            # First: of a film in many fragments the index is read, not only its fragments.
            encrypted = encrypted_tracks(demuxer, size, read, max_tracks)
            return ContainerFacts(missing_bytes(demuxer, size, read), counted_s(demuxer, read), encrypted)
        finally:
            os.close(fd)

    try:
        reading = call_in_thread(read_all)
    except RuntimeError:  # there can be no more threads
        os.close(fd)
        raise
    return await reading


def _bounded(read: Read) -> Read:
    """Return a reader that pretends, after so many reads, that the file has ended."""
    left = MAX_BOXES

    def read_bounded(place: int, count: int) -> bytes:
        nonlocal left
        left -= 1
        return read(place, count) if left >= 0 else b""

    return read_bounded
