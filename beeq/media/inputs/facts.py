"""The facts about an input: its decodable streams, how they look and sound, and how long they last. Pure.

    a file ──examine──> Facts ──the operations──> what the output shall be ──> how ffmpeg is asked for it

``examine`` makes these facts by reading every packet and decoding the first of each stream, so a stream that
a file only declares is not among them. What ffmpeg says of a stream before that is read by ``probe``.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from beeq.media.errors import MediaRefused, shown
from beeq.media.paths import OpenFile

_HALF_TURN = 180


@dataclass(frozen=True, slots=True)
class Timeline:
    """The packets of a stream, in seconds from the start of the file's first stream."""

    count: int
    begin_s: float  # the first presentation time
    last_s: float  # the last presentation time
    end_s: float  # the end of the last packet; ``last_s`` where the file gives no durations
    #: Every packet has a presentation time. Otherwise the times above are those of decoding, which are off by
    #: an unknown delay.
    is_timed: bool
    #: The exact duration of each packet, if all have the same, follow each other without gaps from 0 on, and
    #: begin with a key frame that is decoded and shown first.
    step_s: Fraction | None = None
    #: What a decoder has to know of them, and how far ahead it begins: streams of one kind can be decoded one
    #: after the other. Empty if the stream has side data, such as a rotation.
    kind: str = ""
    #: The end of the last packet that has a presentation time; None if none has.
    shown_end_s: float | None = field(default=None, compare=False)
    #: How many packets a second there are where they are close, pauses not counted; None for less than two.
    moving_fps: float | None = field(default=None, compare=False)
    #: From the packet before the last to the last, in the order of presentation.
    last_gap_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Colours:
    """What a picture's numbers mean, in ffmpeg's words; None where neither file nor decoder says it."""

    range: str | None = None  # ``tv`` (limited) or ``pc`` (full)
    matrix: str | None = None  # such as ``bt709``, ``bt470bg``, ``bt2020nc``, ``gbr``
    primaries: str | None = None
    transfer: str | None = None  # such as ``bt709``, ``smpte2084`` (PQ), ``arib-std-b67`` (HLG)


@dataclass(frozen=True, slots=True)
class Video:
    """A video stream. ``width`` and ``height`` are as stored, before the picture is turned."""

    index: int
    codec: str
    width: int
    height: int
    #: Width of a stored pixel divided by its height, as players show it: the container's word goes first.
    pixel_aspect: Fraction = Fraction(1)
    #: Pictures a second on average, and ffmpeg's guess of the constant rate below it, where known.
    fps: float | None = None
    base_fps: float | None = None
    #: How far players turn the picture, in degrees clockwise: 0, 90, 180 or 270.
    rotation: int = 0
    pixel_format: str = ""  # in ffmpeg's words, such as ``yuv420p10le``
    colours: Colours = Colours()
    #: The fields of a picture are of two moments.
    is_interlaced: bool = False
    has_alpha: bool = False
    #: The file is a picture, not a film of one: it says nothing of how long it is shown.
    is_still: bool = False
    #: The file asks players to choose this one of several.
    is_default: bool = False
    #: The times of its packets; None if none could be read, or if nobody has asked (see ``examine``).
    timeline: Timeline | None = field(default=None, compare=False)

    @property
    def is_turned(self) -> bool:
        """Whether the picture is shown with its sides exchanged."""
        return self.rotation % _HALF_TURN != 0

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
    layout: str = ""  # in ffmpeg's words, such as ``5.1(side)``
    #: The file asks players to choose this one of several.
    is_default: bool = False
    #: The times of its packets; None if none could be read, or if nobody has asked (see ``examine``).
    timeline: Timeline | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A stream that is declared, and of which nothing can be decoded."""

    stream: Video | Audio
    reason: str  # such as ``it is encrypted``


@dataclass(frozen=True, slots=True)
class Facts:
    """The streams of a file, covers left out. ``duration_s`` is the longest's; None if it is not known."""

    duration_s: float | None
    streams: tuple[Video | Audio, ...]
    unusable: tuple[Unusable, ...] = ()

    @property
    def video(self) -> Video | None:
        """The video stream that players show: the default one, else the first."""
        videos = [item for item in self.streams if isinstance(item, Video)]
        return next((item for item in videos if item.is_default), videos[0] if videos else None)

    @property
    def audio(self) -> Audio | None:
        """The audio stream that players play: the default one, else the first."""
        sounds = [item for item in self.streams if isinstance(item, Audio)]
        return next((item for item in sounds if item.is_default), sounds[0] if sounds else None)


def picture_of(file: OpenFile, facts: Facts) -> Video:
    """Return the video stream of a file; raises MediaRefused if there is none that can be decoded."""
    if facts.video is None:
        raise _without(file, "picture", [item for item in facts.unusable if isinstance(item.stream, Video)])
    return facts.video


def sound_of(file: OpenFile, facts: Facts) -> Audio:
    """Return the audio stream of a file; raises MediaRefused if there is none that can be decoded."""
    if facts.audio is None:
        raise _without(file, "sound", [item for item in facts.unusable if isinstance(item.stream, Audio)])
    return facts.audio


def own_sound_of(file: OpenFile, facts: Facts) -> Audio | None:
    """Return the audio stream of a file, or None if it is mute; a track without packets is.

    Raises MediaRefused if it has a sound, and that cannot be decoded.
    """
    lost = [item for item in facts.unusable if isinstance(item.stream, Audio) and item.stream.timeline]
    if facts.audio is None and lost:
        raise _without(file, "sound", lost)
    return facts.audio


def _without(file: OpenFile, kind: str, unusable: list[Unusable]) -> MediaRefused:
    if unusable:
        return MediaRefused(f"the {kind} of {shown(file.given)} cannot be decoded: {unusable[0].reason}")
    return MediaRefused(f"{shown(file.given)} has no {kind}")


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
