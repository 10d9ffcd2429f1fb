"""A server that speaks MongoDB's protocol, for a test, on a port of its own (SecantusDB)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.support.server import PATIENCE_S, free_port


class MongoServer:
    """One server; it keeps its port and its data over restarts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def url(self, database: str) -> str:
        """Return where a database of it is."""
        return f"mongodb://127.0.0.1:{self.port}/{database}"

    def documents(self, database: str) -> list[dict[str, Any]]:
        """Return all status documents of a database."""
        with self.client() as client:
            return list(client[database]["queue-jobs"].find({}))

    def client(self) -> MongoClient[dict[str, Any]]:
        """Return a blocking client, to be used as a context manager."""
        return MongoClient("127.0.0.1", self.port, serverSelectionTimeoutMS=5000, tz_aware=True)

    def start(self) -> Self:
        """Start, and return once it answers."""
        log = (self._folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "secantus", "--port", str(self.port)),
                    *("--storage-path", str(self._folder / "data")),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with MongoClient("127.0.0.1", self.port, serverSelectionTimeoutMS=200) as client:
                    client.admin.command("ping")
            except PyMongoError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < deadline, "the server does not answer"
            else:
                return self

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
            process.kill()
            process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()
