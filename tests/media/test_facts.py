"""The pure parts of the media work: reading ffmpeg's log, planning windows and fits."""

from __future__ import annotations

from fractions import Fraction

import pytest

from beeq.media.frames import windows
from beeq.media.inputs.facts import Audio, Colours, Facts, Timeline, Video
from beeq.media.inputs.probe import parse
from beeq.media.outputs.film import Look, even, fit
from beeq.media.outputs.motion import rate_of_film
from beeq.media.stitch import video_graph

PHONE = """\
Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:/proc/self/fd/7':
  Metadata:
    title           : a
                    :   Stream #0:0: Video: fake, yuv420p, 9x9
  Duration: 01:02:03.50, start: 0.000000, bitrate: 128 kb/s
  Stream #0:1[0x2](und): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, mono, fltp, 69 kb/s (default)
  Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(progressive), 1920x1080 [SAR 1:1 DAR 16:9], 45 kb/s, 29.97 fps, 30 tbr, 12800 tbn (default)
    Metadata:
      handler_name    : VideoHandler
    Side data:
      Display Matrix: rotation of -90.00 degrees
  Stream #0:2[0x0]: Video: png, rgb24(pc, gbr/unknown/unknown), 320x240 [SAR 1:1 DAR 4:3], 90k tbr, 90k tbn (attached pic)
  Stream #0:3: Subtitle: mov_text (tx3g / 0x67337874), 0 kb/s
At least one output file must be specified
"""
OLD = """\
Input #0, matroska,webm, from 'file:a.mkv':
  Duration: N/A, start: 0.000000, bitrate: N/A
    Stream #0:0(eng): Video: vp9 (Profile 0), yuv420p(tv), 720x576, SAR 16:15 DAR 4:3, 25 fps, 25 tbr, 1k tbn, 1k tbc (default)
    Stream #0:1: Audio: opus, 48000 Hz, 5.1(side), fltp (default)
    Stream #0:2: Audio: flac, 96000 Hz, 3 channels (FL+FR+LFE), s32 (24 bit)
    Stream #0:3: Audio: pcm_s16le, 8000 Hz, odd layout, s16
"""


def test_the_facts_of_a_file_are_read_from_the_log() -> None:
    facts = parse(PHONE)
    assert facts == Facts(
        3723.5,
        (
            Video(
                0,
                "h264",
                1920,
                1080,
                fps=29.97,
                base_fps=30.0,
                rotation=90,
                pixel_format="yuv420p",
                is_default=True,
            ),
            Audio(1, "aac", 44100, 1, "mono", is_default=True),
            Video(
                2,
                "png",
                320,
                240,
                is_cover=True,
                pixel_format="rgb24",
                colours=Colours("pc", "gbr"),
            ),
        ),
    )
    assert facts.video is not None
    assert facts.video.shown_size == (1080, 1920)


def test_an_older_log_is_read_too() -> None:
    facts = parse(OLD)
    assert facts.duration_s is None
    assert facts.video is not None
    assert facts.video.shown_size == (768, 576)
    assert [item.channels for item in facts.streams if isinstance(item, Audio)] == [6, 3, None]


def test_a_log_of_something_else_has_no_facts() -> None:
    assert parse("[in#0] Invalid data found when processing input\n") == Facts(None, ())


@pytest.mark.parametrize(
    ("duration_s", "starts"),
    [(None, []), (0.04, []), (4, []), (5, [1]), (100, [96, 84, 36]), (7200, [7196, 7184, 7136, 6944, 6176, 3104])],
)  # fmt: skip
def test_windows_at_the_end_widen_until_they_hold_all_of_it(
    duration_s: float | None, starts: list[float]
) -> None:
    assert list(windows(duration_s)) == [*(("-ss", f"{start:.3f}") for start in starts), ()]


@pytest.mark.parametrize(
    ("size", "frame", "fitted"),
    [
        ((64, 48), (64, 48), (64, 48, 0, 0)),
        ((1920, 1080), (640, 360), (640, 360, 0, 0)),
        ((64, 16), (64, 64), (64, 16, 0, 24)),
        ((20, 80), (64, 64), (16, 64, 24, 0)),
        ((5000, 1), (64, 64), (64, 2, 0, 30)),
        ((1, 5000), (64, 64), (2, 64, 30, 0)),
        ((3, 3), (2, 2), (2, 2, 0, 0)),
    ],
)
def test_a_picture_fits_into_the_frame_in_even_numbers(
    size: tuple[int, int], frame: tuple[int, int], fitted: tuple[int, int, int, int]
) -> None:
    assert fit(size, frame) == fitted


@pytest.mark.parametrize(("size", "result"), [((65, 49), (64, 48)), ((64, 48), (64, 48)), ((1, 1), (2, 2))])
def test_a_size_is_made_even(size: tuple[int, int], result: tuple[int, int]) -> None:
    assert even(size) == result


@pytest.mark.parametrize(
    ("fps", "base_fps", "rate"),
    [
        (25, 25, Fraction(25)),
        (29.97, 29.97, Fraction(30000, 1001)),
        (23.98, 23.98, Fraction(24000, 1001)),
        (59.94, 59.94, Fraction(60000, 1001)),
        (12.5, 25, Fraction(25, 2)),
        (None, 30, Fraction(30)),
        (0.5, 30, Fraction(30)),
        (1000, 1000, Fraction(25)),
        (None, None, Fraction(25)),
    ],
)
def test_a_rate_is_taken_from_what_is_printed(
    fps: float | None, base_fps: float | None, rate: Fraction
) -> None:
    assert rate_of_film([Video(0, "h264", 64, 48, fps=fps, base_fps=base_fps)], None) == rate


def test_as_many_clips_as_a_job_may_have_fit_on_a_command_line() -> None:
    times = Timeline(9000, 0.0, 9999.0, 9999.1, is_timed=True)
    video = Video(100, "h264", 10_000, 10_000, Fraction(11, 10), 29.97, 29.97, timeline=times)
    clips = [Facts(100_000.0, (video, Audio(101, "aac", 48_000, 2)))] * 250
    graph = video_graph(clips, [video] * 250, Look((10_000, 8_000), Fraction(30_000, 1001)), [900_000] * 250)
    assert len(graph) < 128 * 1024
