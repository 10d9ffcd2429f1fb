"""A provider's video is a stranger's file: the media limits hold for it, and no text in it is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from beeq.errors import Discard
from beeq.media import ffmpeg as ffmpeg_module
from beeq.media.errors import MediaFailed
from beeq.media.limits import MediaLimits
from tests.ai.server import AIServer, Make, ai_job, content, video
from tests.media.clips import colour_clip, ffmpeg, tree
from tests.media.forgeries import tagged

pytestmark = pytest.mark.ffmpeg

#: In a tag's name: a line of ffmpeg's log.
FORGED = "A\n  Duration: 99:00:00.00, X"


def give(server: AIServer, file: bytes) -> None:
    """Have the provider make a video with this content."""
    server.on("POST /v1/videos", video("completed"))
    server.on("GET /v1/videos/v1/content", content(file))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (MediaLimits(max_seconds=0.5), r"is 1 s long; the limit is 0\.5 s \(BEEQ_MEDIA_MAX_SECONDS\)"),
        (MediaLimits(max_picture=(32, 32)), r"the limit is 32x32 \(BEEQ_MEDIA_MAX_PICTURE\)"),
        (MediaLimits(max_megapixels=0.001), r"the limit is 0\.001 megapixels \(BEEQ_MEDIA_MAX_MEGAPIXELS\)"),
        (MediaLimits(max_streams=1), r"the limit is 1 \(BEEQ_MEDIA_MAX_STREAMS\)"),
        (MediaLimits(max_gap_s=0.01), r"the limit is 0\.01 s \(BEEQ_MEDIA_MAX_GAP_S\)"),
    ],
)
async def test_a_video_beyond_a_limit_fails_its_job(
    server: AIServer, make: Make, tmp_path: Path, limits: MediaLimits, reason: str
) -> None:
    clip = colour_clip(tmp_path / "clip.mp4", "lime", tone_hz=440)
    give(server, clip.read_bytes())
    clip.unlink()
    with pytest.raises(Discard, match=reason):
        await make(media_limits=limits)(ai_job("video"))
    assert tree(tmp_path) == {}


def script(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a program in ffmpeg's place."""
    path.write_text(f'#!/bin/sh\n[ "$*" = -version ] && exit\n{text}\n')
    path.chmod(0o755)
    monkeypatch.setattr(ffmpeg_module, "find_ffmpeg", lambda: str(path))


async def test_an_ffmpeg_that_stands_still_on_a_video_is_ended(
    server: AIServer, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(server, colour_clip(tmp_path / "clip.mp4", "lime").read_bytes())
    script(tmp_path / "ffmpeg", monkeypatch, "exec sleep 600")
    with pytest.raises(MediaFailed, match=r"not advanced for 0\.5 s \(BEEQ_MEDIA_STALL_S\)"):
        await make(media_limits=MediaLimits(stall_s=0.5))(ai_job("video"))


async def test_a_video_is_read_with_the_threads_that_are_set(
    server: AIServer, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(server, colour_clip(tmp_path / "clip.mp4", "lime").read_bytes())
    # What it writes to its standard error is a complaint.
    script(tmp_path / "ffmpeg", monkeypatch, 'echo "$*" >&2; exit 1')
    limits = MediaLimits(threads=3, max_alloc_mb=7)
    with pytest.raises(MediaFailed) as failed:
        await make(media_limits=limits)(ai_job("video"))
    assert f"-max_alloc {7 << 20} -filter_threads 3" in str(failed.value)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
async def test_no_tag_of_a_video_becomes_its_length(
    server: AIServer, make: Make, tmp_path: Path, suffix: str
) -> None:
    codec = ("-c:v", "libvpx") if suffix == "webm" else ("-c:v", "libx264", "-preset", "ultrafast")
    plain = colour_clip(tmp_path / f"plain.{suffix}", "lime", options=codec)
    if suffix == "mp4":
        forged = tagged(plain, tmp_path / "forged.mp4", "-movflags", "use_metadata_tags").read_bytes()
    else:
        name = "K" * len(FORGED)
        ffmpeg("-i", plain, "-c", "copy", "-metadata", f"{name}=1", tmp_path / f"forged.{suffix}")
        forged = (tmp_path / f"forged.{suffix}").read_bytes().replace(name.encode(), FORGED.encode())
        assert FORGED.encode() in forged
    give(server, forged)
    result = await make()(ai_job("video"))
    assert result["duration"] == pytest.approx(1.0, abs=0.05)
    assert [stream["type"] for stream in result["streams"]] == ["video"]


async def test_a_video_without_a_length_of_its_own_is_measured(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    plain = colour_clip(tmp_path / "plain.mkv", "lime")
    give(server, ffmpeg("-i", plain, "-c", "copy", "-f", "matroska", "-"))
    assert (await make()(ai_job("video")))["duration"] == pytest.approx(1.0, abs=0.05)
