"""The confinement of an ffmpeg that works on this machine, and its version: tested once, and logged."""

import asyncio
import contextlib
import errno
import logging
import os
import re
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from beeq.media.errors import MediaFailed
from beeq.media.limits import MediaLimits
from beeq.media.sandbox import launcher
from beeq.media.sandbox.files import Program, program_at
from beeq.media.sandbox.plan import STEPS, Needs, launch, limits_of, possible_steps

logger = logging.getLogger("beeq")

#: Older ones lack a filter that stream copies need.
OLDEST = (4, 4)
#: How long ffmpeg may take to say its version.
_TRIAL_S = 10.0
_VERSION = re.compile(rb"^ffmpeg version (\S{1,100})", re.MULTILINE)
#: Builds between two versions have other names, and are new enough for all we know.
_NUMBERS = re.compile(r"n?(\d{1,3})\.(\d{1,3})")
_REPORTED = re.compile(rb"^" + re.escape(launcher.REPORT) + rb"(.*)$", re.MULTILINE)
_NAMES = {
    "network": "an empty network namespace",
    "landlock": "Landlock",
    "seccomp": "a filter of system calls",
}
#: The steps to leave out, one after the other, until ffmpeg starts.
_LEFT_OUT = ((), ("landlock",), ("seccomp",), ("landlock", "seccomp"), STEPS)
_ALWAYS = "no new privileges, limits of memory, output and CPU time"
_BREAKS_IT = "ffmpeg does not start under it"
_SAID_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Confinement:
    """An ffmpeg and its confinement; ``missing`` has the reasons, by the names of the steps."""

    program: Program
    version: str | None
    holds: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[tuple[int, str]]:
        """Return its lines for the log: level and sentence. Pure."""
        name = f"ffmpeg {self.version}" if self.version else "ffmpeg"
        held = ", ".join([_ALWAYS, *(_NAMES[step] for step in self.holds)])
        found = [(logging.INFO, f"{name} ({self.program.path}) is held by {held}")]
        is_off_network = "network" in self.holds or "seccomp" in self.holds
        effects = {
            "network": "" if is_off_network else "what breaks into a decoder could reach the network",
            "landlock": "what breaks into a decoder could read and write what the worker can",
            "seccomp": "what breaks into a decoder could use all of the kernel's calls",
        }
        for step, reason in self.missing.items():
            effect = effects[step]
            level = logging.WARNING if effect else logging.INFO
            found.append(
                (level, f"ffmpeg runs without {_NAMES[step]} ({reason}){': ' * bool(effect)}{effect}")
            )
        return found


#: By path, size and time of change: an upgrade is another ffmpeg.
_known: dict[tuple[str, int, int], Confinement] = {}


async def confinement_of(path: str) -> Confinement:
    """Return the confinement of the ffmpeg at ``path``; the first time by starting it for its version.

    Raises MediaFailed if it is older than ``OLDEST``. A version that cannot be read is taken.
    """
    key = _identity(path)
    if key not in _known:
        found = await try_out(program_at(path))
        if key not in _known:  # another job may have been faster
            _known[key] = found
            for level, line in found.lines():
                logger.log(level, "%s", line)
    confinement = _known[key]
    numbers = _NUMBERS.match(confinement.version or "")
    if numbers is not None and tuple(map(int, numbers.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise MediaFailed(
            f"ffmpeg {confinement.version} is too old: the oldest that beeq works with is {oldest}"
        )
    return confinement


async def try_out(program: Program) -> Confinement:
    """Return an ffmpeg's confinement: start it with all possible steps, then with fewer until it starts."""
    impossible, steps = possible_steps()
    first: tuple[bytes, dict[str, str]] | None = None
    for left_out in _LEFT_OUT:
        tried = [step for step in steps if step not in left_out]
        is_started, said = await _trial(program, tried)
        reasons = impossible | dict.fromkeys(set(steps) & set(left_out), _BREAKS_IT) | _failed(said)
        first = first or (said, reasons)
        if is_started:
            break
    else:
        # It starts in no way, which is not the confinement's fault.
        said, reasons = first or (b"", impossible)
    version = _VERSION.search(said)
    return Confinement(
        program,
        version[1].decode("ascii", "replace") if version else None,
        tuple(name for name in STEPS if name not in reasons),
        {name: reasons[name] for name in STEPS if name in reasons},
    )


async def _trial(program: Program, steps: Collection[str]) -> tuple[bool, bytes]:
    """Start an ffmpeg for its version; return whether it started, and what was said."""
    limits = limits_of(Needs(), MediaLimits())
    command, environment = launch(program, ["-version"], steps, limits=limits, is_trial=True)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        raise MediaFailed(f"ffmpeg cannot be started: {error.strerror}") from None
    said = b""
    try:
        async with asyncio.timeout(_TRIAL_S):
            assert process.stdout is not None  # noqa: S101 - asked for as a pipe
            while (part := await process.stdout.read(_SAID_BYTES)) and len(said) < _SAID_BYTES:
                said += part
            is_started = await process.wait() == 0
    except TimeoutError:
        is_started = True  # and its fault is not the confinement
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return is_started, said


def _failed(said: bytes) -> dict[str, str]:
    """Return the reasons of the steps that failed, from the launcher's report."""
    report = _REPORTED.search(said)
    pairs = (word.split("=") for word in report[1].decode().split()) if report else ()
    return {name: _reason(int(number)) for name, number in pairs if number != "0"}


def _reason(number: int) -> str:
    if number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
        return "this kernel does not have it"
    if number in (errno.EPERM, errno.EACCES):
        return "this process may not: the container or the system forbids it"
    return os.strerror(number)


def _identity(path: str) -> tuple[str, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - no Path needed for a look
    except OSError:
        return path, 0, 0
    return path, found.st_size, found.st_mtime_ns
