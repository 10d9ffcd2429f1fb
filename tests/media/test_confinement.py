"""What is found out of an ffmpeg at its first run, on kernels that have less, and as another user; and what is said."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beeq.media.errors import MediaFailed
from beeq.media.ffmpeg import find_ffmpeg
from beeq.media.sandbox import confinement, seccomp
from beeq.media.sandbox.confinement import Confinement, confinement_of, try_out
from beeq.media.sandbox.files import Program, program_at
from beeq.media.sandbox.plan import STEPS
from tests.media.clips import FFMPEG, colour_clip

pytestmark = pytest.mark.ffmpeg

ROOT = Path(__file__).parents[2]
#: Does a job in a process of its own, in which some system calls are refused.
WORKER = """
import asyncio, ctypes, json, logging, struct, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
root, refused = Path(sys.argv[1]), json.loads(sys.argv[2])
if refused:
    libc = ctypes.CDLL(None)
    program = [(0x20, 0, 0, 0)]
    for number, error in refused:
        program += [(0x15, 0, 1, number), (6, 0, 0, 0x50000 | error)]
    program += [(6, 0, 0, 0x7FFF0000)]
    packed = b"".join(struct.pack("HBBI", *one) for one in program)
    held = ctypes.create_string_buffer(packed, len(packed))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, struct.pack("HP", len(program), ctypes.addressof(held))) == 0
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import MediaProcessor

class Job:
    id, options = "1", {}
    data = {"type": "frame-extract", "inputFiles": ["clip.mp4"], "outputPath": "out.png"}
    async def report_progress(self, value):
        pass

