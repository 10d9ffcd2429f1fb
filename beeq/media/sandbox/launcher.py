"""Runs between the worker and ffmpeg: carries out a plan on itself, and becomes ffmpeg.

A script of its own, without beeq and site-packages, because it starts with each ffmpeg. The plan
(``beeq.media.sandbox.plan``) is in its environment, and ffmpeg's command is its arguments. (A ``preexec_fn``
could do this too, but is not safe in a process with threads.)

If a step fails, it ends with ``FAILED`` and the reason. In a trial such steps are passed over, and their
errors are reported on standard output before ffmpeg starts.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import stat
import struct
import sys

#: True for type checkers only: importing it would take longer than all the rest of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLAN = "BEEQ_LAUNCH"
#: The exit status if ffmpeg was not started; the reason is on standard error.
FAILED = 125
#: What the report of a trial begins with.
REPORT = b"beeq tried: "

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL, _SIGPIPE, _SIGXFSZ = 9, 13, 25
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CAPABILITIES_VERSION = 0x20080522
#: To read and write other users' files, as the worker may. Root in a container often has only the first.
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1 << 1, 1 << 2
#: Landlock's system calls have these numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _READ_FILE, _TRUNCATE = 1 << 1, 1 << 2, 1 << 14
#: Execute, write, read, truncate, and the commands of devices: the rights that a file can have.
_OF_FILES = 1 | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15
#: The kernel's answer for files without a path, such as those in memory, which no rule concerns.
_EBADFD = 77
_SECCOMP_FILTER, _SPEC_ALLOW = 1, 4

_libc = ctypes.CDLL(None, use_errno=True)


class _Exec:
    """The call that starts ffmpeg, prepared: a filter of system calls allows this one call alone."""

    def __init__(self, command: list[str]) -> None:
        self._path = ctypes.create_string_buffer(os.fsencode(command[0]))
        self._arguments = _texts([os.fsencode(word) for word in command])
        self._environment = _texts([name + b"=" + value for name, value in os.environb.items()])

    def places(self) -> dict[str, int]:
        """Return where in memory the call's arguments are, and whose memory it is."""
        return {
            "pid": os.getpid(),
            "path": ctypes.addressof(self._path),
            "arguments": ctypes.addressof(self._arguments),
            "environment": ctypes.addressof(self._environment),
        }

    def start(self) -> None:
        _check(_libc.execve(self._path, self._arguments, self._environment))


def main() -> None:
    """Carry out the plan that the environment holds, and become ffmpeg."""
    plan = marshal.loads(bytes.fromhex(os.environ.pop(PLAN)))  # noqa: S302 - the worker's own
    exec_ = _Exec(sys.argv[1:])
    try:
        _confine(plan, exec_)
        exec_.start()
    except OSError as error:
        os.write(2, f"{error.strerror}\n".encode())
        os._exit(FAILED)


def _confine(plan: dict[str, Any], exec_: _Exec) -> None:
    errors: dict[str, int] = {}

    def step(name: str) -> None:
        if name not in plan["steps"]:
            return
        errors[name] = 0
        try:
            _STEPS[name](plan, exec_)
        except OSError as error:
            if not plan["is_trial"]:
                raise OSError(error.errno, f"{name}: {error.strerror}") from None
            errors[name] = error.errno or -1

    if plan["is_linux"]:
        _be_killed_first(plan["oom_score"])
        step("network")
        _drop_rights(plan["parent"])
    step("landlock")
    for number in (_SIGPIPE, _SIGXFSZ):
        _libc.signal(number, None)  # Python ignores them, and what it starts would, too
    step("seccomp")
    for number, soft, hard in plan["limits"]:
        _limit(number, soft, hard)
    if plan["is_trial"]:
        found = " ".join(f"{name}={number}" for name, number in errors.items())
        os.write(1, REPORT + found.encode() + b"\n")


def _drop_rights(parent: int) -> None:
    """Give up new privileges and capabilities, and the life after a parent's (0: none is named)."""
    _drop_capabilities()
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if parent:
        # Outlives exec; last, for a change of rights would take it back.
        _check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL))
        if os.getppid() != parent:
            os._exit(FAILED)  # no process is left to read a reason


