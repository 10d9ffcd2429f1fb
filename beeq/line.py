"""One connection to Redis, used by one task at a time: packed commands out, replies in.

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
    """One connection with one user at a time; connects when first used, and again after a failure.

    ``exchange`` is the engine's whole way of talking: packed commands in one write, then their
    replies. A failure or a timeout closes the connection, so no late reply is taken for another's.
    """

    def __init__(self, dialer: Dialer, *, timeout_ms: int) -> None:
        self._dialer = dialer
        self._timeout_s = timeout_ms / 1000
        self._connection: AbstractConnection | None = None
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
        if connection is None or not connection.is_connected:
            connection = self._connection = await self._dialer.dial()
        return connection

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
        replies: list[Any] = []
        is_elsewhere = False
        try:
            with mapped_errors():
                async with asyncio.timeout(self._timeout_s + patience_ms / 1000):
                    await connection.send_packed_command(packed, check_health=False)
                    for _ in packed:
                        try:
                            replies.append(await connection.read_response())
                        except (exceptions.ResponseError, exceptions.BusyLoadingError) as error:
                            replies.append(error)
                            is_elsewhere = is_elsewhere or isinstance(error, _NOT_HERE)
        except BaseException:
            await self.close()
            raise
        if is_elsewhere:
            await self.close()
        return replies

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
        connection, self._connection, self.client_id = self._connection, None, None
        if connection is not None:
            await connection.disconnect(nowait=True)
