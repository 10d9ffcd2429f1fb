"""A share of the embedded server for an event loop: ``join`` blocks, so it runs in a thread."""

import asyncio
import threading
from pathlib import Path

from beeq import embedded
from beeq.embedded import EmbeddedServer
from beeq.errors import RedisUnavailable
from beeq.process import call_in_thread


class Membership:
    """One share at a time of a folder's server, from the first ``join`` until ``leave``.

    A relative folder is resolved now.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._joining: asyncio.Future[str] | None = None
        self._lock = threading.Lock()  # guards what follows, which the joining thread changes too
        self._share: EmbeddedServer | None = None
        self._has_left = False

    async def join(self) -> str:
        """Return the URL of a server that answers, see ``embedded.join``.

        A share from an earlier call is replaced, because the folder may have been replaced since.
        Simultaneous callers wait for one thread, which goes on when they are cancelled. Raises
        RedisUnavailable if no server answered in 8 s, or ``leave`` was called.
        """
        joining = self._joining
        if joining is None or joining.done():
            joining = self._joining = call_in_thread(self._join)
            # Fetch its error, which asyncio would log otherwise if all callers were cancelled.
            joining.add_done_callback(lambda done: done.cancelled() or done.exception())
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
        """Give up the share now, or, during a ``join``, as soon as that has taken it."""
        with self._lock:
            self._has_left = True
            share, self._share = self._share, None
        if share is not None:
            share.close()
