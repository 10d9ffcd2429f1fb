"""What an ffmpeg may use up: a job that hits a limit fails for good, and names the setting."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from beeq.errors import Discard
from beeq.media import ffmpeg as ffmpeg_module
from beeq.media.errors import MediaFailed, MediaRefused
from beeq.media.ffmpeg import Run
from beeq.media.limits import MediaLimits
from beeq.media.logs.complaints import Complaint
from beeq.media.paths import MediaRoot
from beeq.media.sandbox import plan
from beeq.media.sandbox.confinement import confinement_of
from beeq.media.sandbox.plan import Needs
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import MediaProcessor
from tests.media.bombs import Attacking, gif, mp4
from tests.media.clips import FFMPEG, FakeJob, colour_clip, ffmpeg, tree

pytestmark = pytest.mark.ffmpeg

ENDLESS = ("-f", "lavfi", "-i", "testsrc2=s=640x360:r=30", "-f", "null", "-")


async def stitched(root: Path, **limits: Any) -> Any:
    settings = ProcessorSettings(media_root=root, media_limits=MediaLimits(**limits))
    job = FakeJob(type="video-stitch", inputFiles=["clip.mp4", "other.mp4"], outputPath="out.mp4")
    return await MediaProcessor(settings)(job)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for name, rate in (("clip", 25), ("other", 30)):
        source = f"testsrc2=s=1280x720:r={rate}:d=2,noise=alls=40"
        ffmpeg("-f", "lavfi", "-i", source, "-preset", "ultrafast", tmp_path / f"{name}.mp4")
    return tmp_path


async def test_a_job_that_writes_too_much_fails_for_good(clips: Path) -> None:
    with pytest.raises(Discard, match=r"larger; the limit is 1 MiB \(BEEQ_MEDIA_MAX_OUTPUT_MB\)$"):
        await stitched(clips, max_output_mb=1)
    assert set(tree(clips)) == {"clip.mp4", "other.mp4"}


async def test_a_job_that_needs_too_much_memory_fails_for_good(clips: Path) -> None:
    with pytest.raises(Discard, match=r"memory for it; the limit is 300 MiB \(BEEQ_MEDIA_MAX_MEMORY_MB\)$"):
        await stitched(clips, max_memory_mb=300)


async def test_a_job_that_computes_too_long_fails_for_good(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_CPU_BASE_S", 1.0)
    monkeypatch.setattr(plan, "_CPU_S_A_MIB", 0.0)
    slow = ("-f", "lavfi", "-i", "testsrc2=s=1920x1080:r=30", "-c:v", "libx264", "-f", "null", "-")
    with pytest.raises(MediaRefused, match=r"CPU time; the limit is 1 s \(BEEQ_MEDIA_MAX_CPU_S\)$"):
        await FFMPEG.run(slow, [])


async def test_ffmpegs_own_end_at_the_signal_is_the_limits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    known = confinement_of

    async def without_a_filter(path: str) -> Any:
        found = await known(path)
        return type(found)(found.program, found.version, ("network", "landlock"))

    monkeypatch.setattr(ffmpeg_module, "confinement_of", without_a_filter)
    monkeypatch.setattr(plan, "_CPU_BASE_S", 1.0)
    with pytest.raises(MediaRefused, match="BEEQ_MEDIA_MAX_CPU_S"):
        await FFMPEG.run(ENDLESS, [])


def test_the_time_that_is_allowed_grows_with_the_media(tmp_path: Path) -> None:
    limits = MediaLimits()
    six_hours = Needs(media_s=6 * 3600.0).cpu_s(limits)
    assert six_hours > 6 * 3600 * 100
    assert Needs(media_s=None).cpu_s(limits) == six_hours
    assert Needs(media_s=1.0).cpu_s(limits) < 600
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(4 << 30)
        # Reading alone, of four GiB.
        assert 3600 < Needs((file.fileno(),)).cpu_s(limits) < 36_000


def ended(status: int, text: str) -> Run:
    return Run(status, (Complaint((), text),), "", 0)


@pytest.mark.parametrize(("status", "text", "is_for_good"), [
    (1, "malloc of size 9000 failed", True),
    (1, "Error while filtering: Cannot allocate memory", True),
    (-signal.SIGABRT, "terminate called after throwing an instance of 'std::bad_alloc'", True),
    (127, "ffmpeg: error while loading shared libraries: x: failed to map segment from shared object", True),
    (1, "Error while opening encoder: Resource temporarily unavailable", True),
    (1, "Error writing trailer: No space left on device", False),
    (1, "Invalid data found when processing input", False),
])  # fmt: skip
def test_want_of_memory_is_told_from_other_faults(status: int, text: str, is_for_good: bool) -> None:
    error = FFMPEG.failure(["a.mp4"], ended(status, text))
    assert isinstance(error, MediaRefused if is_for_good else MediaFailed)


def test_a_full_disk_may_be_retried_and_want_of_memory_not() -> None:
    assert ended(1, "Error writing trailer: No space left on device").is_systems_fault
    assert not ended(1, "malloc of size 9000 failed: Cannot allocate memory").is_systems_fault
    assert ended(-signal.SIGKILL, "").is_systems_fault


async def test_250_inputs_have_room_for_their_command_and_threads(tmp_path: Path) -> None:
    clip = colour_clip(tmp_path / "clip.mp4", "red", size="1280x720", seconds=0.2)
    with MediaRoot(tmp_path).reading(clip.name) as file:
        inputs = [word for _ in range(250) for word in FFMPEG.reading(file, threads=1)]
        # As long as the filters of clips are.
        chains = "".join(f"[{number}:0]{'setsar=1,' * 40}null[v{number}];" for number in range(250))
        pads = "".join(f"[v{number}]" for number in range(250))
        graph = ("-filter_complex", f"{chains}{pads}concat=n=250[v]", "-map", "[v]")
        done = await FFMPEG.run([*inputs, *graph, "-f", "null", "-"], [file.fd], media_s=50.0)
    assert (done.exit_status, done.frames) == (0, 500)


#: With all limits on a file's declarations raised, the limits on its ffmpeg still hold.
OPEN = {
    "BEEQ_MEDIA_MAX_SECONDS": "99999999",
    "BEEQ_MEDIA_MAX_GAP_S": "99999999",
    "BEEQ_MEDIA_MAX_PICTURE": "16384x16384",
    "BEEQ_MEDIA_MAX_MEGAPIXELS": "999999",
    "BEEQ_MEDIA_MAX_ALLOC_MB": "4096",
    "BEEQ_MEDIA_MAX_OUTPUT_MB": "200",
    "BEEQ_MEDIA_MAX_MEMORY_MB": "1500",
}
BOMBS = {
    "a sound of days": (mp4([(10, 100_000)], is_sound=True, timescale=1), "audio-stitch", "o.wav", "OUTPUT"),
    "a huge picture": (gif(16_000, 16_000), "frame-extract", "o.png", "MEMORY"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_that_passes_the_checks_ends_at_a_limit(tmp_path: Path, attack: Attacking, name: str) -> None:
    content, kind, output, limit = BOMBS[name]
    (tmp_path / "bomb.mov").write_bytes(content)
    attacked = attack(tmp_path, {"type": kind, "inputFiles": ["bomb.mov"], "outputPath": output}, **OPEN)
    ((error, text),) = attacked.outcomes
    assert error == "Discard", text
    assert f"(BEEQ_MEDIA_MAX_{limit}_MB)" in text
    assert attacked.peak_mb < 1600
    assert set(tree(tmp_path)) == {"bomb.mov"}
