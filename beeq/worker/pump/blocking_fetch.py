"""The blocking fetch: waits at an empty queue, so that an idle worker starts a job one push later.

A connection of its own blocks in BLMOVE, each time for a bounded while, so that none hangs for ever on a dead
peer. A call of the pump then claims the id that BLMOVE has put into ``active``. A look at the newest id of
``active`` is sent with BLMOVE and answered right after it: it brings the job's record.

Some Redis users may not do all of this, and their rights may change while a worker runs:

* Without CLIENT UNBLOCK (or CLIENT ID, which it needs) a fetch cannot be ended. Cutting it off could lose a
job that Redis moves at that moment: the owner of an unclaimed id in ``active`` is unknown, since Node claims
none. So each fetch is short, and ``stop`` waits for its end. If the right is lost while a long one is under
way, the connection is ended from this side only: Redis sends the moved id before it hangs up. (TLS cannot do
that: there the connection is cut, and a stall check finds the job.)
* Without BLMOVE a fetch is refused, rests for as long as a short one takes, and calls look for jobs.

Each is reported once. The right is checked again before a fetch every few seconds.
"""

import asyncio
import contextlib
import functools
import math
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Protocol

from beeq.client.context import QueueContext
from beeq.errors import DutyEnded, RedisError, RedisRefused
from beeq.redis import scripts
from beeq.redis.connection import Connection, lacks_script, meant_by
from beeq.redis.error_codes import NOT_HERE
from beeq.redis.resp import pack
from beeq.redis.retry_delay import RetryDelay
from beeq.redis.rights import is_lack_of_right
from beeq.supervision.duty import Duty, contained

#: How long one BLMOVE waits.
FETCH_TIMEOUT_MS = 5000
#: … if it cannot be ended; also how often calls look for jobs where BLMOVE is refused.
SHORT_FETCH_MS = 500
#: How often an idle worker checks whether it may end a fetch.
_ASK_RIGHT_S = 5.0
#: How long Redis has to hang up on a connection that was ended from this side.
_HANG_UP_S = 0.3
#: A longer record is left to the call that claims its job: after a fetch in vain the look may bring the
#: record of another worker's job, and this bounds the waste.
MAX_RECORD_BYTES = 65_536
_UNBLOCK_AGAIN_S = 0.05
#: While a fetch rests after a failure, for up to half a minute, calls look for jobs: half a stall interval
#: apart, within these bounds.
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.1, 1.0
#: A loop that was blocked for less time than this has read a reply in time, however short the stall interval.
_MIN_BLOCKED_S = 0.1


class FetchListener(Protocol):
    """Notified of the ends of fetches."""

    def fetched(self, raw_id: bytes, record: bytes) -> None:
        """A job was moved; its record is empty if the look did not bring it, or too long ago."""

    def fetch_rests(self) -> None:
        """The fetch has failed, and tries again later: ``fetch_ended`` follows. Repeated now and then."""

    def fetch_ended(self) -> None:
        """The fetch has ended without a job, or its rest after a failure has."""


