"""Reads what a media file declares from ffmpeg's log of its inputs, because ``ffprobe`` is often missing.

``parse`` is pure. Titles and other texts of the file are in the same log, indented deeper than the lines
that are read here.
"""

import re
from dataclasses import replace
from fractions import Fraction

from beeq.media.errors import MediaFailed, shown
from beeq.media.ffmpeg import reading, run
from beeq.media.inputs.facts import Audio, Colours, Facts, Video
from beeq.media.paths import OpenFile

_STILL = re.compile(
    r"^Input #0, (?:\w+_pipe, from |mov,mp4,[^\n]*\n  Metadata:\n    major_brand     : avif$)", re.MULTILINE
)
_DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
_STREAM = re.compile(r"^(?: {2}| {4})Stream #0:(\d+)(?:\[[^\]]*\])?(?:\([^)]*\))?: (\w+): (.*)$")
_ROTATION = re.compile(r"^ {4,8}(?:Display Matrix|displaymatrix): rotation of (-?[\d.]+) degrees")
#: Matroska's word that a second picture, which the first does not mention, holds the transparency.
_ALPHA = re.compile(r"^ {4,6}alpha_mode +: 1$", re.IGNORECASE)
_SIZE = re.compile(r", (\d{1,5})x(\d{1,5})(?=[ ,]|$)")
#: The decoder's word is in brackets, and the container's, if it says something else, behind it.
_SAR = re.compile(r"\bSAR (\d+):(\d+)")
#: A pixel format, and in brackets what is known of it: range, matrix or matrix/primaries/transfer, scan.
_PIXELS = re.compile(r"^[^,(]*(?: \([^)]*\))*, (\w+)(?:\(([^)]*)\))?, \d+x\d+")
_RATE = re.compile(r", (\d+(?:\.\d+)?) fps\b")
_BASE_RATE = re.compile(r", (\d+(?:\.\d+)?) tbr\b")
_SAMPLE_RATE = re.compile(r", (\d+) Hz, ([^,]+)")
_CHANNEL_NAMES = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8, "cube": 8}
_COLOURS = re.compile(r"[a-z0-9-]+(?:/[a-z0-9-]+){2}|(?:bt|smpte)[a-z0-9-]+|gbr")
_RIGHT_ANGLE, _FULL_TURN = 90, 360
_RANGES = ("tv", "pc")
_FIELD_ORDERS = ("top first", "bottom first", "top coded first (swapped)", "bottom coded first (swapped)")
_UNKNOWN = ("unknown", "reserved")
_ALPHA_FORMATS = re.compile(r"^(yuva|rgba|bgra|argb|abgr|gbrap|ya8|ya16|pal8|ayuv|vuya)")


async def probe(file: OpenFile) -> Facts:
    """Return what a file declares; raises MediaFailed if ffmpeg finds neither picture nor sound in it."""
    # Without an output ffmpeg reads the facts, prints them, and ends with an error.
    inspected = await run(reading(file), [file.fd], log_level="info")
    facts = parse(inspected.log)
    if not facts.streams:
        is_read = "Input #0" in inspected.log
        fault = "it has neither picture nor sound" if is_read else inspected.fault
        raise MediaFailed(f"{shown(file.given)} cannot be read: {fault}")
    return facts


def parse(log: str) -> Facts:
    """Return what the log of an ffmpeg run says of its first input."""
    found: dict[int, Video | Audio] = {}
    last: int | None = None
    for line in log.splitlines():
        if line.startswith(("Stream mapping:", "Output #")):
            break
        if match := _STREAM.match(line):
            last = int(match[1])
            stream = _stream(last, match[2], match[3])
            if stream is not None:
                found[last] = stream
        elif last in found and isinstance(stream := found[last], Video):
            if match := _ROTATION.match(line):
                # ffmpeg counts the other way round.
                quarters = -round(float(match[1]) / _RIGHT_ANGLE)
                found[last] = replace(stream, rotation=quarters * _RIGHT_ANGLE % _FULL_TURN)
            elif _ALPHA.match(line):
                found[last] = replace(stream, has_alpha=True)
    if _STILL.search(log):
        # The length that ffmpeg gives it is none of the file's.
        stills = [replace(item, is_still=True) for item in found.values() if isinstance(item, Video)]
        return Facts(None, tuple(stills[:1]))
    return Facts(_duration_s(log), tuple(found[index] for index in sorted(found)))


def _duration_s(log: str) -> float | None:
    if match := _DURATION.search(log):
        return round(int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]), 3)
    return None


def _stream(index: int, kind: str, text: str) -> Video | Audio | None:
    codec = re.match(r"\w+", text)
    if codec is None:
        return None
    is_default = "(default)" in text
    if kind == "Video":
        size = _SIZE.search(text)
        pixels = _PIXELS.match(text)
        pixel_format, known = (pixels[1], pixels[2] or "") if pixels else ("", "")
        return Video(
            index,
            codec[0],
            int(size[1]) if size else 0,
            int(size[2]) if size else 0,
            pixel_aspect=_aspect(_SAR.findall(text)),
            fps=_number(_RATE.search(text)),
            base_fps=_number(_BASE_RATE.search(text)),
            is_cover="(attached pic)" in text,
            pixel_format=pixel_format,
            colours=_colours(known.split(", ")),
            is_interlaced=any(order in text for order in _FIELD_ORDERS),
            has_alpha=_ALPHA_FORMATS.match(pixel_format) is not None,
            is_default=is_default,
        )
    if kind == "Audio":
        sound = _SAMPLE_RATE.search(text)
        layout = sound[2].strip() if sound else ""
        return Audio(index, codec[0], int(sound[1]) if sound else 0, _channels(layout), layout, is_default)
    return None


def _aspect(found: list[tuple[str, str]]) -> Fraction:
    if not found or "0" in found[-1]:
        return Fraction(1)
    return Fraction(int(found[-1][0]), int(found[-1][1]))


def _colours(words: list[str]) -> Colours:
    """Return the meaning of words such as ``tv``, ``bt709`` or ``bt2020nc/bt2020/smpte2084``."""
    range_ = next((word for word in words if word in _RANGES), None)
    # One word stands for three that are alike.
    named = [word for word in words if _COLOURS.fullmatch(word)]
    if not named:
        return Colours(range_)
    parts = named[0].split("/") if "/" in named[0] else [named[0]] * 3
    return Colours(range_, *(None if part in _UNKNOWN else part for part in parts))


def _number(match: re.Match[str] | None) -> float | None:
    return float(match[1]) if match is not None and float(match[1]) > 0 else None


def _channels(layout: str) -> int | None:
    if counted := re.match(r"(\d+) channels", layout):
        return int(counted[1])
    if dotted := re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", layout):
        return sum(int(part) for part in dotted.groups() if part)
    return _CHANNEL_NAMES.get(layout)