def _be_killed_first(score: int) -> None:
    """Let the kernel, when memory is short, end ffmpeg and not its worker."""
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii", buffering=1) as file:  # noqa: PTH123 - pathlib is slow to import
            own = int(file.read())
            file.seek(0)
            file.write(f"{min(1000, own + score)}\n")
    except OSError:
        pass  # no /proc, or one that may only be read


def _take_network(_plan: dict[str, Any], _exec: _Exec) -> None:
    """Enter a network namespace without anything in it."""
    # Root in a user namespace of its own could not read other users' files any more.
    own_users = 0 if os.geteuid() == 0 else _CLONE_NEWUSER
    _check(_libc.unshare(own_users | _CLONE_NEWNET))


def _drop_capabilities() -> None:
    header = struct.pack("Ii", _CAPABILITIES_VERSION, 0)
    found = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, found))
    effective, permitted = struct.unpack_from("2I", found)
    kept = permitted & (_CAP_DAC_OVERRIDE | _CAP_DAC_READ_SEARCH)
    _check(_libc.capset(header, struct.pack("6I", effective & kept, kept, 0, 0, 0, 0)))


def _restrict_files(plan: dict[str, Any], _exec: _Exec) -> None:
    """Leave the files that were passed on, by their mode, and the plan's paths."""
    version = _check(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    # All rights of the first version, then: moving files, truncating, the commands of devices.
    handled = (1 << 13) - 1
    for since, right in ((2, 1 << 13), (3, _TRUNCATE), (5, 1 << 15)):
        handled |= right if version >= since else 0
    # TCP, and from another version on, signals and abstract sockets of processes that are not restricted.
    tcp, scoped = 3 * (version >= 4), 3 * (version >= 6)  # noqa: PLR2004 - see above
    attributes = struct.pack("3Q", handled, tcp, scoped)[: 8 * (1 + (version >= 4) + (version >= 6))]  # noqa: PLR2004 - as above
    size = ctypes.c_size_t(len(attributes))
    ruleset = _check(_libc.syscall(_CREATE_RULESET, attributes, size, 0))
    for fd in plan["files"]:
        is_written = os.get_inheritable(fd) and _mode_of(fd) != os.O_RDONLY
        _add_rule(ruleset, fd, handled & (_READ_FILE | (_WRITE_FILE | _TRUNCATE) * is_written))
    for path, rights in plan["paths"]:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not there, on this system
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        _add_rule(ruleset, fd, handled & rights & (-1 if is_folder else _OF_FILES))
        os.close(fd)
    _check(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _mode_of(fd: int) -> int:
    import fcntl  # noqa: PLC0415 - here only

    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def _add_rule(ruleset: int, fd: int, rights: int) -> None:
    try:
        _check(_libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, fd), 0))
    except OSError as error:
        if error.errno != _EBADFD:
            raise


def _filter_calls(plan: dict[str, Any], exec_: _Exec) -> None:
    """Install the plan's filter of system calls, with the values that are known only here."""
    places = exec_.places()
    filled = b"".join(
        struct.pack("HBBI", code, yes, no, _value(operand, places))
        for code, yes, no, operand in plan["filter"]
    )
    instructions = ctypes.create_string_buffer(filled, len(filled))
    given = struct.pack("HP", len(plan["filter"]), ctypes.addressof(instructions))
    # Without the mitigations that slow down what reads its own data only.
    _check(_libc.syscall(plan["filter_call"], _SECCOMP_FILTER, _SPEC_ALLOW, given))


def _value(operand: int | tuple[str, int], places: dict[str, int]) -> int:
    """Return a number as it is; of a name and a shift, 32 bits of that place."""
    if isinstance(operand, int):
        return operand
    name, shift = operand
    return places[name] >> shift & 0xFFFFFFFF


def _limit(number: int, soft: int, hard: int) -> None:
    _, most = resource.getrlimit(number)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(number, (soft, hard))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _texts(words: list[bytes]) -> Any:
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


_STEPS = {"network": _take_network, "landlock": _restrict_files, "seccomp": _filter_calls}
