"""Pictures that change their size on the way are all shown; a sound that changes is refused by name."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from beeq.errors import Discard
from beeq.media.inputs.facts import Video
from beeq.media.outputs.colours import decoded_by
from beeq.media.outputs.film import of_one_size
from tests.media.clips import colour_at, colour_clip, ffmpeg, frame_count, run_job, turned

pytestmark = pytest.mark.ffmpeg

COLOURS = ("red", "lime", "blue")


def changing_film(path: Path, sizes: tuple[str, ...], pictures: int) -> Path:
    """Write a WebM of a picture a second, each of the next size and the next colour."""
    kinds = [(size, colour) for size in sizes for colour in COLOURS]
    frames = {kind: _frame(*kind) for kind in kinds}
    width, height = map(int, sizes[0].split("x"))
    content = b"DKIF" + struct.pack("<HH4sHHIIII", 0, 32, b"VP80", width, height, 1, 1, pictures, 0)
    for number in range(pictures):
        frame = frames[sizes[number % len(sizes)], COLOURS[number % len(COLOURS)]]
        content += struct.pack("<IQ", len(frame), number) + frame
    plain = path.with_suffix(".ivf")
    plain.write_bytes(content)
    ffmpeg("-i", plain, "-c", "copy", path)
    plain.unlink()
    return path


def _frame(size: str, colour: str) -> bytes:
    source = ("-f", "lavfi", "-i", f"color={colour}:s={size}:r=1:d=1")
    written = ffmpeg(*source, "-c:v", "libvpx", "-b:v", "1M", "-f", "ivf", "-")
    return written[44 : 44 + struct.unpack_from("<I", written, 32)[0]]


async def test_pictures_of_any_sizes_are_all_in_the_film(tmp_path: Path) -> None:
    changing_film(tmp_path / "calls.webm", ("64x48", "96x72"), 12)
    colour_clip(tmp_path / "clip.mp4", "red", fps="1", seconds=2)
    film = await run_job(tmp_path, "video-stitch", ["calls.webm", "clip.mp4"], "out.mp4")
    assert frame_count(tmp_path / "out.mp4") == 14
    assert [colour_at(tmp_path / "out.mp4", second) for second in range(6)] == [*COLOURS] * 2
    assert (film["streams"][0]["width"], film["streams"][0]["height"]) == (64, 48)


async def test_a_picture_of_another_shape_keeps_it(tmp_path: Path) -> None:
    changing_film(tmp_path / "turned.webm", ("64x48", "48x64", "64x48", "64x48"), 12)
    await run_job(tmp_path, "video-stitch", ["turned.webm", "turned.webm"], "out.mp4")
    shown = {region: colour_at(tmp_path / "out.mp4", 1, region) for region in ("8:48:0:0", "20:48:22:0")}
    assert shown == {"8:48:0:0": "black", "20:48:22:0": "lime"}
    assert colour_at(tmp_path / "out.mp4", 2, "8:48:0:0") == "blue"


@pytest.mark.parametrize("output", ["mixed.mp4", "mixed.webm"])
async def test_music_goes_under_pictures_of_all_sizes(tmp_path: Path, output: str) -> None:
    changing_film(tmp_path / "calls.webm", ("64x48", "32x24"), 6)
    ffmpeg("-f", "lavfi", "-i", "sine=d=6", tmp_path / "music.wav")
    await run_job(tmp_path, "music-mix", ["calls.webm"], output, musicTrack="music.wav", fps=1)
    assert [colour_at(tmp_path / output, second) for second in range(6)] == [*COLOURS] * 2


async def test_the_last_picture_may_have_another_size(tmp_path: Path) -> None:
    changing_film(tmp_path / "calls.webm", ("64x48", "96x72"), 12)
    facts = await run_job(tmp_path, "frame-extract", ["calls.webm"], "out.png")
    assert (facts["width"], facts["height"]) == (64, 48)
    assert colour_at(tmp_path / "out.png") == "blue"


def test_pictures_that_are_turned_have_no_filter_before_that() -> None:
    lying, standing = Video(3, "h264", 64, 48), Video(3, "h264", 64, 48, rotation=90)
    assert decoded_by(lying) == ["-reinit_filter:3", "0"]
    assert of_one_size(lying).startswith("scale=64:48:")
    assert of_one_size(Video(3, "h264", 65, 48)) == "scale=65:48,"
    # Turning takes pictures of one size only.
    assert (decoded_by(standing), of_one_size(standing)) == ([], "")


async def test_a_film_that_is_turned_is_still_shown(tmp_path: Path) -> None:
    clip = colour_clip(tmp_path / "clip.mp4", "lime")
    turned(clip, tmp_path / "turned.mp4", degrees=90)
    film = await run_job(tmp_path, "video-stitch", ["turned.mp4", "clip.mp4"], "out.mp4")
    assert (film["streams"][0]["width"], film["streams"][0]["height"]) == (48, 64)


@pytest.fixture
def changing_sound(tmp_path: Path) -> str:
    """The name of a sound whose channels change after a second."""
    for channels in (1, 2):
        tone = ("-f", "lavfi", "-i", f"sine=f={400 * channels}:d=1:r=48000")
        ffmpeg(*tone, "-ac", channels, "-c:a", "aac", tmp_path / f"{channels}.aac")
    parts = [(tmp_path / f"{channels}.aac").read_bytes() for channels in (1, 2)]
    (tmp_path / "changing.aac").write_bytes(b"".join(parts * 2))
    return "changing.aac"


@pytest.mark.parametrize("job_type", ["audio-stitch", "music-mix"])
async def test_a_sound_that_changes_on_the_way_is_refused(
    tmp_path: Path, job_type: str, changing_sound: str
) -> None:
    for inputs in ([changing_sound, "1.aac"], ["1.aac", changing_sound]):
        music = {"musicTrack": "2.aac"} if inputs[0] == changing_sound else {"musicTrack": changing_sound}
        ffmpeg("-i", tmp_path / "1.aac", "-af", "apad=pad_dur=4", tmp_path / "long.wav")
        given = [changing_sound if inputs[0] == changing_sound else "long.wav"]
        with pytest.raises(Discard, match=r"'changing\.aac'.*: the sound changes its rate or its channels"):
            await run_job(
                tmp_path, job_type, given if job_type == "music-mix" else inputs, "out.wav", **music
            )
        assert not (tmp_path / "out.wav").exists()
