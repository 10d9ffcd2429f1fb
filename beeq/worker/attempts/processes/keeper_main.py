"""The main program of a keeper: kills process groups once their worker is gone, however that ended.

A script of its own, without beeq and site-packages: it starts in some milliseconds, and stays small. Its
standard input lists the groups, a line each: ``12`` for a new one, ``-12`` for one that has ended. When that
input ends, or the worker does, it kills the remaining ones, and ends itself.

The leader of a group leads a session, too. Processes that left the group, but not the session (a shell's
jobs, ``subprocess.Popen(process_group=0)``), are found in ``/proc``, if there is one. A process with a
session of its own (``setsid``) is out of reach.
"""

import io
import os
import select
import signal
import sys
import time
from contextlib import suppress

_INPUT = 0
_CHUNK_BYTES = 65536
#: How often to look for the worker where the kernel does not report its end.
_LOOK_S = 0.5
#: How long the members of a session may take to die: they can start others meanwhile.
_DEATH_S = 2.0
_LOOK_AT_MEMBERS_S = 0.01


def main(worker_pid: int, groups: set[int]) -> None:
    """Keep the groups of this worker, which has started this process; it may add others."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a stop of the whole service must not stop the keeper first
    _listen(worker_pid, groups)
    for group in groups:
        _kill_group(group)
    for group in groups:
        _kill_session(group)


def _listen(worker_pid: int, groups: set[int]) -> None:
    """Follow what the worker writes until it is gone."""
    end_fd = _end_of(worker_pid)
    known, rest = [_INPUT, *([] if end_fd is None else [end_fd])], b""
    while True:
        readable, _, _ = select.select(known, [], [], _LOOK_S if end_fd is None else None)
        if _INPUT in readable:  # first: what the worker wrote last may be a group
            chunk = os.read(_INPUT, _CHUNK_BYTES)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for group in map(int, lines):
                if group > 0:
                    groups.add(group)
                else:
                    groups.discard(-group)
                    _kill_session(-group)
        elif readable or os.getppid() != worker_pid:
            return


def _end_of(pid: int) -> int | None:
    """Return a descriptor that is readable when our parent has ended; a fork of it may hold the pipe open."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # gone by now, or this kernel has none
        return None
    return fd if os.getppid() == pid else None


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the second: zombies, on macOS
        os.killpg(group, signal.SIGKILL)


def _kill_session(leader: int) -> None:
    over_s = time.monotonic() + _DEATH_S
    while (members := _members_of(leader)) and time.monotonic() < over_s:
        for pid in members:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_AT_MEMBERS_S)


def _members_of(session: int) -> list[int]:
    """Return the processes of a session, without zombies."""
    found = []
    with suppress(OSError):  # no such folder
        for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would be a fifth of this process
            if not name.isdigit():
                continue
            with suppress(OSError, ValueError), io.FileIO(f"/proc/{name}/stat") as file:  # it may have ended
                state, _, _, its_session = file.read().rpartition(b")")[2].split()[:4]
                if int(its_session) == session and state not in {b"Z", b"X"}:
                    found.append(int(name))
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), set(map(int, sys.argv[2:])))
