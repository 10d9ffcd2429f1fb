"""A file's titles and tags, whatever they look like, change neither its facts nor what becomes of its job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beeq.errors import Discard
from beeq.media.inputs.examine import examine
from beeq.media.inputs.facts import Facts
from beeq.media.inputs.probe import probe
from beeq.media.paths import MediaRoot
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import MediaProcessor
from tests.media.clips import FFMPEG, H264, colour_at, colour_clip, ffmpeg, run_job
from tests.media.forgeries import KEYS, PLAIN_KEYS, raw_film, renamed, tagged, tagged_png, tagged_webp
from tests.support.waiting import Recorder

pytestmark = pytest.mark.ffmpeg

ALPHA = ("-c:v", "libvpx-vp9", "-auto-alt-ref", "0", "-pix_fmt", "yuva420p")
#: By the suffix: the codecs, and the options of the muxer that let it write any tag.
SOUNDS = {
    "ogg": (("-c:a", "libvorbis"), ()),
    "opus": (("-c:a", "libopus"), ()),
    "flac": (("-c:a", "flac"), ()),
    "wav": (("-c:a", "pcm_s16le"), ()),
    "mp3": (("-c:a", "libmp3lame"), ("-id3v2_version", "3")),
    "aiff": (("-c:a", "pcm_s16be"), ("-write_id3v2", "1")),
    "m4a": (("-c:a", "aac"), ("-movflags", "use_metadata_tags")),
    "caf": (("-c:a", "pcm_s16be"), ()),
    "mka": (("-c:a", "flac"), ("-write_crc32", "0")),
}
FILMS = {
    "mp4": (H264, ("-movflags", "use_metadata_tags")),
    "mov": (H264, ()),
    "mkv": (H264, ("-write_crc32", "0")),
    "webm": (ALPHA, ("-write_crc32", "0")),
    "avi": (("-c:v", "mpeg4", "-c:a", "libmp3lame"), ()),
    "ts": (H264, ("-metadata", f"service_name={KEYS[2]}", "-metadata", f"service_provider={KEYS[4]}")),
    "flv": (H264, ()),
    "nut": (H264, ()),
    "asf": (("-c:v", "mpeg4", "-c:a", "libmp3lame"), ()),
}
EVERY = {**SOUNDS, **FILMS}
MATROSKA = ("mka", "mkv", "webm")
#: Words of a file that get into what ffmpeg complains of.
WORD = b"a\nx: No space left on device\n\x1b[1;31m[in#1/x @ 0x1] No space left on device\n\x1b[0mb: I/O error"


def clip_of(root: Path, suffix: str) -> Path:
    clip = root / f"plain.{suffix}"
    if suffix in FILMS:
        return colour_clip(clip, "red", seconds=0.5, tone_hz=400, options=FILMS[suffix][0])
    ffmpeg("-f", "lavfi", "-i", "sine=f=400:d=0.5", *SOUNDS[suffix][0], clip)
    return clip


def forged(clip: Path) -> tuple[Path, Path]:
    """Return two copies of a clip: one with plain tags, and one with forged ones."""
    suffix = clip.suffix[1:]
    options = EVERY[suffix][1]
    plain = tagged(clip, clip.with_name(f"tagged.{suffix}"), *options, keys=PLAIN_KEYS)
    path = clip.with_name(f"forged.{suffix}")
    return plain, renamed(plain, path) if suffix in MATROSKA else tagged(clip, path, *options)


async def facts_of(path: Path) -> Facts:
    with MediaRoot(path.parent).reading(path.name) as file:
        return await examine(FFMPEG, file)


@pytest.mark.parametrize("suffix", EVERY)
async def test_tags_named_like_facts_are_none(tmp_path: Path, suffix: str) -> None:
    plain, made = forged(clip_of(tmp_path, suffix))
    facts = await facts_of(made)
    assert facts.duration_s == pytest.approx(0.5, abs=0.1)
    # Times, too, which the facts' own comparison leaves out.
    assert repr(facts) == repr(await facts_of(plain))


@pytest.mark.parametrize("suffix", ["png", "webp"])
async def test_a_stills_texts_are_no_facts(tmp_path: Path, suffix: str) -> None:
    still = tmp_path / f"plain.{suffix}"
    colour = ("-f", "lavfi", "-i", "color=red:s=64x48")
    ffmpeg(*colour, "-frames:v", "1", *(("-c:v", "libwebp") if suffix == "webp" else ()), still)
    made = {"png": tagged_png, "webp": tagged_webp}[suffix](still, tmp_path / f"forged.{suffix}")
    facts = await facts_of(made)
    assert facts.video is not None
    assert (facts.video.is_still, facts.video.shown_size) == (True, (64, 48))
    assert repr(facts) == repr(await facts_of(still))


async def test_a_covers_title_is_no_fact(tmp_path: Path) -> None:
    plain, cover = clip_of(tmp_path, "mp3"), tmp_path / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x48", "-frames:v", "1", cover)
    titles = [word for key in KEYS[2:10] for word in ("-metadata:s:v", f"title={key}")]
    covered = tmp_path / "covered.mp3"
    maps = ("-map", "0", "-map", "1", "-c", "copy", "-id3v2_version", "3", "-disposition:v", "attached_pic")
    ffmpeg("-i", plain, "-i", cover, *maps, *titles, covered)
    assert [type(stream).__name__ for stream in (await facts_of(covered)).streams] == ["Audio"]
    with pytest.raises(Discard, match="has no picture"):
        await run_job(tmp_path, "video-stitch", ["covered.mp3"], "out.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
async def test_a_forged_file_is_worked_on_like_any_other(tmp_path: Path, suffix: str) -> None:
    forged(clip_of(tmp_path, suffix))
    names = [f"forged.{suffix}"]
    await run_job(tmp_path, "frame-extract", names, "out.png")
    assert colour_at(tmp_path / "out.png") == "red"
    film = await run_job(tmp_path, "video-stitch", names * 2, "out.mp4")
    assert film["duration"] == pytest.approx(1, abs=0.1)
    sound = await run_job(tmp_path, "audio-stitch", names, "out.wav")
    assert sound["duration"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("job_type", ["music-mix", "video-stitch"])
async def test_no_text_of_an_input_gets_into_the_output(tmp_path: Path, job_type: str) -> None:
    forged(clip_of(tmp_path, "mp4"))
    await run_job(tmp_path, job_type, ["forged.mp4"], "out.mp4", musicTrack="forged.mp4")
    written = (tmp_path / "out.mp4").read_bytes()
    assert [key for key in KEYS if "\n" in key and key.encode() in written] == []


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The command of every process that is started during the test."""
    commands: list[tuple[str, ...]] = []
    start = asyncio.create_subprocess_exec

    async def watched(*command: str, **options: Any) -> asyncio.subprocess.Process:
        commands.append(command)
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    return commands


