"""One connection to Redis that many callers share: what they send meanwhile goes out together."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from beeq.errors import RedisError, RedisRefused, RedisUnavailable
from beeq.redis.connection import Connection, lacks_script, not_now
from beeq.redis.connector import Connector
from beeq.redis.resp import pack, settle
from beeq.redis.scripts import Script

#: A producer's command is tried this often while Redis is away, as in the original.
TRIES = 3
RETRY_DELAY_MS = 100
#: A batch has the time of one reply to be sent and executed in; calls beyond this wait for the next one.
MAX_BATCH_BYTES = 4_000_000

#: Called with a call's reply, or with its error; once.
OnReply = Callable[[Any, Exception | None], None]


class Pipeline:
    """A connection that many callers share: what they send while a reply is awaited goes out together.

    One batch is under way at a time. It is sent at the end of the loop's turn in which its first call was
    made, and replies are handed over where they are read. Only a batch that has to be retried gets a task.

    A call is tried again only while nothing of it can have been executed: before it was sent, or
    after Redis said "not now". A call whose reply was lost raises; repeating it silently might, say,
    add a job twice. ``repeatable`` calls (reads) are simply tried again.
    """

    def __init__(self, connector: Connector, *, timeout_ms: int) -> None:
        self._connection = Connection(connector, timeout_ms=timeout_ms)
        self._timeout_s = timeout_ms / 1000
        self._waiting: list[PipelineCall] = []  # added by callers, taken by the next batch
        self._batch: list[PipelineCall] = []  # under way
        self._is_busy = False  # a batch is under way, or about to be sent
        self._sending: asyncio.Handle | None = None  # the loop will send what is waiting
        self._is_closing = False
        self._give_up_at = 0.0  # when the batch has had its time
        self._retrying: asyncio.Task[None] | None = None  # connects, loads scripts, sends a batch again

    async def connect(self) -> None:
        """Connect now, within the usual tries. Raises RedisUnavailable if Redis cannot be reached."""
        await self.call("PING", repeatable=True)

    async def call(self, *command: Any, repeatable: bool = False) -> Any:
        """Send one command and return its reply, or raise RedisUnavailable or RedisRefused."""
        return await self._future_of(pack(*command), None, repeatable=repeatable)

    async def run(self, script: Script, command: bytes) -> Any:
        """Send a call that ``script`` has packed; load the script first where Redis does not know it."""
        return await self._future_of(command, script, repeatable=script.is_repeatable)

    def _future_of(self, packed: bytes, script: Script | None, *, repeatable: bool) -> asyncio.Future[Any]:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(PipelineCall(packed, script, functools.partial(settle, answered), repeatable=repeatable))
        return answered

    def defer(self, script: Script, pack_call: Callable[[], bytes], on_reply: OnReply) -> PipelineCall:
        """Queue a script call now; it is packed when it is sent.

        ``on_reply`` is called from the loop, with what ``run`` would return or raise.
        """
        call = PipelineCall(pack_call, script, on_reply, repeatable=False)
        self._put(call)
        return call

    def is_last(self, call: PipelineCall) -> bool:
        """Return whether ``call`` has not been sent, and nothing was asked after it."""
        return bool(self._waiting) and self._waiting[-1] is call

    def _put(self, call: PipelineCall) -> None:
        self._waiting.append(call)
        if not self._is_busy:
            self._is_busy = True
            # At the end of this turn: what is asked in the same turn goes along.
            self._sending = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Send what is waiting, as one batch."""
        self._sending = None
        if self._is_closing:
            self._fail(None)
            return
        self._batch = []
        while self._waiting and not self._batch:  # the ``on_reply`` of an unpackable call may ask again
            waiting, self._waiting = self._waiting, []
            self._batch, left = _sealed(waiting)
            self._waiting[:0] = left
        if not self._batch:
            self._is_busy = False
            return
        self._give_up_at = asyncio.get_running_loop().time() + self._timeout_s
        if self._connection.is_connected:
            self._connection.ask([call.packed for call in self._batch], self._answered)
        else:
            self._begin_retrying(self._batch, None, tries=TRIES)

    def _answered(self, replies: list[Any], error: RedisError | None) -> None:
        calls = _give_out(self._batch, replies, error)
        if not calls:
            self._send()
        elif self._is_closing:
            self._fail(error)
        else:
            is_unknown = any(call.needs_script for call in calls)
            self._begin_retrying(calls, error, tries=TRIES if is_unknown else TRIES - 1)

    # Retrying: no connection, a lost one, a script that Redis does not know, a "not now".

    def _begin_retrying(self, calls: list[PipelineCall], failure: RedisError | None, *, tries: int) -> None:
        self._retrying = asyncio.get_running_loop().create_task(self._retry(calls, failure, tries))

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
        loop = asyncio.get_running_loop()
        is_rested = tries == TRIES  # else the first try was just now
        # A peer that is silent, not refusing, uses up the time of all tries with one.
        while tries > 0 and (is_rested or loop.time() < self._give_up_at):
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
            call.end(None, failure or call.failure)

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
        try:
            replies = await self._connection.request([call.packed for call in calls])
        except RedisUnavailable as error:
            return _give_out(calls, [], error), error
        return _give_out(calls, replies, None), None

    def _fail(self, error: BaseException | None) -> None:
        """End everything that is under way or waits."""
        calls, self._batch, self._waiting = [*self._batch, *self._waiting], [], []
        self._is_busy = False
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        lost = error if isinstance(error, Exception) else RedisUnavailable("the connection was closed")
        for call in calls:
            call.end(None, lost)

    async def close(self) -> None:
        """Close the connection; calls that have no reply yet raise ``RedisUnavailable``."""
        self._is_closing = True
        try:
            if self._retrying is not None:
                self._retrying.cancel()
                await asyncio.wait([self._retrying], timeout=1)
            await self._connection.close()
        finally:
            self._fail(None)  # what waits, and what a retry held that had not begun
            self._is_closing = False


