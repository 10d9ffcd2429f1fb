"""Writes the provider's pictures and videos as files under the media root, named by the job. No HTTP.

A file gets its name when it is complete: a transfer that breaks off leaves nothing. The file's first
bytes decide its suffix, not the provider.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from beeq.ai.errors import AIFailed, AIUnusable
from beeq.ai.pictures import KNOWN, image_suffix
from beeq.media.errors import MediaFailed, shown
from beeq.media.formats import HEAD_BYTES, demuxer_of
from beeq.media.inputs.facts import file_facts
from beeq.media.inputs.probe import probe
from beeq.media.paths import MediaRoot, NewFile, safe_name

_QUICKTIME = b"ftypqt  "
#: A Matroska file names its kind within this many bytes.
_KIND_BYTES = 64


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


class MediaFiles:
    """Writes files of jobs into the media root itself.

    Every call raises ``MediaFailed`` if the system did not let it write, ``MediaRefused`` if
    something that is not a file has its name, and ``AIFailed`` if the content is not usable.
    """

    def __init__(self, root: Path) -> None:
        self._root = MediaRoot(root)

    def check(self, job_id: str) -> None:
        """Check that a file can be written, before anything is requested; leaves nothing."""
        with self._root.creating(self._root.locate(f"{safe_name(job_id)}.part")):
            pass

    async def save_image(self, job_id: str, pieces: AsyncIterator[bytes]) -> dict[str, Any]:
        """Write a picture; return ``path`` and ``bytes``."""
        async with self._received(job_id, pieces, image_suffix, "picture") as (file, _):
            facts = {"path": file.given, "bytes": os.fstat(file.fd).st_size}
            file.publish()
        return facts

    async def save_video(self, job_id: str, pieces: AsyncIterator[bytes]) -> dict[str, Any]:
        """Write an MP4, MOV, WebM or Matroska file; return its facts, as ffmpeg reads them."""
        async with self._received(job_id, pieces, video_suffix, "video") as (file, head):
            demuxer = _demuxer(head)
            assert demuxer is not None  # noqa: S101 - it has a suffix
            written = file.reading(demuxer)
            facts = await probe(written)
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
            if not head:  # it may be there a moment later
                raise AIFailed(f"AI provider: its {kind} is empty")
            raise AIUnusable(f"AI provider: its {kind} is not {known}")
        with self._root.creating(self._root.locate(f"{safe_name(job_id)}{suffix}")) as file:
            # Written by the loop's own thread: each write goes to the page cache and takes microseconds.
            # A write in another thread could hit another file, if a cancelled attempt closes this one.
            _write(file, head)
            async for piece in pieces:
                _write(file, piece)
            yield file, head


def _write(file: NewFile, content: bytes) -> None:
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(file.fd, rest) :]
    except OSError as error:
        raise MediaFailed(f"{shown(file.given)} cannot be written: {error.strerror}") from None
