"""fakeredis behind a TCP port, in a thread of this process: it runs beeq's real Lua scripts. ``-m fast`` uses it."""

from __future__ import annotations

import threading
from typing import Any, Self

import redis
import redis.asyncio
from fakeredis import TcpFakeServer


class FakeServer:
    """What tests use of a ``Server`` that nobody stops, kills or suspends."""

    def __init__(self) -> None:
        self._server = TcpFakeServer(("127.0.0.1", 0), server_type="valkey", server_version=(8, 0))
        self._thread = threading.Thread(target=self._server.serve_forever, name="fakeredis", daemon=True)
        self.port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where it listens, without a database number."""
        return f"redis://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> redis.asyncio.Redis:
        """Return an async client; close it, or use it as a context manager."""
        return redis.asyncio.Redis(host="127.0.0.1", port=self.port, **options)

    def sync_client(self, **options: Any) -> redis.Redis:
        """Return a blocking client that decodes replies; close it, or use it as a context manager."""
        return redis.Redis(host="127.0.0.1", port=self.port, **{"decode_responses": True, **options})

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """End: no thread is left."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
