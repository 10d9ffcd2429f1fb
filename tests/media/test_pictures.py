"""How the pictures of a film look and move: colours, rates, shapes, stills; judged by decoding the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beeq.errors import Discard
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import AssemblyProcessor
from tests.media.bombs import y4m
from tests.media.clips import FakeJob, colour_clip, ffmpeg, frame_count, run_job, varying_clip
from tests.support.judges import colour_of, described, flashes_ms, near

pytestmark = pytest.mark.ffmpeg

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "8")
EXACT = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
RED, LIME, GREY = (200, 64, 64), (0, 254, 0), (128, 128, 128)


def painted(
    path: Path,
    colour: tuple[int, int, int],
    matrix: str,
    tags: str = "",
    *,
    form: str = "yuv420p",
    size: str = "64x48",
    full: bool = False,
) -> Path:
    """Make a clip of half a second whose numbers have a matrix and range; ``tags`` is how it is described."""
    shade = "0x" + bytes(colour).hex()
    source = f"color={shade}:s={size}:r=10:d=0.5,format=gbrp"
    scale = f"scale=out_color_matrix={matrix}:out_range={'pc' if full else 'tv'}:{EXACT}"
    tagged = f"setparams=range={'pc' if full else 'tv'}:{tags or 'colorspace=unknown'}"
    metadata = ("-bsf:v", "h264_metadata=matrix_coefficients=2") if not tags else ()
    ffmpeg("-f", "lavfi", "-i", source, "-vf", f"{scale},format={form},{tagged}", *X264, *metadata, path)
    return path


BT601 = "colorspace=smpte170m:color_primaries=smpte170m:color_trc=smpte170m"
BT709 = "colorspace=bt709:color_primaries=bt709:color_trc=bt709"


@pytest.mark.parametrize("colour", [RED, LIME])
@pytest.mark.parametrize(
    ("matrix", "tags", "options"),
    [
        ("bt601", BT601, {}),
        ("bt709", BT709, {}),
        ("bt709", BT709, {"full": True}),
        ("bt601", BT601, {"form": "yuv444p10le"}),
        ("bt601", "", {}),
        ("bt709", "", {"size": "32x720"}),
    ],
)
async def test_colours_of_all_kinds_become_those_of_bt709(
    tmp_path: Path, colour: tuple[int, int, int], matrix: str, tags: str, options: dict[str, Any]
) -> None:
    painted(tmp_path / "1.mp4", colour, matrix, tags, **options)
    await run_job(tmp_path, "video-stitch", ["1.mp4"], "out.mp4")
    await run_job(tmp_path, "frame-extract", ["1.mp4"], "out.png")
    assert "yuv420p(tv, bt709" in described(tmp_path / "out.mp4")
    assert near(colour_of(tmp_path / "out.mp4"), colour, 4)
    assert near(colour_of(tmp_path / "out.png"), colour, 4)


async def test_a_film_has_the_same_colours_in_all_formats(tmp_path: Path) -> None:
    painted(tmp_path / "1.mp4", LIME, "bt601", BT601)
    painted(tmp_path / "2.mp4", LIME, "bt709", BT709, full=True)
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "tone.wav")
    await assembled(tmp_path, ["1.mp4", "2.mp4"])
    for name in ("mp4", "mov", "webm"):
        film = tmp_path / f"job-1.{name}"
        assert "bt709" in described(film)
        assert all(near(colour_of(film, second), LIME, 4) for second in (0.2, 0.7))


async def assembled(root: Path, scenes: list[str], **parameters: Any) -> Any:
    job = FakeJob(
        sceneVideos=scenes,
        masterAudio="tone.wav",
        outputFormats=["mp4", "mov", "webm"],
        parameters=parameters,
    )
    return await AssemblyProcessor(ProcessorSettings(media_root=root))(job)


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
async def test_hdr_is_mapped_to_what_a_usual_screen_shows(tmp_path: Path, transfer: str) -> None:
    light = "zscale=tin=709:pin=709:min=gbr:rin=full:m=gbr:p=709:t=linear:npl=203,format=gbrpf32le"
    hdr = f"zscale=pin=709:tin=linear:min=gbr:p=2020:t={transfer}:m=2020_ncl:r=limited:npl=203"
    said = f"setparams=colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}:range=tv"
    for name, shade in (("red", RED), ("grey", GREY), ("white", (255, 255, 255))):
        source = f"color=0x{bytes(shade).hex()}:s=64x48:r=10:d=0.3,format=gbrp"
        filters = f"{light},{hdr},format=yuv420p10le,{said}"
        ffmpeg("-f", "lavfi", "-i", source, "-vf", filters, *X264, tmp_path / f"{name}.mp4")
    await run_job(tmp_path, "video-stitch", ["red.mp4", "grey.mp4", "white.mp4"], "out.mp4")
    film = tmp_path / "out.mp4"
    assert near(colour_of(film, 0.1), RED, 5)
    assert near(colour_of(film, 0.4), GREY, 5)
    assert 215 < min(colour_of(film, 0.7)) <= max(colour_of(film, 0.7)) < 245


@pytest.mark.parametrize("clip", ["clip.mov", "clip.webm", "clip.png"])
async def test_what_is_transparent_is_shown_over_black(tmp_path: Path, clip: str) -> None:
    encoder = {"clip.mov": ("-c:v", "qtrle"), "clip.png": ("-frames:v", "1")}
    vp9 = ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-deadline", "realtime")
    half = "geq=r=255:g=255:b=255:a='if(lt(X,32),0,128)'"
    source = f"color=white:s=64x48:r=10:d=0.5,format=rgba,{half}"
    ffmpeg("-f", "lavfi", "-i", source, *encoder.get(clip, vp9), tmp_path / clip)
    await run_job(tmp_path, "video-stitch", [clip], "out.mp4")
    assert near(colour_of(tmp_path / "out.mp4", 0.2, "16:16:8:16"), (0, 0, 0), 4)
    assert near(colour_of(tmp_path / "out.mp4", 0.2, "16:16:40:16"), GREY, 4)


@pytest.mark.parametrize("still", ["s.png", "s.jpg", "s.webp", "s.bmp"])
async def test_a_still_is_a_scene_in_the_colours_seen(tmp_path: Path, still: str) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=0xC84040:s=64x48,format=rgb24", "-frames:v", "1", tmp_path / still)
    colour_clip(tmp_path / "1.mp4", "blue", fps="10")
    await run_job(tmp_path, "video-stitch", ["1.mp4", still], "out.mp4", stillSeconds=1.5)
    assert frame_count(tmp_path / "out.mp4") == 25
    assert near(colour_of(tmp_path / "out.mp4", 1.5), RED, 4)


async def test_a_film_may_be_made_of_stills_alone(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=0xC84040:s=64x48", "-frames:v", "1", tmp_path / "s.png")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "tone.wav")
    facts = await assembled(tmp_path, ["s.png", "s.png"], fps=10)
    assert {name: round(reported["duration"], 1) for name, reported in facts.items()} == dict.fromkeys(
        facts, 10.0
    )
    assert frame_count(tmp_path / "job-1.mp4") == 100
    with pytest.raises(Discard, match="is a still"):
        await run_job(tmp_path, "music-mix", ["s.png"], "out.mp4", musicTrack="tone.wav")


async def test_a_slow_title_does_not_slow_the_film(tmp_path: Path) -> None:
    colour_clip(tmp_path / "title.mp4", "red", fps="1", seconds=2)
    colour_clip(tmp_path / "1.mp4", "blue", fps="30")
    await run_job(tmp_path, "video-stitch", ["title.mp4", "1.mp4"], "out.mp4")
    assert frame_count(tmp_path / "out.mp4") == 90
    await run_job(tmp_path, "video-stitch", ["title.mp4", "1.mp4"], "slow.mp4", fps=10)
    assert frame_count(tmp_path / "slow.mp4") == 30


async def test_a_recording_that_pauses_keeps_its_motion(tmp_path: Path) -> None:
    pausing = "testsrc2=s=64x48:r=30:d=1,settb=1/1000,setpts='round(N*33.33)+if(gte(N,15),3000,0)'"
    varying_clip(tmp_path / "1.mkv", pausing, *X264)
    await run_job(tmp_path, "video-stitch", ["1.mkv"], "out.mp4")
    assert "30 fps" in described(tmp_path / "out.mp4")
    assert frame_count(tmp_path / "out.mp4") == pytest.approx(120, abs=1)


async def test_rates_above_sixty_are_divided(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", fps="120", seconds=0.5)
    await run_job(tmp_path, "video-stitch", ["1.mp4"], "out.mp4")
    assert "60 fps" in described(tmp_path / "out.mp4")
    assert frame_count(tmp_path / "out.mp4") == 30


async def test_a_picture_shorter_than_a_frame_is_shown(tmp_path: Path) -> None:
    flash = (
        "color=black:s=64x48:r=10:d=1,settb=1/1000,setpts='N*100+if(eq(N,5),-92,0)'"
        ",drawbox=color=white:t=fill:enable='eq(n,4)'"
    )
    varying_clip(tmp_path / "1.mkv", flash, *X264)
    await run_job(tmp_path, "video-stitch", ["1.mkv"], "out.mp4", fps=10)
    assert flashes_ms(tmp_path / "out.mp4") == [400]


async def test_clips_of_one_picture_do_not_vanish(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", fps="10")
    for number in range(3):
        colour_clip(tmp_path / f"one{number}.mp4", "lime", fps="60", seconds=1 / 60)
    clips = ["1.mp4", "one0.mp4", "one1.mp4", "one2.mp4", "1.mp4"]
    await run_job(tmp_path, "video-stitch", clips, "out.mp4")
    assert frame_count(tmp_path / "out.mp4") == 23


async def test_a_film_slower_than_its_clips_is_as_long_as_they_are(tmp_path: Path) -> None:
    varying_clip(tmp_path / "1.mkv", "testsrc2=s=64x48:r=30:d=2,settb=1/1000,setpts='round(N*33.33)'", *X264)
    await run_job(tmp_path, "video-stitch", ["1.mkv", "1.mkv"], "out.mp4", fps=10)
    assert frame_count(tmp_path / "out.mp4") == 40


async def test_interlaced_pictures_are_not_combed(tmp_path: Path) -> None:
    bar = "255*between(X-8*mod(N,8),16,48)"
    moving = f"color=black:s=128x96:r=50:d=1,geq=lum='{bar}':cb=128:cr=128"
    fields = "tinterlace=interleave_top,fieldorder=tff"
    mpeg2 = ("-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-b:v", "5M")
    ffmpeg("-f", "lavfi", "-i", moving, "-vf", fields, *mpeg2, tmp_path / "1.ts")
    colour_clip(tmp_path / "2.mp4", "red", size="128x96", fps="25")
    await run_job(tmp_path, "video-stitch", ["1.ts", "2.mp4"], "out.mp4")
    assert combing(tmp_path / "1.ts") > 20
    assert combing(tmp_path / "out.mp4") < 5


def combing(path: Path) -> float:
    """Return how much each line differs from the two beside it, on average over the sixth picture."""
    grey = ("-vf", "select=eq(n\\,5)", "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray")
    raw = ffmpeg("-i", path, *grey, "-")
    lines = [raw[start : start + 128] for start in range(0, len(raw), 128)]
    found = [
        abs(2 * lines[row][x] - lines[row - 1][x] - lines[row + 1][x]) / 2
        for row in range(2, len(lines) - 2)
        for x in range(128)
    ]
    return sum(found) / len(found)


async def test_the_containers_pixel_shape_is_that_of_players(tmp_path: Path) -> None:
    colour_clip(tmp_path / "c.mp4", "red", size="160x120")
    ffmpeg("-i", tmp_path / "c.mp4", "-c", "copy", "-aspect", "2:1", tmp_path / "1.mp4")
    facts = await run_job(tmp_path, "video-stitch", ["1.mp4"], "out.mp4")
    assert (facts["streams"][0]["width"], facts["streams"][0]["height"]) == (240, 120)
    still = await run_job(tmp_path, "frame-extract", ["1.mp4"], "out.png")
    assert (still["width"], still["height"]) == (240, 120)


@pytest.mark.parametrize("rate", ["1000:1", "1000000:1"])
async def test_a_film_shorter_than_one_picture_is_one_picture(tmp_path: Path, rate: str) -> None:
    (tmp_path / "short.y4m").write_bytes(y4m(rate=rate, count=3))
    await run_job(tmp_path, "video-stitch", ["short.y4m", "short.y4m"], "out.mp4", fps=25)
    assert frame_count(tmp_path / "out.mp4") == 2
