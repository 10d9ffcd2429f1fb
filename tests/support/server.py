"""The real server of a test: the benchmarks' own, with the user that beeq's URLs name; see ``acl.py``."""

from __future__ import annotations

from typing import Self

from benchmarks import servers
from benchmarks.servers import PATIENCE_S, free_port
from tests.support.acl import UserOfUrls

__all__ = ["PATIENCE_S", "Server", "free_port"]


class Server(servers.Server):
    """One server on loopback."""

    @property
    def url(self) -> str:
        """Where it listens, without a database number, and beeq's user."""
        return super().url.replace("redis://", f"redis://{UserOfUrls.credentials()}")

    def start(self, *options: str) -> Self:
        """Start, and return once it answers."""
        return super().start(*UserOfUrls.server_options(), *options)
