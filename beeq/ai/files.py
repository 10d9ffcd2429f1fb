"""Writes the provider's pictures and videos as files under the media root, named by the job. No HTTP.

A file gets its name when it is complete: a transfer that breaks off leaves nothing. The file's first
bytes decide its suffix, not the provider.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

from beeq.ai.bodies.long_strings import StringCutter
from beeq.ai.errors import AIFailed, AIUnusable
from beeq.ai.pictures import KNOWN, image_suffix
from beeq.media.errors import MediaFailed, shown
from beeq.media.ffmpeg import FFmpeg
from beeq.media.formats import HEAD_BYTES, demuxer_of
from beeq.media.inputs.examine import measure
from beeq.media.inputs.facts import file_facts
from beeq.media.paths import MediaRoot, NewFile, safe_name

_QUICKTIME = b"ftypqt  "
#: A Matroska file names its kind within this many bytes.
_KIND_BYTES = 64
#: So much of a long string is read at once, and decoded while the loop waits.
_LOOK_BYTES = 128 * 1024


def video_suffix(head: bytes) -> str | None:
    """Return the suffix for a video that begins with ``head``; None if its format is not known."""
    match _demuxer(head):
        case "mov":
            return ".mov" if head[4:12] == _QUICKTIME else ".mp4"
        case "matroska":
            return ".webm" if b"webm" in head[:_KIND_BYTES] else ".mkv"
    return None


def _demuxer(head: bytes) -> str | None:
    return demuxer_of(lambda offset, length: head[offset : offset + length])


class LongStrings:
    """The long strings of one response, in a file without a name: in memory they would fill it."""

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._cutter = StringCutter()

    def begin(self) -> StringCutter:
        """Return a cutter for the next response; drop the strings of the one before.

        Raises MediaFailed.
        """
        with _explained(self._file):
            os.ftruncate(self._file.fd, 0)
            os.lseek(self._file.fd, 0, os.SEEK_SET)
        self._cutter = StringCutter()
        return self._cutter

    def keep(self) -> None:
        """Write the strings cut out since the last call. Raises MediaFailed."""
        cut, self._cutter.cut = self._cutter.cut, []
        for content in cut:
            _write(self._file, content)

    def find(self, name: str) -> Iterator[bytes] | None:
        """Return the string with this name, as JSON writes it, in pieces; None if the name is a plain text.

        The pieces raise MediaFailed.
        """
        place = self._cutter.places.get(name)
        return None if place is None else self._read(*place)

    def _read(self, begin: int, length: int) -> Iterator[bytes]:
        end = begin + length
        for place in range(begin, end, _LOOK_BYTES):
            with _explained(self._file):
                piece = os.pread(self._file.fd, min(_LOOK_BYTES, end - place), place)
            yield piece


class MediaFiles:
    """Writes files of jobs into the media root itself, or into a project's folder below it.

    Every call raises ``MediaFailed`` if the system did not let it write, ``MediaRefused`` if
    something that is not a file has its name or the file is beyond the limits, and ``AIFailed`` if the
    content is not usable.
    """

    def __init__(self, root: MediaRoot, ffmpeg: FFmpeg) -> None:
        self.root = root
        self._ffmpeg = ffmpeg

    def in_project(self, folder: str) -> Self:
        """Return the files of one project, whose folder is below the root."""
        return type(self)(self.root.in_project(folder), self._ffmpeg)

    def check(self, job_id: str) -> None:
        """Check that a file can be written, before anything is requested; leaves nothing."""
        with self.root.creating(self.root.locate(f"{safe_name(job_id)}.part")):
            pass

    @contextlib.contextmanager
    def long_strings(self, job_id: str) -> Iterator[LongStrings]:
        """Yield the place for the long strings of a job's response; raises as ``check`` does."""
        with self.root.creating(self.root.locate(f"{safe_name(job_id)}.part")) as file:
            yield LongStrings(file)

    async def save_image(self, job_id: str, pieces: AsyncIterator[bytes]) -> dict[str, Any]:
        """Write a picture; return ``path`` and ``bytes``."""
        async with self._received(job_id, pieces, image_suffix, "picture") as (file, _):
            facts = {"path": file.given, "bytes": os.fstat(file.fd).st_size}
            file.publish()
        return facts

    async def save_video(self, job_id: str, pieces: AsyncIterator[bytes]) -> dict[str, Any]:
        """Write an MP4, MOV, WebM or Matroska file; return its facts.

        The facts come from its packets and streams, not from its tags, which the provider may set to
        anything.
        """
        async with self._received(job_id, pieces, video_suffix, "video") as (file, head):
            demuxer = _demuxer(head)
            assert demuxer is not None  # noqa: S101 - it has a suffix
            written = file.reading(demuxer)
            facts = await measure(self._ffmpeg, written)
            if facts.video is None:
                raise AIUnusable("AI provider: there is no picture in its video")
            result = file_facts(written, facts)
            file.publish()
        return result

    @contextlib.asynccontextmanager
    async def _received(
        self, job_id: str, pieces: AsyncIterator[bytes], suffix_of: Callable[[bytes], str | None], kind: str
    ) -> AsyncIterator[tuple[NewFile, bytes]]:
        """Write the pieces to a file that has no name yet; yields it and its first bytes."""
        head = b""
        async for piece in pieces:
            head += piece
            if len(head) >= HEAD_BYTES:
                break
        suffix = suffix_of(head)
        if suffix is None:
            known = KNOWN if kind == "picture" else "MP4, MOV, WebM or Matroska"
            if not head:  # the file may be there a moment later
                raise AIFailed(f"AI provider: its {kind} is empty")
            raise AIUnusable(f"AI provider: its {kind} is not {known}")
        with self.root.creating(self.root.locate(f"{safe_name(job_id)}{suffix}")) as file:
            # Written by the loop's own thread: each write goes to the page cache and takes microseconds.
            # A write in another thread could hit another file, if a cancelled attempt closes this one.
            _write(file, head)
            async for piece in pieces:
                _write(file, piece)
            yield file, head


def _write(file: NewFile, content: bytes) -> None:
    rest = memoryview(content)
    with _explained(file):
        while rest:
            rest = rest[os.write(file.fd, rest) :]


@contextlib.contextmanager
def _explained(file: NewFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MediaFailed(f"{shown(file.given)} cannot be written: {error.strerror}") from None
