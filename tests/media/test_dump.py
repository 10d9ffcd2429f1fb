"""What ffmpeg's description of a copying output says, and that nothing else is taken for it."""

from __future__ import annotations

from fractions import Fraction

import pytest

from beeq.media.inputs.dump import Described, described, new_mark
from beeq.media.inputs.facts import Audio, Colours, Video
from beeq.media.inputs.probe import stream_of

MARK = new_mark()
INPUT = """\
Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:/proc/self/fd/7':
  Metadata:
    title           : a
  Stream #0:0: Video: h264, yuv420p, 16000x16000, 1000 fps
Stream mapping:
  Stream #0:9 -> #0:0 (copy)
Output #0, framecrc, to 'pipe:1':
  Stream #0:0: Video: h264, yuv420p, 16000x16000, 1000 fps
  Duration: 01:02:03.50, start: 0.000000, bitrate: 128 kb/s
  Stream #0:1[0x2](und): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, mono, fltp, 69 kb/s (default)
"""
MAPPING = """\
Stream mapping:
  Stream #0:2 -> #0:0 (copy)
  Stream #0:1 -> #0:1 (copy)
  Stream #0:4 -> #0:2 (copy)
"""
OUTPUT = f"""\
Output #0, framecrc, to 'pipe:1':
  Metadata:
    encoder         : Lavf63.1.102
  Stream #0:0: Video: h264 (High) (avc1 / 0x31637661){MARK}yuv420p(tv, bt709, top first), 1920x1080 [SAR 4:3 DAR 16:9], q=2-31, 45 kb/s{MARK}29.97 fps, 30 tbr, 12800 tbn (default)
    Side data:
      Display Matrix: rotation of -90.00 degrees
  Stream #0:1[0x2]: Audio: aac (LC) (mp4a / 0x6134706D){MARK}44100 Hz, mono, fltp, 69 kb/s (default) (forced)
  Stream #0:2: Video: png{MARK}rgb24(pc, gbr/unknown/unknown), 320x240 [SAR 1:1 DAR 4:3]{MARK}90k tbr, 90k tbn (attached pic)
"""
FRAMES = "frame=   25 fps=0.0 q=-1.0 Lsize=       4KiB time=00:00:01.00\n"
OF_FFMPEG_5 = INPUT + OUTPUT + MAPPING + FRAMES
OF_LATER_ONES = INPUT + MAPPING + OUTPUT + FRAMES


@pytest.mark.parametrize("said", [OF_FFMPEG_5, OF_LATER_ONES, "…\n" + OF_LATER_ONES[len(INPUT) :]])
def test_only_what_has_the_mark_describes_the_streams(said: str) -> None:
    found = described(said, MARK)
    assert [stream_of(stream) for stream in found] == [
        Video(
            2,
            "h264",
            1920,
            1080,
            pixel_aspect=Fraction(4, 3),
            fps=29.97,
            base_fps=30.0,
            rotation=90,
            pixel_format="yuv420p",
            colours=Colours("tv", "bt709", "bt709", "bt709"),
            is_interlaced=True,
            is_default=True,
        ),
        Audio(1, "aac", 44100, 1, "mono", is_default=True),
    ]
    assert [stream.place for stream in found] == [0, 1]


@pytest.mark.parametrize(
    "said", ["", INPUT, INPUT + FRAMES, INPUT + OUTPUT.replace(MARK, new_mark()), OUTPUT]
)
def test_without_mark_or_mapping_there_are_no_streams(said: str) -> None:
    assert described(said, MARK) == []


def test_two_runs_have_two_marks() -> None:
    assert len({new_mark() for _ in range(100)}) == 100


def test_a_streams_kind_leaves_out_what_is_individual() -> None:
    turned, sound = described(OF_LATER_ONES, MARK)
    assert turned.alike == ""
    assert sound.alike == "Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, mono, fltp"
    text = (
        "h264 (High), yuv420p, 64x48, q=2-31, 16 kb/s, 10 fps, 10240 tbn, start 0.020000 (default) (forced)"
    )
    assert Described(0, 0, "Video", text).alike == "Video: h264 (High), yuv420p, 64x48, 10 fps, 10240 tbn"


def test_a_codec_is_named_with_its_profile_and_tag() -> None:
    turned, _ = described(OF_LATER_ONES, MARK)
    assert (turned.name, turned.codec) == ("h264", "h264 (High) (avc1 / 0x31637661)")
    assert Described(0, 0, "Audio", "none, 44100 Hz").codec == "none"


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("opus, 48000 Hz, 5.1(side), fltp", 6),
        ("flac, 96000 Hz, 3 channels (FL+FR+LFE), s32 (24 bit)", 3),
        ("pcm_s16le, 8000 Hz, odd layout, s16", None),
        ("pcm_s16le, 8000 Hz, 999999999 channels, s16", None),
    ],
)
def test_channels_are_counted_by_the_layouts_name(text: str, channels: int | None) -> None:
    sound = stream_of(Described(0, 0, "Audio", text))
    assert isinstance(sound, Audio)
    assert sound.channels == channels


@pytest.mark.parametrize(
    "text",
    [
        "h264, yuv420p, {}x{} [SAR {}:{} DAR 1:1], {} fps, {} tbr",
        "h264, yuv420p, 64x48 [SAR {}:{} DAR 1:1], {} fps, {} tbr, {} Hz, {} channels",
    ],
)
@pytest.mark.parametrize("digits", [290, 5000])
def test_a_number_of_too_many_digits_is_not_read(text: str, digits: int) -> None:
    said = text.format(*["9" * digits] * 6)
    video, sound = (stream_of(Described(0, 0, kind, said)) for kind in ("Video", "Audio"))
    assert isinstance(video, Video)
    assert (video.fps, video.base_fps) == (None, None)
    assert video.pixel_aspect == 1
    assert isinstance(sound, Audio)
    assert (sound.sample_rate, sound.channels) == (0, None)
