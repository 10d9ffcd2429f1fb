"""What holds an ffmpeg that a hostile file has taken over, seen from outside and tried from inside."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beeq.media.ffmpeg import find_ffmpeg
from beeq.media.limits import MediaLimits
from beeq.media.sandbox import launcher
from beeq.media.sandbox.confinement import confinement_of
from beeq.media.sandbox.files import program_at
from beeq.media.sandbox.plan import STEPS, Needs, launch, limits_of
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import AssemblyProcessor, MediaProcessor
from tests.media.clips import FakeJob, colour_clip, ffmpeg

ONE_MIB = 1024 * 1024
SECRET = "whsec_c2VjcmV0"


class Seen:
    """An ffmpeg as another process sees it, stopped right after its start."""

    def __init__(self, pid: int) -> None:
        proc = Path(f"/proc/{pid}")
        lines = (line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        self.status = {name: value.strip() for name, value in lines}
        #: Soft and hard limit by name, as texts.
        self.limits = {
            line[:25].strip(): tuple(line[25:].split()[:2])
            for line in (proc / "limits").read_text().splitlines()[1:]
        }
        self.network = (proc / "ns" / "net").readlink()
        self.environment = (proc / "environ").read_bytes()
        self.oom_score = int((proc / "oom_score_adj").read_text())


def stopped(pid: int) -> Seen:
    """Wait until a process is ffmpeg, and stop it. (The loop waits, too, so that nothing reaps it.)"""
    launcher = os.path.realpath(sys.executable)
    while (running := os.path.realpath(f"/proc/{pid}/exe")) == launcher:
        pass
    os.kill(pid, signal.SIGSTOP)
    assert "ffmpeg" in running
    return Seen(pid)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """Every ffmpeg that is started during the test."""
    found: list[Seen] = []
    start = asyncio.create_subprocess_exec

    async def watched(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **options)
        found.append(stopped(process.pid))
        os.kill(process.pid, signal.SIGCONT)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    return found


JOBS = {
    "video-stitch": (["clip.mp4", "other.mkv"], "out.mp4", {}),
    "audio-stitch": (["clip.mp4", "tone.wav"], "out.m4a", {}),
    "music-mix": (["clip.mp4"], "out.mp4", {"musicTrack": "tone.wav"}),
    "frame-extract": (["clip.mp4"], "out.png", {}),
    "assembly": ([], "", {}),
}


def job_of(kind: str) -> tuple[Any, FakeJob]:
    if kind == "assembly":
        film = {"sceneVideos": ["clip.mp4", "other.mkv"], "masterAudio": "tone.wav"}
        return AssemblyProcessor, FakeJob(**film, outputFormats=["mp4", "webm", "mov"])
    inputs, output, parameters = JOBS[kind]
    data = {"inputFiles": inputs, "outputPath": output, "parameters": parameters}
    return MediaProcessor, FakeJob(type=kind, **data)


@pytest.mark.ffmpeg
@pytest.mark.parametrize("kind", JOBS)
async def test_no_ffmpeg_of_a_job_has_its_workers_powers(
    tmp_path: Path, seen: list[Seen], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    colour_clip(tmp_path / "clip.mp4", "red", seconds=0.5, tone_hz=500)
    colour_clip(tmp_path / "other.mkv", "blue", size="80x60", seconds=0.5)
    ffmpeg("-f", "lavfi", "-i", "sine=f=700:d=1", tmp_path / "tone.wav")
    monkeypatch.setenv("BEEQ_WEBHOOK_SECRET", SECRET)
    limits = MediaLimits(max_memory_mb=3000, max_output_mb=50)
    await confinement_of(find_ffmpeg())
    seen.clear()  # of the one that said its version
    processor, job = job_of(kind)
    await processor(ProcessorSettings(media_root=tmp_path, media_limits=limits))(job)
    assert len(seen) >= 3
    own = Seen(os.getpid())
    for one in seen:
        assert one.status["NoNewPrivs"] == "1"
        assert one.status["Seccomp"] == "2"
        # To read and write other users' files, as the worker does; nothing else.
        assert int(one.status["CapEff"], 16) & ~0b110 == 0
        assert int(one.status["CapPrm"], 16) & ~0b110 == 0
        assert one.network != own.network
        assert one.oom_score >= min(1000, own.oom_score + 500)
        assert SECRET.encode() not in one.environment
        assert b"BEEQ" not in one.environment
        assert one.limits["Max core file size"] == ("0", "0")
        assert one.limits["Max address space"] == (f"{3000 * ONE_MIB}",) * 2
        assert one.limits["Max file size"] == (f"{50 * ONE_MIB}",) * 2
        assert 100 < int(one.limits["Max cpu time"][0]) < 10_000
        assert int(one.limits["Max open files"][0]) < 1024


TRIED = {
    "read a file of the system": ("open('/etc/passwd')", "PermissionError"),
    "read another file of the root": ("open(root + '/other.mp4')", "PermissionError"),
    "list the root": ("os.listdir(root)", "PermissionError"),
    "list the home": ("os.listdir(os.path.expanduser('~'))", "PermissionError"),
    "read its worker's environment": ("open(f'/proc/{os.getppid()}/environ')", "PermissionError"),
    "write a file beside its output": ("open(root + '/new.mp4', 'w')", "PermissionError"),
    "write elsewhere": ("open('/tmp/beeq-new', 'w')", "PermissionError"),
    "write to an input": ("open(f'/proc/self/fd/{source}', 'r+')", "PermissionError"),
    "delete a file": ("os.unlink(root + '/other.mp4')", "PermissionError"),
    "rename a file": ("os.rename(root + '/other.mp4', root + '/x.mp4')", "PermissionError"),
    "make a folder": ("os.mkdir(root + '/folder')", "PermissionError"),
    "change a mode": ("os.fchmod(target, 0o777)", "PermissionError"),
    "open an Internet socket": ("socket.socket(socket.AF_INET)", "PermissionError"),
    "open a Unix socket": ("socket.socket(socket.AF_UNIX)", "PermissionError"),
    "open a raw socket": ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "PermissionError"),
    "fork": ("os.fork()", "PermissionError"),
    "become another program": ("os.execv('/bin/sh', ['sh', '-c', 'echo hello'])", "PermissionError"),
    "start another program": ("os.posix_spawn('/bin/sh', ['sh', '-c', 'echo hello'], {})", "PermissionError"),
    "start itself again": ("os.execv(sys.executable, [sys.executable, '-c', ''])", "PermissionError"),
    "signal its worker": ("os.kill(os.getppid(), 0)", "PermissionError"),
    "signal all": ("os.kill(-1, 0)", "PermissionError"),
    "limit its worker": ("resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (9, 9))", "PermissionError"),
    "raise its own limits": ("resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "ValueError"),
    "keep its memory in a file": ("os.memfd_create('x')", "PermissionError"),
    "take more memory": ("bytearray(600 << 20)", "MemoryError"),
    "wait for its worker's end": ("os.pidfd_open(os.getppid())", "PermissionError"),
    "outlive its worker": ("prctl(1, 0)", "PermissionError"),
    "enter a namespace": ("unshare(0x10000000)", "PermissionError"),
    "trace its worker": ("ptrace(16, os.getppid(), 0, 0)", "PermissionError"),
}  # fmt: skip
ATTACK = """
import os, sys, _ctypes, ctypes, resource, _socket as socket
root, source, target, tried = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
libc = ctypes.CDLL(None, use_errno=True)
def calling(name):
    def call(*arguments):
        if getattr(libc, name)(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    return call
prctl, unshare, ptrace = map(calling, ("prctl", "unshare", "ptrace"))
try:
    eval(tried)
    print("done")
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "other.mp4").write_bytes(b"other")
    (tmp_path / "source.mp4").write_bytes(b"source")
    return tmp_path


