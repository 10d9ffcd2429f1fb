"""Which of several tracks counts, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media.clips import colour_clip, ffmpeg, run_job
from tests.support.judges import colour_of, near, picture_length_s, sound_in

pytestmark = pytest.mark.ffmpeg

TONES = ("-f", "lavfi", "-i", "sine=f=400:d=1,volume=4", "-f", "lavfi", "-i", "sine=f=900:d=1,volume=4")


def two_sounds(path: Path, *options: str) -> Path:
    """Make a film whose first sound is a tone of 400 Hz and whose second is one of 900 Hz."""
    picture = ("-f", "lavfi", "-i", "color=red:s=64x48:r=10:d=1")
    maps = ("-map", "0", "-map", "1", "-map", "2", "-c:v", "libx264", "-c:a", "aac")
    ffmpeg(*picture, *TONES, *maps, *options, path)
    return path


def undecodable(path: Path) -> Path:
    """Name a codec that nobody knows for the first sound of a QuickTime file, which is PCM of 24 bits."""
    content = bytearray(path.read_bytes())
    place = content.index(b"in24", content.rindex(b"moov"))
    content[place : place + 4] = b"apac"
    path.write_bytes(content)
    return path


SECOND_IS_DEFAULT = ("-disposition:a:0", "0", "-disposition:a:1", "default")


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("kind", ["video-stitch", "audio-stitch", "music-mix", "music"])
async def test_the_default_sound_counts_not_the_first(tmp_path: Path, kind: str, suffix: str) -> None:
    clip = two_sounds(tmp_path / f"1.{suffix}", *SECOND_IS_DEFAULT).name
    ffmpeg("-f", "lavfi", "-i", "sine=f=200:d=1", tmp_path / "tone.wav")
    if kind == "music":
        await run_job(tmp_path, "music-mix", ["tone.wav"], "out.wav", musicTrack=clip, musicVolume=0)
    elif kind == "video-stitch":
        await run_job(tmp_path, kind, [clip, clip], "out.mkv")
    else:
        await run_job(tmp_path, kind, [clip], "out.wav", musicTrack="tone.wav")
    sound = sound_in(tmp_path / ("out.mkv" if kind == "video-stitch" else "out.wav"))
    assert sound.level_db(900, 0.4) > sound.level_db(400, 0.4) + 40


@pytest.mark.parametrize("kind", ["video-stitch", "audio-stitch", "music-mix", "music"])
async def test_a_sound_nobody_can_decode_gives_way_to_another(tmp_path: Path, kind: str) -> None:
    clip = undecodable(two_sounds(tmp_path / "1.mov", "-c:a:0", "pcm_s24be")).name
    ffmpeg("-f", "lavfi", "-i", "sine=f=200:d=1", tmp_path / "tone.wav")
    if kind == "music":
        await run_job(tmp_path, "music-mix", ["tone.wav"], "out.wav", musicTrack=clip, musicVolume=0)
    elif kind == "video-stitch":
        await run_job(tmp_path, kind, [clip, clip], "out.mkv")
    else:
        await run_job(tmp_path, kind, [clip], "out.wav", musicTrack="tone.wav")
    sound = sound_in(tmp_path / ("out.mkv" if kind == "video-stitch" else "out.wav"))
    assert sound.level_db(900, 0.4) > -20


@pytest.mark.parametrize("name", ["2.h264", "2.webm", "2.mkv"])
async def test_a_mute_last_clip_of_unknown_length_is_silent_to_its_end(tmp_path: Path, name: str) -> None:
    colour_clip(tmp_path / "1.mp4", "red", tone_hz=400)
    colour_clip(tmp_path / "2.mp4", "blue", seconds=2)
    if name == "2.h264":
        ffmpeg("-i", tmp_path / "2.mp4", "-c", "copy", tmp_path / name)
    else:
        codec = ("-c:v", "libvpx-vp9", "-cpu-used", "8") if name == "2.webm" else ("-c", "copy")
        # Written to a pipe, where no length can be filled in at the end.
        form = "webm" if name == "2.webm" else "matroska"
        (tmp_path / name).write_bytes(ffmpeg("-i", tmp_path / "2.mp4", *codec, "-f", form, "-"))
    await run_job(tmp_path, "video-stitch", ["1.mp4", name], "out.mp4")
    lengths = picture_length_s(tmp_path / "out.mp4"), sound_in(tmp_path / "out.mp4").length_s
    assert lengths[1] == pytest.approx(lengths[0], abs=0.06)
    assert lengths[0] > 2.7


@pytest.mark.parametrize("is_mute", [True, False])
@pytest.mark.parametrize("is_last", [True, False])
async def test_texts_that_go_on_make_no_clip_longer(tmp_path: Path, is_mute: bool, is_last: bool) -> None:
    colour_clip(tmp_path / "film.mp4", "blue", tone_hz=None if is_mute else 900)
    (tmp_path / "texts.srt").write_text("1\n00:00:00,000 --> 00:00:06,000\nStill here\n\n")
    texts = ("-i", tmp_path / "film.mp4", "-i", tmp_path / "texts.srt", "-c", "copy", "-c:s", "mov_text")
    ffmpeg(*texts, "-map", "0", "-map", "1", tmp_path / "texts.mp4")
    colour_clip(tmp_path / "1.mp4", "red", tone_hz=400)
    order = ["1.mp4", "texts.mp4"] if is_last else ["texts.mp4", "1.mp4"]
    await run_job(tmp_path, "video-stitch", order, "out.mp4")
    out = tmp_path / "out.mp4"
    assert (picture_length_s(out), sound_in(out).length_s) == pytest.approx((2, 2), abs=0.06)
    assert near(colour_of(out, 1.5), colour_of(tmp_path / order[1], 0.5))


async def test_texts_that_go_on_make_no_mix_longer(tmp_path: Path) -> None:
    colour_clip(tmp_path / "film.mp4", "blue")
    (tmp_path / "texts.srt").write_text("1\n00:00:00,000 --> 00:00:06,000\nStill here\n\n")
    ffmpeg("-i", tmp_path / "film.mp4", "-i", tmp_path / "texts.srt", "-c", "copy", tmp_path / "texts.mkv")
    ffmpeg("-f", "lavfi", "-i", "sine=f=200:d=8", tmp_path / "music.wav")
    await run_job(tmp_path, "music-mix", ["texts.mkv"], "out.mp4", musicTrack="music.wav")
    out = tmp_path / "out.mp4"
    assert (picture_length_s(out), sound_in(out).length_s) == pytest.approx((1, 1), abs=0.06)
