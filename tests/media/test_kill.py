"""Media jobs that are ended from outside, in real queues: nothing of them stays, and they can run again."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beeq.processors.base import Processor, ProcessorSettings
from beeq.processors.media import AssemblyProcessor, MediaProcessor
from tests.media.clips import colour_at, colour_clip, ffmpeg, frame_count, tree
from tests.support.server import Server
from tests.support.waiting import Recorder
from tests.worker.test_process_lives import is_keeper

pytestmark = pytest.mark.ffmpeg

STALL_INTERVAL_MS = 500
#: From here on ffmpeg is writing; an assembly looks at its scenes first.
WRITING_PERCENT = {"stitch": 1, "assembly": 6}
PROCESSORS: dict[str, type[Processor[Any]]] = {"stitch": MediaProcessor, "assembly": AssemblyProcessor}
WORKER = """
import asyncio, sys
from pathlib import Path
from beeq import Queue
from beeq.media import ffmpeg
from beeq.processors.base import ProcessorSettings
from beeq.processors.{module} import {processor}

async def main():
    name, url, root, kernel = sys.argv[1:]
    ffmpeg._HAS_DEATH_SIGNAL = kernel == "linux"
    queue = Queue(name, redis=url, stall_interval={stall_interval})
    queue.process({processor}(ProcessorSettings(media_root=Path(root))))
    await queue.run()

asyncio.run(main())
"""


def job_of(kind: str, clip: str) -> dict[str, Any]:
    if kind == "stitch":
        return {"type": "video-stitch", "inputFiles": [clip, "end.mp4"], "outputPath": "film-1.mp4"}
    return {
        "sceneVideos": [clip, "end.mp4"],
        "masterAudio": "master.wav",
        "outputFormats": ["mp4", "webm", "mov"],
    }


def outputs_of(kind: str) -> list[str]:
    return ["film-1.mp4"] if kind == "stitch" else [f"film-1.{suffix}" for suffix in ("mp4", "webm", "mov")]


def media(root: Path, kind: str) -> dict[str, bytes | None]:
    """Make a root with inputs and with outputs of an earlier run; return what is in it."""
    colour_clip(root / "end.mp4", "blue", size="320x180", fps="30", seconds=0.5)
    ffmpeg("-f", "lavfi", "-i", "sine=f=700:d=1", root / "master.wav")
    for name in outputs_of(kind):
        (root / name).write_bytes(b"old")
    return tree(root)


def processes() -> dict[int, tuple[int, int]]:
    """Return parent and group of every process that lives."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found[int(entry.name)] = (int(parent), int(group))
    return found


def users_of(root: Path) -> list[int]:
    """Return the other processes that have a file under a folder open, by name or without one."""
    found = set()
    for pid in processes():
        try:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                if str(root) in str(entry.readlink()) and pid != os.getpid():
                    found.add(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return sorted(found)


def temporary_files_have_no_name(root: Path) -> bool:
    try:
        os.close(os.open(root, os.O_TMPFILE | os.O_RDWR))
    except OSError:
        return False
    return True


@pytest.fixture
async def start_worker(valkey: Server, queue_name: str) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """``await start_worker(kind, root, kernel)``: a worker in a process of its own, killed at the end."""
    workers: list[asyncio.subprocess.Process] = []

    async def start(kind: str, root: Path, kernel: str) -> asyncio.subprocess.Process:
        processor = PROCESSORS[kind]
        module = processor.__module__.rpartition(".")[2]
        names = {"module": module, "processor": processor.__name__, "stall_interval": STALL_INTERVAL_MS}
        script = WORKER.format(**names)
        arguments = ("-c", script, queue_name, valkey.url, str(root), kernel)
        cwd = Path(__file__).parents[2]
        workers.append(await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=cwd))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.returncode is None:
            worker.kill()
        await asyncio.wait_for(worker.wait(), 30)


def writing(job: Any, kind: str) -> asyncio.Event:
    """Return what is set once ffmpeg writes for the job."""
    event = asyncio.Event()
    job.on("progress", lambda percent: event.set() if percent >= WRITING_PERCENT[kind] else None)
    return event


