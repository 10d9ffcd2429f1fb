"""A share of the embedded server for a loop, which must not block: taken, and taken anew, in threads."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from beeq import embedded
from beeq.embedded import EmbeddedServer
from beeq.errors import RedisUnavailable


class Membership:
    """One share at a time of a folder's server, from the first ``join`` until ``leave``.

    Args:
        folder: see ``embedded.join``; a relative one is meant from where the process is now.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._joining: asyncio.Future[str] | None = None
        self._lock = threading.Lock()  # held for what follows, which the joining thread changes
        self._share: EmbeddedServer | None = None
        self._has_left = False

    async def join(self) -> str:
        """Return the URL of a server that answers; start it if nobody has, or if its keeper was killed.

        Who had a share gets a new one: what was there may be another folder by now. All who ask at once
        wait for one thread, which goes on when they are cancelled.

        Raises:
            RedisUnavailable: there was no server in 8 s, see ``embedded.join``; or ``leave`` was called.
        """
        joining = self._joining
        if joining is None or joining.done():
            joining = self._joining = asyncio.get_running_loop().run_in_executor(None, self._join)
            joining.add_done_callback(_note)
        await asyncio.wait([joining])
        if self._has_left:
            raise RedisUnavailable("the connection was closed")
        return joining.result()

    def _join(self) -> str:
        share = embedded.join(self._folder)
        with self._lock:
            surplus: EmbeddedServer | None = share
            if not self._has_left:
                surplus, self._share = self._share, share
        if surplus is not None:
            surplus.close()
        return share.url

    def leave(self) -> None:
        """Give up the share, now; one that is still being taken, as soon as it is."""
        with self._lock:
            self._has_left = True
            share, self._share = self._share, None
        if share is not None:
            share.close()


def _note(joining: asyncio.Future[str]) -> None:
    """Have seen the failure that nobody waited for."""
    if not joining.cancelled():
        joining.exception()