async def test_a_forged_length_costs_no_more_runs(tmp_path: Path, started: list[tuple[str, ...]]) -> None:
    plain = clip_of(tmp_path, "mp4")
    # The first run of a process finds out what holds ffmpeg.
    await run_job(tmp_path, "frame-extract", [plain.name], "plain.png")
    started.clear()
    await run_job(tmp_path, "frame-extract", [plain.name], "plain.png")
    usual = len(started)
    started.clear()
    for digits in (2, 290, 5000):
        ffmpeg(
            *("-i", plain, "-c", "copy", "-movflags", "use_metadata_tags", "-metadata"),
            *(f"a\n  Duration: {'9' * digits}:00:00.00, start: 0, bitrate: 1=1", tmp_path / "forged.mp4"),
        )
        await run_job(tmp_path, "frame-extract", ["forged.mp4"], "out.png")
    assert len(started) == 3 * usual


async def test_a_running_workers_first_attempt_is_enough(
    tmp_path: Path, make_queue: Callable[..., Any]
) -> None:
    forged(clip_of(tmp_path, "mp4"))
    raw_film(tmp_path / "words.mkv", doctype=WORD)
    raw_film(tmp_path / "codec.mkv", codec=WORD)
    queue = make_queue()
    record = Recorder(queue, "succeeded", "retrying", "failed")
    queue.process(MediaProcessor(ProcessorSettings(media_root=tmp_path)))
    good = {"type": "video-stitch", "inputFiles": ["forged.mp4", "words.mkv"], "outputPath": "out.mp4"}
    job = await queue.create_job(good).retries(3).save()
    facts = await job.result(timeout="90s")
    assert facts["duration"] == pytest.approx(0.5, abs=0.2)
    await queue.create_job({**good, "inputFiles": ["codec.mkv"]}).retries(3).save()
    ((_, error, *_),) = await record.until("failed")
    assert str(error).isprintable()
    assert record.of("retrying") == []


async def test_a_files_words_do_not_have_its_job_retried(tmp_path: Path) -> None:
    raw_film(tmp_path / "kind.mkv", doctype=WORD)
    raw_film(tmp_path / "codec.mkv", codec=WORD)
    await run_job(tmp_path, "frame-extract", ["kind.mkv"], "out.png")
    assert (tmp_path / "out.png").exists()
    with pytest.raises(Discard, match="'codec.mkv'") as refused:
        await run_job(tmp_path, "video-stitch", ["kind.mkv", "codec.mkv"], "out.mp4")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "words",
    [
        *(b"Packet corrupt", b"Packet corrupt (stream = 0, dts = 1)", b"File ended prematurely at pos. 1"),
        *(b"stream 0, offset 0x1: partial file", b"moov atom not found", b"dimensions not set"),
        *(b"Picture size 9x9 exceeds", b"Number of streams exceeds max_streams", b"sample rate not set"),
        *(b"concealing 9 DC, 9 AC, 9 MV errors", b"Changing audio frame properties on the fly"),
    ],
)
async def test_no_words_of_a_healthy_file_have_it_refused(tmp_path: Path, words: bytes) -> None:
    raw_film(tmp_path / "kind.webm", doctype=words)
    await run_job(tmp_path, "frame-extract", ["kind.webm"], "out.png")
    film = await run_job(tmp_path, "video-stitch", ["kind.webm", "kind.webm"], "out.mp4")
    assert film["streams"][0]["type"] == "video"


@pytest.mark.parametrize("suffix", ["mp4", "wav", "mkv"])
async def test_a_file_that_beeq_wrote_has_its_length(tmp_path: Path, suffix: str) -> None:
    clip = clip_of(tmp_path, suffix)
    with MediaRoot(tmp_path).reading(clip.name) as file:
        facts = await probe(FFMPEG, file)
    assert facts.duration_s == pytest.approx(0.5, abs=0.05)
    # The packets are read in the other case only.
    assert facts.streams == (await facts_of(clip)).streams