@pytest.fixture
def _one_core() -> Iterator[None]:
    """Let what is started in this test be as slow everywhere, so that it is ended in the middle."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(cores)])
    yield
    os.sched_setaffinity(0, cores)


@pytest.mark.usefixtures("_one_core")
@pytest.mark.parametrize(
    ("kind", "kernel"), [("stitch", "linux"), ("assembly", "linux"), ("stitch", "another")]
)
async def test_a_killed_workers_job_leaves_nothing_and_is_done_next(
    tmp_path: Path,
    make_queue: Callable[..., Any],
    start_worker: Callable[..., Awaitable[Any]],
    eventually: Callable[..., Any],
    kind: str,
    kernel: str,
) -> None:
    source = "color=red:s=480x270:r=30:d=12,noise=alls=20"
    ffmpeg("-f", "lavfi", "-i", source, "-preset", "ultrafast", tmp_path / "clip.mp4")
    before = media(tmp_path, kind)
    queue = make_queue(stall_interval=STALL_INTERVAL_MS)
    job = queue.create_job(job_of(kind, "clip.mp4")).set_id("film-1")
    is_writing = writing(job, kind)
    await job.save()
    doomed = await start_worker(kind, tmp_path, kernel)
    await asyncio.wait_for(is_writing.wait(), 60)
    children = {
        pid: group
        for pid, (parent, group) in processes().items()
        if parent == doomed.pid and not is_keeper(pid)
    }
    assert len(children) == 1  # ffmpeg, …
    assert list(children) == list(children.values())  # … which leads a group of its own
    assert set(users_of(tmp_path)) == {doomed.pid, *children}
    doomed.kill()
    await doomed.wait()
    await eventually(lambda: not [1 for _, group in processes().values() if group in children], 2)
    assert users_of(tmp_path) == []
    after = tree(tmp_path)
    if not temporary_files_have_no_name(tmp_path):
        after = {name: content for name, content in after.items() if not name.startswith(".beeq-")}
    assert after == before

    queue.process(PROCESSORS[kind](ProcessorSettings(media_root=tmp_path)))
    await job.result(timeout=90_000)
    assert tree(tmp_path).keys() == after.keys()
    for name in outputs_of(kind):
        assert frame_count(tmp_path / name) == pytest.approx(375, abs=1)
        assert colour_at(tmp_path / name, 12.2) == "blue"


@pytest.mark.usefixtures("_one_core")
@pytest.mark.parametrize("end", ["cancelled", "timed out", "closed"])
@pytest.mark.parametrize("kind", PROCESSORS)
async def test_a_job_that_is_ended_takes_ffmpeg_and_its_files_along(
    tmp_path: Path, make_queue: Callable[..., Any], kind: str, end: str
) -> None:
    # Few pictures, for the reading before, and large ones, for the writing.
    source = "testsrc2=s=1280x720:r=30:d=2"
    ffmpeg("-f", "lavfi", "-i", source, "-preset", "ultrafast", tmp_path / "short.mp4")
    ffmpeg("-stream_loop", "40", "-i", tmp_path / "short.mp4", "-c", "copy", tmp_path / "clip.mp4")
    before = media(tmp_path, kind)
    queue = make_queue()
    record = Recorder(queue, "cancelled", "failed", "succeeded")
    seen: list[set[int]] = []
    processor = PROCESSORS[kind](ProcessorSettings(media_root=tmp_path))

    @queue.process
    async def handler(job: Any) -> Any:
        try:
            return await processor(job)
        finally:
            # Before anybody hears of the end.
            seen.append({pid for pid, (parent, _) in processes().items() if parent == os.getpid()})
            seen.append(set(users_of(tmp_path)))

    job = queue.create_job(job_of(kind, "clip.mp4")).set_id("film-1")
    if end == "timed out":
        job.timeout(8000)  # the reading before it takes a while on one core
    is_writing = writing(job, kind)
    others = {pid for pid, (parent, _) in processes().items() if parent == os.getpid()}
    await job.save()
    await asyncio.wait_for(is_writing.wait(), 60)
    assert seen == []
    if end == "cancelled":
        assert await queue.cancel_job("film-1")
        await record.until("cancelled")
    elif end == "timed out":
        ((_, error, *_),) = await record.until("failed")
        assert "timed out" in str(error)
    else:
        with pytest.raises(TimeoutError):
            await queue.close(timeout=100)
    assert seen == [others, set()]
    assert tree(tmp_path) == before
    assert record.of("succeeded") == []
