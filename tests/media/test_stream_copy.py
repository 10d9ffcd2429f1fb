"""Clips that are alike are joined without encoding their pictures again; all others are not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from beeq.media import stream_copy
from beeq.media.stream_copy import StreamCopy
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import AssemblyProcessor
from tests.media.clips import (
    FakeJob,
    colour_at,
    colour_clip,
    ffmpeg,
    frame_count,
    run_job,
    sound_of,
    tone_at,
    tree,
    turned,
    varying_clip,
)

pytestmark = pytest.mark.ffmpeg

#: Pictures out of order, as encoders make them by default.
DESCRIBED = "h264_metadata=colour_primaries=1:transfer_characteristics=1:matrix_coefficients=1:video_full_range_flag=0"
REORDERED = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-bsf:v", DESCRIBED)


@pytest.fixture(autouse=True)
def copies(monkeypatch: pytest.MonkeyPatch) -> list[StreamCopy]:
    """What was joined without encoding it."""
    made: list[StreamCopy] = []
    copied = StreamCopy.copied

    def watched(self: StreamCopy, number: int) -> list[str]:
        made.append(self)
        return copied(self, number)

    monkeypatch.setattr(StreamCopy, "copied", watched)
    return made


def moving_clip(
    path: Path, number: int, *, rate: str = "10", hz: int | None = None, frames: int = 10
) -> Path:
    """Make a clip whose pictures all differ, with a tone or mute."""
    source = f"testsrc2=s=64x48:r={rate},hue=h={40 * number},trim=end_frame={frames}"
    # Each ends by its own source: versions differ in where "-shortest" and "-frames:v" cut a sound.
    tone = f"sine=f={hz}:r=48000:d={float(frames / Fraction(rate)):.6f},volume=8"
    sound = ["-f", "lavfi", "-i", tone] if hz else []
    ffmpeg("-f", "lavfi", "-i", source, *sound, *REORDERED, path)
    return path


def pictures(path: Path) -> list[bytes]:
    """Return a checksum of each picture, decoded."""
    log = ffmpeg("-i", path, "-map", "0:v", "-f", "framemd5", "-")
    return [line.rpartition(b",")[2].strip() for line in log.splitlines() if not line.startswith(b"#")]


def times(path: Path) -> list[float]:
    """Return when each picture is shown, in seconds."""
    log = ffmpeg("-i", path, "-map", "0:v", "-c", "copy", "-f", "framecrc", "-").decode().splitlines()
    (base,) = [line.split()[-1] for line in log if line.startswith("#tb 0:")]
    ticks = sorted(int(line.split(",")[2]) for line in log if not line.startswith("#"))
    return [tick * int(base.split("/")[0]) / int(base.split("/")[1]) for tick in ticks]


@pytest.mark.parametrize("tones", [(400, 900, 600), (None, 900, None), (None, None, None)])
@pytest.mark.parametrize(("rate", "fps", "output"), [("10", 10, "o.mp4"), ("30000/1001", 29.97, "o.mov")])
async def test_alike_clips_are_joined_picture_by_picture_as_they_are(
    tmp_path: Path,
    copies: list[StreamCopy],
    tones: tuple[int | None, ...],
    rate: str,
    fps: float,
    output: str,
) -> None:
    names = [f"{number}.mp4" for number in range(3)]
    frames = round(fps)
    for number, name in enumerate(names):
        moving_clip(tmp_path / name, number, rate=rate, hz=tones[number], frames=frames)
    facts = await run_job(tmp_path, "video-stitch", names, output)
    assert len(copies) == 1
    film = tmp_path / output
    assert pictures(film) == [picture for name in names for picture in pictures(tmp_path / name)]
    exact_fps = frames / (1.001 if "/" in rate else 1)
    assert times(film) == pytest.approx([number / exact_fps for number in range(3 * frames)], abs=1e-6)
    assert facts["duration"] == pytest.approx(3 * frames / exact_fps, abs=0.02)
    assert facts["streams"][0] == {"type": "video", "codec": "h264", "width": 64, "height": 48, "fps": fps}
    if any(tones):
        samples = sound_of(film)
        assert [tone_at(samples, second) for second in (0.4, 1.4, 2.4)] == [tone or 0 for tone in tones]
        assert len(samples) / 48_000 == pytest.approx(3 * frames / exact_fps, abs=0.022)
    else:
        assert len(facts["streams"]) == 1
    assert tree(tmp_path).keys() == {*names, output}


@pytest.mark.external
async def test_many_alike_clips_keep_sound_and_picture_together(
    tmp_path: Path, copies: list[StreamCopy]
) -> None:
    ntsc = "s=64x48:r=30000/1001,trim=end_frame=9"
    ffmpeg("-f", "lavfi", "-i", f"color=red:{ntsc}", *REORDERED, tmp_path / "mute.mp4")
    tone = ("-f", "lavfi", "-i", "sine=f=700:d=0.3003,volume=8")
    ffmpeg("-f", "lavfi", "-i", f"color=blue:{ntsc}", *tone, *REORDERED, tmp_path / "loud.mp4")
    await run_job(tmp_path, "video-stitch", ["mute.mp4", "mute.mp4", "loud.mp4"] * 6, "o.mp4")
    assert len(copies) == 1
    film = tmp_path / "o.mp4"
    (length_s,) = {count * 1.001 / 30 for count in copies[0].counts}
    samples = sound_of(film)
    for number in (2, 17):
        begin_s = number * length_s
        assert [colour_at(film, begin_s + shift_s) for shift_s in (-0.05, 0.05)] == ["red", "blue"]
        heard = [
            max(map(abs, samples[round(second * 48_000) :][:480])) > 3000
            for second in (begin_s - 0.04, begin_s + 0.04)
        ]
        assert heard == [False, True]


async def test_a_copy_begins_for_players_and_has_no_titles(tmp_path: Path, copies: list[StreamCopy]) -> None:
    titled = ("-metadata", "title=not for everyone", "-metadata:s:v", "handler_name=not either")
    ffmpeg("-f", "lavfi", "-i", "color=red:s=32x32:d=0.3", *REORDERED, *titled, tmp_path / "1.mp4")
    await run_job(tmp_path, "video-stitch", ["1.mp4", "1.mp4"], "out.mp4")
    content = (tmp_path / "out.mp4").read_bytes()
    assert len(copies) == 1
    assert b"not" not in content.replace(b"options", b"")
    assert content.index(b"moov") < content.index(b"mdat")


async def test_sources_of_a_quicktime_file_and_an_mp4_may_be_mixed(
    tmp_path: Path, copies: list[StreamCopy]
) -> None:
    moving_clip(tmp_path / "1.mp4", 1)
    ffmpeg("-i", tmp_path / "1.mp4", "-c", "copy", tmp_path / "2.mov")
    await run_job(tmp_path, "video-stitch", ["1.mp4", "2.mov"], "out.mp4")
    assert len(copies) == 1
    assert pictures(tmp_path / "out.mp4") == pictures(tmp_path / "1.mp4") * 2


PLAIN = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=1")
#: How clips are made that differ from ``moving_clip`` in one thing.
ENCODED: dict[str, tuple[str, ...]] = {
    "size": ("-f", "lavfi", "-i", "testsrc2=s=96x32:r=10:d=1", *REORDERED),
    "rate": ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=20:d=1", *REORDERED),
    "profile": (*PLAIN, *REORDERED, "-profile:v", "baseline"),
    "references": (*PLAIN, *REORDERED, "-x264-params", "ref=1:bframes=0:weightp=0"),
    "pixels": (*PLAIN, *REORDERED, "-pix_fmt", "yuv422p"),
    "aspect": (*PLAIN, *REORDERED, "-vf", "setsar=2/1"),
    "colours": (*PLAIN, *REORDERED, "-bsf:v", "h264_metadata=matrix_coefficients=6"),
    "codec": (*PLAIN, "-c:v", "mpeg4"),
}
#: What is done to one that does not.
SOURCE = ("-i", "plain.mp4")
CHANGED: dict[str, tuple[str, ...]] = {
    "long sound": (
        *SOURCE,
        "-f",
        "lavfi",
        "-i",
        "sine=f=500:d=2",
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c:v",
        "copy",
    ),
    "late": ("-itsoffset", "1", *SOURCE, *SOURCE, "-map", "0:v", "-map", "1:a", "-c", "copy"),
    "streams": (*SOURCE, "-c", "copy", "-map", "0:a", "-map", "0:v"),
    # Where no picture can be decoded alone: the file says to leave out what comes before.
    "cut": ("-ss", "0.5", *SOURCE, "-c", "copy"),
}
#: How many tenths of a second they last, where that is not a second.
TENTHS = {"long sound": 20, "late": 20, "cut": 5}


@pytest.mark.parametrize("first", ["the plain clip first", "the odd clip first"])
@pytest.mark.parametrize("oddity", [*ENCODED, *CHANGED, "container", "upside down"])
async def test_a_clip_that_differs_in_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[StreamCopy], oddity: str, first: str
) -> None:
    monkeypatch.chdir(tmp_path)
    moving_clip(tmp_path / "1.mp4", 1, hz=400)
    moving_clip(tmp_path / "plain.mp4", 5, hz=500)
    odd = "odd.mkv" if oddity == "container" else "odd.mp4"
    if oddity == "upside down":
        turned(tmp_path / "plain.mp4", tmp_path / odd, degrees=180)
    else:
        ffmpeg(*(ENCODED | CHANGED | {"container": (*SOURCE, "-c", "copy")})[oddity], odd)
    clips = ["1.mp4", odd] if first == "the plain clip first" else [odd, "1.mp4"]
    facts = await run_job(tmp_path, "video-stitch", clips, "out.mp4")
    assert copies == []
    tenths = TENTHS.get(oddity, 10) + 10
    assert facts["duration"] == pytest.approx(tenths / 10, abs=0.15)
    frames = tenths * (2 if oddity == "rate" else 1)
    assert frame_count(tmp_path / "out.mp4") == pytest.approx(frames, abs=1)


async def test_a_clip_of_varying_rate_is_decoded(tmp_path: Path, copies: list[StreamCopy]) -> None:
    moving = "testsrc2=s=64x48:r=10:d=1,settb=1/1000,setpts='if(lt(N,5),N*100,N*150-250)'"
    varying_clip(tmp_path / "1.mp4", moving, *REORDERED)
    await run_job(tmp_path, "video-stitch", ["1.mp4", "1.mp4"], "out.mp4")
    assert copies == []
    steps = {
        round(b - a, 4)
        for a, b in zip(times(tmp_path / "out.mp4"), times(tmp_path / "out.mp4")[1:], strict=False)
    }
    assert len(steps) == 1


async def test_a_clip_whose_end_is_missing_is_decoded(tmp_path: Path, copies: list[StreamCopy]) -> None:
    noise = "nullsrc=s=128x96:r=10:d=4,geq=random(1)*255:128:128"
    ffmpeg("-f", "lavfi", "-i", noise, *REORDERED, "-g", "10", "-movflags", "+faststart", tmp_path / "1.mp4")
    content = (tmp_path / "1.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    await run_job(tmp_path, "video-stitch", ["cut.mp4", "1.mp4"], "out.mp4", allowBroken=True)
    assert copies == []
    assert 50 < frame_count(tmp_path / "out.mp4") < 75


@pytest.mark.parametrize("output", ["out.webm", "out.mkv"])
async def test_what_another_kind_of_container_gets_is_encoded(
    tmp_path: Path, copies: list[StreamCopy], output: str
) -> None:
    moving_clip(tmp_path / "1.mp4", 1)
    await run_job(tmp_path, "video-stitch", ["1.mp4", "1.mp4"], output)
    assert (copies, frame_count(tmp_path / output)) == ([], 20)


@pytest.mark.parametrize("fault", ["ffmpeg fails", "pictures are missing"])
@pytest.mark.parametrize("kind", ["stitch", "assembly"])
async def test_a_copy_that_comes_out_wrong_is_replaced_by_an_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[StreamCopy], fault: str, kind: str
) -> None:
    moving_clip(tmp_path / "1.mp4", 1, hz=400)
    moving_clip(tmp_path / "2.mp4", 2, hz=900)
    if fault == "ffmpeg fails":
        monkeypatch.setattr(stream_copy, "_FROM_ZERO", "nonsense")
    else:
        script = StreamCopy.script
        monkeypatch.setattr(StreamCopy, "script", lambda self, urls: script(self, urls).rpartition("file")[0])
    if kind == "stitch":
        await run_job(tmp_path, "video-stitch", ["1.mp4", "2.mp4"], "job-1.mp4")
    else:
        await assemble(tmp_path, ["1.mp4", "2.mp4"], "1.mp4", ["mp4", "mov"])
    film = tmp_path / "job-1.mp4"
    assert len(copies) == 1
    assert frame_count(film) == 20
    assert pictures(film) != pictures(tmp_path / "1.mp4") + pictures(tmp_path / "2.mp4")
    assert tone_at(sound_of(film), 0.4) == 400


async def assemble(root: Path, scenes: list[str], master: str, formats: list[str]) -> Any:
    job = FakeJob(sceneVideos=scenes, masterAudio=master, outputFormats=formats)
    return await AssemblyProcessor(ProcessorSettings(media_root=root))(job)


@pytest.mark.parametrize("formats", [["mp4"], ["mp4", "mov"], ["webm", "mp4", "mov"]])
async def test_alike_scenes_are_copied_where_the_container_allows(
    tmp_path: Path, copies: list[StreamCopy], formats: list[str]
) -> None:
    for number, colour in enumerate(("red", "blue")):
        colour_clip(tmp_path / f"{number}.mp4", colour, tone_hz=400, options=REORDERED)
    ffmpeg("-f", "lavfi", "-i", "sine=f=700:d=1.5,volume=8", tmp_path / "master.wav")
    facts = await assemble(tmp_path, ["0.mp4", "1.mp4"], "master.wav", formats)
    assert len(copies) == 1
    expected = pictures(tmp_path / "0.mp4") + pictures(tmp_path / "1.mp4")
    for name in formats:
        film = tmp_path / f"job-1.{name}"
        if name != "webm":
            assert pictures(film) == expected
        assert frame_count(film) == 20
        assert [colour_at(film, second) for second in (0.5, 1.5)] == ["red", "blue"]
        assert [tone_at(sound_of(film), second) for second in (0.4, 1.2, 1.7)] == [700, 700, 0]
        assert facts[name]["duration"] == pytest.approx(2, abs=0.03)
