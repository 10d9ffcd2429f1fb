"""Reads the times and the kind of a stream's packets by copying them, without decoding.

This reads the file once. ``TimelineReader`` and ``kind_of`` are pure: the one reads the output of ffmpeg's
``framecrc``, a header and then a line a packet (stream, dts, pts, duration, size, checksum, flags), the
other ffmpeg's log of the same run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from beeq.media.ffmpeg import reading, run
from beeq.media.paths import OpenFile
from beeq.media.probe import Audio, Video

_TIME_BASE = re.compile(rb"#tb 0: ([1-9]\d*)/([1-9]\d*)")
_EXTRADATA = re.compile(rb"#extradata 0: +(\d+, 0x[0-9a-f]+)")
_PACKET = re.compile(rb"0, +(-?\d+), +(-?\d+), +(\d+), +\d+, 0x[0-9a-f]+(.*)")
#: The rest of the line is empty for a key frame, and this for another picture. Other flags mark a packet
#: as damaged or not to be shown; side data change how it is shown.
_NOT_A_KEY_FRAME = b", F=0x0"
#: The time of a packet that has none (AV_NOPTS_VALUE).
_NO_TIME = -(2**63)
_MAX_LINE_BYTES = 4096
#: The log's next line after the facts of the inputs.
_AFTER_INPUTS = re.compile(r"^(Stream mapping:|Output #)", re.MULTILINE)
_STREAM = re.compile(r"^ {2,4}Stream #0:(\d+)[^ ]*: (.*)$")
#: What may differ between streams of one kind: bit rate, start, disposition.
_INDIVIDUAL = re.compile(r", \d+ kb/s|, start [\d.]+|( \([a-z ]+\))+$")
_SIDE_DATA = re.compile(r"^ {4,8}Side data:")


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


async def timeline(file: OpenFile, stream: Video | Audio) -> Timeline | None:
    """Return the timeline of a stream, or None if none of its packets can be read."""
    reader = TimelineReader()
    log = await _read_packets(file, stream, reader)
    return reader.timeline(kind_of(log, stream.index))


async def end_s(file: OpenFile, stream: Video | Audio) -> float | None:
    """Return when the last packet of a stream ends, in seconds; None if no packet has a time."""
    reader = TimelineReader()
    await _read_packets(file, stream, reader)
    return reader.end_s


async def _read_packets(file: OpenFile, stream: Video | Audio, reader: TimelineReader) -> str:
    copying = ["-map", f"0:{stream.index}", "-c", "copy", "-f", "framecrc", "pipe:1"]
    # The output counts, not the exit status: a damaged end makes ffmpeg fail after all that can be used.
    return (await run([*reading(file), *copying], [file.fd], log_level="info", on_output=reader.feed)).log


def kind_of(log: str, index: int) -> str:
    """Return what a run's log says of an input stream, without what may differ within a kind.

    Returns an empty text if the stream has side data, which are not in its packets.
    """
    found = ""
    end = _AFTER_INPUTS.search(log)
    for line in log[: end.start() if end else None].splitlines():
        if match := _STREAM.match(line):
            if found:
                break
            found = _INDIVIDUAL.sub("", match[2]) if int(match[1]) == index else ""
        elif found and _SIDE_DATA.match(line):
            return ""
    return found


class TimelineReader:
    """Reads ``framecrc`` of one stream, in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._base: Fraction | None = None
        self._extradata = ""
        self._shown = _Times()
        self._decoded = _Times()
        self._is_plain = True

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[-_MAX_LINE_BYTES:]
        for line in lines:
            if packet := _PACKET.match(line):
                dts, pts, duration = map(int, packet.groups()[:3])
                is_first = not self._decoded.count
                self._is_plain &= (
                    pts == 0 and not packet[4] if is_first else packet[4] in (b"", _NOT_A_KEY_FRAME)
                )
                self._decoded.add(dts, duration)
                if pts != _NO_TIME:
                    self._shown.add(pts, duration)
            elif base := _TIME_BASE.match(line):
                self._base = Fraction(int(base[1]), int(base[2]))
            elif extradata := _EXTRADATA.match(line):
                self._extradata = extradata[1].decode()

    @property
    def end_s(self) -> float | None:
        """When the last packet ends that has a presentation time."""
        if self._base is None or not self._shown.count:
            return None
        return float(self._shown.end * self._base)

    def timeline(self, kind: str = "") -> Timeline | None:
        """Return the timeline of the packets read so far, ``kind`` by ``kind_of``; None without packets."""
        is_timed = self._shown.count == self._decoded.count
        times = self._shown if is_timed else self._decoded
        if self._base is None or not times.count:
            return None
        begin, last, end = (float(time * self._base) for time in (times.begin, times.last, times.end))
        is_steady = is_timed and self._is_plain and self._decoded.in_a_row and self._shown.on_a_grid
        step_s = times.step * self._base if is_steady else None
        kind = f"{kind}, extradata {self._extradata}, from {self._decoded.begin}" if kind else ""
        return Timeline(times.count, begin, last, end, is_timed, step_s, kind)


class _Times:
    """The bounds of some packets' times, in units of the time base, and whether they are regular."""

    def __init__(self) -> None:
        self.count = 0
        self.begin = self.last = self.end = 0
        self.step = 0
        #: Each begins where the one before it ends, and all have the same duration.
        self.in_a_row = True
        self._is_even = True
        self._next = 0

    def add(self, time: int, duration: int) -> None:
        if not self.count:
            self.begin = self.last = self._next = time
            self.end, self.step = time + duration, duration
        # In any order: pictures may be stored in another order than they are shown in.
        self.begin = min(time, self.begin)
        self.last = max(time, self.last)
        self.end = max(time + duration, self.end)
        self.in_a_row = self.in_a_row and time == self._next and 0 < duration == self.step
        self._is_even = self._is_even and 0 < duration == self.step and (time - self.begin) % duration == 0
        self._next = time + duration
        self.count += 1

    @property
    def on_a_grid(self) -> bool:
        """They begin at 0, all have the same duration, and together fill the time up to the end."""
        return self._is_even and self.begin == 0 and self.end == self.count * self.step
