"""Reads the times and the kind of the streams' packets by copying them, without decoding.

This reads the file once, for all streams. ``PacketReader`` is pure: it reads the output of ffmpeg's
``framecrc``, a header and then a line a packet (stream, dts, pts, duration, size, checksum, flags), without
any text of the file.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from fractions import Fraction

from beeq.media.inputs.bounds import PacketBounds, check_count
from beeq.media.inputs.facts import Timeline
from beeq.media.limits import MediaLimits

_HEADER = re.compile(rb"#(tb|media_type|extradata) (\d{1,4}): +(.*)")
_SOUND = b"audio"
_TIME_BASE = re.compile(rb"([1-9]\d{0,9})/([1-9]\d{0,9})")
_EXTRADATA = re.compile(rb"(\d{1,10}, 0x[0-9a-f]{8})")
_PACKET = re.compile(
    rb"(\d{1,4}), +(-?\d{1,19}), +(-?\d{1,19}), +(\d{1,19}), +(\d{1,10}), (0x[0-9a-f]{8})(.*)"
)
#: Side data of the packet follow.
_SIDE_DATA = b", S="
#: The rest of the line is empty for a key frame, and this for another picture. Other flags mark a packet
#: as damaged or not to be shown; side data change how it is shown.
_NOT_A_KEY_FRAME = b", F=0x0"
#: The time of a packet that has none (AV_NOPTS_VALUE).
_NO_TIME = -(2**63)
_MAX_LINE_BYTES = 4096
#: ``framecrc`` begins its checksum at 0. Some codecs say silence in a few bytes of zeros.
_CHECKSUM_OF_ZEROS, _MIN_ZEROS = b"0x00000000", 64
#: Pictures are stored at most so many places from where they are shown.
_MOST_REORDERED = 32
#: More different distances than this are not distinguished.
_MOST_GAPS = 4096
#: So many of the distances are shorter than the usual one of a moving picture, at most; and so far around it
#: the others scatter.
_SHORTER, _SCATTER = 0.15, 1.25


class PacketReader:
    """Reads ``framecrc``, in pieces of any size; raises MediaRefused for packets beyond the limits.

    Messages name the file by ``given``.
    """

    def __init__(self, limits: MediaLimits, given: str = "a file") -> None:
        self._limits = limits
        self._given = given
        self._rest = b""
        self._count = 0
        self._streams: dict[int, _Packets] = {}

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[-_MAX_LINE_BYTES:]
        for line in lines:
            if packet := _PACKET.match(line):
                *numbers, checksum, flags = packet.groups()
                number, dts, pts, duration, size = map(int, numbers)
                packets = self._of(number)
                packets.add((dts, pts, duration), flags)
                packets.zeroed += checksum == _CHECKSUM_OF_ZEROS and size >= _MIN_ZEROS
                self._count += 1
            elif header := _HEADER.match(line):
                self._of(int(header[2])).describe(header[1], header[3])
        check_count(self._limits, self._given, self._count)

    def zeroed(self, number: int = 0) -> int:
        """Return how many packets of an output stream hold zeros and nothing else."""
        return self._of(number).zeroed

    def has_side_data(self, number: int = 0) -> bool:
        """Return whether the first packet of an output stream has more than its content."""
        return self._of(number).has_side_data

    def _of(self, number: int) -> _Packets:
        return self._streams.get(number) or self._streams.setdefault(
            number, _Packets(self._limits, self._given)
        )

    def timeline(self, number: int = 0, kind: str = "") -> Timeline | None:
        """Return the timeline of the packets read so far of an output stream; None without packets.

        ``kind`` is what ``Described.alike`` gives.
        """
        return self._of(number).timeline(kind)


class _Packets:
    """The packets of one stream."""

    def __init__(self, limits: MediaLimits, given: str) -> None:
        self._limits = limits
        self._given = given
        self._base: Fraction | None = None
        self._bounds: PacketBounds | None = None
        self._extradata = ""
        self._shown = _Times()
        self._decoded = _Times()
        self._is_plain = True
        self.has_side_data = False
        self.zeroed = 0

    def describe(self, name: bytes, value: bytes) -> None:
        """Take a line of the header."""
        if name == b"tb" and (base := _TIME_BASE.match(value)):
            self._base = Fraction(int(base[1]), int(base[2]))
            self._bounds = PacketBounds(self._limits, self._given, self._base)
        elif name == b"media_type" and self._bounds is not None:
            self._bounds.is_sound = value == _SOUND
        elif name == b"extradata" and (extradata := _EXTRADATA.match(value)):
            self._extradata = extradata[1].decode()

    def add(self, times: tuple[int, int, int], flags: bytes) -> None:
        """Take a packet: its times of decoding and of presentation, its duration, its flags."""
        dts, pts, duration = times
        is_first = not self._decoded.count
        if self._bounds is not None:
            self._bounds.check(dts, max(dts, pts) + duration)
        self.has_side_data |= is_first and _SIDE_DATA in flags
        self._is_plain &= pts == 0 and not flags if is_first else flags in (b"", _NOT_A_KEY_FRAME)
        self._decoded.add(dts, duration)
        if pts != _NO_TIME:
            self._shown.add(pts, duration)

    def timeline(self, kind: str) -> Timeline | None:
        """Return the timeline of the packets so far; None without any."""
        is_timed = self._shown.count == self._decoded.count
        times = self._shown if is_timed else self._decoded
        if self._base is None or not times.count:
            return None
        begin, last, end = (float(time * self._base) for time in (times.begin, times.last, times.end))
        is_steady = is_timed and self._is_plain and self._decoded.in_a_row and self._shown.on_a_grid
        step_s = times.step * self._base if is_steady else None
        kind = f"{kind}, extradata {self._extradata}, from {self._decoded.begin}" if kind else ""
        shown_end_s = float(self._shown.end * self._base) if self._shown.count else None
        usual, last_gap = times.gaps.usual_and_last()
        return Timeline(
            *(times.count, begin, last, end, is_timed, step_s, kind, shown_end_s),
            moving_fps=float(1 / (Fraction(usual) * self._base)) if usual else None,
            last_gap_s=None if last_gap is None else float(last_gap * self._base),
        )


class _Times:
    """The bounds of some packets' times, in units of the time base, and whether they are regular."""

    def __init__(self) -> None:
        self.count = 0
        self.begin = self.last = self.end = 0
        self.step = 0
        self.gaps = _Gaps()
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
        self.gaps.add(time)
        self.count += 1

    @property
    def on_a_grid(self) -> bool:
        """They begin at 0, all have the same duration, and together fill the time up to the end."""
        return self._is_even and self.begin == 0 and self.end == self.count * self.step


