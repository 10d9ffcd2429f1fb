"""The judges of media files themselves, on files whose numbers are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.judges import (
    SILENCE_DB,
    colour_of,
    decoded,
    flashes_ms,
    near,
    picture_length_s,
    sound_in,
    true_peak_db,
)

pytestmark = pytest.mark.ffmpeg

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "4")


@pytest.mark.parametrize(
    ("size", "matrix", "tags"),
    [
        ("64x48", "bt601", ()),
        ("64x48", "bt709", ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")),
        ("64x720", "bt709", ()),
    ],
)
def test_a_colour_is_told_by_tags_or_by_size(
    tmp_path: Path, size: str, matrix: str, tags: tuple[str, ...]
) -> None:
    source = f"color=0xc84040:s={size}:r=10:d=0.3,format=rgb24"
    written = ("-vf", f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p", *X264, *tags)
    decoded("-f", "lavfi", "-i", source, *written, tmp_path / "1.mp4")
    assert near(colour_of(tmp_path / "1.mp4"), (200, 64, 64), within=3)


@pytest.mark.parametrize("name", ["1.png", "1.jpg"])
def test_a_stills_colour_is_the_one_seen(tmp_path: Path, name: str) -> None:
    source = "color=0xc84040:s=64x48:d=0.1,format=rgb24"
    decoded("-f", "lavfi", "-i", source, "-frames:v", "1", "-q:v", "2", tmp_path / name)
    assert near(colour_of(tmp_path / name), (200, 64, 64), within=3)


def test_a_colour_is_that_of_a_place_and_a_moment(tmp_path: Path) -> None:
    source = "color=blue:s=64x48:r=10:d=2,drawbox=0:0:32:48:lime:fill:enable='gte(t,1)',format=rgb24"
    written = ("-vf", "scale=out_color_matrix=bt601,format=yuv420p", *X264)
    decoded("-f", "lavfi", "-i", source, *written, tmp_path / "1.mp4")
    places = [(0.5, "16:16:8:8"), (1.5, "16:16:8:8"), (1.5, "16:16:40:8")]
    found = [colour_of(tmp_path / "1.mp4", *place) for place in places]
    wanted = [(0, 0, 255), (0, 255, 0), (0, 0, 255)]
    assert all(near(*pair, within=5) for pair in zip(found, wanted, strict=True))


def test_flash_and_click_are_found_to_the_millisecond(tmp_path: Path) -> None:
    flash = "color=black:s=64x48:r=25:d=2,drawbox=c=white:t=fill:enable='eq(n,10)+eq(n,30)'"
    click = "aevalsrc='0.9*(between(t,0.4,0.41)+between(t,1.2,1.21))':d=2:s=48000"
    lavfi = ("-f", "lavfi", "-i", flash, "-f", "lavfi", "-i", click)
    decoded(*lavfi, *X264, "-c:a", "pcm_s16le", tmp_path / "1.mkv")
    assert flashes_ms(tmp_path / "1.mkv") == pytest.approx([400, 1200], abs=1)
    sound = sound_in(tmp_path / "1.mkv")
    assert sound.clicks_ms() == pytest.approx([400, 1200], abs=1)
    assert (picture_length_s(tmp_path / "1.mkv"), sound.length_s) == pytest.approx((2, 2), abs=0.001)


def test_a_level_is_that_of_one_tone_in_one_channel(tmp_path: Path) -> None:
    tones = "aevalsrc='0.5*sin(2*PI*1000*t)+0.05*sin(2*PI*300*t)|0.1*sin(2*PI*1000*t)':d=0.5:s=48000"
    decoded("-f", "lavfi", "-i", tones, "-c:a", "pcm_f32le", tmp_path / "1.wav")
    sound = sound_in(tmp_path / "1.wav")
    levels = [sound.level_db(hz, 0.1, channel) for hz, channel in ((1000, 0), (300, 0), (1000, 1))]
    assert levels == pytest.approx([-6.02, -26.02, -20], abs=0.05)
    assert sound.level_db(1000, 0.1) == pytest.approx(-6.02, abs=0.05)
    assert sound.level_db(700, 0.1) < -90
    assert sound.rms_db(0.1, 1) == pytest.approx(-20, abs=0.05)


def test_silence_has_a_level_too(tmp_path: Path) -> None:
    decoded("-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono:d=0.5", tmp_path / "1.wav")
    sound = sound_in(tmp_path / "1.wav")
    assert (sound.peak_db, sound.rms_db(0)) == (SILENCE_DB, SILENCE_DB)
    assert sound.clicks_ms() == []


def test_a_true_peak_lies_between_samples(tmp_path: Path) -> None:
    # A quarter of the rate, sampled 45° beside its peaks: each sample is 3 dB below them. It swells, because
    # a tone that begins at once is more than a tone.
    tone = "aevalsrc='0.5*sin(2*PI*12000*t+PI/4)*sin(2*PI*t)':d=0.5:s=48000"
    decoded("-f", "lavfi", "-i", tone, "-c:a", "pcm_f32le", tmp_path / "1.wav")
    assert sound_in(tmp_path / "1.wav").peak_db == pytest.approx(-9.03, abs=0.05)
    assert true_peak_db(tmp_path / "1.wav") == pytest.approx(-6.02, abs=0.3)