print(asyncio.run(MediaProcessor(ProcessorSettings(media_root=root))(Job()))["bytes"])
"""
ENOSYS, EPERM = 38, 1
LANDLOCK = [(444, ENOSYS)]
NAMESPACES = [(272 if platform.machine() == "x86_64" else 97, EPERM)]
FILTERS = [(317 if platform.machine() == "x86_64" else 277, ENOSYS)]


def worked(
    root: Path, refused: list[tuple[int, int]], *before: str, python: str = sys.executable
) -> list[str]:
    """Return what a worker's log says, once its job is done."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:], str(root)]),
    }
    arguments = [str(root), repr([list(pair) for pair in refused])]
    ended = subprocess.run(
        [*before, python, "-c", WORKER, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert ended.returncode == 0, ended.stderr
    assert (root / "out.png").read_bytes()[:4] == b"\x89PNG"
    return [line for line in ended.stderr.splitlines() if "ffmpeg" in line]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    colour_clip(tmp_path / "clip.mp4", "red", seconds=0.3)
    return tmp_path


def test_all_holds_and_one_line_says_so(root: Path) -> None:
    (line,) = worked(root, [])
    assert line.startswith("INFO ffmpeg ")
    assert line.endswith(
        "is held by no new privileges, limits of memory, output and CPU time, an empty network namespace, Landlock, "
        "a filter of system calls"
    )


def test_without_landlock_a_job_works_and_the_log_says_so(root: Path) -> None:
    held, missing = worked(root, LANDLOCK)
    assert "Landlock" not in held
    assert missing == (
        "WARNING ffmpeg runs without Landlock (this kernel does not have it): "
        "what breaks into a decoder could read and write what the worker can"
    )


def test_without_namespaces_the_filter_keeps_off_the_network(root: Path) -> None:
    held, missing = worked(root, NAMESPACES)
    assert held.endswith("Landlock, a filter of system calls")
    assert missing == (
        "INFO ffmpeg runs without an empty network namespace "
        "(this process may not: the container or the system forbids it)"
    )


def test_with_nothing_of_it_a_job_works_and_the_log_says_so(root: Path) -> None:
    held, *missing = worked(root, [*LANDLOCK, *NAMESPACES, *FILTERS])
    assert held.endswith("is held by no new privileges, limits of memory, output and CPU time")
    assert [line.split(" ")[0] for line in missing] == ["WARNING"] * 3
    assert "could reach the network" in missing[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_all_holds_for_another_user_than_root_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    pythons = (os.path.realpath(sys.executable), "/usr/bin/python3")
    python = next(filter(_can_be_run_by_nobody, pythons), None)
    if python is None or "/root" in find_ffmpeg():
        pytest.skip("nobody may run no Python of this version here")
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/beeq-nobody-XXXXXX"], text=True).strip())
    try:
        colour_clip(folder / "clip.mp4", "red", seconds=0.3)
        # Pythons before 3.11.3 lack something that redis-py then takes from a package.
        (folder / "async_timeout.py").write_text("from asyncio import timeout\n")
        for path in (folder, folder / "clip.mp4"):
            os.chown(path, 65534, 65534)
        (line,) = worked(
            folder, [], "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python=python
        )
        assert line.endswith("an empty network namespace, Landlock, a filter of system calls")
    finally:
        shutil.rmtree(folder)


def _can_be_run_by_nobody(python: str) -> bool:
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c"]
    known = f"sys.version_info[:2] == {tuple(sys.version_info[:2])} and os.access(sys.executable, os.X_OK)"
    looked = [*command, f"import os, sys; sys.exit(not ({known}))"]
    return subprocess.run(looked, capture_output=True, check=False).returncode == 0


@pytest.fixture
def pretend(tmp_path: Path) -> Callable[[str], str]:
    """``pretend(commands)``: the path of a shell script in ffmpeg's place."""

    def write(commands: str) -> str:
        program = tmp_path / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{commands}\n")
        program.chmod(0o755)
        return str(program)

    return write


@pytest.mark.parametrize("version", ["4.2.7-0ubuntu0.1", "n4.3", "3.4"])
async def test_an_ffmpeg_that_is_too_old_is_named(pretend: Callable[[str], str], version: str) -> None:
    program = pretend(f"echo ffmpeg version {version} Copyright")
    with pytest.raises(MediaFailed, match=f"^ffmpeg {re.escape(version)} is too old: the oldest .* is 4.4$"):
        await confinement_of(program)


@pytest.mark.parametrize("said", [
    "ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright", "ffmpeg version N-110000-gdeadbeef", "ffmpeg version n7.1",
    "ffmpeg version 2023-03-05-git-912ac82a3c-full_build", "ffmpeg version 10.0", "something else", "",
])  # fmt: skip
async def test_a_new_version_or_none_that_can_be_read_is_taken(
    pretend: Callable[[str], str], said: str
) -> None:
    await confinement_of(pretend(f"echo '{said}'"))


async def test_an_upgraded_ffmpeg_is_asked_again(pretend: Callable[[str], str]) -> None:
    assert (await confinement_of(pretend("echo ffmpeg version 5.0"))).version == "5.0"
    assert (await confinement_of(pretend("echo ffmpeg version 6.1.1"))).version == "6.1.1"


async def test_an_ffmpeg_that_hangs_does_not_hold_up_the_others(
    pretend: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confinement, "_TRIAL_S", 0.3)
    found = await asyncio.wait_for(confinement_of(pretend("sleep 600 & wait")), 10)
    assert found.version is None
    assert found.holds == STEPS


async def test_a_script_in_ffmpegs_place_reaches_no_more_than_it(
    pretend: Callable[[str], str], root: Path
) -> None:
    real = find_ffmpeg()
    if not real.startswith(("/usr/", "/opt/")):
        pytest.skip("a script may start what is in the system's folders only")
    (root / "secret").write_text("secret\n")
    script = pretend(
        f'read text < {root}/secret && echo "read: $text" >&2\necho x > {root}/new && echo wrote >&2\nexec {real} "$@"'
    )
    found = await try_out(program_at(script))
    assert found.holds == STEPS
    assert found.version is not None
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(script).parent}:{before}"
    try:
        ended = await FFMPEG.run(["-f", "lavfi", "-i", "sine=d=0.1", "-f", "null", "-"], [])
    finally:
        os.environ["PATH"] = before
    assert ended.exit_status == 0
    complained = "\n".join(each.text for each in ended.complaints)
    assert "secret: Permission denied" in complained or "cannot open" in complained
    assert "read:" not in complained
    assert "wrote" not in complained


async def test_an_ffmpeg_that_does_not_start_confined_runs_with_less(
    pretend: Callable[[str], str], tmp_path: Path
) -> None:
    # It needs a file that Landlock does not leave it.
    (tmp_path / "library").write_text("needed\n")
    program = pretend(f"read needed < {tmp_path}/library || exit 127\necho ffmpeg version 6.0")
    found = await try_out(program_at(program))
    assert found.version == "6.0"
    assert found.holds == ("network", "seccomp")
    assert found.missing == {"landlock": "ffmpeg does not start under it"}
    assert [level for level, _ in found.lines()] == [logging.INFO, logging.WARNING]


async def test_two_first_runs_at_once_say_it_once(
    pretend: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="beeq")
    program = pretend("echo ffmpeg version 6.0")
    await asyncio.gather(*(confinement_of(program) for _ in range(4)))
    assert len([line for line in caplog.messages if "is held by" in line]) == 1


def test_a_system_without_any_of_it_is_named_by_sentences() -> None:
    reasons = dict.fromkeys(STEPS, "this system is not Linux")
    (_, held), *rest = Confinement(Program("/bin/ffmpeg", is_binary=True), "7.1", (), reasons).lines()
    assert held.startswith("ffmpeg 7.1 (/bin/ffmpeg) is held by ")
    assert all("this system is not Linux" in line for _, line in rest)


@pytest.mark.parametrize("machine", seccomp.MACHINES.values())
@pytest.mark.parametrize("is_script", [True, False])
def test_every_jump_of_the_filter_ends_inside_it(machine: seccomp.Machine, is_script: bool) -> None:
    found = seccomp.program(machine, is_script=is_script)
    assert len(found) < 4096
    for place, (code, yes, no, _) in enumerate(found):
        if code in (0x15, 0x35, 0x45):
            assert max(yes, no) <= 255
            assert place + 1 + max(yes, no) < len(found)
    assert found[-1] == (0x06, 0, 0, 0x7FFF0000)


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_no_call_that_every_ffmpeg_makes_is_refused(machine: str) -> None:
    needed = {
        "x86_64": (0, 1, 3, 9, 10, 11, 12, 202, 257, 262),
        "aarch64": (56, 57, 63, 64, 98, 214, 215, 222, 226),
    }
    column = seccomp.MACHINES[machine].column
    refused = {numbers[column] for group in seccomp.CALLS.values() for numbers in group.values()}
    assert refused.isdisjoint(needed[machine])


def answer(machine: seccomp.Machine, number: int, *arguments: int, is_script: bool = False) -> str | int:
    """Return what the filter says to a call, as the kernel reads it: "allowed", or an error's number."""
    halves = {0: number, 4: machine.audit}
    for place, argument in enumerate(arguments):
        halves[16 + 8 * place], halves[20 + 8 * place] = argument & 0xFFFFFFFF, argument >> 32
    program = seccomp.program(machine, is_script=is_script)
    held = place = 0
    while True:
        code, yes, no, operand = program[place]
        value = operand if isinstance(operand, int) else {"pid": 1234}.get(operand[0], 0)
        place += 1
        if code == 0x06:
            return "allowed" if value == 0x7FFF0000 else value & 0xFFFF
        if code == 0x20:
            held = halves.get(value, 0)
        else:
            holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            place += yes if holds else no


MACHINES_AND_PROGRAMS = [
    (machine, is_script) for machine in seccomp.MACHINES.values() for is_script in (True, False)
]


@pytest.mark.parametrize(("machine", "is_script"), MACHINES_AND_PROGRAMS)
def test_every_named_call_is_refused(machine: seccomp.Machine, is_script: bool) -> None:
    for group in seccomp.CALLS.values():
        for name, numbers in group.items():
            if (number := numbers[machine.column]) >= 0:
                assert (name, answer(machine, number, is_script=is_script)) == (name, EPERM)


@pytest.mark.parametrize(("machine", "is_script"), MACHINES_AND_PROGRAMS)
def test_unknown_calls_are_not_there(machine: seccomp.Machine, is_script: bool) -> None:
    gap = range((337, 295)[machine.column], 424)
    for number in (*gap, *range(471, 600), 0x3FFFFFFF):
        assert (number, answer(machine, number, is_script=is_script)) == (number, ENOSYS)
    assert answer(machine, 444) == "allowed"
    assert answer(machine, 462) == "allowed"


@pytest.mark.parametrize(("machine", "is_script"), MACHINES_AND_PROGRAMS)
def test_commands_to_files_are_those_of_use(machine: seccomp.Machine, is_script: bool) -> None:
    fcntl, ioctl = ((72, 16), (25, 29))[machine.column]
    allowed = {
        number
        for number in (*range(64), *range(1024, 1100))
        if answer(machine, fcntl, 3, number, is_script=is_script) == "allowed"
    }
    assert allowed == {*range(8), 36, 37, 38, 1030, 1031, 1032, 1034}
    for command in (0x8901, 0x8902, 0x5452, 0x5412, 0x541C, 0x40305828, 0x4030582A, 0x40305839, 0x40086602):
        # The kernel reads the lower half alone.
        for number in (command, command | 1 << 32):
            assert answer(machine, ioctl, 3, number, is_script=is_script) == EPERM
    assert answer(machine, ioctl, 3, 0x5401, is_script=is_script) == "allowed"


@pytest.mark.parametrize(("machine", "is_script"), MACHINES_AND_PROGRAMS)
def test_only_its_own_processors_are_chosen(machine: seccomp.Machine, is_script: bool) -> None:
    affinity = (203, 122)[machine.column]
    said = [answer(machine, affinity, pid, 8, 0, is_script=is_script) for pid in (0, 1234, 1, 1235)]
    assert said == ["allowed", "allowed", EPERM, EPERM]


HEADERS = {0: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 1: "/usr/include/asm-generic/unistd.h"}


@pytest.mark.parametrize("column", HEADERS)
def test_the_numbers_are_the_kernels(column: int) -> None:
    header = Path(HEADERS[column])
    if not header.exists():
        pytest.skip("the kernel's headers are not here")
    known = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text(), re.MULTILINE))
    for group in seccomp.CALLS.values():
        for name, numbers in group.items():
            if name in known:
                assert int(known[name]) == numbers[column]
