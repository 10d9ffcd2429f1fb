"""What keeps a pump from making calls, and its mending: a lost connection, a missing script, lost replies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from beeq.errors import RedisError, RedisRefused
from beeq.redis.connection import Connection, lacks_script, meant_by
from beeq.redis.scripts import EXCHANGE

if TYPE_CHECKING:
    from beeq.redis.retry_delay import RetryDelay

#: Id and claim of each job.
Claims = list[tuple[bytes, bytes]]


class Trouble:
    """The trouble of one connection.

    Args:
        connection: the pump's.
        pause: between two tries.
        find_claims: returns what calls with these tokens have claimed. Raises RedisError.
        on_found: given that; sees to it that nothing stays claimed that runs nowhere. Raises RedisError.
        on_error: called with each failure.
    """

    def __init__(
        self,
        connection: Connection,
        pause: RetryDelay,
        *,
        find_claims: Callable[[list[bytes]], Awaitable[Claims]],
        on_found: Callable[[Claims], Awaitable[None]],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._connection = connection
        self._retry_delay = pause
        self._find_claims = find_claims
        self._on_found = on_found
        self._on_error = on_error
        #: Whether no call may be made.
        self.is_present = False
        self._needs_rest = False
        self._needs_script = False
        #: Of calls whose reply was lost: what did they claim?
        self.lost_tokens: list[bytes] = []

    def note_failure(self, error: RedisError, token: bytes) -> None:
        """Note that the call with this token has failed."""
        self.is_present = True
        if lacks_script(error):
            self._needs_script = True
            return
        self._needs_rest = True
        if not isinstance(error, RedisRefused):
            self.lost_tokens.append(token)
        self._on_error(meant_by(error))

    async def mend(self, is_hurried: Callable[[], bool]) -> None:
        """Make the connection fit for calls, or see to it that this is tried again later."""
        if self._needs_rest:
            self._needs_rest = False
            await self._retry_delay.wait(is_hurried)
        try:
            await self._connection.connect()
            if self._needs_script:
                await self._connection.call("SCRIPT", "LOAD", EXCHANGE.source)
                self._needs_script = False
            if self.lost_tokens:
                await self._recover()
        except RedisError as error:
            self._needs_rest = True
            self._on_error(error)
        else:
            self.is_present = False

    async def _recover(self) -> None:
        """See to what calls claimed whose replies were lost; else a stall check would, much later."""
        lost, self.lost_tokens = self.lost_tokens, []
        try:
            await self._on_found(await self._find_claims(lost))
        except BaseException:
            self.lost_tokens += lost
            raise