def attack(root: Path, tried: str, steps: tuple[str, ...] = STEPS, **limits: Any) -> str:
    """Let a program in ffmpeg's place, a Python of the same confinement, try something."""
    source = os.open(root / "source.mp4", os.O_RDONLY)
    target = os.open(root, os.O_TMPFILE | os.O_RDWR)
    try:
        needs = Needs((source, target))
        command, environment = launch(
            program_at(os.path.realpath(sys.executable)),
            ["-I", "-S", "-c", ATTACK, str(root), str(source), str(target), tried],
            steps,
            files=needs.files,
            limits=limits_of(needs, MediaLimits(**{"max_memory_mb": 500, **limits})),
        )
        ended = subprocess.run(
            command, env=environment, pass_fds=needs.files, capture_output=True, text=True, check=False
        )
    finally:
        os.close(source)
        os.close(target)
    return ended.stdout.strip() or f"{ended.returncode}: {ended.stderr}"


@pytest.mark.parametrize("name", TRIED)
def test_what_has_taken_ffmpeg_over_can_not(root: Path, name: str) -> None:
    tried, refusal = TRIED[name]
    assert attack(root, tried) == refusal


@pytest.mark.parametrize("name", [
    "read a file of the system", "read another file of the root", "list the root", "write a file beside its output",
    "delete a file", "rename a file", "open an Internet socket", "open a Unix socket", "fork", "signal its worker",
    "become another program", "keep its memory in a file",
])  # fmt: skip
def test_the_same_can_be_done_without_the_confinement(root: Path, name: str) -> None:
    assert attack(root, TRIED[name][0], ()) in ("done", "done\ndone", "hello")


WORKS = {
    "read its input": "open(f'/proc/self/fd/{source}').read()",
    "write its output": "open(f'/proc/self/fd/{target}', 'w').write('new')",
    "read its output": "open(f'/proc/self/fd/{target}').read()",
    "write to nowhere": "open('/dev/null', 'w').write('x')",
    "start threads": "__import__('_thread').start_new_thread(print, ())",
}


@pytest.mark.parametrize("name", WORKS)
def test_what_ffmpeg_needs_it_can(root: Path, name: str) -> None:
    assert attack(root, WORKS[name]) == "done"


def test_the_launcher_starts_with_each_ffmpeg_and_imports_little() -> None:
    folder = Path(launcher.__file__).parent
    looked = f"import sys; sys.path.append({str(folder)!r}); import launcher; print(*sys.modules)"
    said = subprocess.check_output([sys.executable, "-I", "-S", "-c", looked], text=True)
    assert "launcher" in said.split()
    assert {"typing", "re", "enum", "pathlib", "subprocess", "asyncio", "json"}.isdisjoint(said.split())
