"""Reads what a media file declares of its streams, because ``ffprobe`` is often missing.

``stream_of`` is pure: it reads a stream's description (``dump``), in which there is no text of the file.
"""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from beeq.media.errors import MediaFailed, shown
from beeq.media.ffmpeg import FFmpeg
from beeq.media.inputs.completeness import boxes
from beeq.media.inputs.dump import Described, described, describing, new_mark
from beeq.media.inputs.facts import Audio, Colours, Facts, Video
from beeq.media.paths import OpenFile

_DURATION = re.compile(r"^  Duration: (\d{2,6}):(\d\d):(\d\d(?:\.\d\d)?), ", re.MULTILINE)
_ROTATION = re.compile(r" {4,8}(?:Display Matrix|displaymatrix): rotation of (-?\d{1,3}\.\d{1,2}) degrees")
_SIZE = re.compile(r", (\d{1,5})x(\d{1,5})(?=[ ,]|$)")
#: The decoder's word is in brackets, and the container's, if it says something else, behind it.
_SAR = re.compile(r"\bSAR (\d{1,10}):(\d{1,10})")
#: A pixel format, and in brackets what is known of it: range, matrix or matrix/primaries/transfer, scan.
_PIXELS = re.compile(r"^[^,(]*(?: \([^)]*\))*, (\w+)(?:\(([^)]*)\))?, \d+x\d+")
_RATE = re.compile(r", (\d{1,9}(?:\.\d{1,2})?) fps\b")
_BASE_RATE = re.compile(r", (\d{1,9}(?:\.\d{1,2})?) tbr\b")
_SAMPLE_RATE = re.compile(r", (\d{1,9}) Hz, ([^,]+)")
_CHANNEL_NAMES = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8, "cube": 8}
_COLOURS = re.compile(r"[a-z0-9-]+(?:/[a-z0-9-]+){2}|(?:bt|smpte)[a-z0-9-]+|gbr")
_RIGHT_ANGLE, _FULL_TURN = 90, 360
#: The brand comes first, or behind some free space.
_FIRST_BOXES = 8
_RANGES = ("tv", "pc")
_FIELD_ORDERS = ("top first", "bottom first", "top coded first (swapped)", "bottom coded first (swapped)")
_UNKNOWN = ("unknown", "reserved")
_ALPHA_FORMATS = re.compile(r"^(yuva|rgba|bgra|argb|abgr|gbrap|ya8|ya16|pal8|ayuv|vuya)")


async def probe(ffmpeg: FFmpeg, file: OpenFile) -> Facts:
    """Return what a file that beeq has written declares of its streams and of its length.

    Raises MediaFailed if ffmpeg finds neither picture nor sound in it. The length is only for files without
    titles and tags: those of others may look like one.
    """
    mark = new_mark()
    copying = ["-map", "0:V?", "-map", "0:a?", "-c", "copy", "-t", "0", *describing(mark), "-f", "null", "-"]
    inspected = await ffmpeg.run([*ffmpeg.reading(file), *copying], [file.fd], log_level="info", mark=mark)
    streams = streams_of(file, described(inspected.said, mark))
    if not streams:
        raise MediaFailed(f"{shown(file.given)} cannot be read: {inspected.fault}")
    found = _DURATION.findall(inspected.said)
    if is_still(file) or len(found) != 1:
        return Facts(None, streams)
    ((hours, minutes, seconds),) = found
    return Facts(round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 3), streams)


def streams_of(file: OpenFile, found: Sequence[Described]) -> tuple[Video | Audio, ...]:
    """Return a file's streams, in its own order; of a still, the picture alone."""
    streams = sorted(map(stream_of, found), key=lambda stream: stream.index)
    if is_still(file):
        stills = [replace(stream, is_still=True) for stream in streams if isinstance(stream, Video)]
        return tuple(stills[:1])
    return tuple(streams)


def is_still(file: OpenFile) -> bool:
    """Return whether a file is a picture, not a film, and has no length of its own."""
    if file.demuxer == "mov":
        return _brand(file) == b"avif"
    return file.demuxer.endswith("_pipe")


def _brand(file: OpenFile) -> bytes:
    def read(place: int, count: int) -> bytes:
        return os.pread(file.fd, count, file.begin + place)

    for kind, begin, _ in itertools.islice(boxes(read, 0, file.size()), _FIRST_BOXES):
        if kind == b"ftyp":
            return read(begin, 4)
    return b""


def stream_of(found: Described) -> Video | Audio:
    """Return a stream's facts."""
    text, codec = found.text, found.name
    is_default = "(default)" in text
    if found.kind == "Audio":
        sound = _SAMPLE_RATE.search(text)
        layout = sound[2].strip() if sound else ""
        rate_hz = int(sound[1]) if sound else 0
        return Audio(found.index, codec, rate_hz, _channels(layout), layout, is_default)
    size = _SIZE.search(text)
    pixels = _PIXELS.match(text)
    pixel_format, known = (pixels[1], pixels[2] or "") if pixels else ("", "")
    return Video(
        found.index,
        codec,
        int(size[1]) if size else 0,
        int(size[2]) if size else 0,
        pixel_aspect=_aspect(_SAR.findall(text)),
        fps=_number(_RATE.search(text)),
        base_fps=_number(_BASE_RATE.search(text)),
        rotation=_rotation(found.details),
        pixel_format=pixel_format,
        colours=_colours(known.split(", ")),
        is_interlaced=any(order in text for order in _FIELD_ORDERS),
        has_alpha=_ALPHA_FORMATS.match(pixel_format) is not None,
        is_default=is_default,
    )


def _rotation(details: Sequence[str]) -> int:
    """Return how far players turn a picture, in degrees clockwise."""
    found = next((match for line in details if (match := _ROTATION.fullmatch(line))), None)
    # ffmpeg counts the other way round.
    return -round(float(found[1]) / _RIGHT_ANGLE) * _RIGHT_ANGLE % _FULL_TURN if found else 0


def _aspect(found: list[tuple[str, str]]) -> Fraction:
    if not found or "0" in found[-1]:
        return Fraction(1)
    return Fraction(int(found[-1][0]), int(found[-1][1]))


def _colours(words: list[str]) -> Colours:
    """Return the meaning of words such as ``tv``, ``bt709`` or ``bt2020nc/bt2020/smpte2084``."""
    range_ = next((word for word in words if word in _RANGES), None)
    # One word means three equal ones.
    named = [word for word in words if _COLOURS.fullmatch(word)]
    if not named:
        return Colours(range_)
    parts = named[0].split("/") if "/" in named[0] else [named[0]] * 3
    return Colours(range_, *(None if part in _UNKNOWN else part for part in parts))


def _number(match: re.Match[str] | None) -> float | None:
    return float(match[1]) if match is not None and float(match[1]) > 0 else None


def _channels(layout: str) -> int | None:
    if counted := re.match(r"(\d{1,5}) channels", layout):
        return int(counted[1])
    if dotted := re.match(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?", layout):
        return sum(int(part) for part in dotted.groups() if part)
    return _CHANNEL_NAMES.get(layout)
