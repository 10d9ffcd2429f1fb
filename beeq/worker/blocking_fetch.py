"""The blocking move: waits at an empty queue, so that an idle worker starts a job one push later.

A connection of its own blocks in BLMOVE, each time for a bounded while: none hangs for ever on a dead
peer. What it moves into ``active`` is not claimed yet: the pump's next turn does that. A look at
the newest id of ``active`` goes out with the move and is answered with it: it brings the record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from beeq.errors import RedisError, RedisRefused
from beeq.redis.connection import Connection, lacks_script, meant_by
from beeq.redis.resp import NOT_HERE, pack
from beeq.redis.retry_delay import RetryDelay
from beeq.redis.scripts import PEEK_ACTIVE

if TYPE_CHECKING:
    from beeq.protocol.keys import Keys
    from beeq.redis.connector import Connector
    from beeq.settings import Settings

#: How long one blocking move waits.
MOVE_TIMEOUT_MS = 5000
#: A longer record is left to the call that claims its job: when a move ends in vain the look brings another
#: worker's, which should be small then.
LONGEST_SEEN_BYTES = 65_536
_UNBLOCK_AGAIN_S = 0.05
#: A loop that stood still for less has noticed a move in time, however short the stall interval.
_SHORTEST_DOZE_S = 0.1


class Mover:
    """At most one blocking move at a time.

    Args:
        connector: makes the connection.
        keys: the queue's.
        settings: the queue's.
        beside: the connection over which is claimed what a move has fetched; it must lead to the same
            server. A master that has become a replica would take such a call, and know nothing of the id.
        on_end: called when a move has ended, with the id it moved or None, and with the job's record, which
            is empty if the look did not bring it, or too long ago.
        on_error: called with each failure; the next move waits a little longer.
    """

    def __init__(
        self,
        connector: Connector,
        keys: Keys,
        settings: Settings,
        *,
        beside: Connection,
        on_end: Callable[[bytes | None, bytes], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        look = (PEEK_ACTIVE.sha, 3, keys.active, keys.jobs, keys.claims, LONGEST_SEEN_BYTES)
        self._packed = (
            pack("BLMOVE", keys.waiting, keys.active, "RIGHT", "LEFT", MOVE_TIMEOUT_MS / 1000),
            pack("EVALSHA", *look),
        )
        self._connection = Connection(connector, timeout_ms=settings.redis_timeout)
        self._retry_delay = RetryDelay(settings.initial_redis_failure_retry_delay)
        self._loop = asyncio.get_running_loop()
        #: When the loop has stood still for longer, what a move has brought may have stalled since: a stall
        #: check needs twice as long.
        self._doze_s = max(settings.stall_interval / 2000, _SHORTEST_DOZE_S)
        self._awake_until = 0.0
        self._has_dozed = False
        self._clock: asyncio.TimerHandle | None = None
        self._beside = beside
        self._on_end = on_end
        self._on_error = on_error
        self._is_asked = False  # Redis has the move; only its reply ends it
        self._errand: asyncio.Task[None] | None = None  # connects before a move, or rests after a failed one
        self._is_resting = False
        self._needs_script = False
        self._is_stopping = False
        self._is_closed = False
        self._over = asyncio.Event()

    @property
    def is_pending(self) -> bool:
        """Whether a move is under way, or rests after a failure."""
        return self._is_asked or self._errand is not None

    @property
    def is_blocking(self) -> bool:
        """Whether a move is under way; it may fetch a job any moment."""
        return (self._is_asked or self._errand is not None) and not self._is_resting

    def start(self) -> None:
        """Begin to wait for a job; none is under way."""
        self._over.clear()
        if self._connection.client_id is not None and not self._needs_script:
            self._ask()
        else:
            self._begin_errand(self._prepare())

    async def _prepare(self) -> None:
        await self._connection.learn_client_id()
        if self._needs_script:
            await self._connection.call("SCRIPT", "LOAD", PEEK_ACTIVE.source)
            self._needs_script = False

    def _ask(self) -> None:
        self._is_asked = True
        self._has_dozed = False
        self._awake_until = self._loop.time() + self._doze_s
        self._clock = self._loop.call_later(self._doze_s / 2, self._look_at_the_clock)
        self._connection.ask(self._packed, self._answered, patience_ms=MOVE_TIMEOUT_MS)

    def _look_at_the_clock(self) -> None:
        """Notice that the loop stood still, if its timers run before it reads what has come meanwhile."""
        self._has_dozed = self._dozes()
        self._awake_until = self._loop.time() + self._doze_s
        self._clock = self._loop.call_later(self._doze_s / 2, self._look_at_the_clock)

    def _dozes(self) -> bool:
        return self._has_dozed or self._loop.time() > self._awake_until

    def _answered(self, replies: list[Any], error: RedisError | None) -> None:
        self._is_asked = False
        if self._clock is not None:
            self._clock.cancel()
        # The connection may have ended between the two replies: what was moved is ours all the same.
        reply, *sight = replies or [error]
        if isinstance(reply, RedisError):
            if isinstance(reply, RedisRefused) and reply.code in NOT_HERE:
                self._beside.leave()
            self._failed(meant_by(reply))
        else:
            self._retry_delay.reset()
            self._ended(reply, self._record_of(reply, *sight))

    def _record_of(self, raw_id: bytes | None, sight: Any = None) -> bytes:
        """Return what the look has seen, if it has seen the job that was moved, and just now."""
        if lacks_script(sight):
            self._needs_script = True
        if isinstance(sight, list) and sight[0] == raw_id and not self._dozes():
            return sight[1]  # type: ignore[no-any-return]  # the script's
        return b""

    def _failed(self, error: BaseException) -> None:
        """Tell of it, and rest. A stall check finds an id that was moved with its reply lost."""
        if not self._is_closed:
            self._on_error(error)
        if not self._is_stopping:
            self._is_resting = True
            self._begin_errand(self._retry_delay.wait(lambda: self._is_stopping))
        self._ended(None)

    def _begin_errand(self, errand: Coroutine[Any, Any, None]) -> None:
        self._errand = self._loop.create_task(errand)
        self._errand.add_done_callback(self._errand_ended)

    def _errand_ended(self, errand: asyncio.Task[None]) -> None:
        was_resting, self._is_resting = self._is_resting, False
        self._errand = None
        error = None if errand.cancelled() else errand.exception()
        if error is not None:
            self._failed(error)
        elif was_resting or self._is_stopping or errand.cancelled():
            self._ended(None)
        else:
            if self._beside.peer not in (None, self._connection.peer):
                self._beside.leave()
            self._ask()

    def _ended(self, raw_id: bytes | None, record: bytes = b"") -> None:
        if not self.is_pending:
            self._over.set()
        if not self._is_closed:
            self._on_end(raw_id, record)

    async def stop(self, connection: Connection) -> None:
        """End the move without losing what it may have fetched; ``on_end`` is told.

        CLIENT UNBLOCK, over another connection, makes Redis answer: with nothing, or with an id that it had
        moved by then. It may overtake the move itself, so it is repeated until the move has ended.
        """
        self._is_stopping = True
        while self.is_pending:
            wait_s = _UNBLOCK_AGAIN_S
            if self._errand is not None:
                self._errand.cancel()  # not connected, or resting: nothing can have been moved
            else:
                try:
                    await connection.call("CLIENT", "UNBLOCK", self._connection.client_id or 0)
                except RedisRefused as error:
                    self._on_error(error)  # not allowed to: the move ends by itself
                    wait_s = (MOVE_TIMEOUT_MS + 1000) / 1000
                except RedisError as error:
                    self._on_error(error)
                    await self._connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), wait_s)

    async def close(self) -> None:
        """Close the connection; a move that is still under way is told of no more."""
        self._is_stopping = self._is_closed = True
        if self._errand is not None:
            self._errand.cancel()
        await self._connection.close()
