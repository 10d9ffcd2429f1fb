"""The plan of one run of ffmpeg, which ``launcher`` carries out: the rights it gives up, and its command."""

import marshal
import os
import platform
import re
import resource
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beeq.media.limits import MediaLimits
from beeq.media.sandbox import launcher, seccomp
from beeq.media.sandbox.files import Program, opened_by
from beeq.process import plain_environment

#: The optional steps, which need the kernel and the rights, in the launcher's order.
STEPS = ("network", "landlock", "seccomp")

_MIB = 1024 * 1024
#: CPU time besides that for the seconds of media: for starting, and for reading the inputs, by their size.
_CPU_BASE_S, _CPU_S_A_MIB = 120.0, 2.0
#: Between the signal that names the limit and the one that cannot be handled.
_CPU_GRACE_S = 5
#: Threads need little of it, and it counts as memory, the system's own 8 MiB for each of them. A command may
#: be as long as a quarter of it: one of 250 inputs has some 600 kB.
_STACK_BYTES = 4 * _MIB
#: An ffmpeg of 250 inputs has ten threads for each.
_MOST_THREADS = 4096
_FILES_BESIDES = 256
#: Added to the worker's own: of both, ffmpeg is ended when memory is short.
_OOM_SCORE = 500
#: From here on the processes of a user namespace are counted apart from the user's others.
_COUNTS_APART = (5, 14)
_START = (
    f"import sys; sys.path.append({str(Path(launcher.__file__).parent)!r}); import launcher; launcher.main()"
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run works on: the descriptors of its files, and the seconds of its media; None if unknown."""

    files: tuple[int, ...] = ()
    media_s: float | None = 0.0

    def cpu_s(self, limits: MediaLimits) -> int:
        """Return the CPU time that the run may take, in seconds."""
        read_mib = sum(os.fstat(fd).st_size for fd in self.files) / _MIB
        media_s = limits.max_seconds if self.media_s is None else self.media_s
        return int(_CPU_BASE_S + _CPU_S_A_MIB * read_mib + limits.max_cpu_s * media_s)


def limits_of(needs: Needs, limits: MediaLimits) -> list[tuple[int, int, int]]:
    """Return the limits of a run: what the kernel counts, the soft and the hard value."""
    memory, output, cpu_s = limits.max_memory_mb * _MIB, limits.max_output_mb * _MIB, needs.cpu_s(limits)
    files = 4 * len(needs.files) + _FILES_BESIDES
    return [
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, output, output),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + _CPU_GRACE_S),
        (resource.RLIMIT_NOFILE, files, files),
        (resource.RLIMIT_STACK, _STACK_BYTES, _STACK_BYTES),
        # Last: the launcher needs memory, too.
        (resource.RLIMIT_AS, memory, memory),
    ]


def launch(
    program: Program,
    arguments: Sequence[str],
    steps: Collection[str],
    *,
    files: Sequence[int] = (),
    limits: Sequence[tuple[int, int, int]] = (),
    is_trial: bool = False,
    dies_with_worker: bool = True,
) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment that start a program, confined by these steps.

    ``files`` are descriptors that the program gets. In a trial a step that fails is passed over and reported.
    """
    is_linux = sys.platform == "linux"
    if "network" in steps and os.geteuid() and _release() >= _COUNTS_APART:
        limits = [*limits, (resource.RLIMIT_NPROC, _MOST_THREADS, _MOST_THREADS)]
    plan: dict[str, Any] = {
        "steps": [name for name in STEPS if name in steps],
        "is_trial": is_trial,
        "is_linux": is_linux,
        "parent": os.getpid() if is_linux and dies_with_worker else 0,
        "oom_score": _OOM_SCORE if is_linux else 0,
        "files": list(files),
        "limits": list(limits),
        "paths": opened_by(program),
    }
    machine = seccomp.MACHINES.get(platform.machine())
    if machine is not None:
        plan["filter"] = seccomp.program(machine, is_script=not program.is_binary)
        plan["filter_call"] = machine.seccomp
    environment = {
        **plain_environment(os.environ),
        # Each arena of glibc's takes 64 MiB of addresses, which count as memory.
        "MALLOC_ARENA_MAX": "2",
        launcher.PLAN: marshal.dumps(plan).hex(),
    }
    return [sys.executable, "-I", "-S", "-c", _START, program.path, *arguments], environment


def possible_steps() -> tuple[dict[str, str], list[str]]:
    """Return why steps are impossible on this system, and the others."""
    if sys.platform != "linux":
        return dict.fromkeys(STEPS, "this system is not Linux"), []
    if platform.machine() not in seccomp.MACHINES:
        return {"seccomp": f"not known for {platform.machine()}"}, ["network", "landlock"]
    return {}, list(STEPS)


def _release() -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return tuple(map(int, found.groups())) if found else (0,)
