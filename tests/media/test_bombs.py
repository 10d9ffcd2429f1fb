"""Files of some kilobytes that would take hours, gigabytes of memory or a disk: every job on them fails at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beeq.errors import JobFailed
from beeq.job import RunningJob
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import MediaProcessor
from tests.media.bombs import Attacking, bmp, gif, jpeg, mp4, png, wav, webp, y4m
from tests.media.clips import ffmpeg, tree

pytestmark = pytest.mark.ffmpeg

#: ffmpeg itself takes 60 to 130 MB.
PEAK_MB = 300
SIDE = 16_000
LONG, PAUSED = (
    r"s long; the limit is 21600 s \(BEEQ_MEDIA_MAX_SECONDS\)",
    r"pauses for 3600 s; the limit is 600 s",
)
LARGE = r"the limit is 8192x4320 \(BEEQ_MEDIA_MAX_PICTURE\)"


def job(kind: str, *inputs: str, output: str, **parameters: Any) -> dict[str, Any]:
    return {"type": kind, "inputFiles": inputs, "outputPath": output, "parameters": parameters}


def assembly(*scenes: str, master: str) -> dict[str, Any]:
    return {"sceneVideos": scenes, "masterAudio": master, "outputFormats": ["mp4", "webm"]}


def with_sound(bomb: str) -> list[dict[str, Any]]:
    """Every job that reads a sound, in each place where it may be."""
    return [
        job("audio-stitch", bomb, output="out.wav"),
        job("audio-stitch", "good.wav", bomb, output="out.flac"),
        job("music-mix", bomb, output="out.wav", musicTrack="good.wav"),
        job("music-mix", "good.wav", output="out.mp3", musicTrack=bomb),
        assembly("good.mov", master=bomb),
    ]


def with_pictures(bomb: str) -> list[dict[str, Any]]:
    """Every job that reads pictures, in each place where they may be."""
    return [
        job("video-stitch", bomb, output="out.mp4"),
        job("video-stitch", "good.mov", bomb, output="out.webm"),
        job("frame-extract", bomb, output="out.png"),
        job("music-mix", bomb, output="out.mkv", musicTrack="good.wav"),
        assembly("good.mov", bomb, master="good.wav"),
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A media root with a short sound and a short film."""
    (tmp_path / "good.wav").write_bytes(wav(8000, 4000))
    (tmp_path / "good.mov").write_bytes(mp4([(10, 40)], is_sound=False))
    return tmp_path


def assert_refused(attack: Attacking, root: Path, jobs: list[dict[str, Any]], message: str) -> None:
    """Run the jobs; each must fail for good with the message, in little memory, and leave no file."""
    before = tree(root)
    attacked = attack(root, *jobs)
    assert len(attacked.outcomes) == len(jobs)
    for kind, text in attacked.outcomes:
        assert kind == "Discard", text
        assert re.search(message, text), text
    assert attacked.peak_mb < PEAK_MB
    assert tree(root) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("days.mov", mp4([(10, 100_000)], is_sound=True, timescale=1), LONG),
        ("hours.mov", mp4([(2400, 10)], is_sound=True, timescale=1), LONG),
        ("end.mov", mp4([(10, 20), (1, 30_000_000)], is_sound=True), LONG),
        ("pause.mov", mp4([(10, 20), (1, 3_600_000), (10, 20)], is_sound=True), PAUSED),
        ("slow.wav", wav(1, 500), "sound of 1 Hz; from 1000 to 768000 Hz are read"),
        ("fast.wav", wav(4_000_000, 40_000), "sound of 4000000 Hz; from 1000 to 768000 Hz are read"),
        ("wide.wav", wav(8000, 1000, channels=65), "sound of 65 channels; at most 64 are read"),
        ("tracks.mov", mp4([(10, 20)], is_sound=True, tracks=2000), r"64 \(BEEQ_MEDIA_MAX_STREAMS\)"),
    ],
)
def test_a_sound_that_is_a_bomb_is_refused_in_every_job(
    root: Path, attack: Attacking, name: str, content: bytes, message: str
) -> None:
    (root / name).write_bytes(content)
    assert_refused(attack, root, with_sound(name), message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("days.mov", mp4([(10, 100_000)], is_sound=False, timescale=1), LONG),
        ("end.mov", mp4([(10, 20), (1, 30_000_000)], is_sound=False), LONG),
        ("slow.y4m", y4m(rate="1:20000"), LONG),
        ("slow.gif", gif(16, 16, count=60, hundredths=65_535), LONG),
        ("wide.y4m", y4m(aspect="65535:1"), f"shows pictures of 4194240x48 pixels; {LARGE}"),
        ("large.y4m", y4m(SIDE, SIDE), f"has pictures of 16000x16000 pixels; {LARGE}"),
        ("tracks.mov", mp4([(10, 20)], is_sound=False, tracks=2000), r"64 \(BEEQ_MEDIA_MAX_STREAMS\)"),
    ],
)
def test_a_film_that_is_a_bomb_is_refused_in_every_job(
    root: Path, attack: Attacking, name: str, content: bytes, message: str
) -> None:
    (root / name).write_bytes(content)
    assert_refused(attack, root, with_pictures(name), message)


@pytest.mark.parametrize(
    ("suffix", "make"), [("gif", gif), ("png", png), ("bmp", bmp), ("jpg", jpeg), ("webp", webp)]
)
def test_a_picture_that_is_a_bomb_is_refused_in_every_job(
    root: Path, attack: Attacking, suffix: str, make: Callable[[int, int], bytes]
) -> None:
    (root / f"bomb.{suffix}").write_bytes(make(SIDE, SIDE))
    assert_refused(
        attack, root, with_pictures(f"bomb.{suffix}"), f"has pictures of 16000x16000 pixels; {LARGE}"
    )


