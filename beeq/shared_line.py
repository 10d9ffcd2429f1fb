"""One connection to Redis that many callers share: what they ask meanwhile goes out together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions

from beeq.connection import Dialer
from beeq.errors import RedisRefused, RedisUnavailable
from beeq.line import Line, pack, reply_of
from beeq.scripts import Script

#: A producer's command is tried this often while Redis is away, as in the original.
TRIES = 3
RETRY_DELAY_MS = 100


class SharedLine:
    """A line that many callers share: what they ask while a reply is awaited goes out together.

    A call is tried again only while nothing of it can have been executed: before it was sent, or
    after Redis said "not now". A call whose reply was lost raises; repeating it silently might, say,
    add a job twice (flaw C17). ``repeatable`` calls (reads) are simply tried again.
    """

    def __init__(self, dialer: Dialer, *, timeout_ms: int) -> None:
        self._line = Line(dialer, timeout_ms=timeout_ms)
        self._timeout_s = timeout_ms / 1000
        self._waiting: list[_Call] = []  # added by callers, taken by the flusher
        self._flusher: asyncio.Task[None] | None = None  # runs while anything waits

    async def connect(self) -> None:
        """Connect now, within the usual tries.

        Raises:
            RedisUnavailable: Redis cannot be reached.
        """
        await self.call("PING", repeatable=True)

    async def call(self, *command: Any, repeatable: bool = False) -> Any:
        """Send one command and return its reply.

        Raises:
            RedisUnavailable: Redis is away. RedisRefused: it answered with an error.
        """
        return await self._enqueue(_Call(pack(*command), None, repeatable=repeatable))

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Any],
        *,
        repeatable: bool = False,
    ) -> Any:
        """Run a script and return its reply; it is loaded where Redis does not know it.

        Raises:
            RedisUnavailable: Redis is away. RedisRefused: it answered with an error.
        """
        packed = pack("EVALSHA", script.sha, len(keys), *keys, *arguments)
        return await self._enqueue(_Call(packed, script, repeatable=repeatable))

    def defer(self, script: Script, keys: Sequence[str], arguments: Callable[[], Sequence[Any]]) -> _Call:
        """Put a script call in line now; its arguments are asked for when it is sent."""

        def packed() -> bytes:
            return pack("EVALSHA", script.sha, len(keys), *keys, *arguments())

        call = _Call(packed, script, repeatable=False)
        self._enqueue(call)
        return call

    def is_last(self, call: _Call) -> bool:
        """Return whether ``call`` has not been sent, and nothing was asked after it."""
        return bool(self._waiting) and self._waiting[-1] is call

    def _enqueue(self, call: _Call) -> asyncio.Future[Any]:
        self._waiting.append(call)
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        return call.reply

    async def _flush(self) -> None:
        batch: list[_Call] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                for call in batch:
                    call.seal()
                await self._serve(batch)
        except BaseException as error:
            lost = RedisUnavailable("the connection was closed")
            for call in (*batch, *self._waiting):
                call.fail(error if isinstance(error, Exception) else lost)
            self._waiting = []
            raise
        finally:
            self._flusher = None

    async def _serve(self, calls: list[_Call]) -> None:
        """Bring each call to its end: a reply, or an error after the last try."""
        failure: RedisUnavailable | None = None
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._timeout_s
        for tries_left in reversed(range(TRIES)):
            try:
                await self._line.connect()
            except RedisUnavailable as error:
                unsent, failure = calls, error
            else:
                unsent, failure = await self._attempt(calls)
            if not unsent:
                return
            calls = unsent
            if not tries_left or loop.time() >= give_up_at:
                break  # a peer that is silent, not refusing, has used up the time of all tries
            await asyncio.sleep(RETRY_DELAY_MS / 1000)
        for call in calls:
            call.fail(RedisUnavailable("Redis is away") if failure is None else failure)

    async def _attempt(self, calls: list[_Call]) -> tuple[list[_Call], RedisUnavailable | None]:
        """Send the calls once; return those that may be sent again, and why."""
        try:
            replies = await self._line.exchange([call.packed for call in calls])
        except RedisUnavailable as error:
            for call in calls:
                if not call.repeatable:
                    call.fail(error)
            return [call for call in calls if call.repeatable], error
        again: list[_Call] = []
        unknown: dict[str, Script] = {}
        failure: RedisUnavailable | None = None
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, exceptions.NoScriptError) and call.script and not call.reloaded:
                call.reloaded = True
                unknown[call.script.sha] = call.script
                again.append(call)
                continue
            try:
                call.succeed(reply_of(reply))
            except RedisUnavailable as error:
                failure = error
                again.append(call)
            except RedisRefused as error:
                call.fail(error)
        if unknown:
            return await self._reload(list(unknown.values()), again)
        return again, failure

    async def _reload(
        self, scripts: list[Script], calls: list[_Call]
    ) -> tuple[list[_Call], RedisUnavailable | None]:
        try:
            for script in scripts:
                await self._line.call("SCRIPT", "LOAD", script.source)
        except RedisRefused as error:
            for call in calls:
                call.fail(error)
            return [], None
        except RedisUnavailable as error:
            return calls, error
        return await self._attempt(calls)

    async def close(self) -> None:
        """Close the connection; calls under way raise ``RedisUnavailable``."""
        flusher = self._flusher
        if flusher is not None:
            flusher.cancel()
            await asyncio.wait([flusher], timeout=1)
        await self._line.close()


class _Call:
    """One command on its way, and the future its caller awaits."""

    __slots__ = ("_make", "packed", "reloaded", "repeatable", "reply", "script")

    def __init__(
        self, packed: bytes | Callable[[], bytes], script: Script | None, *, repeatable: bool
    ) -> None:
        self._make = packed if callable(packed) else None
        self.packed = b"" if callable(packed) else packed
        self.script = script
        self.repeatable = repeatable
        self.reloaded = False
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def seal(self) -> None:
        """Fix what is sent."""
        if self._make is not None:
            self.packed, self._make = self._make(), None

    def succeed(self, reply: Any) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)

    def fail(self, error: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)