class _Gaps:
    """The distances of presentation times, which come nearly in order."""

    def __init__(self) -> None:
        self._coming: list[int] = []
        self._last: int | None = None
        self._counts = Counter[int]()

    def add(self, time: int) -> None:
        heapq.heappush(self._coming, time)
        if len(self._coming) > _MOST_REORDERED:
            self._last, gap = _next(self._last, heapq.heappop(self._coming))
            if gap in self._counts or len(self._counts) < _MOST_GAPS:
                self._counts[gap] += 1

    def usual_and_last(self) -> tuple[float, int | None]:
        """Return the usual distance where the picture moves, 0 if there is none, and the last distance."""
        counts, last, gap = Counter(self._counts), self._last, 0
        for time in sorted(self._coming):
            last, gap = _next(last, time)
            counts[gap] += 1
        del counts[0]
        total, seen, least = counts.total(), 0, 0
        for least in sorted(counts):
            seen += counts[least]
            if seen > _SHORTER * total:
                break
        near = {value: count for value, count in counts.items() if least <= value <= least * _SCATTER**2}
        usual = sum(value * count for value, count in near.items()) / sum(near.values()) if near else 0.0
        return usual, gap or None


def _next(last: int | None, time: int) -> tuple[int, int]:
    return time, 0 if last is None else time - last
