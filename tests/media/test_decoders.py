"""What is decoded: what cameras, phones, browsers, editors and speech programs write, and nothing else."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import pytest

from beeq.errors import Discard
from beeq.media.ffmpeg import Run, find_ffmpeg
from beeq.media.formats import DECODERS
from beeq.media.inputs.examine import examine
from beeq.media.inputs.facts import Facts
from beeq.media.logs.complaints import Complaint
from beeq.media.paths import MediaRoot
from tests.media.clips import FFMPEG, ffmpeg, run_job

pytestmark = pytest.mark.ffmpeg

PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=0.2")
SOUND = ("-f", "lavfi", "-i", "sine=f=500:r=48000:d=0.4")
PICTURES = {
    "h264": ("a.mp4", "libx264"), "hevc": ("a.mp4", "libx265"), "av1": ("a.mp4", "libaom-av1"),
    "vp8": ("a.webm", "libvpx"), "vp9": ("a.webm", "libvpx-vp9"), "theora": ("a.ogg", "libtheora"),
    "mpeg1video": ("a.mpg", "mpeg1video"), "mpeg2video": ("a.ts", "mpeg2video"), "mpeg4": ("a.avi", "mpeg4"),
    "msmpeg4v3": ("a.avi", "msmpeg4"), "h263": ("a.mov", "h263"), "flv1": ("a.flv", "flv"),
    "wmv2": ("a.asf", "wmv2"), "mjpeg": ("a.mov", "mjpeg"), "prores": ("a.mov", "prores_ks"),
    "qtrle": ("a.mov", "qtrle"), "ffv1": ("a.mkv", "ffv1"), "huffyuv": ("a.avi", "huffyuv"),
    "rawvideo": ("a.mkv", "rawvideo"), "cfhd": ("a.mov", "cfhd"), "png": ("a.png", "png"), "gif": ("a.gif", "gif"),
    "webp": ("a.webp", "libwebp"), "bmp": ("a.bmp", "bmp"),
}  # fmt: skip
SOUNDS = {
    "aac": ("a.m4a", "aac"), "mp3": ("a.mp3", "libmp3lame"), "mp2": ("a.ts", "mp2"), "opus": ("a.ogg", "libopus"),
    "vorbis": ("a.ogg", "libvorbis"), "flac": ("a.flac", "flac"), "alac": ("a.m4a", "alac"), "ac3": ("a.mkv", "ac3"),
    "eac3": ("a.mkv", "eac3"), "wmav2": ("a.asf", "wmav2"), "wavpack": ("a.mkv", "wavpack"), "tta": ("a.mkv", "tta"),
    "adpcm_ms": ("a.wav", "adpcm_ms"), "adpcm_ima_wav": ("a.wav", "adpcm_ima_wav"), "pcm_alaw": ("a.wav", "pcm_alaw"),
    "pcm_mulaw": ("a.wav", "pcm_mulaw"), "pcm_s16le": ("a.wav", "pcm_s16le"), "pcm_s24le": ("a.wav", "pcm_s24le"),
    "pcm_f32le": ("a.wav", "pcm_f32le"), "pcm_s16be": ("a.aiff", "pcm_s16be"), "pcm_u8": ("a.wav", "pcm_u8"),
    "speex": ("a.ogg", "libspeex"), "amr_nb": ("a.amr", "libopencore_amrnb"), "gsm": ("a.mov", "libgsm"),
}  # fmt: skip

#: What people do not have.
OTHERS = {
    "zmbv": ("a.avi", "zmbv"),
    "snow": ("a.mkv", "snow"),
    "asv1": ("a.avi", "asv1"),
    "cljr": ("a.avi", "cljr"),
}


@functools.cache
def encoders(program: str) -> frozenset[str]:
    said = subprocess.check_output([program, "-v", "error", "-encoders"], text=True)
    return frozenset(re.findall(r"^ [VA]\S+ (\S+)", said, re.MULTILINE))


async def facts_of(path: Path) -> Facts:
    with MediaRoot(path.parent).reading(path.name) as file:
        return await examine(FFMPEG, file)


def made(codecs: dict[str, tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return those that this ffmpeg can make, with file and encoder; builds lack some."""
    there = encoders(find_ffmpeg())
    return [(codec, name, encoder) for codec, (name, encoder) in codecs.items() if encoder in there]


