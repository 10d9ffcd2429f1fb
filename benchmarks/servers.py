"""Real servers on ports of their own, for tests and benchmarks: Redis or Valkey, and one that speaks MongoDB.

They start, stop and get killed; they know nothing of queues.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.binaries import DEFAULT, binary_of

#: How long a server may take to start or to end.
PATIENCE_S = 60.0
#: How often a server that starts is asked whether it is up.
_LOOK_S = 0.01


class ServerNotStarted(Exception):
    """A server ended at once, or did not answer in time; the message has its log."""


def free_port() -> int:
    """Return a free TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server on loopback; it keeps its port over restarts.

    Without ``keep_data`` nothing survives a stop: a server that starts is empty.

    Args:
        folder: for its files.
        kind: which server, one of ``binaries.KINDS``.
    """

    def __init__(self, folder: Path, *, kind: str = DEFAULT) -> None:
        self._folder = folder
        self._binary = binary_of(kind)
        self._process: subprocess.Popen[bytes] | None = None
        self._has_answered = False
        self.port = free_port()

    @property
    def url(self) -> str:
        """Where it listens, without a database number."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process; it must run."""
        assert self._process is not None, "the server does not run"  # noqa: S101 - a mistake of the caller's
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def client(self, **options: Any) -> redis.asyncio.Redis:
        """Return an async client; close it, or use it as a context manager."""
        return redis.asyncio.Redis(host="127.0.0.1", port=self.port, **options)

    def sync_client(self, **options: Any) -> redis.Redis:
        """Return a blocking client that decodes replies; close it, or use it as a context manager."""
        return redis.Redis(host="127.0.0.1", port=self.port, **{"decode_responses": True, **options})

    def start(self, *options: str) -> Self:
        """Start, and return once it answers; a new server whose port was snatched away takes another."""
        for _ in range(3):
            try:
                return self._start(*options)
            except ServerNotStarted:
                if self._has_answered or "Address already in use" not in self._log():
                    raise
                self.port = free_port()
        return self._start(*options)

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _start(self, *options: str) -> Self:
        assert not self.is_running, "the server runs already"  # noqa: S101 - a mistake of the caller's
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._binary),
                    *("--port", str(self.port)),
                    *("--bind", "127.0.0.1"),
                    *("--dir", str(self._folder)),
                    *("--save", ""),
                    *("--appendonly", "no"),
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal is for the program, not for the server
            )
        self._wait_until_it_answers()
        self._has_answered = True
        return self

    def _wait_until_it_answers(self) -> None:
        over = time.monotonic() + PATIENCE_S
        with self.sync_client(retry=Retry(NoBackoff(), 0), socket_timeout=1) as client:
            while True:
                try:
                    client.ping()
                except redis.RedisError:
                    if not self.is_running or time.monotonic() > over:
                        log = (self._folder / "log").read_text(errors="replace")
                        raise ServerNotStarted(f"the server did not start:\n{log}") from None
                    threading.Event().wait(_LOOK_S)
                else:
                    return

    def stop(self, *, keep_data: bool = False) -> None:
        """Shut down, and return once the process has ended; stopping twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        dump = self._folder / "dump.rdb"
        if keep_data:
            with self.sync_client() as client:
                client.save()
        else:
            dump.unlink(missing_ok=True)
        process.send_signal(signal.SIGCONT)  # a suspended server could not end
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End the process as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(PATIENCE_S)

    def restart(self, *, keep_data: bool = False) -> None:
        """Stop and start on the same port."""
        self.stop(keep_data=keep_data)
        self.start()

    def pause(self) -> None:
        """Suspend the process: connections stay open, but get no replies."""
        assert self._process is not None, "the server does not run"  # noqa: S101 - a mistake of the caller's
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended process go on."""
        assert self._process is not None, "the server does not run"  # noqa: S101 - a mistake of the caller's
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        """Start unless started."""
        return self if self.is_running else self.start()

    def __exit__(self, *_exception: object) -> None:
        """Stop."""
        with contextlib.suppress(ProcessLookupError):
            self.stop()


class MongoServer:
    """SecantusDB on loopback, from entering to leaving; its log is in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder

    def __enter__(self) -> Self:
        """Start, and return once the server answers. Raises ServerNotStarted."""
        command = (sys.executable, "-m", "secantus", "--port", str(self.port))
        log = self._folder / "log"
        with log.open("ab") as written:
            self._process = subprocess.Popen(
                [*command, "--storage-path", str(self._folder / "data")],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                cwd=self._folder,
            )
        over = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > over:
                self.__exit__()
                raise ServerNotStarted(f"the server did not start:\n{log.read_text(errors='replace')}")
            threading.Event().wait(_LOOK_S)
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_S)

    def url(self, database: str) -> str:
        """Return where a database of it is."""
        return f"mongodb://127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        """Return whether the server answers a ping."""
        from pymongo import MongoClient  # noqa: PLC0415 - few need it, and it takes its time
        from pymongo.errors import PyMongoError  # noqa: PLC0415 - as above

        try:
            with MongoClient[dict[str, Any]]("127.0.0.1", self.port, serverSelectionTimeoutMS=200) as client:
                return bool(client.admin.command("ping"))
        except PyMongoError:
            return False
