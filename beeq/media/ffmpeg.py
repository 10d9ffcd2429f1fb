"""Finds ffmpeg and runs it: without a shell, without standard input, and not longer than its caller.

Each run is a process group of its own, killed as a whole when the caller is cancelled. When the worker is
killed, ffmpeg is, too: by the kernel on Linux, elsewhere by a keeper's process, which each run then has.
"""

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from beeq.jobs import MediaParameters
from beeq.media.errors import MediaFailed, MediaRefused, shown, shown_all
from beeq.media.formats import DECODERS
from beeq.media.limits import MediaLimits, beyond, setting_of
from beeq.media.logs.complaints import Complaint, blamed_input, cause_of
from beeq.media.logs.reader import COLOURED, LogReader
from beeq.media.paths import OpenFile
from beeq.media.sandbox import launcher
from beeq.media.sandbox.confinement import confinement_of
from beeq.media.sandbox.plan import Needs, launch, limits_of
from beeq.media.sandbox.watchdog import Watchdog
from beeq.worker.attempts.processes.group_keeper import GroupKeeper

#: The longest run, for jobs with a longer timeout or none.
LIMIT_S = 3 * 60 * 60.0
#: A killed process is gone at once, unless the system itself hangs.
_DEATH_S = 5.0
_CHUNK_BYTES = 16 * 1024
_MIB = 1024 * 1024
_HAS_DEATH_SIGNAL = sys.platform == "linux"
#: Keys of the progress that grow while a run advances.
_GROWING = (b"frame", b"out_time_us", b"total_size")
#: Titles, chapters, languages and other texts of the inputs are not passed on.
UNTITLED = ("-map_metadata", "-1", "-map_metadata:s", "-1", "-map_chapters", "-1")
#: ffmpeg's exit status at the signal of the CPU limit, if the filter lets it handle that.
_ENDED_BY_SIGNAL, _SAYS_CPU = 255, f"received signal {int(signal.SIGXCPU)}"


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended."""

    exit_status: int  # 0 for success; negative: the signal that ended it
    complaints: tuple[Complaint, ...]  # without the middle if there were very many
    said: str  # the rest of its log, which may hold any text of a file (see ``LogReader``)
    frames: int  # the number of pictures written to the first output

    @property
    def is_systems_fault(self) -> bool:
        """Whether the system ended the run, not the files: another attempt may succeed."""
        if self.is_out_of_memory:
            return False
        return self.exit_status < 0 or any(each.is_the_systems for each in self.complaints)

    @property
    def is_out_of_memory(self) -> bool:
        """Whether the run failed for want of memory: another attempt has the same limit."""
        return self.exit_status != 0 and any(each.is_of_memory for each in self.complaints)

    @property
    def is_too_large(self) -> bool:
        """Whether the run failed because its output was too large."""
        return self.exit_status != 0 and any(each.is_of_size for each in self.complaints)

    @property
    def fault(self) -> str:
        """The most likely cause, in ffmpeg's words."""
        if self.exit_status < 0:
            return f"ffmpeg was ended by signal {-self.exit_status}"
        return cause_of(self.complaints) or f"ffmpeg ended with exit status {self.exit_status}"

    @property
    def blamed(self) -> int | None:
        """The number of the one input that ffmpeg complains of; None if it names none, or several."""
        return blamed_input(self.complaints)

    def complains(self, of: re.Pattern[str]) -> re.Match[str] | None:
        """Return the first complaint that begins with a pattern.

        Only the beginning of a complaint is ffmpeg's own words: the rest may quote a file.
        """
        return next((found for each in self.complaints if (found := of.match(each.text))), None)


def find_ffmpeg() -> str:
    """Return the path of the ffmpeg on ``PATH``, else of the one in ``imageio-ffmpeg``.

    The package itself is not called: it would start its ffmpeg with all of this process's environment.
    """
    if found := shutil.which("ffmpeg"):
        return found
    if chosen := os.environ.get("IMAGEIO_FFMPEG_EXE"):
        return chosen
    spec = importlib.util.find_spec("imageio_ffmpeg")
    for package in spec.submodule_search_locations or () if spec is not None else ():
        for binary in sorted(Path(package, "binaries").glob("ffmpeg-*")):
            if os.access(binary, os.X_OK):
                return str(binary)
    raise MediaFailed("ffmpeg was not found: install ffmpeg, or 'beequeue[media]', which brings one")


