"""One connection to Redis that comes back: dials when first used, and again after a failure."""

import asyncio
import functools
import math
from collections.abc import Sequence
from typing import Any

from beeq.errors import RedisError, RedisRefused, RedisUnavailable
from beeq.redis.connector import Connector
from beeq.redis.error_codes import MISDIRECTED, NOT_HERE
from beeq.redis.resp import OnEnd, OnReply, RespProtocol, pack, settle
from beeq.redis.scripts import Script

#: Replies that mean "not now": the command was not executed, so it may be sent again.
_NOT_NOW = (*NOT_HERE, "LOADING", "TRYAGAIN", "BUSY")


def reply_of(reply: Any) -> Any:
    """Return a reply of ``request``; raise an error reply as ``meant_by`` has it."""
    if isinstance(reply, RedisRefused):
        raise meant_by(reply)
    return reply


def not_now(refused: RedisRefused) -> RedisUnavailable | None:
    """Return a temporary refusal as RedisUnavailable; None if it is not temporary."""
    if refused.code not in _NOT_NOW:
        return None
    return RedisUnavailable(str(refused).removeprefix(f"{MISDIRECTED} "))


def meant_by(error: RedisError) -> RedisError:
    """Return the error; a temporary refusal becomes RedisUnavailable."""
    return (not_now(error) or error) if isinstance(error, RedisRefused) else error


def lacks_script(reply: Any) -> bool:
    """Return whether Redis does not know the script that it was to run."""
    return isinstance(reply, RedisRefused) and reply.code == "NOSCRIPT"


class Connection:
    """One connection; connects when first used, and again after a failure.

    ``request`` sends packed commands in one write and awaits their replies; ``ask`` does so with a callback.
    Several may be under way. A failure or a timeout ends the connection and fails them all, so no late
    reply is taken for another's.
    """

    def __init__(self, connector: Connector, *, timeout_ms: int) -> None:
        self._connector = connector
        self._timeout_s = timeout_ms / 1000
        self._resp: RespProtocol | None = None
        self._connecting = asyncio.Lock()
        self._has_failed = False  # a connection could not be made
        #: When it was made again after a failure, by the loop's clock.
        self.again_at = -math.inf

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._resp is not None and self._resp.is_open

    async def connect(self) -> RespProtocol:
        """Return the connection, dialling if there is none. Raises RedisUnavailable if it cannot be made."""
        async with self._connecting:
            if self._resp is None or not self._resp.is_open:
                is_again = self._resp is not None or self._has_failed
                self._has_failed = True
                self._resp = await self._connector.connect()
                self._has_failed = False
                if is_again:
                    self.again_at = asyncio.get_running_loop().time()
            return self._resp

    def ask(self, packed: Sequence[bytes], on_end: OnEnd, *, patience_ms: int = 0) -> None:
        """Send commands over the open connection; see ``RespProtocol.ask``."""
        assert self._resp is not None  # noqa: S101 - callers have seen that it is open
        self._resp.ask(packed, on_end, timeout_s=self._timeout_s + patience_ms / 1000)

    def ask_each(self, packed: Sequence[bytes], on_reply: OnReply) -> None:
        """Send commands over the open connection; see ``RespProtocol.ask_each``."""
        assert self._resp is not None  # noqa: S101 - callers have seen that it is open
        self._resp.ask_each(packed, on_reply, timeout_s=self._timeout_s)

    async def request(self, packed: Sequence[bytes], *, patience_ms: int = 0) -> list[Any]:
        """Send packed commands, return one reply for each; an error reply is returned, not raised.

        ``patience_ms`` is how much longer than usual to wait: a blocking command's own timeout. After a
        RedisUnavailable (no connection, a broken one, no reply in time) the commands may have been executed.
        """
        resp = self._resp
        if resp is None or not resp.is_open:
            resp = await self.connect()
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        on_end = functools.partial(settle, answered)
        resp.ask(packed, on_end, timeout_s=self._timeout_s + patience_ms / 1000)
        try:
            return await answered
        except asyncio.CancelledError:
            resp.close()  # no caller waits for the reply now, and the next command must not wait for it
            raise

    async def call(self, *command: Any, patience_ms: int = 0) -> Any:
        """Send one command and return its reply, or raise its error; see ``request``."""
        return reply_of((await self.request((pack(*command),), patience_ms=patience_ms))[0])

    async def run(self, script: Script, command: bytes) -> Any:
        """Send a call that ``script`` has packed; load the script and repeat if Redis does not know it.

        A restart makes Redis forget scripts. Raises what ``call`` raises.
        """
        reply = (await self.request((command,)))[0]
        if lacks_script(reply):
            await self.load(script)
            reply = (await self.request((command,)))[0]
        return reply_of(reply)

    async def load(self, script: Script) -> None:
        """Have Redis keep the script, so that it can be called. Raises what ``call`` raises."""
        await self.call("SCRIPT", "LOAD", script.source)

    @property
    def client_id(self) -> int | None:
        """Redis's own id of the connection, for CLIENT UNBLOCK; None where it is not known."""
        return self._resp.client_id if self._resp is not None and self._resp.is_open else None

    async def learn_client_id(self) -> None:
        """Ask for ``client_id``, connecting if need be. Raises what ``call`` raises."""
        resp = await self.connect()
        resp.client_id = await self.call("CLIENT", "ID")

    @property
    def peer(self) -> Any:
        """The address of the server while connected, else None."""
        return self._resp.peer if self._resp is not None and self._resp.is_open else None

    def leave(self) -> None:
        """End the connection, because its server is no longer the right one; the next call opens another."""
        if self._resp is not None:
            self._resp.close(RedisUnavailable("another server is to be asked now"))

    def end_writing(self) -> bool:
        """Say that nothing more will be asked; see ``RespProtocol.end_writing``."""
        return self._resp is not None and self._resp.end_writing()

    async def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._resp is not None:
            self._resp.close()
            self._resp = None
            await asyncio.sleep(0)  # the turn of the loop in which the socket is closed
