"""The files that ffmpeg may open besides input and output: itself, its libraries, facts of the machine.

None of them is secret: not the home folder, of ``/etc`` only the list of libraries, of ``/proc`` some facts
of memory and processors.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

#: Landlock's rights.
EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = 1, 2, 4, 8
_READ = READ_FILE | READ_FOLDER

_LIBRARIES = (
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
)
_FACTS = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
)
_NOWHERE = "/dev/null"
#: Where a script's interpreter, and what it starts, may be.
_PROGRAMS = ("/bin", "/sbin", "/usr", "/opt", "/snap", "/nix/store")
_ELF = b"\x7fELF"
_INTERPRETER, _64_BITS, _HEADER_BYTES = 3, 2, 64
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Program:
    """An ffmpeg: its path, and what it is."""

    path: str
    #: A program that the kernel runs; else a script, which starts others.
    is_binary: bool
    #: What the kernel starts it with, if it has shared libraries.
    loader: str | None = None


def program_at(path: str) -> Program:
    """Return a file's kind; a binary also if it cannot be read, which its start will show."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - no Path needed for a look
            head = file.read(_MOST_BYTES)
    except OSError:
        return Program(path, is_binary=True)
    return Program(path, is_binary=not head.startswith(b"#!"), loader=_loader(head))


def opened_by(program: Program) -> list[tuple[str, int]]:
    """Return the paths that an ffmpeg may open, with rights; some of them may be missing."""
    found = [(path, _READ) for path in (*_LIBRARIES, *_FACTS, *_own_libraries(program.path))]
    found += [(_NOWHERE, READ_FILE | WRITE_FILE), (program.path, READ_FILE | EXECUTE)]
    if program.loader is not None:
        found.append((program.loader, READ_FILE | EXECUTE))
    if not program.is_binary:
        found += [(path, _READ | EXECUTE) for path in (*_PROGRAMS, *_LIBRARIES)]
    return found


def _own_libraries(path: str) -> list[str]:
    """Return where libraries are that came with a program, and where its environment says they are."""
    prefix = Path(os.path.realpath(path)).parent.parent
    # A package manager's tree (conda's, Homebrew's), not "/lib" of a program in a folder like "/srv".
    beside = [str(prefix / "lib")] if len(prefix.parts) > 1 else []
    named = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return [*beside, *(folder for folder in named if Path(folder).is_absolute() and folder != "/")]


def _loader(head: bytes) -> str | None:
    """Return the path in an ELF file's table of segments; None if it has none, or is not an ELF file."""
    if not head.startswith(_ELF) or len(head) < _HEADER_BYTES or head[4] != _64_BITS:
        return None
    order = "<" if head[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}Q", head, 32)
    size, count = struct.unpack_from(f"{order}2H", head, 54)
    for number in range(count):
        place = table + number * size
        if place + _HEADER_BYTES > len(head):
            return None
        kind, _, offset, _, _, length = struct.unpack_from(f"{order}2I4Q", head, place)
        if kind == _INTERPRETER and offset + length <= len(head):
            return os.fsdecode(head[offset : offset + length].rstrip(b"\0"))
    return None
