"""Joins clips without decoding their pictures, where all clips are alike.

Only H.264 in MP4 and QuickTime files is copied, and only if the pictures are of one kind (codec and
profile, size, pixel format, colours, rate, and the decoder's settings byte by byte), have the form that
encoding would give them (even size, square pixels, 8 bits in 4:2:0, BT.709, progressive, a constant rate, not
turned), begin with a key frame, and last as long as their files. Colours that nothing describes are described
in the copy. If anything about a file is unknown or unusual,
``stream_copy_of`` returns None; after a copy, ``StreamCopy.is_complete`` reads the result and counts. If
either fails, the caller decodes and encodes the pictures instead.

Sound is never copied: its packets do not end where pictures do, so each joint would move it against
the picture by some milliseconds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from beeq.media.errors import MediaFailed
from beeq.media.ffmpeg import FFmpeg
from beeq.media.formats import Container
from beeq.media.inputs.examine import examine
from beeq.media.inputs.facts import Facts, Video
from beeq.media.outputs.colours import COPIED_TAGS, is_described, is_standard
from beeq.media.outputs.film import PACKET_S
from beeq.media.paths import OpenFile, takes_open_files

_DEMUXER = "mov"
_CODEC = "h264"
_PIXELS = re.compile(r", yuv420p[(,]")
_MICROSECONDS = 1_000_000
#: Start the pictures at 0; without this they would start as late as they do in the first clip.
_FROM_ZERO = "setts=pts=PTS-STARTPTS:dts=DTS-STARTPTS"


@dataclass(frozen=True, slots=True)
class StreamCopy:
    """How to join the pictures of some clips; their video stream has the same ``index`` in all of them."""

    index: int
    step_s: Fraction  # how long each picture is shown
    counts: tuple[int, ...]  # the number of pictures of each clip
    is_described: bool = True  # the pictures say what colours they have

    @property
    def lengths_s(self) -> list[Fraction]:
        """The length of each clip, in seconds."""
        return [count * self.step_s for count in self.counts]

    def script(self, urls: Sequence[str]) -> str:
        """Return the script for ffmpeg's ``concat`` demuxer that reads the clips one after the other."""
        lines, end = ["ffconcat version 1.0"], 0
        clock = Fraction(0)
        for url, length_s in zip(urls, self.lengths_s, strict=True):
            # ``concat`` counts in microseconds; the rounding errors must not add up.
            clock += length_s
            begin, end = end, round(clock * _MICROSECONDS)
            # No quotation mark can be in the URL: ``are_candidates`` asks for open files, not names.
            lines += [f"file '{url}'", f"duration {(end - begin) / _MICROSECONDS:.6f}"]
        return "\n".join([*lines, ""])

    def copied(self, number: int) -> list[str]:
        """Return the arguments that copy the pictures of the ``number``-th input, the script."""
        filters = _FROM_ZERO if self.is_described else f"{_FROM_ZERO},{COPIED_TAGS}"
        return ["-map", f"{number}:{self.index}", "-c:v", "copy", "-bsf:v", filters]

    async def is_complete(self, ffmpeg: FFmpeg, written: OpenFile) -> bool:
        """Return whether the written file has all the pictures, evenly spaced from 0 on."""
        try:
            video = (await examine(ffmpeg, written)).video
        except MediaFailed:
            return False
        times = None if video is None else video.timeline
        return times is not None and (times.count, times.step_s) == (sum(self.counts), self.step_s)


def reading_script(ffmpeg: FFmpeg, script: OpenFile) -> list[str]:
    """Return the arguments that make a ``StreamCopy.script`` an input; it may name MP4 files only."""
    return ffmpeg.reading(script, "-safe", "0", "-format_whitelist", f"concat,{_DEMUXER}")


def can_hold_copies(container: Container) -> bool:
    """Return whether H.264 pictures of MP4 files can be copied into a container."""
    return container.demuxer == _DEMUXER and _CODEC in container.copies


def are_candidates(sources: Sequence[OpenFile], videos: Sequence[Video]) -> bool:
    """Return whether the clips may be alike, by the facts that ``examine`` has given."""
    first = videos[0]
    return (
        takes_open_files()
        and all(source.demuxer == _DEMUXER for source in sources)
        and all(video == first for video in videos)
        and first.codec == _CODEC
        and first.shown_size == (first.width, first.height)
        and first.width % 2 == first.height % 2 == 0
        and is_standard(first)
        and not first.is_interlaced
    )


def stream_copy_of(clips: Sequence[Facts], videos: Sequence[Video], rate: Fraction) -> StreamCopy | None:
    """Return how to join the videos of the clips, streams of one index, to be shown at ``rate``.

    Returns None if a clip is irregular, of another rate, or of another kind than the first.
    """
    first = videos[0].timeline
    if first is None or first.step_s is None or first.step_s * rate != 1:
        return None
    if not _PIXELS.search(first.kind):
        return None
    counts = []
    for clip, video in zip(clips, videos, strict=True):
        times = video.timeline
        if times is None or (times.step_s, times.kind) != (first.step_s, first.kind):
            return None
        # The sound goes on after the pictures. A packet of it is not cut where they end.
        if clip.duration_s is None or clip.duration_s > times.end_s + first.step_s + PACKET_S:
            return None
        counts.append(times.count)
    return StreamCopy(videos[0].index, first.step_s, tuple(counts), is_described(videos[0]))
