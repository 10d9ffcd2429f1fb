"""One connection to Redis: packed commands out, replies in, in the order in which they were sent.

This is the engine's fast path. The commands of a turn go out in one write and their replies are read
back, by redis-py's ``Connection`` and hiredis; the layers of a full client would cost more than Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import hiredis
from redis import exceptions

from beeq.connection import Dialer, mapped, mapped_errors
from beeq.errors import RedisRefused, RedisUnavailable
from beeq.scripts import Script

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

#: Replies that mean "not now": the command was not executed, so it may be sent again.
_NOT_NOW = ("MASTERDOWN", "TRYAGAIN", "BUSY", "READONLY", "CLUSTERDOWN", "MOVED", "ASK")
#: Replies that mean "not here": the next connection asks anew who is the master, or owns the slot.
_NOT_HERE = (exceptions.ReadOnlyError, exceptions.AskError)  # MOVED is an ASK to redis-py


def pack(*command: Any) -> bytes:
    """Return a command as Redis reads it."""
    return hiredis.pack_command(command)  # type: ignore[no-any-return]  # hiredis ships no types


def reply_of(reply: Any) -> Any:
    """Return a reply of ``exchange``, raising it if it is an error.

    Raises:
        RedisRefused: Redis answered with an error.
        RedisUnavailable: it answered that it cannot serve for now (loading, failing over).
    """
    if isinstance(reply, exceptions.RedisError):
        error = mapped(reply)
        if isinstance(error, RedisRefused) and error.code in _NOT_NOW:
            raise RedisUnavailable(str(error))
        raise error
    return reply


class Line:
    """One connection; connects when first used, and again after a failure.

    ``exchange`` is the engine's whole way of talking: packed commands in one write, then their replies.
    Several may be under way: each reads its replies when those before it have read theirs. A failure or
    a timeout closes the connection and fails them all, so no late reply is taken for another's.
    """

    def __init__(self, dialer: Dialer, *, timeout_ms: int) -> None:
        self._dialer = dialer
        self._timeout_s = timeout_ms / 1000
        self._connection: AbstractConnection | None = None
        self._connecting = asyncio.Lock()
        self._last_read: asyncio.Future[None] | None = None  # done when the latest exchange has read
        #: Redis's own id of the connection while there is one, for CLIENT UNBLOCK.
        self.client_id: int | None = None

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands, as far as is known."""
        return self._connection is not None and self._connection.is_connected

    async def connect(self) -> AbstractConnection:
        """Return the connection, dialling if there is none.

        Raises:
            RedisUnavailable: it cannot be made.
        """
        connection = self._connection
        if connection is not None and connection.is_connected:
            return connection
        async with self._connecting:
            if self._connection is None or not self._connection.is_connected:
                self._connection = await self._dialer.dial()
            return self._connection

    async def exchange(self, packed: Sequence[bytes], *, patience_ms: int = 0) -> list[Any]:
        """Send commands, return one reply for each; an error reply is returned, not raised.

        Args:
            packed: commands as ``pack`` makes them.
            patience_ms: how much longer than usual to wait: a blocking command's own timeout.

        Raises:
            RedisUnavailable: no connection, or it broke, or no reply in time. The commands may or
                may not have been executed.
        """
        connection = await self.connect()
        before, read = self._last_read, asyncio.get_running_loop().create_future()
        self._last_read = read
        replies: list[Any] = []
        try:
            with mapped_errors():
                async with asyncio.timeout(self._timeout_s + patience_ms / 1000):
                    # Written before the first await in it: the order of writes is that of reads.
                    await connection.send_packed_command(packed, check_health=False)
                    if before is not None and not before.done():
                        await before
                    await self._read(connection, len(packed), replies)
        except BaseException:
            await self._drop(connection)
            raise
        finally:
            if not read.done():
                read.set_result(None)
        if any(isinstance(reply, _NOT_HERE) for reply in replies):
            await self._drop(connection)
        return replies

    @staticmethod
    async def _read(connection: AbstractConnection, count: int, replies: list[Any]) -> None:
        for _ in range(count):
            if not connection.is_connected:
                raise exceptions.ConnectionError("the connection was closed")
            try:
                replies.append(await connection.read_response())
            except (exceptions.ResponseError, exceptions.BusyLoadingError) as error:
                replies.append(error)

    async def _drop(self, connection: AbstractConnection) -> None:
        if self._connection is connection:
            self._connection, self.client_id = None, None
        await connection.disconnect(nowait=True)

    async def call(self, *command: Any, patience_ms: int = 0) -> Any:
        """Send one command and return its reply.

        Raises:
            RedisUnavailable: see ``exchange``. RedisRefused: Redis answered with an error.
        """
        return reply_of((await self.exchange((pack(*command),), patience_ms=patience_ms))[0])

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script by its digest, loading it if Redis does not know it (flaw B3).

        Raises:
            RedisUnavailable: see ``exchange``. RedisRefused: the script, or Redis, refused.
        """
        command = (pack("EVALSHA", script.sha, len(keys), *keys, *arguments),)
        reply = (await self.exchange(command))[0]
        if isinstance(reply, exceptions.NoScriptError):
            await self.call("SCRIPT", "LOAD", script.source)
            reply = (await self.exchange(command))[0]
        return reply_of(reply)

    async def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            await self._drop(self._connection)
