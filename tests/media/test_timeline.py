"""The pure parts of joining pictures as they are: packet times, kinds of streams, and what may be joined."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from beeq.media.formats import AUDIO_CONTAINERS, VIDEO_CONTAINERS
from beeq.media.inputs.facts import Audio, Colours, Facts, Timeline, Video
from beeq.media.inputs.timeline import PacketReader
from beeq.media.limits import MediaLimits
from beeq.media.paths import OpenFile
from beeq.media.stream_copy import StreamCopy, are_candidates, can_hold_copies, stream_copy_of

HEAD = b"""\
#extradata 0:       45, 0x14760e8b
#software: Lavf63.1.102
#tb 0: 1/10240
#media_type 0: video
"""
FIRST = b"0,      -1024,          0,     1024,     1703, 0xc434de78\n"
SECOND = b"0,          0,       2048,     1024,       67, 0x1de622f7, F=0x0\n"
THIRD = b"0,       1024,       1024,     1024,       34, 0xeeaa0eb9, F=0x0\n"
LONG = b"0,       1024,       1024,     2048,       34, 0xeeaa0eb9, F=0x0\n"
UNTIMED = b"""\
#tb 0: 1/25
0,         -2, -9223372036854775808,        1,     1703, 0xc434de78
0,         -1,          7,        1,       67, 0x1de622f7, F=0x0
"""
STEADY = Timeline(3, 0.0, 0.2, 0.3, is_timed=True, step_s=Fraction(1, 10))


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
@pytest.mark.parametrize(
    ("log", "times"),
    [
        (HEAD + FIRST + SECOND + THIRD, STEADY),
        (HEAD + FIRST, Timeline(1, 0.0, 0.0, 0.1, is_timed=True, step_s=Fraction(1, 10))),
        (HEAD + FIRST + SECOND + LONG, replace(STEADY, step_s=None)),
        (UNTIMED, Timeline(2, -0.08, -0.04, 0.0, is_timed=False)),
        (b"#tb 0: 1/25\n", None),
        (b"0,  1,  1,  1,  1, 0x1\n", None),
        (b"x" * 100_000, None),
        (b"", None),
    ],
)
def test_packet_times_are_read_in_pieces_of_any_size(log: bytes, times: Timeline | None, size: int) -> None:
    reader = PacketReader(MediaLimits())
    for place in range(0, len(log), size):
        reader.feed(log[place : place + size])
    assert reader.timeline() == times


@pytest.mark.parametrize(
    "packets",
    [
        SECOND + THIRD,
        FIRST.replace(b"\n", b", F=0x5\n") + SECOND + THIRD,
        FIRST + SECOND + THIRD.replace(b"F=0x0", b"F=0x2"),
        FIRST + SECOND + THIRD.replace(b"F=0x0", b"F=0x0, S=1, New Extradata,       45, 0x14760e8b"),
        FIRST.replace(b" 0,     1024,", b" 1,     1024,") + SECOND + THIRD,
        FIRST.replace(b" 0,     1024,", b" 4096,  1024,") + SECOND + THIRD,
        FIRST + SECOND,
        FIRST + SECOND + THIRD.replace(b"1024,       1024,     1024", b"1025,       1024,     1024"),
        FIRST + SECOND + THIRD.replace(b"1024,       1024,     1024", b"1024,       1024,        0"),
        FIRST + SECOND + THIRD.replace(b"1024,       1024,     1024", b"1024,       1023,     1024"),
        FIRST + SECOND + THIRD.replace(b"1024,       1024,     1024", b"1024,      -1024,     1024"),
    ],
)
def test_packets_missing_or_in_unequal_steps_are_not_steady(
    packets: bytes,
) -> None:
    reader = PacketReader(MediaLimits())
    reader.feed(HEAD + packets)
    times = reader.timeline(kind="Video: h264")
    assert times is not None
    assert times.step_s is None


PICTURES = "Video: h264 (High) (avc1 / 0x31637661), yuv420p(progressive), 64x48 [SAR 1:1 DAR 4:3], 10 fps, 10 tbr, 10240 tbn"


def test_a_kind_includes_decoder_settings_and_preroll() -> None:
    reader = PacketReader(MediaLimits())
    reader.feed(HEAD + FIRST + SECOND + THIRD)
    times, unknown = reader.timeline(kind=PICTURES), reader.timeline()
    assert times == replace(STEADY, kind=f"{PICTURES}, extradata 45, 0x14760e8b, from -1024")
    assert unknown == STEADY


KIND = f"{PICTURES}, extradata 45, 0x14760e8b, from -1024"
ALIKE = replace(STEADY, kind=KIND)
VIDEO = Video(
    *(1, "h264", 64, 48),
    fps=10,
    base_fps=10,
    pixel_format="yuv420p",
    colours=Colours("tv", "bt709", "bt709", "bt709"),
)


def timed(times: Timeline | None) -> Video:
    return replace(VIDEO, timeline=times)


CLIP = Facts(0.3, (Audio(0, "aac", 48_000, 2), VIDEO))


def test_clips_of_one_kind_are_joined() -> None:
    other = Timeline(30, 0.0, 2.9, 3.0, is_timed=True, step_s=Fraction(1, 10), kind=KIND)
    copy = stream_copy_of([CLIP, Facts(3.1, CLIP.streams)], [timed(ALIKE), timed(other)], Fraction(10))
    assert copy == StreamCopy(1, Fraction(1, 10), (3, 30))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": KIND.replace("High", "Main")},
        {"kind": KIND.replace("0x14760e8b", "0x14760e8c")},
        {"kind": KIND.replace("-1024", "-2048")},
        {"kind": ""},
        {"step_s": Fraction(1, 20)},
        {"step_s": None},
        {"end_s": 0.1},
    ],
)
def test_a_clip_of_another_kind_or_rate_prevents_joining(changes: dict[str, Any]) -> None:
    assert (
        stream_copy_of([CLIP, CLIP], [timed(ALIKE), timed(replace(ALIKE, **changes))], Fraction(10)) is None
    )
    assert (
        stream_copy_of([CLIP, CLIP], [timed(replace(ALIKE, **changes)), timed(ALIKE)], Fraction(10)) is None
    )


@pytest.mark.parametrize("pixels", ["yuv420p10le(progressive)", "yuvj420p(pc)", "yuv444p", "nv12"])
def test_other_pixels_than_a_films_prevent_joining(pixels: str) -> None:
    times = replace(ALIKE, kind=KIND.replace("yuv420p(progressive)", pixels))
    assert stream_copy_of([CLIP, CLIP], [timed(times)] * 2, Fraction(10)) is None


@pytest.mark.parametrize(
    ("clip", "times", "rate"),
    [
        (CLIP, None, Fraction(10)),
        (Facts(None, CLIP.streams), ALIKE, Fraction(10)),
        (CLIP, ALIKE, Fraction(25)),
    ],
)
def test_what_is_not_known_of_a_clip_prevents_joining(
    clip: Facts, times: Timeline | None, rate: Fraction
) -> None:
    assert stream_copy_of([clip], [timed(times)], rate) is None


@pytest.mark.parametrize(
    ("demuxer", "changes", "expected"),
    [
        ("mov", {}, True),
        ("matroska", {}, False),
        ("mov", {"codec": "hevc"}, False),
        ("mov", {"width": 65}, False),
        ("mov", {"height": 49}, False),
        ("mov", {"pixel_aspect": Fraction(2)}, False),
        ("mov", {"rotation": 90}, False),
        ("mov", {"colours": Colours("tv", "smpte170m")}, False),
        ("mov", {"colours": Colours("pc", "bt709")}, False),
        ("mov", {"colours": Colours()}, False),
        ("mov", {"colours": Colours(), "height": 720}, True),
        ("mov", {"pixel_format": "yuv420p10le"}, False),
        ("mov", {"is_interlaced": True}, False),
    ],
)
def test_only_what_a_film_would_be_made_of_is_looked_at_closer(
    demuxer: str, changes: dict[str, Any], expected: bool
) -> None:
    source = OpenFile("a.mp4", -1, "file:/proc/self/fd/7", demuxer)
    video = replace(VIDEO, **changes)
    assert are_candidates([source, source], [video, video]) is expected
    assert not are_candidates([source, source], [video, replace(video, width=128)])


def test_only_containers_of_the_same_family_take_copies() -> None:
    containers = VIDEO_CONTAINERS | AUDIO_CONTAINERS
    assert {suffix for suffix, container in containers.items() if can_hold_copies(container)} == {
        ".mp4",
        ".mov",
    }


def test_the_lengths_in_a_script_are_rounded_without_drifting() -> None:
    copy = StreamCopy(0, Fraction(1001, 30000), (1,) * 1000)
    lines = copy.script(["file:/proc/self/fd/7"] * 1000).splitlines()
    assert lines[:3] == ["ffconcat version 1.0", "file 'file:/proc/self/fd/7'", "duration 0.033367"]
    micros = sum(round(float(line.split()[1]) * 1_000_000) for line in lines if line.startswith("duration"))
    assert micros == round(1000 * 1001 / 30000 * 1_000_000)