def _sealed(waiting: list[PipelineCall]) -> tuple[list[PipelineCall], list[PipelineCall]]:
    """Return the calls that one batch may carry, ready to be sent, and those that have to wait."""
    batch: list[PipelineCall] = []
    size_bytes = 0
    for count, call in enumerate(waiting):
        if size_bytes > MAX_BATCH_BYTES:
            return batch, waiting[count:]
        if call.seal():
            batch.append(call)
            size_bytes += len(call.packed)
    return batch, []


def _give_out(calls: list[PipelineCall], replies: list[Any], error: RedisError | None) -> list[PipelineCall]:
    """End the calls that have a reply, or must not be sent again; return the others.

    With an error nobody knows what has been executed: replies that came before it are ignored.
    """
    if error is not None:
        for call in calls:
            if not call.repeatable:
                call.end(None, error)
        return [call for call in calls if call.repeatable]
    again = []
    for call, reply in zip(calls, replies, strict=True):
        if not isinstance(reply, RedisRefused):
            call.end(reply, None)
        elif not call.may_be_sent_again(reply):
            call.end(None, reply)
        else:
            again.append(call)
    return again


class PipelineCall:
    """One command on its way, and who wants to know its reply."""

    __slots__ = ("_make", "_on_reply", "failure", "needs_script", "packed", "repeatable", "script")

    def __init__(
        self,
        packed: bytes | Callable[[], bytes],
        script: Script | None,
        on_reply: OnReply,
        *,
        repeatable: bool,
    ) -> None:
        self._make = packed if callable(packed) else None
        self._on_reply: OnReply | None = on_reply  # until the end
        self.packed = b"" if callable(packed) else packed
        self.script = script
        self.repeatable = repeatable
        #: Redis did not know the script: it is loaded before the call is sent again, once.
        self.needs_script = False
        #: Why it was not executed when it was last sent.
        self.failure = RedisUnavailable("Redis is away")

    def seal(self) -> bool:
        """Fix what is sent; return whether that can be."""
        if self._make is None:
            return True
        make, self._make = self._make, None
        try:
            self.packed = make()
        except Exception as error:  # noqa: BLE001 - it is the caller's, and the others' calls go on
            self.end(None, error)
            return False
        return True

    def may_be_sent_again(self, refused: RedisRefused) -> bool:
        """Return whether the call was not executed, and may be next time."""
        was_known, self.needs_script = not self.needs_script, False
        if lacks_script(refused) and self.script is not None:
            self.needs_script = was_known
            return was_known
        passing = not_now(refused)
        self.failure = passing or self.failure
        return passing is not None

    def end(self, reply: Any, error: Exception | None) -> None:
        """Tell the reply, or the error; the first one counts."""
        on_reply, self._on_reply = self._on_reply, None
        if on_reply is None:
            return
        try:
            on_reply(reply, error)
        except Exception as defect:  # noqa: BLE001 - a reply of another shape, …; the others' calls go on
            context = {"message": "a reply could not be taken", "exception": defect}
            asyncio.get_running_loop().call_exception_handler(context)
