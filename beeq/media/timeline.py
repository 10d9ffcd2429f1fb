"""Reads when the packets of a stream are shown, and what they are, by copying them and decoding nothing.

This costs one reading of the file. ``TimelineReader`` and ``kind_of`` are pure: they read what ffmpeg's
``framecrc`` writes, a header and then a line a packet (stream, dts, pts, duration, size, checksum,
flags), and what ffmpeg says of the stream meanwhile.
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
#: What follows on the line: nothing if the packet needs no other; other flags say that it is damaged
#: or not to be shown, and side data that more is to be known.
_NEEDS_OTHERS = b", F=0x0"
#: How ffmpeg writes that a packet has no time.
_NO_TIME = -(2**63)
_MAX_LINE_BYTES = 4096
#: What ffmpeg says next after the facts of the inputs.
_AFTER_INPUTS = re.compile(r"^(Stream mapping:|Output #)", re.MULTILINE)
_STREAM = re.compile(r"^ {2,4}Stream #0:(\d+)[^ ]*: (.*)$")
#: What may differ between streams of a kind: bit rate, where the stream begins, what it is used for.
_INDIVIDUAL = re.compile(r", \d+ kb/s|, start [\d.]+|( \([a-z ]+\))+$")
_SIDE_DATA = re.compile(r"^ {4,8}Side data:")


@dataclass(frozen=True, slots=True)
class Timeline:
    """The packets of a stream, on the clock of their file, which begins with its first stream.

    Attributes:
        count: how many there are.
        begin_s: when the first of them in the order of showing is shown, in seconds.
        last_s: when the last of them is shown.
        end_s: when the last of them is over; ``last_s`` where the file does not say.
        is_timed: every packet says when it is shown. Else the times are those of decoding, which
            are off by an unknown delay.
        step_s: how long each of them is shown, exactly, if it is the same for all, they follow one
            another without gaps from 0 on, and the first to be decoded, which needs no other, is
            the first to be shown; else None.
        kind: what a decoder has to know of them, and how far ahead it begins: streams of one kind
            can be decoded one after the other. Empty if the stream needs more than its packets, as
            one that is turned.
    """

    count: int
    begin_s: float
    last_s: float
    end_s: float
    is_timed: bool
    step_s: Fraction | None = None
    kind: str = ""


async def timeline(file: OpenFile, stream: Video | Audio) -> Timeline | None:
    """Return the times of a stream, or None if no packet of it can be read.

    Raises:
        MediaFailed: ffmpeg cannot be run.
    """
    reader = TimelineReader()
    copying = ["-map", f"0:{stream.index}", "-c", "copy", "-f", "framecrc", "pipe:1"]
    # Judged by what came out: a damaged end makes ffmpeg fail after all that can be used.
    read = await run([*reading(file), *copying], [file.fd], log_level="info", on_output=reader.feed)
    return reader.timeline(kind_of(read.log, stream.index))


def kind_of(log: str, index: int) -> str:
    """Return what the log of a run says of a stream of its input, without what is individual.

    Returns an empty text if there is side data: ways to show the stream that are not in its packets.
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
                    pts == 0 and not packet[4] if is_first else packet[4] in (b"", _NEEDS_OTHERS)
                )
                self._decoded.add(dts, duration)
                if pts != _NO_TIME:
                    self._shown.add(pts, duration)
            elif base := _TIME_BASE.match(line):
                self._base = Fraction(int(base[1]), int(base[2]))
            elif extradata := _EXTRADATA.match(line):
                self._extradata = extradata[1].decode()

    def timeline(self, kind: str = "") -> Timeline | None:
        """Return what was read so far; None if that was no packet.

        Args:
            kind: what is known of the stream from elsewhere.
        """
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
    """The bounds of some packets' times, in units of their time base, and whether they are regular."""

    def __init__(self) -> None:
        self.count = 0
        self.begin = self.last = self.end = 0
        self.step = 0
        #: Each begins where the one before it ends, all last equally long.
        self.in_a_row = True
        self._is_even = True
        self._next = 0

    def add(self, time: int, duration: int) -> None:
        if not self.count:
            self.begin = self.last = self._next = time
            self.end, self.step = time + duration, duration
        # In any order: pictures may be stored in another one than they are shown in.
        self.begin = min(time, self.begin)
        self.last = max(time, self.last)
        self.end = max(time + duration, self.end)
        self.in_a_row = self.in_a_row and time == self._next and 0 < duration == self.step
        self._is_even = self._is_even and 0 < duration == self.step and (time - self.begin) % duration == 0
        self._next = time + duration
        self.count += 1

    @property
    def on_a_grid(self) -> bool:
        """All last equally long, as long as there are places for them from the first to the last, from 0."""
        return self._is_even and self.begin == 0 and self.end == self.count * self.step
