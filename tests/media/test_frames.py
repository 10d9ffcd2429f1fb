"""``frame-extract`` on real clips, judged by decoding what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from beeq.errors import Discard
from tests.media.clips import (
    FakeJob,
    colour_at,
    colour_clip,
    ffmpeg,
    run_job,
    tree,
    turned,
    varying_clip,
)

pytestmark = pytest.mark.ffmpeg

VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")


async def last_colour(root: Path, clip: str) -> str:
    await run_job(root, "frame-extract", [clip], "last.png")
    return colour_at(root / "last.png")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv", "clip.ts", "clip.avi", "clip.h264"])
async def test_the_last_picture_is_taken_from_every_container(tmp_path: Path, name: str) -> None:
    colour_clip(tmp_path / name, "red", last="blue", seconds=2)
    assert await last_colour(tmp_path, name) == "blue"


@pytest.mark.parametrize(("fps", "seconds"), [("10", 0.1), ("30000/1001", 1), ("1", 3), ("50", 0.5)])
async def test_the_last_picture_is_taken_at_any_rate_and_length(
    tmp_path: Path, fps: str, seconds: float
) -> None:
    frames = max(1, round(seconds * (29.97 if "/" in fps else float(fps))))
    colours = f"color=red:s=64x48:r={fps},drawbox=color=blue:t=fill:enable='gte(n,{frames - 1})'"
    ffmpeg("-f", "lavfi", "-i", colours, "-frames:v", str(frames), tmp_path / "clip.mp4")
    assert await last_colour(tmp_path, "clip.mp4") == "blue"


async def test_the_last_picture_after_a_single_key_frame_is_right(tmp_path: Path) -> None:
    # A transport stream has no index: a window at its end holds nothing that can be decoded alone.
    # This decoder would make something up all the same.
    one_key = ("-c:v", "mpeg4", "-q:v", "3", "-g", "600", "-sc_threshold", "1000000000")
    moving = "testsrc2=s=64x48:r=10:d=40,drawbox=color=blue:t=fill:w=32:enable='gte(n,399)'"
    ffmpeg("-f", "lavfi", "-i", moving, *one_key, tmp_path / "clip.ts")
    await run_job(tmp_path, "frame-extract", ["clip.ts"], "last.png")
    whole = ffmpeg("-i", tmp_path / "clip.ts", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")[-64 * 48 * 3 :]
    taken = ffmpeg("-i", tmp_path / "last.png", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    assert sum(abs(a - b) for a, b in zip(whole, taken, strict=True)) / len(whole) < 4


async def test_longer_sound_does_not_hide_the_last_picture(tmp_path: Path) -> None:
    colour_clip(tmp_path / "clip.mp4", "red", last="blue", tone_hz=440, tone_s=30)
    assert await last_colour(tmp_path, "clip.mp4") == "blue"


async def test_a_clip_of_unknown_length_gives_its_last_picture(tmp_path: Path) -> None:
    # Written to a pipe, as a browser's recorder does: no duration, no index.
    source = "color=red:s=64x48:r=5:d=12,drawbox=color=blue:t=fill:enable='gte(n,59)'"
    (tmp_path / "clip.webm").write_bytes(ffmpeg("-f", "lavfi", "-i", source, *VP9, "-f", "webm", "-"))
    assert await last_colour(tmp_path, "clip.webm") == "blue"


async def test_a_clip_of_varying_rate_gives_its_last_picture(tmp_path: Path) -> None:
    source = (
        "color=red:s=64x48:r=10:d=6,drawbox=color=blue:t=fill:enable='gte(n,59)',select='lt(n,10)+eq(n,59)'"
    )
    varying_clip(tmp_path / "clip.mp4", source)
    assert await last_colour(tmp_path, "clip.mp4") == "blue"


async def test_a_truncated_clip_gives_the_last_picture_that_is_there(tmp_path: Path) -> None:
    noise = "nullsrc=s=128x96:r=10:d=20,geq=random(1)*255:128:128,drawbox=color=red:t=fill:x=64"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        noise,
        "-pix_fmt",
        "yuv420p",
        "-g",
        "10",
        "-movflags",
        "+faststart",
        tmp_path / "whole.mp4",
    )
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 3])
    await run_job(tmp_path, "frame-extract", ["cut.mp4"], "last.png", allowBroken=True)
    assert colour_at(tmp_path / "last.png", region="32:96:80:0") == "red"


async def test_a_turned_clip_gives_a_picture_as_it_is_seen(tmp_path: Path) -> None:
    colour_clip(tmp_path / "lying.mp4", "red", size="64x32")
    turned(tmp_path / "lying.mp4", tmp_path / "clip.mp4", degrees=90)
    facts = await run_job(tmp_path, "frame-extract", ["clip.mp4"], "last.png")
    assert (facts["width"], facts["height"]) == (32, 64)


async def test_pixels_that_are_not_square_give_a_picture_as_it_is_seen(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=red:s=60x40:d=1,setsar=2/1", tmp_path / "clip.mp4")
    facts = await run_job(tmp_path, "frame-extract", ["clip.mp4"], "last.png")
    assert (facts["width"], facts["height"]) == (120, 40)


@pytest.mark.parametrize(
    ("name", "magic"),
    [("a.png", b"\x89PNG"), ("a.jpg", b"\xff\xd8"), ("a.JPEG", b"\xff\xd8"), ("a.webp", b"RIFF")],
)
async def test_the_suffix_chooses_the_format_of_the_picture(tmp_path: Path, name: str, magic: bytes) -> None:
    colour_clip(tmp_path / "clip.mp4", "red")
    facts = await run_job(tmp_path, "frame-extract", ["clip.mp4"], f"new/folder/{name}")
    content = (tmp_path / "new/folder" / name).read_bytes()
    assert content.startswith(magic)
    assert facts == {"path": f"new/folder/{name}", "bytes": len(content), "width": 64, "height": 48}


@pytest.mark.parametrize(
    "name", ["%d.png", "-y.png", "a:b.png", "concat:x.png", "*?[1].png", "ü 🎬.png", "'; #.png"]
)
async def test_odd_names_are_just_names(tmp_path: Path, name: str) -> None:
    clip = f"clip {name.removesuffix('.png')}.mp4"
    colour_clip(tmp_path / "plain.mp4", "red").rename(tmp_path / clip)
    await run_job(tmp_path, "frame-extract", [clip], name)
    assert set(tree(tmp_path)) == {clip, name}


async def test_progress_rises_from_0_to_100(tmp_path: Path) -> None:
    from beeq.processors.base import ProcessorSettings
    from beeq.processors.media import MediaProcessor

    colour_clip(tmp_path / "clip.mp4", "red")
    job = FakeJob(type="frame-extract", inputFiles=["clip.mp4"], outputPath="last.png")
    await MediaProcessor(ProcessorSettings(media_root=tmp_path))(job)
    assert job.reports == sorted(set(job.reports))
    assert (job.reports[0], job.reports[-1]) == (0, 100)


async def test_a_file_without_a_picture_is_discarded(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "sound.wav")
    with pytest.raises(Discard, match=r"'sound\.wav' has no picture"):
        await run_job(tmp_path, "frame-extract", ["sound.wav"], "last.png")


async def test_a_cover_is_no_picture_of_a_video(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=red:s=16x16", "-frames:v", "1", tmp_path / "cover.png")
    covered = ("-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic")
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", "-i", tmp_path / "cover.png", *covered, tmp_path / "song.m4a")
    with pytest.raises(Discard, match="no picture"):
        await run_job(tmp_path, "frame-extract", ["song.m4a"], "last.png")


async def test_a_damaged_file_fails_named_and_leaves_the_old_picture(tmp_path: Path) -> None:
    colour_clip(tmp_path / "clip.mp4", "red")
    (tmp_path / "bad.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes()[:600])
    (tmp_path / "last.png").write_bytes(b"old")
    with pytest.raises(Discard, match=r"a part of 'bad\.mp4' is missing") as failed:
        await run_job(tmp_path, "frame-extract", ["bad.mp4"], "last.png")
    assert str(tmp_path) not in str(failed.value)
    assert set(tree(tmp_path)) == {"clip.mp4", "bad.mp4", "last.png"}
    assert (tmp_path / "last.png").read_bytes() == b"old"
