"""How loud sounds are in what is written, and how music is laid under them; judged by decoding it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beeq.media.ffmpeg import find_ffmpeg
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import AssemblyProcessor
from tests.media.clips import FakeJob, colour_clip, ffmpeg, run_job
from tests.support.judges import Sound, colour_of, near, picture_length_s, sound_in, true_peak_db

pytestmark = pytest.mark.ffmpeg

VOICE_HZ, MUSIC_HZ = 1000, 300
WITHIN_DB = 0.3


def tone(path: Path, hz: int, level_db: float, *, seconds: float = 2, layout: str = "stereo") -> Path:
    """Make a sound with a tone of one level in every channel."""
    channels = {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8}[layout]
    one = f"{10 ** (level_db / 20):.6f}*sin(2*PI*{hz}*t)"
    expression = "|".join([one] * channels)
    ffmpeg("-f", "lavfi", "-i", f"aevalsrc='{expression}':c={layout}:d={seconds}:s=48000", path)
    return path


async def mixed(root: Path, source: str = "voice.wav", **parameters: Any) -> Sound:
    await run_job(root, "music-mix", [source], "out.wav", musicTrack="music.wav", **parameters)
    return sound_in(root / "out.wav")


@pytest.fixture
def both(tmp_path: Path) -> Path:
    tone(tmp_path / "voice.wav", VOICE_HZ, -12)
    tone(tmp_path / "music.wav", MUSIC_HZ, -12)
    return tmp_path


@pytest.mark.parametrize(
    ("parameters", "music_db"),
    [({}, -24), ({"musicVolume": -20}, -32), ({"musicVolume": 3.5}, -8.5), ({"musicVolume": None}, -24)],
)
async def test_a_voice_keeps_its_level_and_music_gets_its_own(
    both: Path, parameters: dict[str, Any], music_db: float
) -> None:
    sound = await mixed(both, **parameters)
    assert sound.level_db(VOICE_HZ, 1) == pytest.approx(-12, abs=WITHIN_DB)
    assert sound.level_db(MUSIC_HZ, 1) == pytest.approx(music_db, abs=WITHIN_DB)


@pytest.mark.parametrize(("parameters", "music_db"), [({}, -12), ({"musicVolume": -6}, -18)])
async def test_music_under_no_sound_keeps_its_level(
    tmp_path: Path, parameters: dict[str, Any], music_db: float
) -> None:
    colour_clip(tmp_path / "mute.mp4", "red")
    tone(tmp_path / "music.wav", MUSIC_HZ, -12)
    await run_job(tmp_path, "music-mix", ["mute.mp4"], "out.mp4", musicTrack="music.wav", **parameters)
    assert sound_in(tmp_path / "out.mp4").level_db(MUSIC_HZ, 0.5) == pytest.approx(music_db, abs=WITHIN_DB)


@pytest.mark.parametrize(("ducking", "lowered_db"), [(True, 12), (6, 6), (0, 0), (False, 0)])
async def test_ducked_music_gives_way_and_comes_back(both: Path, ducking: float, lowered_db: float) -> None:
    talking = "volume=1:enable=1,volume=0:enable='gt(t,1)'"
    ffmpeg("-i", both / "voice.wav", "-af", f"{talking},apad=whole_dur=3", both / "speech.wav")
    tone(both / "music.wav", MUSIC_HZ, -12, seconds=3)
    sound = await mixed(both, "speech.wav", ducking=ducking)
    assert sound.level_db(MUSIC_HZ, 0.6) == pytest.approx(-24 - lowered_db, abs=2)
    assert sound.level_db(MUSIC_HZ, 2.7) == pytest.approx(-24, abs=0.5)
    assert sound.level_db(VOICE_HZ, 0.6) == pytest.approx(-12, abs=WITHIN_DB)


@pytest.mark.parametrize("from_memory_s", [600, 0.3])
@pytest.mark.parametrize("is_looped", [True, False])
async def test_short_music_is_repeated_if_asked(
    both: Path, is_looped: bool, from_memory_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beeq.media.mix.REPEATED_FROM_MEMORY_S", from_memory_s)
    tone(both / "music.wav", MUSIC_HZ, -12, seconds=0.5)
    sound = await mixed(both, loop=is_looped)
    levels = [sound.level_db(MUSIC_HZ, second) for second in (0.1, 0.9, 1.7)]
    assert sound.length_s == pytest.approx(2, abs=0.001)
    assert levels[0] == pytest.approx(-24, abs=WITHIN_DB)
    if is_looped:
        assert levels[1:] == pytest.approx([-24, -24], abs=WITHIN_DB)
    else:
        assert max(levels[1:]) < -80


@pytest.mark.parametrize("music_s", [5, 1])
async def test_music_fades_in_and_fades_out_at_its_end(both: Path, music_s: float) -> None:
    tone(both / "music.wav", MUSIC_HZ, -12, seconds=music_s)
    sound = await mixed(both, fadeIn=0.4, fadeOut=0.4)
    end_s = min(music_s, 2)
    # Half of a linear fade, in the middle of the window.
    levels = [sound.level_db(MUSIC_HZ, second) for second in (0.1, end_s / 2 - 0.1, end_s - 0.3)]
    assert levels == pytest.approx([-30, -24, -30], abs=0.5)


@pytest.mark.parametrize("name", ["out.wav", "out.mp3", "out.m4a", "out.opus"])
@pytest.mark.parametrize("kind", ["tones", "squares"])
async def test_no_peak_of_a_mix_is_above_minus_one_db(tmp_path: Path, kind: str, name: str) -> None:
    wave = "sin(2*PI*{hz}*t)" if kind == "tones" else "(2*gt(sin(2*PI*{hz}*t),0)-1)"
    for file, hz in (("voice.wav", 1870), ("music.wav", 220)):
        source = f"aevalsrc='0.99*{wave.format(hz=hz)}':d=2:s=48000"
        ffmpeg("-f", "lavfi", "-i", source, tmp_path / file)
    await run_job(tmp_path, "music-mix", ["voice.wav"], name, musicTrack="music.wav", musicVolume=0)
    assert -6 < true_peak_db(tmp_path / name) <= -1


async def test_a_picture_stays_beside_its_sound_in_a_mix(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=2, tone_hz=VOICE_HZ)
    tone(tmp_path / "music.wav", MUSIC_HZ, -12, seconds=0.7)
    wishes = {"ducking": True, "loop": True, "fadeIn": 0.1, "fadeOut": 0.2}
    await run_job(tmp_path, "music-mix", ["1.mp4"], "out.mp4", musicTrack="music.wav", **wishes)
    assert near(colour_of(tmp_path / "out.mp4", 1.5), colour_of(tmp_path / "1.mp4", 1.5))
    lengths = picture_length_s(tmp_path / "out.mp4"), sound_in(tmp_path / "out.mp4").length_s
    assert lengths == pytest.approx((2, 2), abs=0.03)


async def joined(root: Path, sources: list[str], way: str) -> Sound:
    """Return the sound of files that were joined: as sounds, in a stitch, or as an assembly's master."""
    if way == "audio-stitch":
        await run_job(root, way, sources, "out.wav")
        return sound_in(root / "out.wav")
    if way == "video-stitch":
        for number, source in enumerate(sources):
            picture = ("-f", "lavfi", "-i", "color=red:s=64x48:r=10:d=1")
            ffmpeg(*picture, "-i", root / source, "-c:a", "copy", root / f"{number}.mkv")
        await run_job(root, way, [f"{number}.mkv" for number in range(len(sources))], "out.mp4")
        return sound_in(root / "out.mp4")
    colour_clip(root / "1.mp4", "red")
    job = FakeJob(sceneVideos=["1.mp4"], masterAudio=sources[0], outputFormats=["mp4"])
    await AssemblyProcessor(ProcessorSettings(media_root=root))(job)
    return sound_in(root / "job-1.mp4")


