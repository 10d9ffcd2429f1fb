"""``video-assembly`` on real clips, judged by decoding what it wrote."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from beeq.errors import Discard
from beeq.media import assemble, paths
from beeq.media.errors import MediaFailed, MediaRefused
from beeq.media.paths import MediaRoot
from beeq.media.service import LocalMedia
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import AssemblyProcessor
from tests.media.clips import (
    FFMPEG,
    FakeJob,
    colour_at,
    colour_clip,
    ffmpeg,
    frame_count,
    sound_of,
    tone_at,
    tree,
    turned,
    varying_clip,
)
from tests.media.test_remote import Service

pytestmark = pytest.mark.ffmpeg

VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus")
MPEG4 = ("-c:v", "mpeg4", "-bf", "2", "-c:a", "libmp3lame")
ALL = ["mp4", "webm", "mov"]


def assembly(scenes: list[str], master: str = "master.wav", formats: list[str] = ALL) -> FakeJob:
    return FakeJob(sceneVideos=scenes, masterAudio=master, outputFormats=formats)


async def run_assembly(root: Path, *job: Any, job_id: str = "job-1", **parameters: Any) -> Any:
    running = assembly(*job)
    running.id = job_id
    if parameters:
        running.data["parameters"] = parameters
    return await AssemblyProcessor(ProcessorSettings(media_root=root))(running)


def master(root: Path, *, seconds: float = 20, hz: int = 700) -> None:
    ffmpeg("-f", "lavfi", "-i", f"sine=f={hz}:d={seconds},volume=8", root / "master.wav")


def seconds_of_sound(path: Path) -> float:
    return len(sound_of(path)) / 48_000


async def test_scenes_of_all_kinds_become_a_film_in_every_format(tmp_path: Path) -> None:
    colour_clip(
        tmp_path / "1.mp4", "red", size="65x49", fps="10", tone_hz=400, options=("-pix_fmt", "yuv444p")
    )
    colour_clip(tmp_path / "2.webm", "lime", size="96x32", fps="30", options=VP9)
    colour_clip(tmp_path / "3.avi", "blue", size="32x64", fps="25", tone_hz=900, options=MPEG4)
    master(tmp_path)
    facts = await run_assembly(tmp_path, ["1.mp4", "2.webm", "3.avi"])
    assert list(facts) == ALL
    for name, codecs in {"mp4": ("h264", "aac"), "webm": ("vp9", "opus"), "mov": ("h264", "aac")}.items():
        film = tmp_path / f"job-1.{name}"
        assert [colour_at(film, second, "8:8:28:20") for second in (0.5, 1.5, 2.5)] == ["red", "lime", "blue"]
        assert frame_count(film) == pytest.approx(90, abs=1)
        samples = sound_of(film)
        assert [tone_at(samples, second) for second in (0.0, 0.9, 1.9, 2.7)] == [700, 700, 700, 700]
        assert len(samples) / 48_000 == pytest.approx(3, abs=0.05)
        assert facts[name] == {
            "path": f"job-1.{name}",
            "bytes": film.stat().st_size,
            "duration": pytest.approx(3, abs=0.05),
            "streams": [
                {"type": "video", "codec": codecs[0], "width": 64, "height": 48, "fps": 30.0},
                {"type": "audio", "codec": codecs[1], "sampleRate": 48000, "channels": 2},
            ],
        }
    assert set(tree(tmp_path)) == {
        "1.mp4",
        "2.webm",
        "3.avi",
        "master.wav",
        *(f"job-1.{name}" for name in ALL),
    }


@pytest.mark.parametrize("formats", [["mp4"], ["mov"], ["webm"], ["mov", "mp4"]])
async def test_only_the_formats_asked_for_are_written(tmp_path: Path, formats: list[str]) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.5)
    master(tmp_path)
    facts = await run_assembly(tmp_path, ["1.mp4"], "master.wav", formats)
    assert list(facts) == formats
    assert set(tree(tmp_path)) == {"1.mp4", "master.wav", *(f"job-1.{name}" for name in formats)}
    assert all(entry["duration"] == pytest.approx(0.5, abs=0.02) for entry in facts.values())


async def test_mp4_and_mov_hold_the_same_encoded_pictures_and_sound(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red")
    master(tmp_path)
    await run_assembly(tmp_path, ["1.mp4"])
    packets = {
        name: ffmpeg("-i", tmp_path / f"job-1.{name}", "-map", "0", "-c", "copy", "-f", "streamhash", "-")
        for name in ALL
    }
    assert packets["mp4"] == packets["mov"] != packets["webm"]


async def test_mp4_and_mov_can_be_played_before_they_are_complete(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.3)
    master(tmp_path)
    await run_assembly(tmp_path, ["1.mp4"])
    for name in ("mp4", "mov"):
        content = (tmp_path / f"job-1.{name}").read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")
    assert b"qt  " in (tmp_path / "job-1.mov").read_bytes()[:16]
    assert b"isom" in (tmp_path / "job-1.mp4").read_bytes()[:16]


@pytest.mark.parametrize(("master_s", "heard"), [(0.5, [700, 0, 0]), (1.5, [700, 700, 0]), (9, [700] * 3)])
async def test_the_master_is_cut_or_padded_to_the_pictures_length(
    tmp_path: Path, master_s: float, heard: list[int]
) -> None:
    colour_clip(tmp_path / "1.mp4", "red")
    colour_clip(tmp_path / "2.mp4", "blue", fps="25")
    master(tmp_path, seconds=master_s)
    await run_assembly(tmp_path, ["1.mp4", "2.mp4"])
    for name in ALL:
        film = tmp_path / f"job-1.{name}"
        samples = sound_of(film)
        assert [tone_at(samples, second) for second in (0.1, 1.1, 1.7)] == heard
        assert len(samples) / 48_000 == pytest.approx(2, abs=0.03)
        assert frame_count(film) == 50


async def test_a_scenes_own_sound_neither_is_heard_nor_makes_it_longer(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", tone_hz=400, tone_s=5)
    colour_clip(tmp_path / "2.mp4", "blue", tone_hz=900, tone_s=0.2)
    master(tmp_path, seconds=0.1)
    await run_assembly(tmp_path, ["1.mp4", "2.mp4"], "master.wav", ["mp4"])
    film = tmp_path / "job-1.mp4"
    assert [colour_at(film, second) for second in (0.9, 1.1, 1.9)] == ["red", "blue", "blue"]
    assert [tone_at(sound_of(film), second) for second in (0.3, 0.9, 1.5)] == [0, 0, 0]
    assert frame_count(film) == 20
    assert seconds_of_sound(film) == pytest.approx(2, abs=0.03)


async def test_scenes_of_varying_rate_are_shown_as_they_were_meant(tmp_path: Path) -> None:
    # Ten red pictures in the first second, then four blue ones in two.
    times = "settb=1/1000,setpts='if(lt(N,10),N*100,N*500-4000)'"
    source = f"color=red:s=64x48:r=10:d=1.4,drawbox=color=blue:t=fill:enable='gte(n,10)',{times}"
    varying_clip(tmp_path / "vfr.mp4", source)
    colour_clip(tmp_path / "2.mp4", "lime")
    master(tmp_path)
    await run_assembly(tmp_path, ["2.mp4", "vfr.mp4", "2.mp4"], "master.wav", ["mp4"])
    film = tmp_path / "job-1.mp4"
    moments = {0.5: "lime", 1.4: "red", 1.8: "red", 2.2: "blue", 3.5: "blue"}
    assert {second: colour_at(film, second) for second in moments} == moments
    frames = frame_count(film)
    assert 45 < frames <= 51
    assert (colour_at(film, frames / 10 - 0.9), colour_at(film, frames / 10 - 1.2)) == ("lime", "blue")
    assert seconds_of_sound(film) == pytest.approx(frames / 10, abs=0.03)


@pytest.mark.external
async def test_a_film_of_many_short_scenes_keeps_its_sound_in_step(tmp_path: Path) -> None:
    # Each is 0.15 s at another rate than the film's, so that rounding adds up if nobody counts.
    colour_clip(tmp_path / "1.mp4", "red", fps="25")
    ffmpeg("-f", "lavfi", "-i", "color=blue:s=64x48:r=20", "-frames:v", "3", tmp_path / "2.mp4")
    master(tmp_path)
    await run_assembly(tmp_path, ["1.mp4", *["2.mp4"] * 15], "master.wav", ["mp4"])
    film = tmp_path / "job-1.mp4"
    assert seconds_of_sound(film) == pytest.approx(frame_count(film) / 25, abs=0.022)
    assert frame_count(film) == 25 + 15 * 4


async def test_a_first_scene_that_is_turned_gives_the_size_it_shows(tmp_path: Path) -> None:
    colour_clip(tmp_path / "lying.mp4", "red", size="64x32")
    turned(tmp_path / "lying.mp4", tmp_path / "1.mp4", degrees=90)
    master(tmp_path)
    facts = await run_assembly(tmp_path, ["1.mp4", "lying.mp4"])
    for entry in facts.values():
        assert (entry["streams"][0]["width"], entry["streams"][0]["height"]) == (32, 64)
    film = tmp_path / "job-1.mp4"
    assert [colour_at(film, 0.5), colour_at(film, 1.5, "32:16:0:24")] == ["red", "red"]
    assert [colour_at(film, 1.5, f"32:20:0:{top}") for top in (0, 44)] == ["black", "black"]


async def test_a_picture_that_starts_late_fills_its_scenes_beginning(tmp_path: Path) -> None:
    colour_clip(tmp_path / "0.mp4", "red")
    colour_clip(tmp_path / "blue.mp4", "blue")
    ffmpeg("-f", "lavfi", "-i", "sine=f=900:d=2,volume=8", tmp_path / "tone.wav")
    late = ("-itsoffset", "1", "-i", tmp_path / "blue.mp4", "-i", tmp_path / "tone.wav")
    ffmpeg(*late, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", tmp_path / "late.mp4")
    master(tmp_path)
    await run_assembly(tmp_path, ["late.mp4", "0.mp4"], "master.wav", ["mp4", "webm"])
    for name in ("mp4", "webm"):
        film = tmp_path / f"job-1.{name}"
        assert [colour_at(film, second) for second in (0, 0.5, 1.5, 2.5)] == ["blue", "blue", "blue", "red"]
        assert frame_count(film) == 30
        assert seconds_of_sound(film) == pytest.approx(3, abs=0.03)


async def test_a_truncated_scene_lasts_as_long_as_what_is_there(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "lime")
    noise = "nullsrc=s=128x96:r=10:d=6,geq=random(1)*255:128:128,drawbox=color=red:t=fill:x=64"
    options = ("-pix_fmt", "yuv420p", "-g", "10", "-movflags", "+faststart")
    ffmpeg("-f", "lavfi", "-i", noise, *options, tmp_path / "whole.mp4")
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    master(tmp_path)
    with pytest.raises(Discard, match=r"a part of 'cut\.mp4' is missing: the last \d+ of \d+ bytes"):
        await run_assembly(tmp_path, ["1.mp4", "cut.mp4"], "master.wav", ["mp4"])
    await run_assembly(tmp_path, ["1.mp4", "cut.mp4"], "master.wav", ["mp4"], allowBroken=True)
    film = tmp_path / "job-1.mp4"
    assert 3 < seconds_of_sound(film) < 5
    assert seconds_of_sound(film) == pytest.approx(frame_count(film) / 10, abs=0.03)


@pytest.mark.parametrize("clip", ["1.h264", "1.avi", "1.ts", "1.webm"])
async def test_a_scene_without_timestamps_is_whole(tmp_path: Path, clip: str) -> None:
    options = {"1.h264": (), "1.avi": MPEG4, "1.ts": (), "1.webm": VP9}[clip]
    source = "color=red:s=64x48:r=25:d=2,drawbox=color=blue:t=fill:enable='gte(n,25)'"
    # Written to a pipe, so without a duration.
    container = {"h264": "h264", "avi": "avi", "ts": "mpegts", "webm": "webm"}[clip.partition(".")[2]]
    (tmp_path / clip).write_bytes(ffmpeg("-f", "lavfi", "-i", source, *options, "-f", container, "-"))
    colour_clip(tmp_path / "2.mp4", "lime")
    master(tmp_path)
    await run_assembly(tmp_path, [clip, "2.mp4"], "master.wav", ["mp4"])
    film = tmp_path / "job-1.mp4"
    assert [colour_at(film, second) for second in (0.5, 1.5, 2.5)] == ["red", "blue", "lime"]
    assert frame_count(film) == pytest.approx(75, abs=1)
    assert seconds_of_sound(film) == pytest.approx(3, abs=0.1)


async def test_the_master_may_be_a_film_and_gives_only_its_sound(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red")
    colour_clip(tmp_path / "talk.mp4", "blue", tone_hz=700, seconds=2)
    await run_assembly(tmp_path, ["1.mp4"], "talk.mp4", ["mp4"])
    film = tmp_path / "job-1.mp4"
    assert (colour_at(film, 0.5), tone_at(sound_of(film), 0.4), frame_count(film)) == ("red", 700, 10)


async def test_titles_of_the_inputs_are_not_passed_on(tmp_path: Path) -> None:
    titled = ("-metadata", "title=not for everyone", "-metadata:s", "handler_name=not either")
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "color=red:s=32x32:d=0.3",
        "-f",
        "lavfi",
        "-i",
        "sine=d=0.3",
        *titled,
        tmp_path / "1.mp4",
    )
    await run_assembly(tmp_path, ["1.mp4"], "1.mp4")
    for name in ALL:
        assert b"not" not in (tmp_path / f"job-1.{name}").read_bytes().replace(b"options", b"")


@pytest.mark.external
async def test_progress_follows_ffmpeg_over_all_formats(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=400x224:r=30:d=10", "-preset", "ultrafast", tmp_path / "1.mp4")
    master(tmp_path)
    job = assembly(["1.mp4"])
    await AssemblyProcessor(ProcessorSettings(media_root=tmp_path))(job)
    assert job.reports == sorted(set(job.reports))
    assert (job.reports[0], job.reports[-1]) == (0, 100)
    assert len([percent for percent in job.reports if 5 < percent < 100]) > 1  # ffmpeg reports twice a second


@pytest.mark.parametrize(
    ("job_id", "name"),
    [
        ("6f1c1c9e-8f6e-4a53-9a3e-0c2d7f4b1a55", "6f1c1c9e-8f6e-4a53-9a3e-0c2d7f4b1a55"),
        ("../x", "%2E.%2Fx"),
        ("a/b", "a%2Fb"),
        ("-i", "%2Di"),
        ("file:x|y", "file%3Ax%7Cy"),
        ("ü %d 🎬", "%C3%BC%20%25d%20%F0%9F%8E%AC"),
    ],
)
async def test_any_job_id_names_files_in_the_media_root(tmp_path: Path, job_id: str, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    colour_clip(root / "1.mp4", "red", seconds=0.2)
    master(root, seconds=1)
    facts = await run_assembly(root, ["1.mp4"], "master.wav", ["mp4", "mov"], job_id=job_id)
    assert [entry["path"] for entry in facts.values()] == [f"{name}.mp4", f"{name}.mov"]
    assert set(tree(tmp_path)) == {
        "root",
        *(f"root/{entry}" for entry in ("1.mp4", "master.wav", f"{name}.mp4", f"{name}.mov")),
    }


@pytest.mark.parametrize("url", ["through descriptors", "through paths"])
async def test_a_rerun_writes_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    root = tmp_path / "a|b [c] 'd' \\e"
    root.mkdir()
    if url == "through paths":
        monkeypatch.setattr(paths, "_OPEN_FILES", Path("/nowhere"))
    colour_clip(root / "1.mp4", "red", seconds=0.2)
    colour_clip(root / "2.mp4", "blue", seconds=0.2)
    master(root, seconds=1)
    await run_assembly(root, ["1.mp4"])
    written = set(tree(root))
    await run_assembly(root, ["2.mp4"])
    assert set(tree(root)) == written
    assert [colour_at(root / f"job-1.{name}") for name in ALL] == ["blue"] * 3


async def test_a_scene_without_a_picture_is_refused(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.3)
    master(tmp_path)
    with pytest.raises(Discard, match=r"'master\.wav' has no picture"):
        await run_assembly(tmp_path, ["1.mp4", "master.wav"])
    assert set(tree(tmp_path)) == {"1.mp4", "master.wav"}


async def test_a_master_without_sound_is_refused(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.3)
    with pytest.raises(Discard, match=r"'1\.mp4' has no sound"):
        await run_assembly(tmp_path, ["1.mp4"], "1.mp4")
    assert set(tree(tmp_path)) == {"1.mp4"}


FORBIDDEN = [
    (["../secret.mp4"], "clip.mp4"),
    (["clip.mp4"], "../secret.mp4"),
    (["/etc/passwd"], "clip.mp4"),
    (["clip.mp4"], "/dev/zero"),
    (["clip.mp4", "to-secret.mp4"], "clip.mp4"),
    (["clip.mp4"], "list.m3u8"),
    (["fifo.mp4"], "clip.mp4"),
    (["clip.mp4"], "folder"),
]


@pytest.mark.parametrize(("scenes", "sound"), FORBIDDEN)
async def test_a_forbidden_path_fails_for_good_with_nothing_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenes: list[str], sound: str
) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    colour_clip(tmp_path / "secret.mp4", "red", seconds=0.2, tone_hz=700)
    (root / "clip.mp4").write_bytes((tmp_path / "secret.mp4").read_bytes())
    (root / "to-secret.mp4").symlink_to("../secret.mp4")
    (root / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n../secret.mp4\n#EXT-X-ENDLIST\n")
    os.mkfifo(root / "fifo.mp4")
    monkeypatch.setattr(assemble, "examine_all", None)  # what comes first, if anything is looked into
    before = tree(tmp_path)
    with pytest.raises(Discard) as discarded:
        await run_assembly(root, scenes, sound)
    assert any(repr(name) in str(discarded.value) for name in [*scenes, sound])
    assert str(tmp_path) not in str(discarded.value)
    assert tree(tmp_path) == before


async def test_an_output_that_is_no_file_is_refused_and_others_stay(tmp_path: Path) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.3, tone_hz=700)
    (tmp_path / "job-1.webm").mkdir()
    (tmp_path / "job-1.mp4").write_bytes(b"old")
    before = tree(tmp_path)
    with pytest.raises(Discard, match=r"'job-1\.webm' is not a regular file"):
        await run_assembly(tmp_path, ["1.mp4"], "1.mp4")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("fault", ["scene", "output"])
async def test_nothing_is_replaced_if_one_of_the_formats_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.5, tone_hz=700)
    (tmp_path / "2.mp4").write_bytes((tmp_path / "1.mp4").read_bytes()[:900])
    for name in ALL:
        (tmp_path / f"job-1.{name}").write_bytes(b"old")
    if fault == "output":
        # The one that is written last, alone: an encoder that does not exist.
        broken = assemble.sharing_an_encoder

        def breaking(outputs: Any) -> Any:
            groups = broken(outputs)
            groups[-1] = [
                (type(c)(c.muxer, c.demuxer, ("-c:v", "nonsense"), c.audio), url) for c, url in groups[-1]
            ]
            return groups

        monkeypatch.setattr(assemble, "sharing_an_encoder", breaking)
    before = tree(tmp_path)
    with pytest.raises((MediaFailed, Discard)) as failed:
        await run_assembly(tmp_path, ["1.mp4", "2.mp4"] if fault == "scene" else ["1.mp4"], "1.mp4")
    assert str(tmp_path) not in str(failed.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("scenes", "formats", "name"),
    [
        (["1.mp4"], ["mkv"], "out"),
        (["1.mp4"], ["mp4", "../x"], "out"),
        (["1.mp4"], [], "out"),
        ([], ["mp4"], "out"),
        (["1.mp4"], ["mp4"], "../out"),
        (["1.mp4"], ["mp4"], "a\0b"),
    ],
)
async def test_a_call_that_can_never_succeed_is_refused(
    tmp_path: Path, scenes: list[str], formats: list[str], name: str
) -> None:
    colour_clip(tmp_path / "1.mp4", "red", seconds=0.3, tone_hz=700)
    with pytest.raises(MediaRefused):
        await LocalMedia(MediaRoot(tmp_path), FFMPEG).assemble_video(
            scenes, "1.mp4", formats, name, [].append
        )
    assert set(tree(tmp_path)) == {"1.mp4"}


async def test_a_remote_service_gets_one_post_and_answers_the_result(tmp_path: Path) -> None:
    service = Service()
    service.body = b'{"mp4": {"path": "a%2Fb.mp4", "bytes": 12}}'
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/media"
        job = assembly(["1.mp4", "2.mp4"], "m.wav", ["mp4"])
        job.id = "a/b"
        processor = AssemblyProcessor(ProcessorSettings(media_root=tmp_path, media_url=url))
        result = await asyncio.wait_for(processor(job), 10)
    assert result == {"mp4": {"path": "a%2Fb.mp4", "bytes": 12}}
    ((request, _, content),) = service.calls
    assert request == "POST /media/assemble_video HTTP/1.1"
    assert content == {
        "sceneVideos": ["1.mp4", "2.mp4"],
        "masterAudio": "m.wav",
        "outputFormats": ["mp4"],
        "outputName": "a%2Fb",
    }
    assert tree(tmp_path) == {}