class BlockingFetch:
    """At most one fetch at a time.

    ``beside`` is the connection whose calls claim what was fetched. It must lead to the same server: a master
    that has become a replica would accept such a call, and know nothing of the id.
    """

    def __init__(self, context: QueueContext, *, beside: Connection, listener: FetchListener) -> None:
        keys, settings = context.keys, context.settings
        look = scripts.peek_active.pack(keys, longest_bytes=MAX_RECORD_BYTES)
        move = ("BLMOVE", keys.waiting, keys.active, "RIGHT", "LEFT")
        self._packed = (pack(*move, FETCH_TIMEOUT_MS / 1000), look)
        self._packed_short = (pack(*move, SHORT_FETCH_MS / 1000), look)
        self._connection = Connection(context.connector, timeout_ms=settings.redis_timeout)
        self._retry_delay = RetryDelay(
            settings.initial_redis_failure_retry_delay, news=lambda: context.connector.switches
        )
        self._loop = asyncio.get_running_loop()
        #: If the loop was blocked for longer, a stall check may have requeued the fetched job: it needs twice
        #: as long for that.
        self._max_blocked_s = max(settings.stall_interval / 2000, _MIN_BLOCKED_S)
        self._look_s = min(max(settings.stall_interval / 2000, _SHORTEST_LOOK_S), _LONGEST_LOOK_S)
        self._blocked_at = 0.0  # from when on the loop counts as blocked for too long
        self._was_blocked = False
        self._watch: asyncio.TimerHandle | None = None
        self._beside = beside
        self._listener = listener
        self._report_error = context.report_error
        self._duties = context.duties
        #: A fetch ends within this, by the connection's own watch.
        self.longest_s = (FETCH_TIMEOUT_MS + settings.redis_timeout) / 1000
        self._longest_call_s = settings.redis_timeout / 1000
        self.duty = Duty(
            "blocking fetch",
            patience_s=context.duties.patience_s,
            on_error=context.report_error,
            on_silent=self.abort,
        )
        context.duties.add(self.duty)
        self.duty.rests(math.inf)
        self._is_sent = False  # Redis has the command: only its reply ends it
        self._task: asyncio.Task[BaseException | None] | None = (
            None  # connects before a fetch, or rests after a failed one
        )
        self._is_resting = False
        self._needs_script = False
        self._may_unblock = True
        self._ask_right_at = math.inf  # by the loop's clock; a new connection is asked anyway
        self._said: set[str] = set()  # which commands are refused
        self._is_cut = False  # by ``stop``: its end is not a failure now
        self._is_stopping = False
        self._is_closed = False
        self._over = asyncio.Event()
        self._over.set()
        self._hung: BaseException | None = None  # why ``abort`` ends a fetch

    @property
    def client_id(self) -> int | None:
        """Redis's own id of the connection; None while it is not known."""
        return self._connection.client_id

    @property
    def is_under_way(self) -> bool:
        """Whether a fetch was started and has not ended, its rest after a failure included."""
        return not self._over.is_set()

    def start(self) -> None:
        """Begin to wait for a job; no fetch is under way."""
        self._over.clear()
        self._is_stopping = self._is_closed  # a stopped one may be started again
        self.duty.begins()
        is_due = not self._connection.is_connected or self._loop.time() >= self._ask_right_at
        if is_due or self._needs_script:
            self.duty.rests(self._longest_call_s)  # it may have been sent to a Redis that is away now
            self._begin(self._prepare)
        else:
            self._try_to_send()

    async def _prepare(self) -> None:
        await self._learn_right()
        if self._needs_script:
            await self._connection.load(scripts.peek_active)
            self._needs_script = False

    async def _learn_right(self) -> None:
        """Learn whether a fetch over this connection can be ended over another one."""
        try:
            await self._connection.learn_client_id()
            await self._connection.call("CLIENT", "UNBLOCK", self._connection.client_id or 0)
        except RedisRefused as error:
            self._may_not_unblock(error)
        else:
            self._may_unblock = True
            self._said.discard("client")
        self._ask_right_at = self._loop.time() + _ASK_RIGHT_S

    def _may_not_unblock(self, refusal: RedisRefused) -> None:
        self._may_unblock = False
        self._say_once("client", f"{refusal}; a worker at an empty queue asks more often instead")

    def _say_once(self, command: str, text: str) -> None:
        if command not in self._said and not self._is_closed:
            self._said.add(command)
            self._report_error(RedisRefused(text))

    def _try_to_send(self) -> None:
        try:
            self._send()
        except Exception as error:  # noqa: BLE001 - the next fetch may fare better
            self._is_sent = False
            self._failed(error)

    def _send(self) -> None:
        self._is_sent = True
        self.duty.rests(self.longest_s)
        self._was_blocked, self._blocked_at = False, math.inf
        self._watch_loop()
        if self._may_unblock:
            self._connection.ask(self._packed, self._answered, patience_ms=FETCH_TIMEOUT_MS)
        else:
            self._connection.ask(self._packed_short, self._answered, patience_ms=SHORT_FETCH_MS)

    def _watch_loop(self) -> None:
        """Notice that the loop was blocked, if its timers run before it reads what has arrived."""
        self._was_blocked = self._is_stale()
        self._blocked_at = self._loop.time() + self._max_blocked_s
        self._watch = self._loop.call_later(self._max_blocked_s / 2, self._watch_loop, context=Context())

    def _is_stale(self) -> bool:
        return self._was_blocked or self._loop.time() > self._blocked_at

    def _answered(self, replies: list[Any], error: RedisError | None) -> None:
        self._is_sent = False
        if self._watch is not None:
            self._watch.cancel()
        # The connection may have ended between the two replies: the moved job is still ours.
        reply, *look = replies or [error]
        if not isinstance(reply, RedisError):
            self._said.discard("blmove")
            if self._retry_delay.has_grown:
                self._retry_delay.reset()
            self.duty.progressed()  # ``_ended`` notes the sign of life
            self._ended(reply, self._record_of(reply, *look))
        elif self._is_cut:
            self._ended(None)
        elif isinstance(reply, RedisRefused) and is_lack_of_right(reply):
            self._may_not_block(reply)
        else:
            if isinstance(reply, RedisRefused) and reply.code in NOT_HERE:
                self._beside.leave()
            self._failed(self._hung or meant_by(reply))

    def _may_not_block(self, refusal: RedisRefused) -> None:
        """Rest for a moment, in which calls look for jobs; the right may be granted by then."""
        self._say_once("blmove", f"{refusal}; the worker asks for jobs every {SHORT_FETCH_MS} ms instead")
        if self._is_stopping:
            self._ended(None)
            return
        self._is_resting = True
        self.duty.turn()
        self._begin(functools.partial(asyncio.sleep, SHORT_FETCH_MS / 1000))
        self._listener.fetch_rests()

    def _record_of(self, raw_id: bytes | None, look: Any = None) -> bytes:
        """Return the record from the look, if it is the moved job's, and recent."""
        if not isinstance(look, list):
            self._needs_script = self._needs_script or lacks_script(look)
        elif look[0] == raw_id and not self._is_stale():
            return look[1]  # type: ignore[no-any-return]  # the script's
        return b""

    def _failed(self, error: BaseException) -> None:
        """Report it, and rest. If an id was moved and the reply lost, a stall check finds it."""
        if not self._is_closed:
            if isinstance(error, RedisError):
                self._report_error(error)
            else:
                self.duty.broke(error)
        if self._is_stopping:
            self._ended(None)
            return
        self._is_resting = True
        if isinstance(error, RedisError):
            self.duty.rests(self._retry_delay.next_ms / 1000)
            self._begin(self._rest)
        else:
            self._begin(functools.partial(asyncio.sleep, self.duty.again_s()))
        if not self._is_closed:
            self._listener.fetch_rests()

    async def _rest(self) -> None:
        """Wait before the next fetch; without the right to block, only as long as a short fetch takes."""
        left_s = self._retry_delay.take_s()
        while left_s > self._look_s and not self._is_stopping:
            if self._retry_delay.has_news():
                return  # another master was announced
            await asyncio.sleep(self._look_s)
            left_s -= self._look_s
            if not self._is_stopping:
                self._listener.fetch_rests()
        await asyncio.sleep(0 if self._is_stopping or self._retry_delay.has_news() else left_s)

    def _begin(self, function: Callable[[], Awaitable[None]]) -> None:
        self._task = self._loop.create_task(contained(function), context=Context())
        self._task.add_done_callback(self._task_ended, context=Context())

    def _task_ended(self, task: asyncio.Task[BaseException | None]) -> None:
        if task is not self._task:
            return  # it hung, and was abandoned
        was_resting, self._is_resting = self._is_resting, False
        self._task = None
        error = None if task.cancelled() else task.result()
        if task.cancelled() and not (self._is_stopping or was_resting):
            error = DutyEnded(self.duty.name, "was cancelled")
        if error is not None:
            self._failed(error)
        elif was_resting or self._is_stopping:
            self._ended(None)
        else:
            if self._beside.peer not in (None, self._connection.peer):
                self._beside.leave()
            self._try_to_send()

    def _ended(self, raw_id: bytes | None, record: bytes = b"") -> None:
        self._over.set()
        self.duty.rests(math.inf)
        if self._is_closed:
            return
        if raw_id is None:
            self._listener.fetch_ended()
        else:
            self._listener.fetched(raw_id, record)

    def abort(self, reason: BaseException) -> None:
        """End a fetch that hangs, if one is under way, for this reason; it is tried again after a rest.

        A stall check finds a job that Redis has moved by then.
        """
        if self._over.is_set() or self._is_stopping or self._is_resting:
            return
        self._hung = reason
        if self._is_sent:
            self._connection.leave()  # which ends the fetch
        self._hung = None
        if self._over.is_set() or self._is_resting:
            return
        # It was not sent yet, or its end was lost.
        task, self._task, self._is_sent = self._task, None, False
        if task is not None:
            task.cancel()
        self._failed(reason)

    async def stop(self, connection: Connection) -> None:
        """End the fetch without losing a job that it may have brought; the listener gets it.

        CLIENT UNBLOCK, over another connection, makes Redis answer: with nothing, or with an id that it had
        moved by then. It may overtake BLMOVE itself, so it is repeated until the fetch has ended.
        """
        self._is_stopping = True
        while self._is_sent or self._task is not None:
            wait_s = _UNBLOCK_AGAIN_S
            if self._task is not None:
                self._task.cancel()  # not connected, or resting: nothing can have been moved
            elif not self._may_unblock:
                wait_s = self.longest_s  # the fetch is short, or its connection ends in any case
            else:
                try:
                    await connection.call("CLIENT", "UNBLOCK", self._connection.client_id or 0)
                except RedisRefused as error:
                    self._may_not_unblock(error)  # any more: a long fetch is under way
                    await self._cut()
                except RedisError as error:
                    self._report_error(error)
                    await self._connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), wait_s)

    async def _cut(self) -> None:
        """End the connection from this side, so that Redis sends the moved id and hangs up."""
        if not self._is_sent:
            return
        self._is_cut = True
        try:
            if self._connection.end_writing():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), _HANG_UP_S)
            self._connection.leave()
        finally:
            self._is_cut = False

    async def close(self) -> None:
        """Close the connection; the listener gets no end of a fetch under way."""
        self._is_stopping = self._is_closed = True
        self._duties.remove(self.duty)
        if self._task is not None:
            self._task.cancel()
        await self._connection.close()
