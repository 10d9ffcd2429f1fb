"""The bounds of a media job, and the settings they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from beeq.media.formats import VIDEO_CONTAINERS
from beeq.media.inputs.bounds import decoder_threads
from beeq.media.inputs.facts import Video
from beeq.media.limits import LIMITS, MediaLimits
from beeq.processors.base import ProcessorSettings


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("BEEQ_MEDIA_MAX_SECONDS", "90.5", "max_seconds", 90.5),
        ("BEEQ_MEDIA_MAX_GAP_S", "30", "max_gap_s", 30.0),
        ("BEEQ_MEDIA_MAX_PICTURE", "1920x1080", "max_picture", (1920, 1080)),
        ("BEEQ_MEDIA_MAX_MEGAPIXELS", "100", "max_megapixels", 100.0),
        ("BEEQ_MEDIA_MAX_STREAMS", "8", "max_streams", 8),
        ("BEEQ_MEDIA_THREADS", "1", "threads", 1),
        ("BEEQ_MEDIA_MAX_ALLOC_MB", "256", "max_alloc_mb", 256),
    ],
)
def test_each_limit_has_a_setting(variable: str, text: str, name: str, value: object, tmp_path: Path) -> None:
    settings = ProcessorSettings.from_environment({"BEEQ_MEDIA_ROOT": str(tmp_path), variable: text})
    assert settings.media_limits == MediaLimits(**{name: value})  # type: ignore[arg-type]  # each of its own type
    assert settings.media_limits != MediaLimits()


@pytest.mark.parametrize(
    ("variable", "wanted"),
    [
        ("BEEQ_MEDIA_MAX_SECONDS", "a number above 0"),
        ("BEEQ_MEDIA_MAX_STREAMS", "a whole number above 0"),
        ("BEEQ_MEDIA_MAX_PICTURE", "a width and a height, such as 8192x4320"),
    ],
)
@pytest.mark.parametrize("text", ["", "0", "-1", "x", "nan", "1e3", "9" * 5000, "0x100", "1920x"])
def test_a_bad_limit_is_refused_by_its_name(variable: str, wanted: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{variable} must be {wanted}$"):
        ProcessorSettings.from_environment({"BEEQ_MEDIA_ROOT": str(tmp_path), variable: text})


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_made_in_code_is_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match="^max_seconds must be above 0$"):
        MediaLimits(max_seconds=value)


def test_a_picture_may_lie_or_stand() -> None:
    limits = MediaLimits(max_picture=(1920, 1080))
    assert limits.allows_size((1920, 1080))
    assert limits.allows_size((1080, 1920))
    assert not limits.allows_size((1921, 100))
    assert not limits.allows_size((1100, 1100))


def test_an_encoder_looks_less_far_ahead_in_large_pictures() -> None:
    for suffix, option in ((".mp4", "-rc-lookahead"), (".webm", "-lag-in-frames")):
        container = VIDEO_CONTAINERS[suffix]
        assert container.encoder((3840, 2160)) == [*container.video]
        assert container.encoder((4320, 8192))[:-2] == [*container.video]
        assert container.encoder((4320, 8192))[-2] == option


@pytest.mark.parametrize(("count", "size", "threads"), [(2, 8192, 4), (3, 8192, 1), (50, 64, 4), (51, 64, 1)])
def test_many_or_large_inputs_have_one_thread_each(count: int, size: int, threads: int) -> None:
    LIMITS.set(MediaLimits(threads=4))
    assert decoder_threads([Video(0, "h264", size, 4320)] * count) == threads