async def test_pictures_that_people_have_are_decoded(tmp_path: Path) -> None:
    found = made(PICTURES)
    assert len(found) > len(PICTURES) - 4
    for codec, name, encoder in found:
        one = ("-frames:v", "1") if name.endswith(("png", "webp", "bmp")) else ()
        ffmpeg(*PICTURE, "-c:v", encoder, *one, tmp_path / f"{codec}-{name}")
        facts = await facts_of(tmp_path / f"{codec}-{name}")
        assert [stream.codec for stream in facts.streams] == [codec]
        assert facts.unusable == ()


async def test_sounds_that_people_have_are_decoded(tmp_path: Path) -> None:
    found = made(SOUNDS)
    assert len(found) > len(SOUNDS) - 4
    for codec, name, encoder in found:
        rate = ("-ar", "8000", "-ac", "1") if codec in ("amr_nb", "gsm") else ()
        ffmpeg(*SOUND, "-c:a", encoder, *rate, tmp_path / f"{codec}-{name}")
        facts = await facts_of(tmp_path / f"{codec}-{name}")
        assert [stream.codec for stream in facts.streams] == [codec]


async def test_another_codec_is_refused_by_name_and_for_good(tmp_path: Path) -> None:
    found = made(OTHERS)
    assert found
    for codec, name, encoder in found:
        ffmpeg(*PICTURE, "-strict", "-2", "-c:v", encoder, tmp_path / f"{codec}-{name}")
        message = rf"'{codec}-{name}' cannot be decoded: codec {codec}\b.* is not one that beeq decodes$"
        with pytest.raises(Discard, match=message):
            await run_job(tmp_path, "frame-extract", [f"{codec}-{name}"], "out.png")


async def test_a_stream_of_another_codec_leaves_the_others(tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    ffmpeg(*PICTURE, *SOUND, "-c:v", "zmbv", "-c:a", "libmp3lame", clip)
    facts = await facts_of(clip)
    assert [stream.codec for stream in facts.streams] == ["mp3"]
    assert [one.reason.partition(" (")[0] for one in facts.unusable] == ["codec zmbv"]
    await run_job(tmp_path, "audio-stitch", ["clip.avi"], "out.wav")


async def test_subtitles_are_passed_over_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "lines.srt").write_text("1\n00:00:00,000 --> 00:00:00,300\nHello\n")
    lines, codecs = ("-i", tmp_path / "lines.srt"), ("-c:v", "libx264", "-c:s", "mov_text")
    ffmpeg(*PICTURE, *lines, *codecs, tmp_path / "clip.mp4")
    facts = await run_job(tmp_path, "video-stitch", ["clip.mp4"], "out.mp4")
    assert [stream["codec"] for stream in facts["streams"]] == ["h264"]


def test_what_is_said_of_unasked_streams_is_no_fault() -> None:
    said = ("Failed to open codec in avformat_find_stream_info", "Could not write header: Invalid argument")
    complaints = tuple(Complaint((), text) for text in said)
    assert Run(1, complaints, "", 0).fault == "Could not write header: Invalid argument"


async def test_no_other_demuxer_opens_what_is_inside(tmp_path: Path) -> None:
    ffmpeg(*PICTURE, tmp_path / "clip.mp4")
    with MediaRoot(tmp_path).reading("clip.mp4") as file:
        arguments = FFMPEG.reading(file)
    assert arguments[arguments.index("-format_whitelist") + 1] == "mov"
    assert arguments[arguments.index("-codec_whitelist") + 1] == ",".join(DECODERS)


def test_every_decoder_is_named_once() -> None:
    assert len(set(DECODERS)) == len(DECODERS)
    assert not any(
        name in DECODERS for name in ("ass", "subrip", "mov_text", "pgssub", "dvbsub", "tiff", "exr")
    )
