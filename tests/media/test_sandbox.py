"""What holds an ffmpeg that a hostile file has taken over, seen from outside and tried from inside."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Any

import pytest

from beeq.media.ffmpeg import find_ffmpeg
from beeq.media.limits import MediaLimits
from beeq.media.sandbox import launcher, seccomp
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
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # a short one may have ended
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
import os, sys, _ctypes, ctypes, struct, resource, _socket as socket
root, source, target, tried = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
libc = ctypes.CDLL(None, use_errno=True)
def calling(name):
    def call(*arguments):
        if getattr(libc, name)(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    return call
prctl, unshare, ptrace, syscall = map(calling, ("prctl", "unshare", "ptrace", "syscall"))
def signal_by_pipe(pid):
    import fcntl
    read, write = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)
    fcntl.fcntl(read, fcntl.F_SETSIG, 9)
    fcntl.fcntl(read, fcntl.F_SETOWN, pid)
    os.write(write, b"x")
def control(fd, command, value=bytes(64)):
    import fcntl
    fcntl.ioctl(fd, command, value)
def command(number, value):
    import fcntl
    fcntl.fcntl(target, number, value)
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


OWNER = "os.getpid().to_bytes(4, 'little')"
SPACE = "struct.pack('hhqqIi16x', 0, 0, 0, 8 << 20, 0, 0)"
#: Tried with the filter of system calls alone, as on kernels whose Landlock knows less of it.
FILTERED = {
    "let a process be signalled": "command(8, os.getpid())",
    "let a process be signalled otherwise": "command(15, b'\\0' * 8)",
    "choose the signal": "command(10, 9)",
    "have a lease": "command(1024, 2)",
    "hear of a folder": "command(1026, 1)",
    "let a process be signalled by a command": f"control(os.pipe()[0], 0x8901, {OWNER})",
    "let a group be signalled by a command": f"control(os.pipe()[0], 0x8902, {OWNER})",
    "have signals sent": "control(os.pipe()[0], 0x5452, b'\\1\\0\\0\\0')",
    "type into a terminal": "control(os.open('/dev/ptmx', 2), 0x5412)",
    "paste into a console": "control(os.open('/dev/ptmx', 2), 0x541C)",
    "take space": "syscall($fallocate, target, 1, ctypes.c_long(0), ctypes.c_long(8 << 20))",
    "take space by a command": f"control(target, 0x40305828, {SPACE})",
    "take space by a wide command": f"control(target, 0x4030582A, {SPACE})",
    "mark its output": "control(target, 0x40086602)",
    "move a process to a processor": "os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0))",
    "find a process's locks": "syscall($get_robust_list, os.getppid(), bytes(8), bytes(8))",
    "end a set of semaphores": "syscall($semctl, 0, 0, 0, 0)",
    "wait for semaphores": "syscall($semtimedop, 0, bytes(6), 1, bytes(16))",
    "end a queue of messages": "syscall($msgctl, 0, 0, 0)",
    "read a queue of messages": "syscall($msgrcv, 0, bytes(99), 64, 0, 0o4000)",
    "read a queue by descriptor": "syscall($mq_timedreceive, target, bytes(99), 64, 0, 0)",
    "watch files": "syscall($inotify_init1, 0)",
    "watch a folder": "syscall($inotify_add_watch, target, b'/', 0xFFF)",
    "read attributes": "os.getxattr(root + '/other.mp4', 'user.x')",
    "list attributes": "os.listxattr(root)",
    "list mounts": "syscall($listmount, bytes(24), bytes(800), 100, 0)",
    "describe a mount": "syscall($statmount, bytes(24), bytes(800), 800, 0)",
    "remove attributes": "syscall($removexattrat, -100, b'/', 0, b'user.x')",
    "set a file's attributes": "syscall($file_setattr, target, b'', bytes(24), 24, 0x1000)",
    "copy a mount": "syscall($open_tree_attr, -100, b'/', 1, 0, 0)",
    "sync the machine": "os.sync() or syscall($sync)",
    "let all trace it": "prctl(0x59616D61, ctypes.c_long(-1), 0, 0, 0)",
    "share a core": "prctl(62, 2, os.getppid(), 0, 0)",
    "know its addresses": "syscall($personality, 0x40000)",
}  # fmt: skip


def filtered(root: Path, tried: str) -> str:
    """Let a program try something under the filter alone; ``$name`` is a system call's number."""
    column = seccomp.MACHINES[platform.machine()].column
    numbers = {name: both[column] for group in seccomp.CALLS.values() for name, both in group.items()}
    return attack(root, Template(tried).substitute(numbers, personality=(135, 92)[column]), ("seccomp",))


@pytest.mark.parametrize("name", FILTERED)
def test_what_the_filter_alone_keeps_off(root: Path, name: str) -> None:
    assert filtered(root, FILTERED[name]) == "PermissionError"


def test_a_pipe_signals_no_process_of_the_same_user(root: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            assert filtered(root, f"signal_by_pipe({other.pid})") == "PermissionError"
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.2)
        finally:
            other.kill()


@pytest.mark.parametrize("number", [337, 423, 471, 500, 4095])
def test_calls_of_later_kernels_are_not_there(root: Path, number: int) -> None:
    said = f"print(libc.syscall({number}, -1, 0, 0, 0, 0, 0), ctypes.get_errno())"
    assert filtered(root, said) == f"-1 {errno.ENOSYS}\ndone"


@pytest.mark.parametrize("tried", [
    "os.dup(source)", "os.set_inheritable(source, True)", "os.set_blocking(target, False)", "os.isatty(source)",
    "os.sched_setaffinity(0, os.sched_getaffinity(0))", "os.sched_setaffinity(os.getpid(), os.sched_getaffinity(0))",
    "os.access('/etc/passwd', 4)", "os.stat('/etc/passwd')", "os.ftruncate(target, 1 << 20)", "prctl(15, b'name')",
    "syscall($personality, 0xFFFFFFFF)",
])  # fmt: skip
def test_what_is_of_use_the_filter_allows(root: Path, tried: str) -> None:
    assert filtered(root, tried) == "done"


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
