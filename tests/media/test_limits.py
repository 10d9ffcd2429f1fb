"""The bounds of a media job, and the settings they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from beeq.media.errors import MediaRefused
from beeq.media.formats import VIDEO_CONTAINERS
from beeq.media.inputs.bounds import decoder_threads
from beeq.media.inputs.facts import Video
from beeq.media.inputs.timeline import PacketReader
from beeq.media.limits import MediaLimits
from beeq.processors.base import ProcessorSettings


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("BEEQ_MEDIA_MAX_SECONDS", "90.5", "max_seconds", 90.5),
        ("BEEQ_MEDIA_MAX_GAP_S", "30", "max_gap_s", 30.0),
        ("BEEQ_MEDIA_MAX_PICTURE", "1920x1080", "max_picture", (1920, 1080)),
        ("BEEQ_MEDIA_MAX_MEGAPIXELS", "100", "max_megapixels", 100.0),
        ("BEEQ_MEDIA_MAX_STREAMS", "8", "max_streams", 8),
        ("BEEQ_MEDIA_THREADS", "1", "threads", 1),
        ("BEEQ_MEDIA_MAX_ALLOC_MB", "256", "max_alloc_mb", 256),
    ],
)
def test_each_limit_has_a_setting(variable: str, text: str, name: str, value: object, tmp_path: Path) -> None:
    settings = ProcessorSettings.from_environment({"BEEQ_MEDIA_ROOT": str(tmp_path), variable: text})
    assert settings.media_limits == MediaLimits(**{name: value})  # type: ignore[arg-type]  # each of its own type
    assert settings.media_limits != MediaLimits()


@pytest.mark.parametrize(
    ("variable", "wanted"),
    [
        ("BEEQ_MEDIA_MAX_SECONDS", "a number above 0"),
        ("BEEQ_MEDIA_MAX_STREAMS", "a whole number above 0"),
        ("BEEQ_MEDIA_MAX_PICTURE", "a width and a height, such as 8192x4320"),
    ],
)
@pytest.mark.parametrize("text", ["", "0", "-1", "x", "nan", "1e3", "9" * 5000, "0x100", "1920x"])
def test_a_bad_limit_is_refused_by_its_name(variable: str, wanted: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{variable} must be {wanted}$"):
        ProcessorSettings.from_environment({"BEEQ_MEDIA_ROOT": str(tmp_path), variable: text})


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_made_in_code_is_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match="^max_seconds must be above 0$"):
        MediaLimits(max_seconds=value)


def test_a_picture_may_lie_or_stand() -> None:
    limits = MediaLimits(max_picture=(1920, 1080))
    assert limits.allows_size((1920, 1080))
    assert limits.allows_size((1080, 1920))
    assert not limits.allows_size((1921, 100))
    assert not limits.allows_size((1100, 1100))


def test_an_encoder_looks_less_far_ahead_in_large_pictures() -> None:
    for suffix, option in ((".mp4", "-rc-lookahead"), (".webm", "-lag-in-frames")):
        container = VIDEO_CONTAINERS[suffix]
        assert container.encoder((3840, 2160)) == [*container.video]
        assert container.encoder((4320, 8192))[:-2] == [*container.video]
        assert container.encoder((4320, 8192))[-2] == option


@pytest.mark.parametrize(("count", "size", "threads"), [(2, 8192, 4), (3, 8192, 1), (50, 64, 4), (51, 64, 1)])
def test_many_or_large_inputs_have_one_thread_each(count: int, size: int, threads: int) -> None:
    limits = MediaLimits(threads=4)
    assert decoder_threads(limits, [Video(0, "h264", size, 4320)] * count) == threads


@pytest.mark.parametrize(
    ("packets", "message"),
    [
        # Two seconds: of one packet, of packets shown late, and of very many packets.
        (b"0, 0, 0, 2000000, 9, 0x00000001\n", "'a.mov' is 2 s long; the limit is 1 s"),
        (b"0, 0, 1999999, 1, 9, 0x00000001\n", "'a.mov' is 2 s long; the limit is 1 s"),
        (
            b"0, 0, 0, 0, 9, 0x00000001\n" * 501,
            "'a.mov' has too many packets; the limit is 500 for each second",
        ),
    ],
)
def test_reading_packets_ends_at_the_first_beyond_a_limit(packets: bytes, message: str) -> None:
    reader = PacketReader(MediaLimits(max_seconds=1, max_gap_s=0.5), "a.mov")
    reader.feed(b"#tb 0: 1/1000000\n#media_type 0: video\n#tb 1: 1/1000000\n#media_type 1: audio\n")
    reader.feed(b"0, 0, 0, 1000000, 9, 0x00000001\n" + b"1, 0, 0, 1000000, 9, 0x00000001\n")
    with pytest.raises(MediaRefused, match=message):
        reader.feed(packets)


def packets(times: range, stream: int = 0) -> bytes:
    return b"".join(b"%d, %d, %d, 1, 1, 0x00000001\n" % (stream, time, time) for time in times)


def test_packets_closer_than_any_media_are_refused_early() -> None:
    reader = PacketReader(MediaLimits(), "a.mov")
    reader.feed(b"#tb 0: 1/1000\n#media_type 0: video\n#tb 1: 1/48000\n#media_type 1: audio\n")
    # A thousand a second may go on for ever.
    reader.feed(packets(range(60_000)))
    with pytest.raises(MediaRefused, match=r"'a\.mov' has a stream of more than 1000 packets a second"):
        reader.feed(packets(range(21_000), stream=1))


def test_a_long_pause_allows_no_more_packets_than_a_short() -> None:
    reader = PacketReader(MediaLimits(), "a.mov")
    reader.feed(b"#tb 0: 1/1000000\n#media_type 0: video\n")
    reader.feed(packets(range(1000)))
    hour = 3_600_000_000
    with pytest.raises(MediaRefused, match="more than 1000 packets a second"):
        reader.feed(packets(range(hour, hour + 21_000)))


def test_the_packets_of_all_streams_have_one_bound() -> None:
    reader = PacketReader(MediaLimits(max_seconds=10), "a.mov")
    for stream in range(10):
        reader.feed(b"#tb %d: 1/100\n#media_type %d: video\n" % (stream, stream))
    with pytest.raises(MediaRefused, match="has too many packets; the limit is 500 for each second"):
        reader.feed(b"".join(packets(range(600), stream) for stream in range(10)))


def test_a_sound_may_pause_less_long_than_pictures() -> None:
    reader = PacketReader(MediaLimits(max_seconds=1, max_gap_s=0.5), "a.mov")
    reader.feed(b"#tb 0: 1/10\n#media_type 0: video\n#tb 1: 1/10\n#media_type 1: audio\n")
    for packet in (b"0, 0, 0, 1", b"0, 9, 9, 1", b"1, 0, 0, 1", b"1, 4, 4, 1"):
        reader.feed(packet + b", 9, 0x00000001\n")
    with pytest.raises(MediaRefused, match=r"the sound of 'a.mov' pauses for 1 s; the limit is 0.5 s"):
        reader.feed(b"1, 10, 10, 0, 9, 0x00000001\n")
