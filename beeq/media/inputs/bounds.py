"""Refuses inputs and outputs that are beyond the job's limits. Pure.

A file's declarations are checked before anything is decoded; its packets' times, while they are read.
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from beeq.media.errors import MediaRefused, shown, shown_all
from beeq.media.ffmpeg import Run
from beeq.media.inputs.facts import Audio, Facts, Video
from beeq.media.limits import MediaLimits, beyond
from beeq.media.paths import OpenFile

_MEGAPIXEL = 1_000_000
#: Plausible sounds: outside of these a file of some kilobytes would last for days, or be mixed for hours.
_LEAST_HZ, _MOST_HZ = 1000, 768_000
_MOST_CHANNELS = 64
#: Packets a second of all streams of a file, on average over the longest input: this process reads each.
_PACKETS_PER_S = 500
#: Packets a second of one stream, and how many more may be where they are closest: more say nothing.
_DENSEST_PER_S, _BURST = 1000, 20_000
#: Together so large, one picture each, that each decoder gets one thread: with more it holds more pictures.
_MANY_MEGAPIXELS = 100.0
#: … and so does each of so many.
_MANY_INPUTS = 50
#: ffmpeg's words for what is beyond ``-max_pixels`` and ``-max_streams``.
_TOO_MANY_PIXELS = re.compile(r"Picture size (\d{1,10}x\d{1,10}) exceeds")
_TOO_MANY_STREAMS = re.compile(r"Number of streams exceeds max_streams")


def check_streams(limits: MediaLimits, file: OpenFile, facts: Facts) -> None:
    """Raise MediaRefused if a stream of a file is beyond the limits by what the file says of it."""
    for stream in facts.streams:
        if isinstance(stream, Video):
            _check_size(limits, f"{shown(file.given)} has pictures of", (stream.width, stream.height))
            _check_size(limits, f"{shown(file.given)} shows pictures of", stream.shown_size)
        else:
            _check_sound(file, stream)
    videos = [stream for stream in facts.streams if isinstance(stream, Video)]
    check_sum(limits, videos, shown(file.given))


def check_said(limits: MediaLimits, names: Sequence[str], ended: Run) -> None:
    """Raise MediaRefused if ffmpeg said that a picture or the streams of some files are beyond the limits.

    A picture may be larger than the first one of its stream: ffmpeg leaves it out, and goes on.
    """
    if too_large := ended.complains(_TOO_MANY_PIXELS):
        raise _beyond_picture(limits, f"{shown_all(names)} has pictures of {too_large[1]} pixels")
    if ended.complains(_TOO_MANY_STREAMS):
        raise beyond(f"{shown_all(names)} has more streams", str(limits.max_streams), "max_streams")


def check_sum(limits: MediaLimits, videos: Iterable[Video], what: str = "all inputs") -> None:
    """Raise MediaRefused if one picture of each of the videos, together, is beyond the limits."""
    sum_ = megapixels(videos)
    if sum_ > limits.max_megapixels:
        text = f"one picture of each stream of {what} is {sum_:.0f} megapixels together"
        raise beyond(text, f"{limits.max_megapixels:g} megapixels", "max_megapixels")


def check_output(limits: MediaLimits, seconds: float | Fraction) -> None:
    """Raise MediaRefused if an output would be longer than the limit."""
    _check_length(limits, "the output would be", float(seconds))


def decoder_threads(limits: MediaLimits, videos: Sequence[Video]) -> int:
    """Return how many threads each decoder of videos gets that are open at once."""
    are_many = len(videos) > _MANY_INPUTS or megapixels(videos) > _MANY_MEGAPIXELS
    return 1 if are_many else limits.threads


def megapixels(videos: Iterable[Video]) -> float:
    """Return the size of one picture of each of the videos."""
    return sum(video.width * video.height for video in videos) / _MEGAPIXEL


def check_count(limits: MediaLimits, given: str, packets: int) -> None:
    """Raise MediaRefused if so many packets of all streams of a file are beyond the limits."""
    if packets > limits.max_seconds * _PACKETS_PER_S:
        most = f"{_PACKETS_PER_S} for each second of the longest input, {limits.max_seconds:g} s"
        raise beyond(f"{shown(given)} has too many packets", most, "max_seconds")


class PacketBounds:
    """The limits of one stream's packets, whose times are in units of ``base`` seconds."""

    def __init__(self, limits: MediaLimits, given: str, base: Fraction) -> None:
        self._limits = limits
        self._given = given
        self._base = base
        self._end = int(limits.max_seconds / base)
        self._gap = int(limits.max_gap_s / base)
        self._before = 0
        #: So many packets may come at once. Time that passes adds to it; a long pause adds no more than this.
        self._room = float(_BURST)
        self._room_a_unit = float(_DENSEST_PER_S * base)
        self.is_sound = False

    def check(self, time: int, end: int) -> None:
        """Take the next packet's time and its end; raises MediaRefused if it is beyond the limits."""
        if end > self._end:
            _check_length(self._limits, f"{shown(self._given)} is", float(end * self._base))
        # From time to time: a packet may say that it lasts until the next, however little it holds.
        if time - self._before > self._gap and self.is_sound:
            pause_s = float((time - self._before) * self._base)
            text = f"the sound of {shown(self._given)} pauses for {pause_s:.0f} s"
            raise beyond(text, f"{self._limits.max_gap_s:g} s", "max_gap_s")
        if time > self._before:
            self._room = min(_BURST, self._room + (time - self._before) * self._room_a_unit)
        self._before = time
        self._room -= 1
        if self._room < 0:
            what = f"{shown(self._given)} has a stream of more than {_DENSEST_PER_S} packets a second"
            raise MediaRefused(f"{what}, which is neither picture nor sound")


def _check_length(limits: MediaLimits, what: str, seconds: float) -> None:
    if seconds > limits.max_seconds:
        raise beyond(f"{what} {seconds:.0f} s long", f"{limits.max_seconds:g} s", "max_seconds")


def _check_size(limits: MediaLimits, what: str, size: tuple[int, int]) -> None:
    if not limits.allows_size(size):
        raise _beyond_picture(limits, f"{what} {size[0]}x{size[1]} pixels")


def _beyond_picture(limits: MediaLimits, what: str) -> MediaRefused:
    width, height = limits.max_picture
    return beyond(what, f"{width}x{height}", "max_picture")


def _check_sound(file: OpenFile, sound: Audio) -> None:
    if sound.sample_rate and not _LEAST_HZ <= sound.sample_rate <= _MOST_HZ:
        what = f"{shown(file.given)} has a sound of {sound.sample_rate} Hz"
        raise MediaRefused(f"{what}; from {_LEAST_HZ} to {_MOST_HZ} Hz are read")
    if (sound.channels or 0) > _MOST_CHANNELS:
        what = f"{shown(file.given)} has a sound of {sound.channels} channels"
        raise MediaRefused(f"{what}; at most {_MOST_CHANNELS} are read")
