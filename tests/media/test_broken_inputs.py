"""Inputs that hold less than they say, and what a job that gets one says of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beeq.errors import Discard
from tests.media.clips import H264, colour_clip, ffmpeg, run_job, sound_of, tree

pytestmark = pytest.mark.ffmpeg

KEY = (
    "-encryption_key",
    "76a6c65c5ea762046bd749a2e632ccbb",
    "-encryption_kid",
    "a7e61c373e219033c21091fa607bf3b8",
)
FRONT = ("-movflags", "+faststart")


def clip(root: Path, name: str = "clip.mp4") -> Path:
    return colour_clip(root / name, "red", tone_hz=700, options=(*H264, "-c:a", "aac", *FRONT))


def song(root: Path, name: str, seconds: float = 1, *options: str) -> Path:
    ffmpeg("-f", "lavfi", "-i", f"sine=f=500:d={seconds}:r=48000,volume=8", *options, root / name)
    return root / name


def zeroed(path: Path) -> None:
    """Fill the packets of an MP4 with zeros."""
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    path.write_bytes(content[:begin] + bytes(len(content) - begin))


def cut(path: Path, share: float) -> None:
    os.truncate(path, round(path.stat().st_size * share))


def encrypted(path: Path) -> None:
    plain = path.rename(path.with_name(f"plain-{path.name}"))
    ffmpeg("-i", plain, "-c", "copy", "-encryption_scheme", "cenc-aes-ctr", *KEY, path)


def only_head(path: Path) -> None:
    content = path.read_bytes()
    os.truncate(path, content.index(b"mdat") + 204)


def without_packets(path: Path) -> None:
    """Empty the tables of an MP4's sound, the last of its tracks."""
    content = bytearray(path.read_bytes())
    begin = content.index(b"soun", content.index(b"moov"))
    for table, count in ((b"stts", 8), (b"stsc", 8), (b"stco", 8), (b"stsz", 12)):
        place = content.index(table, begin) + count
        content[place : place + 4] = bytes(4)
    path.write_bytes(content)


HOLLOW = {"zeroed": zeroed, "encrypted": encrypted, "cut behind the head": only_head}
REASONS = {
    "zeroed": "holds nothing",
    "encrypted": "it is encrypted",
    "cut behind the head": "is missing: the last",
}


@pytest.mark.parametrize("kind", HOLLOW)
async def test_music_that_holds_nothing_fails_for_good(tmp_path: Path, kind: str) -> None:
    clip(tmp_path)
    HOLLOW[kind](song(tmp_path, "music.m4a", 1, *FRONT))
    with pytest.raises(Discard, match=rf"'music\.m4a'.*{REASONS[kind]}"):
        await run_job(tmp_path, "music-mix", ["clip.mp4"], "out.mp4", musicTrack="music.m4a")
    assert "out.mp4" not in tree(tmp_path)


@pytest.mark.parametrize("kind", HOLLOW)
@pytest.mark.parametrize(
    ("job_type", "output"),
    [("video-stitch", "out.mp4"), ("audio-stitch", "out.wav"), ("frame-extract", "out.png")],
)
async def test_a_clip_that_holds_nothing_fails_for_good(
    tmp_path: Path, kind: str, job_type: str, output: str
) -> None:
    HOLLOW[kind](clip(tmp_path))
    with pytest.raises(Discard, match=rf"'clip\.mp4'.*{REASONS[kind]}"):
        await run_job(tmp_path, job_type, ["clip.mp4"], output)


async def test_a_track_without_packets_counts_as_silence(tmp_path: Path) -> None:
    without_packets(clip(tmp_path))
    song(tmp_path, "music.wav")
    await run_job(tmp_path, "music-mix", ["clip.mp4"], "out.mp4", musicTrack="music.wav")
    assert len(sound_of(tmp_path / "out.mp4")) == pytest.approx(48_000, abs=3000)
    with pytest.raises(Discard, match=r"the sound of 'clip\.mp4' cannot be decoded: its track holds nothing"):
        await run_job(tmp_path, "audio-stitch", ["clip.mp4"], "out.wav")


CONTAINERS = {
    "clip.mp4": (*H264, "-c:a", "aac", *FRONT),
    "end.mp4": (*H264, "-c:a", "aac"),
    "parts.mp4": (*H264, "-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov", "-g", "2"),
    "clip.mkv": (*H264, "-c:a", "aac"),
    "clip.webm": ("-c:v", "libvpx", "-c:a", "libvorbis"),
    "clip.ts": (*H264, "-c:a", "aac"),
    "clip.avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
    "clip.flv": ("-c:v", "flv", "-c:a", "mp3", "-ar", "44100"),
}


