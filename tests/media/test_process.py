"""ffmpeg as a process: when it is started, its arguments, and that it never outlives its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from beeq.errors import Discard
from beeq.media import ffmpeg as ffmpeg_module
from beeq.media import paths
from beeq.media.errors import MediaFailed
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import MediaProcessor
from tests.media.clips import FFMPEG, FakeJob, colour_at, colour_clip, ffmpeg, run_job, tree

pytestmark = pytest.mark.ffmpeg

Started = list[asyncio.subprocess.Process]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Every process that is started during the test."""
    processes: Started = []
    start = asyncio.create_subprocess_exec

    async def watched(*command: str, **options: Any) -> asyncio.subprocess.Process:
        processes.append(await start(*command, **options))
        return processes[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    return processes


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def long_clip(root: Path) -> None:
    """Make a clip that takes long to stitch, quickly: a small one, many times over."""
    colour_clip(root / "short.mp4", "red", size="1280x720", fps="30", seconds=2)
    ffmpeg("-stream_loop", "300", "-i", root / "short.mp4", "-c", "copy", root / "long.mp4")


LONG_JOB = {"type": "video-stitch", "inputFiles": ["long.mp4"], "outputPath": "out/film.webm"}


class ReportingJob(FakeJob):
    """Tells when it is on its way."""

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        self.is_moving = asyncio.Event()

    async def report_progress(self, value: Any) -> int:
        if value > 0:
            self.is_moving.set()
        return await super().report_progress(value)


@pytest.mark.parametrize("url", ["through descriptors", "through paths"])
async def test_a_cancelled_job_leaves_neither_ffmpeg_nor_half_a_file(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    if url == "through paths":
        monkeypatch.setattr(paths, "_OPEN_FILES", Path("/nowhere"))
    long_clip(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "film.webm").write_bytes(b"old")
    before = tree(tmp_path)
    job = ReportingJob(**LONG_JOB)
    running = asyncio.create_task(MediaProcessor(ProcessorSettings(media_root=tmp_path))(job))
    await asyncio.wait_for(job.is_moving.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 1)  # before a worker gives the handler up
    assert started
    assert [process.pid for process in started if is_alive(process.pid)] == []
    assert tree(tmp_path) == before
    assert 100 not in job.reports


async def test_a_killed_worker_leaves_neither_ffmpeg_nor_half_a_file(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    long_clip(tmp_path)
    script = f"""
import asyncio
from pathlib import Path
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import MediaProcessor

start = asyncio.create_subprocess_exec
async def watched(*command, **options):
    process = await start(*command, **options)
    print("pid", process.pid, flush=True)
    return process
asyncio.create_subprocess_exec = watched

class Job:
    id, data, options = "1", {LONG_JOB!r}, {{}}
    async def report_progress(self, value):
        print("at", value, flush=True)

asyncio.run(MediaProcessor(ProcessorSettings(media_root=Path({str(tmp_path)!r})))(Job()))
"""
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    pids = []
    try:
        assert worker.stdout is not None
        async with asyncio.timeout(30):
            async for line in worker.stdout:
                word, value = line.split()
                pids += [int(value)] if word == b"pid" else []
                if word == b"at" and value != b"0":
                    break
        assert [pid for pid in pids if is_alive(pid)] == [pids[-1]]
    finally:
        worker.kill()
        await worker.wait()
    await eventually(lambda: not is_alive(pids[-1]), 5)
    assert set(tree(tmp_path)) == {"short.mp4", "long.mp4"}


FORBIDDEN = [
    (["../secret.mp4"], "out.mp4"),
    (["/etc/passwd"], "out.mp4"),
    (["clip.mp4", "to-secret.mp4"], "out.mp4"),
    (["list.mp4"], "new/out.mp4"),
    (["list.m3u8"], "out.mp4"),
    (["script.ffconcat"], "out.mp4"),
    (["fifo.mp4"], "out.mp4"),
    (["folder"], "out.mp4"),
    (["notes.txt"], "out.mp4"),
    (["clip.mp4"], "../out.mp4"),
    (["clip.mp4"], "/etc/out.mp4"),
    (["clip.mp4"], "to-secret.mp4"),
    (["clip.mp4"], "folder.mp4"),
    (["clip.mp4"], "out.sh"),
    (["clip.mp4"], "out"),
    (["clip.mp4"], "notes.txt"),
    (["clip.mp4"], "out.m3u8"),
    (["clip.mp4"], "http://127.0.0.1/out"),
]


@pytest.mark.parametrize(("inputs", "output"), FORBIDDEN)
async def test_a_forbidden_path_fails_for_good_with_nothing_started(
    tmp_path: Path, started: Started, inputs: list[str], output: str
) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder.mp4").mkdir()
    colour_clip(tmp_path / "secret.mp4", "red", seconds=0.2)
    (root / "clip.mp4").write_bytes((tmp_path / "secret.mp4").read_bytes())
    (root / "to-secret.mp4").symlink_to("../secret.mp4")
    for name in ("list.mp4", "list.m3u8"):
        (root / name).write_text("#EXTM3U\n#EXTINF:1,\n../secret.mp4\n#EXT-X-ENDLIST\n")
    (root / "script.ffconcat").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    (root / "notes.txt").write_text("notes")
    os.mkfifo(root / "fifo.mp4")
    before = tree(tmp_path)
    with pytest.raises(Discard) as discarded:
        await asyncio.wait_for(run_job(root, "video-stitch", inputs, output), 5)
    assert any(repr(name) in str(discarded.value) for name in [*inputs, output])
    assert str(tmp_path) not in str(discarded.value)
    assert started == []
    assert tree(tmp_path) == before


async def test_a_file_that_is_not_there_may_come_yet(tmp_path: Path, started: Started) -> None:
    with pytest.raises(MediaFailed, match=r"'clip\.mp4' cannot be opened: No such file or directory"):
        await run_job(tmp_path, "frame-extract", ["clip.mp4"], "new/last.png")
    assert started == []
    assert tree(tmp_path) == {}


def referring_clip(secret: Path) -> bytes:
    """Return a QuickTime file whose pictures are to be read from ``secret``, by its absolute path."""
    content = secret.read_bytes()
    path = str(secret).encode()
    alias = bytes(10 + 1 + 27 + 12 + 1 + 63 + 16 + 2 + 2 + 16)
    alias += struct.pack(">HH", 2, len(path) + len(path) % 2) + path + bytes(len(path) % 2) + b"\xff\xff\0\0"
    own = content.index(b"dref") + 12
    length = int.from_bytes(content[own : own + 4])
    entry = b"alis" + bytes(4) + alias
    clip = bytearray(content[:own] + struct.pack(">I", len(entry) + 4) + entry + content[own + length :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = clip.rindex(box, 0, own) - 4
        size = int.from_bytes(clip[place : place + 4]) + len(entry) + 4 - length
        clip[place : place + 4] = size.to_bytes(4)
    data = clip.index(b"mdat") + 4
    clip[data : clip.index(b"moov") - 4] = bytes(clip.index(b"moov") - 4 - data)
    return bytes(clip)


async def test_a_clip_that_refers_to_a_forbidden_file_gets_nothing(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret.mov"
    root.mkdir()
    ffmpeg("-f", "lavfi", "-i", "color=blue:s=64x48:d=0.2", "-c:v", "rawvideo", "-pix_fmt", "uyvy422", secret)
    clip = root / "clip.mov"
    clip.write_bytes(referring_clip(secret))
    # The trap works: ffmpeg follows the reference when it is allowed to.
    trapped = ("-enable_drefs", "1", "-use_absolute_path", "1", "-i", clip, "-frames:v", "1")
    ffmpeg(*trapped, tmp_path / "trapped.png")
    assert colour_at(tmp_path / "trapped.png") == "blue"
    try:
        await run_job(root, "frame-extract", ["clip.mov"], "last.png")
    except (MediaFailed, Discard):
        assert set(tree(root)) == {"clip.mov"}
    else:
        assert colour_at(root / "last.png") != "blue"


@pytest.fixture
def pretend(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """``pretend(commands)`` puts a shell script on PATH in place of ffmpeg."""
    program = tmp_path_factory.mktemp("bin") / "ffmpeg"
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def write(commands: str) -> Path:
        program.write_text(f'#!/bin/sh\n[ "$*" = -version ] && exit\n{commands}\n')
        program.chmod(0o755)
        return program

    return write


async def test_ffmpeg_sees_no_secret_of_the_workers_environment(
    pretend: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("env >&2\n")
    monkeypatch.setenv("BEEQ_WEBHOOK_SECRET", "whsec_c2VjcmV0")
    seen = [each.text for each in (await FFMPEG.run([], [])).complaints]
    assert any(text.startswith("PATH=") for text in seen)
    assert not any("whsec" in text for text in seen)


async def test_whatever_ffmpeg_says_is_read_and_little_of_it_kept(pretend: Callable[[str], Path]) -> None:
    pretend(
        "echo first >&2\nhead -c 3000000 /dev/zero | tr '\\0' x >&2\n"
        "head -c 3000000 /dev/zero\necho >&2\necho last >&2\nexit 3\n"
    )
    ended = await FFMPEG.run([], [])
    texts = [each.text for each in ended.complaints]
    assert (ended.exit_status, ended.fault, texts[-1]) == (3, "first", "last")
    assert sum(map(len, texts)) < 300_000


async def test_a_full_disk_is_named_whatever_was_said_before(pretend: Callable[[str], Path]) -> None:
    pretend(
        r"printf '\033[1;35m[h264 @ 0x1] \033[0m\033[1;31mconcealing errors\n\033[0m' >&2"
        "\n"
        r"printf '\033[1;35m[out#0/mp4 @ 0x2] \033[0m' >&2"
        "\n"
        r"printf '\033[1;31mError writing trailer: No space left on device\n\033[0m' >&2"
        "\nexit 1\n"
    )
    ended = await FFMPEG.run([], [])
    assert ended.fault == "Error writing trailer: No space left on device"


async def test_ffmpeg_that_was_killed_fails_the_attempt(
    tmp_path: Path, pretend: Callable[[str], Path]
) -> None:
    pretend("kill -9 $$")
    ended = await FFMPEG.run([], [])
    assert (ended.exit_status, ended.fault) == (-signal.SIGKILL, "ffmpeg was ended by signal 9")
    assert tree(tmp_path) == {}


async def test_ffmpeg_that_hangs_is_ended(
    pretend: Callable[[str], Path], started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("trap '' TERM\nsleep 600 & wait\n")
    monkeypatch.setattr(ffmpeg_module, "LIMIT_S", 0.3)
    with pytest.raises(MediaFailed, match="stopped after"):
        await asyncio.wait_for(FFMPEG.run([], []), 5)
    assert [process.pid for process in started if is_alive(process.pid)] == []


async def test_without_ffmpeg_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour_clip(tmp_path / "clip.mp4", "red", seconds=0.2)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MediaFailed, match=r"install ffmpeg, or 'beequeue\[media\]'"):
        await run_job(tmp_path, "frame-extract", ["clip.mp4"], "last.png")


async def test_the_machines_own_ffmpeg_comes_first(pretend: Callable[[str], Path]) -> None:
    program = pretend("exit 0")
    assert ffmpeg_module.find_ffmpeg() == str(program)


def test_without_one_on_path_the_bundled_ffmpeg_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert ffmpeg_module.find_ffmpeg() == imageio_ffmpeg.get_ffmpeg_exe()


async def test_an_ffmpeg_that_is_no_program_is_named(pretend: Callable[[str], Path]) -> None:
    program = pretend("")
    program.write_bytes(b"\x7fELFnothing")
    with pytest.raises(MediaFailed, match="^ffmpeg cannot be started: Exec format error$"):
        await FFMPEG.run([], [])