WAYS = ["audio-stitch", "video-stitch", "video-assembly"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_mono_sound_keeps_its_level_in_both_channels(tmp_path: Path, way: str) -> None:
    tone(tmp_path / "mono.wav", VOICE_HZ, -12, seconds=1, layout="mono")
    tone(tmp_path / "stereo.wav", VOICE_HZ, -12, seconds=1)
    sound = await joined(tmp_path, ["mono.wav", "stereo.wav"], way)
    seconds = (0.4,) if way == "video-assembly" else (0.4, 1.4)
    for second in seconds:
        levels = [sound.level_db(VOICE_HZ, second, channel) for channel in (0, 1)]
        assert levels == pytest.approx([-12, -12], abs=WITHIN_DB)


@pytest.mark.parametrize("layout", ["5.1", "7.1"])
@pytest.mark.parametrize("way", WAYS)
async def test_many_channels_at_full_level_do_not_clip(tmp_path: Path, way: str, layout: str) -> None:
    tone(tmp_path / "full.wav", VOICE_HZ, -1, seconds=1, layout=layout)
    sound = await joined(tmp_path, ["full.wav"], way)
    levels = [sound.level_db(VOICE_HZ, 0.4, channel) for channel in (0, 1)]
    assert levels == pytest.approx([-1, -1], abs=WITHIN_DB)
    # What has clipped has other tones too.
    assert sound.level_db(3 * VOICE_HZ, 0.4) < -60


async def test_each_front_channel_stays_on_its_side(tmp_path: Path) -> None:
    pan = "pan=5.1|c0=c0|c1=0*c0|c2=0*c0|c3=0*c0|c4=0*c0|c5=0*c0"
    ffmpeg("-f", "lavfi", "-i", f"sine=f={VOICE_HZ}:d=1,volume=4,{pan}", tmp_path / "left.wav")
    sound = await joined(tmp_path, ["left.wav"], "audio-stitch")
    assert sound.level_db(VOICE_HZ, 0.4, 0) > sound.level_db(VOICE_HZ, 0.4, 1) + 60


async def test_the_levels_are_those_of_any_ffmpeg(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    tone(both / "wide.wav", VOICE_HZ, -12, layout="5.1")
    found = list[list[float]]()
    for path in (find_ffmpeg(), bundled):
        monkeypatch.setattr("beeq.media.ffmpeg.find_ffmpeg", lambda path=path: path)
        sound = await mixed(both, "wide.wav", ducking=True)
        found.append([sound.level_db(hz, 1, channel) for hz in (VOICE_HZ, MUSIC_HZ) for channel in (0, 1)])
    assert found[0] == pytest.approx(found[1], abs=WITHIN_DB)