@pytest.mark.parametrize("name", CONTAINERS)
async def test_a_film_that_broke_off_is_named_with_what_is_missing(tmp_path: Path, name: str) -> None:
    colour_clip(tmp_path / "first.mp4", "lime")
    colour_clip(tmp_path / name, "red", tone_hz=700, options=CONTAINERS[name])
    await run_job(tmp_path, "video-stitch", ["first.mp4", name], "out.mp4")
    cut(tmp_path / name, 0.61)
    with pytest.raises(Discard, match=rf"a part of '{name}' is missing: (the last \d+ of \d+ bytes|its)"):
        await run_job(tmp_path, "video-stitch", ["first.mp4", name], "out.mp4")


@pytest.mark.parametrize(
    "name", ["a.mp3", "a.wav", "a.ogg", "a.opus", "a.flac", "a.aac", "a.m4a", "a.aiff", "a.mka"]
)
async def test_a_sound_that_broke_off_is_named_and_may_be_allowed(tmp_path: Path, name: str) -> None:
    song(tmp_path, name, 3, *(FRONT if name.endswith("m4a") else ()))
    await run_job(tmp_path, "audio-stitch", [name], "out.wav")
    cut(tmp_path / name, 0.6)
    with pytest.raises(Discard, match=rf"a part of '{name}' is missing"):
        await run_job(tmp_path, "audio-stitch", [name], "out.wav")
    facts = await run_job(tmp_path, "audio-stitch", [name], "out.wav", allowBroken=True)
    assert 0.5 < facts["duration"] < 2.6


async def test_a_film_whose_end_is_zeros_lacks_a_part(tmp_path: Path) -> None:
    path = clip(tmp_path)
    size = path.stat().st_size
    cut(path, 0.7)
    os.truncate(path, size)
    with pytest.raises(Discard, match=r"a part of 'clip\.mp4' is missing: \d+ of .* zeros"):
        await run_job(tmp_path, "audio-stitch", ["clip.mp4"], "out.wav")


async def test_an_unfinished_recording_is_whole(tmp_path: Path) -> None:
    colour_clip(tmp_path / "clip.mkv", "red", tone_hz=700, options=(*H264, "-live", "1"))
    song(tmp_path, "pipe.wav")
    content = bytearray((tmp_path / "pipe.wav").read_bytes())
    content[4:8] = content[content.index(b"data") + 4 : content.index(b"data") + 8] = b"\xff" * 4
    (tmp_path / "pipe.wav").write_bytes(content)
    facts = await run_job(tmp_path, "audio-stitch", ["clip.mkv", "pipe.wav"], "out.wav")
    assert facts["duration"] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("suffix", ["mp3", "aac", "flac"])
@pytest.mark.parametrize("kind", ["zeros", "bytes", "two tags", "tags and zeros"])
async def test_a_sound_is_found_behind_what_stands_before_it(tmp_path: Path, suffix: str, kind: str) -> None:
    tag = b"ID3\x03\x00\x00\x00\x00\x01\x00" + bytes(128)
    front = {
        "zeros": bytes(4000),
        "bytes": bytes(range(1, 200)) * 5 + b"\xff\xfb\x90",
        "two tags": tag + tag,
        "tags and zeros": tag + bytes(700) + tag + bytes(33),
    }[kind]
    sound = song(tmp_path, f"plain.{suffix}", 1).read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(front + sound)
    facts = await run_job(tmp_path, "audio-stitch", [f"a.{suffix}"], "out.wav")
    assert facts["duration"] == pytest.approx(1, abs=0.06)


async def test_the_broken_one_of_many_is_named_once(tmp_path: Path) -> None:
    names = [f"{number}.mp4" for number in range(1, 7)]
    for name in names:
        colour_clip(tmp_path / name, "red", seconds=0.3)
    encrypted(tmp_path / "5.mp4")
    with pytest.raises(Discard) as failed:
        await run_job(tmp_path, "video-stitch", names, "out.mp4")
    assert str(failed.value) == "'5.mp4' cannot be decoded: it is encrypted"


async def test_broken_tables_and_noise_fail_for_good(tmp_path: Path) -> None:
    content = bytearray(clip(tmp_path).read_bytes())
    begin = content.index(b"stsd")
    content[begin : begin + 400] = os.urandom(400)
    (tmp_path / "tables.mp4").write_bytes(content)
    (tmp_path / "noise.mp4").write_bytes(b"\0\0\0\x18ftypisom" + os.urandom(3000))
    for name in ("tables.mp4", "noise.mp4"):
        with pytest.raises(Discard, match=name):
            await run_job(tmp_path, "frame-extract", [name], "out.png")
