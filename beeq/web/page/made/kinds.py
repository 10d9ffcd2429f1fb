"""Finds a file's kind by its content, and its type for a browser. Pure.

Only types that a browser shows, and never executes, are named: anything else is sent as bytes to save. A file
whose content is neither picture nor sound nor film is not sent at all, whatever its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from beeq.ai.files import video_suffix
from beeq.ai.pictures import image_suffix
from beeq.media.formats import HEAD_BYTES, content_of

Kind = Literal["picture", "sound", "film"]

_PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".avif": "image/avif",
}
_FILMS = {".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm", ".mkv": "video/x-matroska"}
#: By ffmpeg's demuxer.
_SOUNDS = {
    "mp3": (".mp3", "audio/mpeg"),
    "wav": (".wav", "audio/wav"),
    "flac": (".flac", "audio/flac"),
    "ogg": (".ogg", "audio/ogg"),
    "aac": (".aac", "audio/aac"),
}
_SOUND_BRANDS = (b"M4A ", b"M4B ")
#: Formats that no browser shows.
_ONLY_SAVED = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class FileKind:
    """A file's kind.

    Attributes:
        kind: how it is shown; None: it can only be saved.
        media_type: of the response.
        suffix: that its name gets, so that nothing opens it as something else; "" leaves it the one it has.
    """

    kind: Kind | None
    media_type: str
    suffix: str = ""


def kind_of(read: Callable[[int, int], bytes]) -> FileKind | None:
    """Return a file's kind; None if it holds no picture, sound or film. ``read`` gets offset and size."""
    head = read(0, HEAD_BYTES)
    suffix = image_suffix(head)
    if suffix is not None:
        known = _PICTURES.get(suffix)
        return FileKind(None, _ONLY_SAVED, suffix) if known is None else FileKind("picture", known, suffix)
    if head[4:8] == b"ftyp" and head[8:12] in _SOUND_BRANDS:
        return FileKind("sound", "audio/mp4", ".m4a")
    found = content_of(read)
    if found is None:
        return None
    demuxer, _begin = found
    if demuxer in _SOUNDS:
        suffix, media_type = _SOUNDS[demuxer]
        return FileKind("sound", media_type, suffix)
    suffix = video_suffix(head)
    return FileKind(None, _ONLY_SAVED) if suffix is None else FileKind("film", _FILMS[suffix], suffix)
