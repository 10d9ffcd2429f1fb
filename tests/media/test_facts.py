"""The pure parts of the media work: planning windows and fits."""

from __future__ import annotations

from fractions import Fraction

import pytest

from beeq.media.frames import windows
from beeq.media.inputs.facts import Audio, Facts, Timeline, Video
from beeq.media.outputs.film import Look, even, fit
from beeq.media.outputs.motion import rate_of_film
from beeq.media.stitch import video_graph


@pytest.mark.parametrize(
    ("duration_s", "starts"),
    [(None, []), (0.04, []), (4, []), (5, [1]), (100, [96, 84, 36]), (7200, [7196, 7184, 7136, 6944, 6176, 3104]),
     (1e12, [1e12 - 4 * 4**widening for widening in range(8)])],
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
