"""``video-stitch``, ``audio-stitch`` and ``music-mix`` on real clips, judged by decoding the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from beeq.errors import Discard
from tests.media.clips import (
    FakeJob,
    colour_at,
    colour_clip,
    ffmpeg,
    frame_count,
    level_of,
    run_job,
    sound_of,
    tone_at,
    tree,
    turned,
)

pytestmark = pytest.mark.ffmpeg

VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus")
MPEG4 = ("-c:v", "mpeg4", "-c:a", "libmp3lame")


async def test_clips_of_all_kinds_are_joined_in_order(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", size="64x48", fps="10", tone_hz=400)
    colour_clip(tmp_path / "2.webm", "lime", size="96x32", fps="30", options=VP9)
    colour_clip(tmp_path / "3.avi", "blue", size="32x64", fps="25", tone_hz=900, options=MPEG4)
    facts = await run_job(tmp_path, "video-stitch", ["1.mp4", "2.webm", "3.avi"], "out.mp4")
    out = tmp_path / "out.mp4"
    assert [colour_at(out, second, "8:8:28:20") for second in (0.5, 1.5, 2.5)] == ["red", "lime", "blue"]
    assert frame_count(out) == pytest.approx(90, abs=1)
    samples = sound_of(out)
    assert [tone_at(samples, second) for second in (0.4, 1.4, 2.4)] == [400, 0, 900]
    assert facts == {
        "path": "out.mp4",
        "bytes": out.stat().st_size,
        "duration": pytest.approx(3, abs=0.15),
        "streams": [
            {"type": "video", "codec": "h264", "width": 64, "height": 48, "fps": 30.0},
            {"type": "audio", "codec": "aac", "sampleRate": 48000, "channels": 2},
        ],
    }


async def test_other_shapes_are_fitted_in_with_black_beside_them(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", size="64x64")
    colour_clip(tmp_path / "wide.mp4", "lime", size="64x16")
    colour_clip(tmp_path / "high.mp4", "blue", size="20x80")
    await run_job(tmp_path, "video-stitch", ["1.mp4", "wide.mp4", "high.mp4"], "out.mp4")
    out = tmp_path / "out.mp4"
    assert colour_at(out, 1.5, "64:12:0:26") == "lime"
    assert [colour_at(out, 1.5, f"64:16:0:{top}") for top in (0, 48)] == ["black", "black"]
    assert colour_at(out, 2.5, "12:64:26:0") == "blue"
    assert [colour_at(out, 2.5, f"16:64:{left}:0") for left in (0, 48)] == ["black", "black"]


async def test_an_odd_size_is_made_even(tmp_path: Path) -> None:
    yuv444 = ("-c:v", "libx264", "-pix_fmt", "yuv444p")
    colour_clip(tmp_path / "1.mp4", "red", size="65x49", options=yuv444)
    facts = await run_job(tmp_path, "video-stitch", ["1.mp4"], "out.mp4")
    assert (facts["streams"][0]["width"], facts["streams"][0]["height"]) == (64, 48)


async def test_a_first_clip_that_is_turned_gives_the_size_it_shows(tmp_path: Path) -> None:
    colour_clip(tmp_path / "lying.mp4", "red", size="64x32")
    turned(tmp_path / "lying.mp4", tmp_path / "1.mp4", degrees=90)
    facts = await run_job(tmp_path, "video-stitch", ["1.mp4", "lying.mp4"], "out.mp4")
    assert (facts["streams"][0]["width"], facts["streams"][0]["height"]) == (32, 64)


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("out.mp4", ["h264", "aac"]),
        ("out.MOV", ["h264", "aac"]),
        ("out.mkv", ["h264", "aac"]),
        ("out.webm", ["vp9", "opus"]),
    ],
)
async def test_the_suffix_chooses_the_container(tmp_path: Path, name: str, codecs: list[str]) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.5, tone_hz=400)
    facts = await run_job(tmp_path, "video-stitch", ["1.mp4", "1.mp4"], f"a/b/{name}")
    assert [stream["codec"] for stream in facts["streams"]] == codecs
    assert facts["duration"] == pytest.approx(1, abs=0.1)
    assert tree(tmp_path).keys() == {"1.mp4", "a", "a/b", f"a/b/{name}"}


async def test_players_may_start_an_mp4_before_they_have_all_of_it(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.3)
    await run_job(tmp_path, "video-stitch", ["1.mp4"], "out.mp4")
    content = (tmp_path / "out.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


async def test_mute_clips_make_a_mute_film(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.3)
    facts = await run_job(tmp_path, "video-stitch", ["1.mp4", "1.mp4"], "out.mp4")
    assert [stream["type"] for stream in facts["streams"]] == ["video"]


@pytest.mark.parametrize("mute", [0, 2])
async def test_silence_stands_for_sound_at_either_end(tmp_path: Path, mute: int) -> None:
    clips = [
        colour_clip(tmp_path / f"{number}.mp4", "red", tone_hz=None if number == mute else 600)
        for number in range(3)
    ]
    await run_job(tmp_path, "video-stitch", [clip.name for clip in clips], "out.mp4")
    samples = sound_of(tmp_path / "out.mp4")
    assert [tone_at(samples, number + 0.4) for number in range(3)] == [
        0 if number == mute else 600 for number in range(3)
    ]
    assert len(samples) / 48_000 == pytest.approx(3, abs=0.1)


async def test_the_last_picture_stays_while_the_sound_goes_on(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=1, tone_hz=400, tone_s=2)
    colour_clip(tmp_path / "2.mp4", "blue", seconds=1, tone_hz=900)
    await run_job(tmp_path, "video-stitch", ["1.mp4", "2.mp4"], "out.mp4")
    out = tmp_path / "out.mp4"
    assert [colour_at(out, second) for second in (0.5, 1.7, 2.5)] == ["red", "red", "blue"]
    assert [tone_at(sound_of(out), second) for second in (0.4, 1.4, 2.4)] == [400, 400, 900]


async def test_a_picture_that_comes_late_stays_in_step_with_the_sound(tmp_path: Path) -> None:
    colour_clip(tmp_path / "0.mp4", "red", tone_hz=400)
    colour_clip(tmp_path / "blue.mp4", "blue")
    ffmpeg("-f", "lavfi", "-i", "sine=f=900:d=2,volume=8", tmp_path / "tone.wav")
    late = ("-itsoffset", "1", "-i", tmp_path / "blue.mp4", "-i", tmp_path / "tone.wav")
    ffmpeg(*late, "-c:v", "copy", "-c:a", "aac", tmp_path / "late.mkv")
    await run_job(tmp_path, "video-stitch", ["0.mp4", "late.mkv"], "out.mp4")
    out = tmp_path / "out.mp4"
    assert [colour_at(out, second) for second in (0.5, 1.5, 2.5)] == ["red", "blue", "blue"]
    assert [tone_at(sound_of(out), second) for second in (0.4, 1.4, 2.4)] == [400, 900, 900]


async def test_an_output_may_replace_one_of_its_inputs(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.5)
    facts = await run_job(tmp_path, "video-stitch", ["1.mp4", "1.mp4"], "1.mp4")
    assert facts["duration"] == pytest.approx(1, abs=0.1)
    assert frame_count(tmp_path / "1.mp4") == 10


async def test_titles_of_the_inputs_are_not_passed_on(tmp_path: Path) -> None:
    titled = ("-metadata", "title=not for everyone", "-metadata:s:v", "handler_name=not either")
    ffmpeg("-f", "lavfi", "-i", "color=red:s=32x32:d=0.3", *titled, tmp_path / "1.mp4")
    await run_job(tmp_path, "video-stitch", ["1.mp4"], "out.mp4")
    assert b"not" not in (tmp_path / "out.mp4").read_bytes().replace(b"options", b"")


@pytest.mark.external
async def test_progress_follows_ffmpeg(tmp_path: Path) -> None:
    from beeq.processors.base import ProcessorSettings
    from beeq.processors.media import MediaProcessor

    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=400x224:r=30:d=12", "-preset", "ultrafast", tmp_path / "1.mp4")
    job = FakeJob(type="video-stitch", inputFiles=["1.mp4"], outputPath="out.webm")
    await MediaProcessor(ProcessorSettings(media_root=tmp_path))(job)
    assert job.reports == sorted(set(job.reports))
    assert (job.reports[0], job.reports[-1]) == (0, 100)
    assert len(job.reports) > 3  # ffmpeg reports twice a second


async def test_a_file_without_a_picture_cannot_be_stitched(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.3)
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "sound.wav")
    with pytest.raises(Discard, match=r"'sound\.wav' has no picture"):
        await run_job(tmp_path, "video-stitch", ["1.mp4", "sound.wav"], "out.mp4")
    assert tree(tmp_path).keys() == {"1.mp4", "sound.wav"}


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("out.mp3", "mp3"),
        ("out.m4a", "aac"),
        ("out.aac", "aac"),
        ("out.wav", "pcm_s16le"),
        ("out.flac", "flac"),
        ("out.ogg", "opus"),
        ("out.opus", "opus"),
    ],
)
async def test_sounds_are_joined_in_order(tmp_path: Path, name: str, codec: str) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=f=400:d=1:r=22050,volume=8", tmp_path / "1.wav")
    colour_clip(tmp_path / "2.mp4", "red", tone_hz=900)
    facts = await run_job(tmp_path, "audio-stitch", ["1.wav", "2.mp4"], name)
    samples = sound_of(tmp_path / name)
    assert [tone_at(samples, second) for second in (0.4, 1.4)] == [400, 900]
    assert facts["duration"] == pytest.approx(2, abs=0.1)
    assert facts["streams"] == [{"type": "audio", "codec": codec, "sampleRate": 48000, "channels": 2}]


async def test_a_file_without_sound_cannot_be_joined_to_others(tmp_path: Path) -> None:
    colour_clip(tmp_path / "mute.mp4", "red", seconds=0.3)
    with pytest.raises(Discard, match=r"'mute\.mp4' has no sound"):
        await run_job(tmp_path, "audio-stitch", ["mute.mp4"], "out.mp3")


@pytest.mark.parametrize("music_s", [0.5, 4])
@pytest.mark.parametrize(("clip", "options"), [("1.mp4", ()), ("1.webm", VP9)])
async def test_music_is_cut_or_padded_to_the_picture(
    tmp_path: Path, music_s: float, clip: str, options: tuple[str, ...]
) -> None:
    colour_clip(tmp_path / clip, "red", seconds=2, options=options)
    ffmpeg("-f", "lavfi", "-i", f"sine=f=700:d={music_s},volume=8", tmp_path / "music.wav")
    facts = await run_job(tmp_path, "music-mix", [clip], "out.mp4", musicTrack="music.wav")
    samples = sound_of(tmp_path / "out.mp4")
    assert facts["duration"] == pytest.approx(2, abs=0.06)
    assert frame_count(tmp_path / "out.mp4") == 20
    assert [tone_at(samples, second) for second in (0.1, 1.5)] == [700, 700 if music_s > 2 else 0]


async def test_music_is_laid_under_the_sound_that_is_there(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=2, tone_hz=1000, tone_s=1)
    ffmpeg("-f", "lavfi", "-i", "sine=f=300:d=2,volume=8", tmp_path / "music.wav")
    await run_job(tmp_path, "music-mix", ["1.mp4"], "out.mp4", musicTrack="music.wav")
    samples = sound_of(tmp_path / "out.mp4")
    heard = {(hz, second): level_of(samples, second, hz) > 300 for hz in (300, 1000) for second in (0.4, 1.5)}
    assert heard == {(300, 0.4): True, (300, 1.5): True, (1000, 0.4): True, (1000, 1.5): False}


async def test_music_may_be_laid_under_a_mere_sound(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=f=1000:d=1", tmp_path / "voice.wav")
    ffmpeg("-f", "lavfi", "-i", "sine=f=300:d=3", tmp_path / "music.wav")
    facts = await run_job(tmp_path, "music-mix", ["voice.wav"], "out.mp3", musicTrack="music.wav")
    assert facts["duration"] == pytest.approx(1, abs=0.1)
