"""Reads the facts of a media file from ffmpeg's log of its inputs, because ``ffprobe`` is often missing.

``parse`` is pure. Titles and other texts of the file are in the same log, indented deeper than the lines
that are read here.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.ffmpeg import reading, run
from beeq.media.paths import OpenFile

_DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
_STREAM = re.compile(r"^(?: {2}| {4})Stream #0:(\d+)(?:\[[^\]]*\])?(?:\([^)]*\))?: (\w+): (.*)$")
_ROTATION = re.compile(r"^ {4,8}(?:Display Matrix|displaymatrix): rotation of (-?[\d.]+) degrees")
_SIZE = re.compile(r", (\d{1,5})x(\d{1,5})(?=[ ,]|$)")
_SAR = re.compile(r"\bSAR (\d+):(\d+)")
_RATE = re.compile(r", (\d+(?:\.\d+)?) fps\b")
_BASE_RATE = re.compile(r", (\d+(?:\.\d+)?) tbr\b")
_SAMPLE_RATE = re.compile(r", (\d+) Hz, ([^,]+)")
_CHANNEL_NAMES = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8, "cube": 8}
_RIGHT_ANGLE = 90


@dataclass(frozen=True, slots=True)
class Video:
    """A video stream. ``width`` and ``height`` are as stored, before the picture is turned."""

    index: int
    codec: str
    width: int
    height: int
    #: Width of a stored pixel divided by its height.
    pixel_aspect: Fraction = Fraction(1)
    #: Pictures a second on average, and ffmpeg's guess of the constant rate below it, where known.
    fps: float | None = None
    base_fps: float | None = None
    is_cover: bool = False
    is_turned: bool = False

    @property
    def shown_size(self) -> tuple[int, int]:
        """The size a viewer sees, in square pixels."""
        size = max(1, round(self.width * self.pixel_aspect)), self.height
        return (size[1], size[0]) if self.is_turned else size


@dataclass(frozen=True, slots=True)
class Audio:
    """An audio stream."""

    index: int
    codec: str
    sample_rate: int
    channels: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """The streams of a file. ``duration_s`` is that of the longest; None if the file does not say."""

    duration_s: float | None
    streams: tuple[Video | Audio, ...]

    @property
    def video(self) -> Video | None:
        """The first video stream that is not a cover picture."""
        return next((item for item in self.streams if isinstance(item, Video) and not item.is_cover), None)

    @property
    def audio(self) -> Audio | None:
        """The first audio stream."""
        return next((item for item in self.streams if isinstance(item, Audio)), None)


async def probe(file: OpenFile) -> Facts:
    """Return a file's facts; raises MediaFailed if ffmpeg finds neither picture nor sound in it."""
    # Without an output ffmpeg reads the facts, prints them, and ends with an error.
    inspected = await run(reading(file), [file.fd], log_level="info")
    facts = parse(inspected.log)
    if not facts.streams:
        is_read = "Input #0" in inspected.log
        fault = "it has neither picture nor sound" if is_read else inspected.fault
        raise MediaFailed(f"{shown(file.given)} cannot be read: {fault}")
    return facts


def parse(log: str) -> Facts:
    """Return the facts in the log of an ffmpeg run with one input."""
    found: dict[int, Video | Audio] = {}
    last: int | None = None
    for line in log.splitlines():
        if match := _STREAM.match(line):
            last = int(match[1])
            stream = _stream(last, match[2], match[3])
            if stream is not None:
                found[last] = stream
        elif (match := _ROTATION.match(line)) and last in found:
            stream = found[last]
            if isinstance(stream, Video):
                quarters = round(float(match[1]) / _RIGHT_ANGLE)
                found[last] = replace(stream, is_turned=quarters % 2 == 1)
    return Facts(_duration_s(log), tuple(found[index] for index in sorted(found)))


def _duration_s(log: str) -> float | None:
    if match := _DURATION.search(log):
        return round(int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]), 3)
    return None


def _stream(index: int, kind: str, text: str) -> Video | Audio | None:
    codec = re.match(r"\w+", text)
    if codec is None:
        return None
    if kind == "Video" and (size := _SIZE.search(text)):
        return Video(
            index,
            codec[0],
            int(size[1]),
            int(size[2]),
            pixel_aspect=_aspect(_SAR.search(text)),
            fps=_number(_RATE.search(text)),
            base_fps=_number(_BASE_RATE.search(text)),
            is_cover="(attached pic)" in text,
        )
    if kind == "Audio" and (sound := _SAMPLE_RATE.search(text)):
        return Audio(index, codec[0], int(sound[1]), _channels(sound[2]))
    return None


def _aspect(match: re.Match[str] | None) -> Fraction:
    if match is None or not int(match[1]) or not int(match[2]):
        return Fraction(1)
    return Fraction(int(match[1]), int(match[2]))


def _number(match: re.Match[str] | None) -> float | None:
    return float(match[1]) if match is not None and float(match[1]) > 0 else None


def _channels(layout: str) -> int | None:
    if counted := re.match(r"(\d+) channels", layout):
        return int(counted[1])
    if dotted := re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", layout):
        return sum(int(part) for part in dotted.groups() if part)
    return _CHANNEL_NAMES.get(layout.strip())


def file_facts(file: OpenFile, facts: Facts) -> dict[str, Any]:
    """Return a file's facts for a job's result: path as the job gave it, bytes, seconds, streams."""
    return {
        "path": file.given,
        "bytes": file.size(),
        "duration": facts.duration_s,
        "streams": [_stream_facts(stream) for stream in facts.streams],
    }


def _stream_facts(stream: Video | Audio) -> dict[str, Any]:
    if isinstance(stream, Video):
        size = {"width": stream.width, "height": stream.height}
        return {"type": "video", "codec": stream.codec, **size, "fps": stream.fps or stream.base_fps}
    sound = {"sampleRate": stream.sample_rate, "channels": stream.channels}
    return {"type": "audio", "codec": stream.codec, **sound}


def image_facts(file: OpenFile, facts: Facts) -> dict[str, Any]:
    """Return a picture's facts for a job's result."""
    video = facts.video
    size = (None, None) if video is None else (video.width, video.height)
    return {"path": file.given, "bytes": file.size(), "width": size[0], "height": size[1]}


def picture_of(file: OpenFile, facts: Facts) -> Video:
    """Return the video stream of a file; raises MediaRefused if there is none."""
    if facts.video is None:
        raise MediaRefused(f"{shown(file.given)} has no picture")
    return facts.video


def sound_of(file: OpenFile, facts: Facts) -> Audio:
    """Return the audio stream of a file; raises MediaRefused if there is none."""
    if facts.audio is None:
        raise MediaRefused(f"{shown(file.given)} has no sound")
    return facts.audio
