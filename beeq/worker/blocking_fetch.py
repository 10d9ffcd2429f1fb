"""The blocking fetch: waits at an empty queue, so that an idle worker starts a job one push later.

A connection of its own blocks in BLMOVE, each time for a bounded while, so that none hangs for ever on a dead
peer. A call of the pump then claims the id that BLMOVE has put into ``active``. A look at the newest id of
``active`` is sent with BLMOVE and answered right after it: it brings the job's record along.
"""

import asyncio
import contextlib
import math
from collections.abc import Coroutine
from typing import Any, Protocol

from beeq.client.context import QueueContext
from beeq.errors import RedisError, RedisRefused
from beeq.redis import scripts
from beeq.redis.connection import Connection, lacks_script, meant_by
from beeq.redis.resp import NOT_HERE, pack
from beeq.redis.retry_delay import RetryDelay

#: How long one BLMOVE waits.
FETCH_TIMEOUT_MS = 5000
#: A longer record is left to the call that claims its job: when a fetch ends in vain, the look brings another
#: worker's record, which should be small then.
MAX_RECORD_BYTES = 65_536
_UNBLOCK_AGAIN_S = 0.05
#: A loop that was blocked for less time than this has read a reply in time, however short the stall interval.
_MIN_BLOCKED_S = 0.1


class FetchListener(Protocol):
    """Hears how fetches end."""

    def fetched(self, raw_id: bytes, record: bytes) -> None:
        """A job was moved; its record is empty if the look did not bring it, or did so too long ago."""

    def fetch_rests(self) -> None:
        """The fetch has failed, and tries again later: ``fetch_ended`` follows."""

    def fetch_ended(self) -> None:
        """The fetch has ended without a job, or its rest after a failure has."""


class BlockingFetch:
    """At most one fetch at a time.

    ``beside`` is the connection whose calls claim what was fetched. It must lead to the same server: a master
    that has become a replica would accept such a call, and know nothing of the id.
    """

    def __init__(self, context: QueueContext, *, beside: Connection, listener: FetchListener) -> None:
        keys, settings = context.keys, context.settings
        self._packed = (
            pack("BLMOVE", keys.waiting, keys.active, "RIGHT", "LEFT", FETCH_TIMEOUT_MS / 1000),
            scripts.peek_active.pack(keys, longest_bytes=MAX_RECORD_BYTES),
        )
        self._connection = Connection(context.connector, timeout_ms=settings.redis_timeout)
        self._retry_delay = RetryDelay(settings.initial_redis_failure_retry_delay)
        self._loop = asyncio.get_running_loop()
        #: If the loop was blocked for longer, a stall check may have requeued the fetched job: it needs twice
        #: as long for that.
        self._max_blocked_s = max(settings.stall_interval / 2000, _MIN_BLOCKED_S)
        self._blocked_at = 0.0  # when the loop will have been blocked for too long
        self._was_blocked = False
        self._watch: asyncio.TimerHandle | None = None
        self._beside = beside
        self._listener = listener
        self._report_error = context.report_error
        self._is_sent = False  # Redis has the command; only its reply ends it
        self._task: asyncio.Task[None] | None = None  # connects before a fetch, or rests after a failed one
        self._is_resting = False
        self._needs_script = False
        self._is_stopping = False
        self._is_closed = False
        self._over = asyncio.Event()

    @property
    def client_id(self) -> int | None:
        """Redis's own id of the connection; None while it is not known."""
        return self._connection.client_id

    def start(self) -> None:
        """Begin to wait for a job; no fetch is under way."""
        self._over.clear()
        if self._connection.client_id is not None and not self._needs_script:
            self._send()
        else:
            self._begin(self._prepare())

    async def _prepare(self) -> None:
        await self._connection.learn_client_id()
        if self._needs_script:
            await self._connection.load(scripts.peek_active)
            self._needs_script = False

    def _send(self) -> None:
        self._is_sent = True
        self._was_blocked, self._blocked_at = False, math.inf
        self._watch_loop()
        self._connection.ask(self._packed, self._answered, patience_ms=FETCH_TIMEOUT_MS)

    def _watch_loop(self) -> None:
        """Notice that the loop was blocked, if its timers run before it reads what has come meanwhile."""
        self._was_blocked = self._is_stale()
        self._blocked_at = self._loop.time() + self._max_blocked_s
        self._watch = self._loop.call_later(self._max_blocked_s / 2, self._watch_loop)

    def _is_stale(self) -> bool:
        return self._was_blocked or self._loop.time() > self._blocked_at

    def _answered(self, replies: list[Any], error: RedisError | None) -> None:
        self._is_sent = False
        if self._watch is not None:
            self._watch.cancel()
        # The connection may have ended between the two replies: what was moved is ours all the same.
        reply, *look = replies or [error]
        if isinstance(reply, RedisError):
            if isinstance(reply, RedisRefused) and reply.code in NOT_HERE:
                self._beside.leave()
            self._failed(meant_by(reply))
        else:
            self._retry_delay.reset()
            self._ended(reply, self._record_of(reply, *look))

    def _record_of(self, raw_id: bytes | None, look: Any = None) -> bytes:
        """Return what the look has seen, if it has seen the job that was moved, and just now."""
        if lacks_script(look):
            self._needs_script = True
        if isinstance(look, list) and look[0] == raw_id and not self._is_stale():
            return look[1]  # type: ignore[no-any-return]  # the script's
        return b""

    def _failed(self, error: BaseException) -> None:
        """Report it, and rest. A stall check finds an id that was moved with its reply lost."""
        if not self._is_closed:
            self._report_error(error)
        if self._is_stopping:
            self._ended(None)
            return
        self._is_resting = True
        self._begin(self._retry_delay.wait(lambda: self._is_stopping))
        if not self._is_closed:
            self._listener.fetch_rests()

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        was_resting, self._is_resting = self._is_resting, False
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)
        elif was_resting or self._is_stopping or task.cancelled():
            self._ended(None)
        else:
            if self._beside.peer not in (None, self._connection.peer):
                self._beside.leave()
            self._send()

    def _ended(self, raw_id: bytes | None, record: bytes = b"") -> None:
        self._over.set()
        if self._is_closed:
            return
        if raw_id is None:
            self._listener.fetch_ended()
        else:
            self._listener.fetched(raw_id, record)

    async def stop(self, connection: Connection) -> None:
        """End the fetch without losing what it may have brought; the listener hears of that.

        CLIENT UNBLOCK, over another connection, makes Redis answer: with nothing, or with an id that it had
        moved by then. It may overtake BLMOVE itself, so it is repeated until the fetch has ended.
        """
        self._is_stopping = True
        while self._is_sent or self._task is not None:
            wait_s = _UNBLOCK_AGAIN_S
            if self._task is not None:
                self._task.cancel()  # not connected, or resting: nothing can have been moved
            else:
                try:
                    await connection.call("CLIENT", "UNBLOCK", self._connection.client_id or 0)
                except RedisRefused as error:
                    self._report_error(error)  # not allowed to: the fetch ends by itself
                    wait_s = (FETCH_TIMEOUT_MS + 1000) / 1000
                except RedisError as error:
                    self._report_error(error)
                    await self._connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), wait_s)

    async def close(self) -> None:
        """Close the connection; the listener hears nothing more of a fetch under way."""
        self._is_stopping = self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        await self._connection.close()
