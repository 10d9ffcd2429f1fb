"""The blocking move: waits at an empty queue, so that an idle worker starts a job one push later.

A connection of its own blocks in BLMOVE, each time for a bounded while: none hangs for ever on a dead
peer (flaw B9). What it moves into ``active`` is not claimed yet: the pump's next turn does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from beeq.errors import RedisError, RedisRefused
from beeq.line import Line
from beeq.worker.pause import Pause

if TYPE_CHECKING:
    from beeq.connection import Dialer
    from beeq.keys import Keys
    from beeq.settings import Settings

#: How long one blocking move waits.
MOVE_TIMEOUT_MS = 5000


class Mover:
    """At most one blocking move at a time.

    Args:
        dialer: makes the connection.
        keys: the queue's.
        settings: the queue's.
        on_end: called when a move has ended, with the id it moved or None.
        on_error: called with each failure; the next move waits a little longer.
    """

    def __init__(
        self,
        dialer: Dialer,
        keys: Keys,
        settings: Settings,
        *,
        on_end: Callable[[bytes | None], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._command = ("BLMOVE", keys.waiting, keys.active, "RIGHT", "LEFT", MOVE_TIMEOUT_MS / 1000)
        self._line = Line(dialer, timeout_ms=settings.redis_timeout)
        self._pause = Pause(settings.initial_redis_failure_retry_delay)
        self._on_end = on_end
        self._on_error = on_error
        self._move: asyncio.Task[bytes | None] | None = None
        self._is_stopping = False
        self._is_resting = False

    @property
    def is_pending(self) -> bool:
        """Whether a move is under way, or rests after a failure."""
        return self._move is not None

    @property
    def is_blocking(self) -> bool:
        """Whether a move is under way; it may fetch a job any moment."""
        return self._move is not None and not self._is_resting

    def start(self) -> None:
        """Begin to wait for a job; none is under way."""
        self._run(self._wait())

    def _run(self, move: Coroutine[Any, Any, bytes | None]) -> None:
        self._move = asyncio.get_running_loop().create_task(move)
        self._move.add_done_callback(self._ended)

    async def _wait(self) -> bytes | None:
        line = self._line
        if not line.is_connected:
            await line.learn_client_id()
        moved: bytes | None = await line.call(*self._command, patience_ms=MOVE_TIMEOUT_MS)
        self._pause.reset()
        return moved

    async def _rest(self) -> None:
        await self._pause.wait(lambda: self._is_stopping)

    def _ended(self, move: asyncio.Task[bytes | None]) -> None:
        self._move = None
        self._is_resting = False
        if move.cancelled():
            self._on_end(None)
            return
        error = move.exception()
        if error is not None:
            # The reply may be lost with an id that Redis had moved: then a stall check finds it.
            self._on_error(error)
            if not self._is_stopping:
                self._is_resting = True
                self._run(self._rest())
        self._on_end(None if error is not None else move.result())

    async def stop(self, line: Line) -> None:
        """End the move without losing what it may have fetched (flaw A7); ``on_end`` is told.

        CLIENT UNBLOCK, over another line, makes Redis answer: with nothing, or with an id that it had
        moved by then. It may overtake the move itself, so it is repeated until the move has ended.
        """
        self._is_stopping = True
        move = self._move
        while move is not None and not move.done():
            try:
                if self._line.client_id is not None:
                    await line.call("CLIENT", "UNBLOCK", self._line.client_id)
                else:
                    move.cancel()  # not connected, or resting: nothing can have been moved
            except RedisRefused as error:
                self._on_error(error)  # not allowed to: the move ends by itself
                await asyncio.wait([move], timeout=(MOVE_TIMEOUT_MS + 1000) / 1000)
            except RedisError as error:
                self._on_error(error)
                move.cancel()
            await asyncio.wait([move], timeout=0.05)
        # A move that ended in this very turn of the loop is still to tell so: without a turn more,
        # the owner would find it pending, and ask for its end, for ever.
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Close the connection."""
        await self._line.close()
