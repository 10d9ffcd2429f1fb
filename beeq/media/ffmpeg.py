"""Finds ffmpeg and runs it: without a shell, without standard input, and not longer than its caller.

Each run is a process group of its own, killed as a whole when the caller is cancelled. On Linux the
kernel also kills it when the worker is killed; elsewhere such a run goes on to its end, and writes to a
temporary name.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from beeq.media.errors import MediaFailed, shown
from beeq.media.paths import OpenFile

#: The longest run, for jobs with a longer timeout or none.
LIMIT_S = 3 * 60 * 60.0
#: A killed process is gone at once, unless the system itself hangs.
_DEATH_S = 5.0
#: Of ffmpeg's log the beginning (facts of inputs, the first fault) and the end are kept.
_HEAD_BYTES = 256 * 1024
_TAIL_BYTES = 8 * 1024
_CHUNK_BYTES = 16 * 1024
#: The decoders refuse larger pictures, which would use up the memory.
_MAX_PIXELS = 16384 * 16384
#: All that ffmpeg gets of the worker's environment, because that holds secrets.
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
#: Runs a program that dies with the worker: PR_SET_PDEATHSIG outlives exec. (A ``preexec_fn`` could
#: do this too, but is not safe in a process with threads.)
_DIES_WITH_WORKER = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the worker is gone")
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"ffmpeg cannot be started: {error.strerror}")
"""
_CONTEXT = re.compile(r"^(\[[^\]]*\] ?)+")
#: The operating system's errors are the cause of all other lines of a log.
_CAUSES = ("No space left", "Permission denied", "Input/output error", "Cannot allocate", "Disk quota")


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended."""

    exit_status: int  # 0 for success; negative: the signal that ended it
    log: str  # without the middle if it was long
    frames: int  # the number of pictures written to the first output

    @property
    def fault(self) -> str:
        """The line of the log that most likely gives the cause."""
        if self.exit_status < 0:
            return f"ffmpeg was ended by signal {-self.exit_status}"
        lines = [text for line in self.log.splitlines() if (text := _CONTEXT.sub("", line).strip())]
        causes = [line for line in lines if any(cause in line for cause in _CAUSES)]
        best = (causes or lines or [f"ffmpeg ended with exit status {self.exit_status}"])[0]
        return best[:300]


def find_ffmpeg() -> str:
    """Return the path of the ffmpeg on ``PATH``, else of the one in ``imageio-ffmpeg``."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg  # noqa: PLC0415 - an optional dependency

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise MediaFailed(
            "ffmpeg was not found: install ffmpeg, or 'beequeue[media]', which brings one"
        ) from None


def reading(file: OpenFile, *options: str) -> list[str]:
    """Return the arguments that make ``file`` an input: by its own demuxer, with no other files."""
    external = ["-enable_drefs", "0", "-use_absolute_path", "0"] if file.demuxer == "mov" else []
    return [
        *("-protocol_whitelist", "file", "-max_pixels", str(_MAX_PIXELS), "-f", file.demuxer),
        *external,
        *options,
        *("-i", file.url),
    ]


async def run(
    arguments: Sequence[str],
    files: Iterable[int],
    *,
    log_level: str = "error",
    on_time: Callable[[float], None] | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> Run:
    """Run ffmpeg to its end; ``files`` are the descriptors of the files that the arguments name.

    The log level ``info`` logs the facts of the inputs. ``on_time`` is called now and then with the seconds
    of output written so far, ``on_output`` with what ffmpeg writes to ``pipe:1``; then no frames are counted.
    Raises MediaFailed if ffmpeg is not installed, cannot be started, or took longer than ``LIMIT_S``.
    """
    command = [
        *(find_ffmpeg(), "-hide_banner", "-nostdin", "-y", "-v", log_level),
        *("-nostats", *(() if on_output else ("-progress", "pipe:1")), *arguments),
    ]
    if sys.platform == "linux" and sys.executable:
        command = [sys.executable, "-I", "-S", "-c", _DIES_WITH_WORKER, str(os.getpid()), *command]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=tuple(files),
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
    except OSError as error:
        raise MediaFailed(f"ffmpeg cannot be started: {error.strerror}") from None
    progress, log = _ProgressReader(on_time), _LogReader()
    try:
        async with asyncio.timeout(LIMIT_S):
            # Both pipes are always drained; a full one would stop ffmpeg.
            await asyncio.gather(
                _drain(process.stdout, on_output or progress.feed),
                _drain(process.stderr, log.feed),
                process.wait(),
            )
    except TimeoutError:
        raise MediaFailed(f"ffmpeg was stopped after {LIMIT_S:.0f} s") from None
    finally:
        await _end(process)
    exit_status = process.returncode if process.returncode is not None else -signal.SIGKILL
    return Run(exit_status, log.text(), progress.frames)


async def _drain(stream: asyncio.StreamReader | None, feed: Callable[[bytes], None]) -> None:
    assert stream is not None  # noqa: S101 - asked for as a pipe
    while chunk := await stream.read(_CHUNK_BYTES):
        feed(chunk)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill ffmpeg if it still runs; without a chance to clean up, for its output is thrown away."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DEATH_S):
            await process.wait()


class _ProgressReader:
    """Reads the ``key=value`` lines of ``-progress``."""

    def __init__(self, on_time: Callable[[float], None] | None) -> None:
        self.frames = 0
        self._on_time = on_time
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-_CHUNK_BYTES:]
        for line in lines:
            key, _, value = line.partition(b"=")
            number = value.strip()
            if not number.removeprefix(b"-").isdigit():
                continue  # N/A, or a key of no interest here
            if key == b"frame":
                self.frames = int(number)
            elif key == b"out_time_us" and self._on_time is not None:
                self._on_time(int(number) / 1_000_000)


class _LogReader:
    """Keeps the beginning and the end of ffmpeg's log."""

    def __init__(self) -> None:
        self._head = self._tail = b""

    def feed(self, chunk: bytes) -> None:
        room = _HEAD_BYTES - len(self._head)
        self._head += chunk[:room]
        self._tail = (self._tail + chunk[room:])[-_TAIL_BYTES:]

    def text(self) -> str:
        return (self._head + (b"\n" + self._tail if self._tail else b"")).decode(errors="replace")


def failure(names: Sequence[str], run_: Run) -> MediaFailed:
    """Return the error for a failed run on the files ``names``."""
    return MediaFailed(f"{', '.join(map(shown, names[:3]))}: {run_.fault}")