def test_a_small_file_with_a_huge_index_takes_bounded_memory(root: Path, attack: Attacking) -> None:
    # Some twenty bytes of memory for each sample.
    (root / "bomb.mov").write_bytes(mp4([(20_000_000, 1)], is_sound=False, size=1, timescale=1_000_000))
    attacked = attack(root, *with_pictures("bomb.mov"))
    assert {kind for kind, _ in attacked.outcomes} == {"Discard"}
    assert attacked.peak_mb < 1000


def test_many_stills_may_not_make_a_film_of_days(root: Path, attack: Attacking) -> None:
    (root / "still.png").write_bytes(png(16, 16))
    scenes = ["still.png"] * 7
    message = r"the output would be 25200 s long; the limit is 21600 s \(BEEQ_MEDIA_MAX_SECONDS\)"
    film = {**assembly(*scenes, master="good.wav"), "parameters": {"stillSeconds": 3600}}
    assert_refused(
        attack, root, [job("video-stitch", *scenes, output="out.mp4", stillSeconds=3600), film], message
    )


def test_many_long_inputs_may_not_make_a_longer_output(root: Path, attack: Attacking) -> None:
    (root / "hour.mov").write_bytes(mp4([(360, 10)], is_sound=True, timescale=1))
    hours = ["hour.mov"] * 7
    message = r"the output would be 25200 s long; the limit is 21600 s \(BEEQ_MEDIA_MAX_SECONDS\)"
    assert_refused(attack, root, [job("audio-stitch", *hours, output="out.wav")], message)


def test_many_large_pictures_may_not_be_open_at_once(root: Path, attack: Attacking) -> None:
    # Each of them is allowed, and the shape of a film is the first one's.
    (root / "large.png").write_bytes(png(8192, 4320, lines=4320))
    large = ["large.png"] * 16
    message = (
        r"all inputs is 566 megapixels together; the limit is 540 megapixels \(BEEQ_MEDIA_MAX_MEGAPIXELS\)"
    )
    attacked = attack(
        root, job("video-stitch", *large, output="out.mp4"), assembly(*large, master="good.wav")
    )
    for kind, text in attacked.outcomes:
        assert kind == "Discard"
        assert re.search(message, text), text


def test_a_picture_may_not_grow_within_a_film(root: Path, attack: Attacking) -> None:
    # Raw pictures do not say how long they are shown, which the other jobs ask for.
    for name, size in (("small", "64x48"), ("large", "640x480")):
        ffmpeg("-f", "lavfi", "-i", f"color=lime:s={size}:d=0.2", *("-c:v", "libx264", root / f"{name}.h264"))
    (root / "bomb.h264").write_bytes((root / "small.h264").read_bytes() + (root / "large.h264").read_bytes())
    attacked = attack(root, *with_pictures("bomb.h264")[:3], BEEQ_MEDIA_MAX_PICTURE="320x240")
    for kind, text in attacked.outcomes:
        assert kind == "Discard", text
        assert re.search(r"pictures of 640x480 pixels; the limit is 320x240", text), text


def test_what_is_just_within_the_limits_is_done(root: Path, attack: Attacking) -> None:
    (root / "pause.mov").write_bytes(mp4([(10, 20), (1, 4000), (10, 20)], is_sound=True))
    (root / "film.y4m").write_bytes(y4m(64, 48, "10:1", "2:1", 50))
    (root / "tracks.mov").write_bytes(mp4([(10, 20)], is_sound=True, tracks=4))
    attacked = attack(
        root,
        job("audio-stitch", "pause.mov", output="1.wav"),
        job("audio-stitch", "tracks.mov", output="2.wav"),
        job("video-stitch", "film.y4m", output="3.mp4"),
        job("frame-extract", "film.y4m", output="4.png"),
        job("music-mix", "film.y4m", output="5.mp4", musicTrack="pause.mov"),
        assembly("film.y4m", master="pause.mov"),
        BEEQ_MEDIA_MAX_SECONDS="5",
        BEEQ_MEDIA_MAX_GAP_S="4.1",
        BEEQ_MEDIA_MAX_PICTURE="48x128",
        BEEQ_MEDIA_MAX_MEGAPIXELS="0.01",
        BEEQ_MEDIA_MAX_STREAMS="4",
        BEEQ_MEDIA_THREADS="1",
    )
    assert {kind for kind, _ in attacked.outcomes} == {"done"}, attacked.outcomes
    first, *_ = attacked.outcomes
    assert first[1]["duration"] == pytest.approx(4.4, abs=0.05)


async def test_a_bomb_is_not_tried_again(root: Path, make_queue: Callable[..., Any]) -> None:
    (root / "days.mov").write_bytes(mp4([(10, 100_000)], is_sound=True, timescale=1))
    processor, attempts = MediaProcessor(ProcessorSettings(media_root=root)), []

    async def attempt(running: RunningJob) -> Any:
        attempts.append(running.id)
        return await processor(running)

    queue = make_queue()
    queue.process(attempt)
    bomb = await queue.enqueue(
        job("audio-stitch", "days.mov", output="out.wav"), retries=2, backoff="immediate"
    )
    with pytest.raises(JobFailed, match=LONG):
        await bomb.result(timeout=60_000)
    assert attempts == [bomb.id]
