"""One connection to Redis that many callers share: commands sent while a reply is awaited go out together."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from beeq.errors import QueueClosed, RedisError, RedisRefused, RedisUnavailable
from beeq.redis.connection import Connection, lacks_script, not_now
from beeq.redis.connector import Connector
from beeq.redis.replicas import ReplicaWait
from beeq.redis.resp import pack, settle
from beeq.redis.rights import is_lack_of_right
from beeq.redis.scripts import Script

#: How often a producer's command is tried while Redis is away, as in bee-queue.
TRIES = 3
RETRY_DELAY_MS = 100
#: A batch must be sent and executed within the time of one reply; calls beyond this wait for the next one.
MAX_BATCH_BYTES = 4_000_000
#: A longer call goes alone: a server that does not take it hangs up, and must not take others with it.
_LONG_CALL_BYTES = 1_000_000

#: The note in a cancelled caller's CancelledError.
NOT_SENT = "it was cancelled before it was sent to Redis: nothing was done"
UNKNOWN = "it was sent to Redis when it was cancelled: whether it was done is unknown"

#: Called once, with a call's reply or its error; with NotReplicated it gets both.
OnReply = Callable[[Any, Exception | None], None]


class Pipeline:
    """A connection that many callers share: commands sent while a reply is awaited go out together.

    One batch is under way at a time. It is sent at the end of the loop's turn in which its first call was
    made, and each reply is handed over where it is read, while Redis works on the calls behind it. Only a
    batch that has to be retried gets a task.

    A call is tried again only if it cannot have been executed: it was not sent, or Redis replied "not
    now". A call whose reply was lost raises, because repeating it might add a job twice. ``repeatable``
    calls (reads) are always tried again.

    A cancelled caller withdraws its call, unless it was sent; a note of the CancelledError says which.
    Calls go in the order in which they were made, except those with ``goes_ahead``: small reads that decide
    about messages that pile up meanwhile. They wait for the batch under way, not for the saves behind it.

    ``close`` is final: waiting and later callers get QueueClosed.

    With ``replicas`` a batch with calls that await them ends with one WAIT. Such a call gets its reply after
    that, if need be with NotReplicated; the others get theirs at once. Later batches wait, too: the server
    executes nothing over a connection that waits.
    """

    def __init__(self, connector: Connector, *, timeout_ms: int, replicas: ReplicaWait | None = None) -> None:
        self._connection = Connection(connector, timeout_ms=timeout_ms)
        self._timeout_s = timeout_ms / 1000
        self._replicas = replicas
        self._waiting: list[PipelineCall] = []  # added by callers, taken by the next batch
        #: The last call in it; None if it is empty.
        self.last: PipelineCall | None = None
        self._batch: list[PipelineCall] = []  # under way
        self._replies = 0  # received for it
        self._again: list[PipelineCall] = []  # calls of it that Redis did not execute, to be sent again
        self._is_busy = False  # a batch is under way, or about to be sent
        self._sending: asyncio.Handle | None = None  # the scheduled ``_send``
        self._is_closed = False
        #: How many batches were sent, including retries.
        self.batches_sent = 0
        self._give_up_at_s = 0.0  # the batch's deadline, by the monotonic clock
        self._retrying: asyncio.Task[None] | None = None  # connects, loads scripts, sends a batch again

    async def connect(self) -> None:
        """Connect now, within the usual tries.

        Raises RedisUnavailable if Redis cannot be reached; RedisRefused if replicas are to be waited for and
        the user may not WAIT.
        """
        if self._replicas is None:
            await self.call("PING", repeatable=True)
            return
        try:
            await self.call("WAIT", 0, 1, repeatable=True)
        except RedisRefused as error:
            if is_lack_of_right(error):
                raise RedisRefused(f"{error}; wait_replicas needs it") from None
            # By a replica, say, that was the master a moment ago: the save will fail with it.

    @property
    def again_at(self) -> float:
        """When the connection was made again after a failure, by the loop's clock; never: -inf."""
        return self._connection.again_at

    async def call(self, *command: Any, repeatable: bool = False, goes_ahead: bool = False) -> Any:
        """Send one command and return its reply, or raise RedisUnavailable or RedisRefused."""
        return await self._reply_to(pack(*command), None, repeatable=repeatable, goes_ahead=goes_ahead)

    async def run(self, script: Script, command: bytes) -> Any:
        """Send a call that ``script`` has packed; load the script first where Redis does not know it."""
        return await self._reply_to(
            command, script, repeatable=script.is_repeatable, goes_ahead=script.goes_ahead
        )

    async def _reply_to(
        self, packed: bytes, script: Script | None, *, repeatable: bool, goes_ahead: bool
    ) -> Any:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        on_reply = functools.partial(settle, answered)
        call = PipelineCall(packed, None, script, on_reply, repeatable, answered.cancelled)
        self._put(call, goes_ahead=goes_ahead)
        try:
            return await answered
        except asyncio.CancelledError as cancelled:
            cancelled.add_note(UNKNOWN if call.is_sent else NOT_SENT)
            raise

    def defer(
        self,
        script: Script,
        pack_call: Callable[[], bytes],
        on_reply: OnReply,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> PipelineCall:
        """Queue a script call; it is packed each time before it is sent.

        ``loop`` is the running loop, if the caller has it: looking it up takes time.

        ``on_reply`` is called from the loop, with what ``run`` would return or raise; never if ``pack_call``
        returns nothing, which withdraws the call.
        """
        call = PipelineCall(b"", pack_call, script, on_reply)
        self._put(call, loop=loop)
        return call

    def _put(
        self,
        call: PipelineCall,
        *,
        goes_ahead: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if goes_ahead and self.last is not None:
            self._waiting.insert(0, call)
        else:
            self._waiting.append(call)
            self.last = call
        if not self._is_busy:
            self._is_busy = True
            # At the end of this turn: calls made in the same turn share the batch.
            self._sending = (loop or asyncio.get_running_loop()).call_soon(self._send)

    def _send(self) -> None:
        """Send what is waiting, as one batch."""
        self._sending = None
        if self._is_closed:
            self._fail(None)
            return
        batch: list[PipelineCall] = []
        while self._waiting and not batch:  # the ``on_reply`` of an unpackable call may add another call
            waiting, self._waiting, self.last = self._waiting, [], None
            batch, left = _sealed(waiting)
            if left:
                self._waiting[:0] = left
                self.last = self._waiting[-1]
        self._batch = batch
        if not batch:
            self._is_busy = False
            return
        self._give_up_at_s = time.monotonic() + self._timeout_s  # looking up the loop takes longer
        if self._connection.is_connected and (self._replicas is None or not self._awaits_replicas(batch)):
            self.batches_sent += 1
            self._replies = 0
            self._connection.ask_each(_taken(batch), self._replied)
        else:
            self._begin_retrying(batch, None, tries=TRIES)

    def _replied(self, reply: Any, error: RedisError | None) -> None:
        """Take the next reply of the batch under way, or what has ended the connection."""
        if self._is_closed:
            self._fail(None)
            return
        batch = self._batch
        if error is not None:
            # It is unknown which commands were executed.
            again = self._again + _lost(batch[self._replies :], error)
        else:
            call = batch[self._replies]
            self._replies += 1
            if isinstance(reply, RedisRefused):
                if call.may_be_sent_again(reply):
                    self._again.append(call)
                else:
                    call.end(None, reply)
            else:
                call.end(reply, None)
            if self._replies < len(batch):
                return
            again = self._again
        if again:
            self._again = []
            is_unknown = any(call.needs_script for call in again)
            self._begin_retrying(again, error, tries=TRIES if is_unknown else TRIES - 1)
        elif self._waiting:
            self._send()
        else:
            self._batch, self._is_busy = [], False

    # Cases that need a task: no connection, a lost one, an unknown script, a "not now", replicas to wait for.

    def _begin_retrying(self, calls: list[PipelineCall], failure: RedisError | None, *, tries: int) -> None:
        retrying = self._retry(calls, failure, tries)
        self._retrying = asyncio.get_running_loop().create_task(retrying, context=Context())

    async def _retry(self, calls: list[PipelineCall], failure: RedisError | None, tries: int) -> None:
        try:
            await self._serve(calls, failure, tries)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._retrying = None
        self._send()

    async def _serve(self, calls: list[PipelineCall], failure: RedisError | None, tries: int) -> None:
        """Bring each call to its end: a reply, or an error after the last try."""
        is_rested = tries == TRIES  # else the first try was just now
        # A silent peer, unlike one that refuses, uses up the time of all tries in one.
        while tries > 0 and (is_rested or time.monotonic() < self._give_up_at_s):
            if not is_rested:
                await asyncio.sleep(RETRY_DELAY_MS / 1000)
            is_rested = False
            tries -= 1
            calls, failure = await self._attempt(calls)
            if any(call.needs_script for call in calls):
                calls, failure = await self._attempt(calls)
            if not calls:
                return
        for call in calls:
            call.end(None, failure or call.failure or RedisUnavailable("Redis is away"))

    async def _attempt(self, calls: list[PipelineCall]) -> tuple[list[PipelineCall], RedisError | None]:
        """Load what Redis lacks and send the calls; return those that may be sent again, and why."""
        try:
            await self._connection.connect()
            for script in {call.script for call in calls if call.needs_script and call.script}:
                await self._connection.load(script)
        except RedisRefused as error:
            for call in calls:
                call.end(None, error)
            return [], None
        except RedisUnavailable as error:
            return calls, error
        calls = [call for call in calls if call.seal()]  # some were withdrawn meanwhile
        if not calls:
            return [], None
        self.batches_sent += 1
        try:
            if self._awaits_replicas(calls):
                return await self._ask_with_wait(calls), None
            replies = await self._connection.request(_taken(calls))
        except RedisUnavailable as error:
            return _give_out(calls, [], error), error
        return _give_out(calls, replies, None), None

    def _awaits_replicas(self, calls: list[PipelineCall]) -> bool:
        return self._replicas is not None and any(call.awaits_replicas for call in calls)

    async def _ask_with_wait(self, calls: list[PipelineCall]) -> list[PipelineCall]:
        """Send the calls and one WAIT; return those that may be sent again.

        Raises RedisUnavailable: not all replies of the calls came.
        """
        assert self._replicas is not None  # noqa: S101 - some call awaits them
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[Any]] = loop.create_future()
        confirmed: asyncio.Future[Any] = loop.create_future()
        self._connection.ask([*_taken(calls), self._replicas.write], functools.partial(settle, answered))

        def wait_over(replies: list[Any], error: RedisError | None) -> None:
            settle(confirmed, error or replies[0], None)

        # Separately: if the calls are refused, their replies must not wait for replicas that are away.
        self._connection.ask([self._replicas.wait], wait_over)
        *replies, written = await answered
        held: list[tuple[PipelineCall, Any]] = []
        again = _give_out(calls, replies, None, held)
        if held:
            shortfall = self._replicas.shortfall(written, await confirmed)
            for call, reply in held:
                call.end(reply, shortfall)
        return again

    def _fail(self, error: BaseException | None) -> None:
        """End all calls; without an error, with QueueClosed."""
        calls, self._batch, self._waiting = [*self._batch, *self._waiting], [], []
        self.last = None
        self._is_busy = False
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        for call in calls:
            if self._is_closed or not isinstance(error, Exception):
                call.end(None, _closed(call))
            else:
                call.end(None, error)

    async def close(self) -> None:
        """Close the connection for good; calls that have no reply yet, and later ones, raise QueueClosed."""
        self._is_closed = True
        try:
            if self._retrying is not None:
                self._retrying.cancel()
                await asyncio.wait([self._retrying], timeout=1)
        finally:
            await self._connection.close()
            self._fail(None)  # waiting calls, and those of a retry that had not begun


def _closed(call: PipelineCall) -> QueueClosed:
    error = QueueClosed()
    if call.is_sent:
        error.add_note("it was sent to Redis before the queue was closed: whether it was done is unknown")
    return error


def _taken(calls: list[PipelineCall]) -> list[bytes]:
    """Return the packed commands of the calls, marked as sent."""
    if len(calls) == 1:
        calls[0].is_sent = True
        return [calls[0].packed]
    packed = []
    for call in calls:
        call.is_sent = True
        packed.append(call.packed)
    return packed


def _sealed(waiting: list[PipelineCall]) -> tuple[list[PipelineCall], list[PipelineCall]]:
    """Return the calls that one batch may carry, ready to be sent, and those that have to wait."""
    if len(waiting) == 1:
        return (waiting if waiting[0].seal() else []), []
    batch: list[PipelineCall] = []
    size_bytes = 0
    for count, call in enumerate(waiting):
        if size_bytes > MAX_BATCH_BYTES:
            return batch, waiting[count:]
        if not call.seal():
            continue
        is_long = len(call.packed) > _LONG_CALL_BYTES
        if is_long and batch:
            return batch, waiting[count:]
        batch.append(call)
        size_bytes += len(call.packed)
        if is_long:
            return batch, waiting[count + 1 :]
    return batch, []


def _lost(calls: list[PipelineCall], error: RedisError) -> list[PipelineCall]:
    """End the calls that must not be sent again: they may have been executed. Return the others."""
    for call in calls:
        if not call.repeatable:
            call.end(None, error)
    return [call for call in calls if call.repeatable]


def _give_out(
    calls: list[PipelineCall],
    replies: list[Any],
    error: RedisError | None,
    held: list[tuple[PipelineCall, Any]] | None = None,
) -> list[PipelineCall]:
    """End the calls that have a reply, or must not be sent again; return the others.

    With an error it is unknown what was executed: replies that came before it are ignored. Calls that were
    executed and await replicas go to ``held``, if given, with their replies.
    """
    if error is not None:
        return _lost(calls, error)
    again = []
    for call, reply in zip(calls, replies, strict=True):
        if not isinstance(reply, RedisRefused):
            if held is not None and call.awaits_replicas:
                held.append((call, reply))
            else:
                call.end(reply, None)
        elif not call.may_be_sent_again(reply):
            call.end(None, reply)
        else:
            again.append(call)
    return again


class PipelineCall:
    """One command on its way, and the callback for its reply."""

    __slots__ = (
        "_is_withdrawn",
        "_make",
        "_on_reply",
        "failure",
        "is_sent",
        "needs_script",
        "packed",
        "repeatable",
        "script",
    )

    def __init__(  # noqa: PLR0917 - arguments by name take longer
        self,
        packed: bytes,
        make: Callable[[], bytes] | None,
        script: Script | None,
        on_reply: OnReply,
        repeatable: bool = False,
        is_withdrawn: Callable[[], bool] | None = None,
    ) -> None:
        self._is_withdrawn = is_withdrawn
        self._make = make  # None: already packed
        self._on_reply: OnReply | None = on_reply  # until the end
        self.packed = packed
        self.script = script
        self.repeatable = repeatable
        #: Redis may execute it, or have executed it.
        self.is_sent = False
        #: Redis did not know the script: it is loaded before the call is sent again.
        self.needs_script = False
        #: Why Redis refused to execute it when it was last sent.
        self.failure: RedisError | None = None

    @property
    def awaits_replicas(self) -> bool:
        """Whether its caller waits for ``wait_replicas``."""
        return self.script is not None and self.script.awaits_replicas

    def seal(self) -> bool:
        """Pack what is sent next; return False if it cannot be packed or was withdrawn."""
        if self._make is not None:
            try:
                self.packed = self._make()
            except Exception as error:  # noqa: BLE001 - it is the caller's, and the others' calls go on
                self.end(None, error)
                return False
        if not self.packed or (self._is_withdrawn is not None and self._is_withdrawn()):
            self._make = self._on_reply = None
            return False
        return True

    def may_be_sent_again(self, refused: RedisRefused) -> bool:
        """Return whether the call was not executed, and may be next time."""
        self.is_sent = False
        self.needs_script = self.script is not None and lacks_script(refused)
        passing = refused if self.needs_script else not_now(refused)
        self.failure = passing or self.failure
        return passing is not None

    def end(self, reply: Any, error: Exception | None) -> None:
        """Deliver the reply, or the error; only the first call counts."""
        on_reply, self._on_reply, self._make = self._on_reply, None, None
        if on_reply is None:
            return
        try:
            on_reply(reply, error)
        except Exception as defect:  # noqa: BLE001 - a reply of another shape, …; the others' calls go on
            context = {"message": "a reply could not be taken", "exception": defect}
            asyncio.get_running_loop().call_exception_handler(context)