@dataclass(frozen=True, slots=True)
class FFmpeg:
    """Runs ffmpeg within limits. Nothing else starts it, so no run is without them.

    Every function that reads, decodes or writes gets this object from its caller.
    """

    limits: MediaLimits

    def reading(self, file: OpenFile, *options: str, threads: int | None = None) -> list[str]:
        """Return the arguments that make ``file`` an input: by its own demuxer, with no other files.

        Each of its decoders has so many ``threads``, by default as many as the job's limits allow.
        """
        external = ["-enable_drefs", "0", "-use_absolute_path", "0"] if file.demuxer == "mov" else []
        return [
            *("-protocol_whitelist", "file", "-f", file.demuxer),
            *("-max_streams", str(self.limits.max_streams)),
            # A changing sound is an error: restarted filters would restart its time.
            *("-reinit_filter:a", "0"),
            # Also for what is inside: subtitles of an AVI file have a demuxer of their own.
            *("-format_whitelist", file.demuxer, "-codec_whitelist", ",".join(DECODERS)),
            # Also for a picture that comes later in a stream, larger than its first.
            *("-max_pixels", str(self.limits.max_pixels), "-threads", str(threads or self.limits.threads)),
            *external,
            *(("-skip_initial_bytes", str(file.begin)) if file.begin else ()),
            *options,
            *("-i", file.url),
        ]

    def encoding(self) -> list[str]:
        """Return the options of an output that bound its encoders' threads; none where they take no more."""
        threads = self.limits.threads
        return ["-threads", str(threads)] if threads < (os.cpu_count() or 1) else []

    async def run(
        self,
        arguments: Sequence[str],
        files: Iterable[int],
        *,
        log_level: str = "error",
        on_time: Callable[[float], None] | None = None,
        on_output: Callable[[bytes], None] | None = None,
        media_s: float | None = 0.0,
        mark: str = "",
    ) -> Run:
        """Run ffmpeg to its end; ``files`` are the descriptors of the files that the arguments name.

        It gets these files, to write those that are open for writing, and otherwise only what
        ``beeq.media.sandbox`` allows. It gets CPU time for the ``media_s`` seconds of media that it decodes
        or encodes (None: unknown), and for the size of its files.

        The log level ``info`` logs ffmpeg's findings; the text around ``mark`` is kept. ``on_time`` is called
        now and then with the seconds of output written so far, ``on_output`` with ffmpeg's output to
        ``pipe:1``; then no frames are counted.

        Raises MediaFailed if ffmpeg is not installed, too old, cannot be started, does not advance
        (``watchdog``), or took longer than ``LIMIT_S``; MediaRefused if it used up its CPU time or wrote too
        large a file.
        """
        limits, needs = self.limits, Needs(tuple(files), media_s)
        confinement = await confinement_of(find_ffmpeg())
        threads = str(limits.threads)
        arguments = [
            *("-hide_banner", "-nostdin", "-y", "-v", log_level),
            *("-max_alloc", str(limits.max_alloc_mb * _MIB)),
            *("-filter_threads", threads, "-filter_complex_threads", threads),
            *("-nostats", *(() if on_output else ("-progress", "pipe:1")), *arguments),
        ]
        command, environment = launch(
            confinement.program,
            arguments,
            confinement.holds,
            files=needs.files,
            limits=limits_of(needs, limits),
            dies_with_worker=_HAS_DEATH_SIGNAL,
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                pass_fds=needs.files,
                env=environment | COLOURED,
            )
        except OSError as error:
            raise MediaFailed(f"ffmpeg cannot be started: {error.strerror}") from None
        progress, watchdog = _ProgressReader(on_time), Watchdog(process.pid, limits.stall_s)
        log = LogReader(mark, only_complaints=log_level != "info")
        keeper = GroupKeeper()
        try:
            if not _HAS_DEATH_SIGNAL:
                keeper.add(process.pid)
            async with asyncio.timeout(LIMIT_S):
                await _watched(process, (_advancing(on_output, progress, watchdog), log.feed), watchdog)
        except TimeoutError:
            raise MediaFailed(f"ffmpeg was stopped after {LIMIT_S:.0f} s") from None
        except OSError as error:
            raise MediaFailed(f"ffmpeg cannot be watched: {error.strerror}") from None
        finally:
            await _end(process)
            await keeper.close()
        exit_status = process.returncode if process.returncode is not None else -signal.SIGKILL
        ended = Run(exit_status, log.complaints(), log.said(), progress.frames)
        _check_limits(ended, needs, limits)
        return ended

    def failure(self, names: Sequence[str], run_: Run) -> MediaFailed | MediaRefused:
        """Return the error for a failed run on the files ``names``, in the order of the inputs."""
        if run_.is_out_of_memory:
            return self.out_of_memory(names[0])
        changing = [each for each in run_.complaints if each.is_of_changing_sound]
        if changing:
            found = blamed_input(changing)
            name = shown(names[found]) if found is not None and found < len(names) else shown_all(names)
            return MediaRefused(f"{name}: the sound changes its rate or its channels on the way")
        blamed = run_.blamed
        if blamed is not None and blamed < len(names):
            return MediaFailed(f"{shown(names[blamed])}: {run_.fault}")
        return MediaFailed(f"{shown_all(names)}: {run_.fault}")

    def out_of_memory(self, name: str) -> MediaRefused:
        """Return the error for a run on a file, and maybe on others, that failed for want of memory."""
        limit = f"{self.limits.max_memory_mb} MiB"
        return beyond(f"{shown(name)}: ffmpeg needs more memory for it", limit, "max_memory_mb")


@dataclass(frozen=True, slots=True)
class MediaWork:
    """The tools of an operation: ffmpeg, the job's parameters, and the callback for the percentage done."""

    ffmpeg: FFmpeg
    parameters: MediaParameters
    reach: Callable[[float], None]


def _check_limits(ended: Run, needs: Needs, limits: MediaLimits) -> None:
    """Raise MediaRefused if a limit ended the run, MediaFailed if the run never began."""
    status = ended.exit_status
    if status == launcher.FAILED:
        said = " ".join(each.text for each in ended.complaints)
        raise MediaFailed(f"ffmpeg cannot be started: {said}")
    is_silent = not (ended.complaints or ended.said) or _SAYS_CPU in ended.said
    if status == -signal.SIGXCPU or (status == _ENDED_BY_SIGNAL and is_silent):
        raise beyond("ffmpeg needs more CPU time", f"{needs.cpu_s(limits)} s", "max_cpu_s")
    if status == -signal.SIGXFSZ or ended.is_too_large:
        raise beyond("what ffmpeg writes is larger", f"{limits.max_output_mb} MiB", "max_output_mb")


def _advancing(
    on_output: Callable[[bytes], None] | None, progress: "_ProgressReader", watchdog: Watchdog
) -> Callable[[bytes], None]:
    """Return the callback for ffmpeg's output, which also notifies the watchdog."""
    written = 0

    def take(chunk: bytes) -> None:
        nonlocal written
        if on_output is None:
            progress.feed(chunk)
            watchdog.note(progress.written)
        else:
            on_output(chunk)
            written += len(chunk)
            watchdog.note(written)

    return take


async def _watched(
    process: asyncio.subprocess.Process,
    feeds: tuple[Callable[[bytes], None], Callable[[bytes], None]],
    watchdog: Watchdog,
) -> None:
    """Wait for the end of ffmpeg; raise MediaFailed if it stops advancing before that."""
    # Both pipes are always drained; a full one would stop ffmpeg.
    ending = asyncio.ensure_future(
        asyncio.gather(_drain(process.stdout, feeds[0]), _drain(process.stderr, feeds[1]), process.wait())
    )
    stalled = asyncio.ensure_future(watchdog.stalled())
    try:
        await asyncio.wait((ending, stalled), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            raise MediaFailed(
                f"ffmpeg was ended: it has not advanced for {watchdog.stall_s:g} s ({setting_of('stall_s')})"
            )
        await ending
    finally:
        ending.cancel()
        stalled.cancel()
        await asyncio.gather(ending, stalled, return_exceptions=True)


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
        #: What has been written so far, in ffmpeg's own words.
        self.written: dict[bytes, bytes] = {}
        self._on_time = on_time
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-_CHUNK_BYTES:]
        for line in lines:
            key, _, value = line.partition(b"=")
            number = value.strip()
            if key in _GROWING:
                # Another object, because the one before is compared with it.
                self.written = {**self.written, key: number}
            if not number.removeprefix(b"-").isdigit():
                continue  # N/A, or a key of no interest here
            if key == b"frame":
                self.frames = int(number)
            elif key == b"out_time_us" and self._on_time is not None:
                self._on_time(int(number) / 1_000_000)
