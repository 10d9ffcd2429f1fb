"""Asks Redis, over a connection of its own, whether it answers and whether jobs wait: for the watchdog.

The other connections of a queue may be the ones that hang, so none of them is used. Connects when first
needed: a healthy queue has no such connection.
"""

from beeq.errors import RedisError
from beeq.protocol.keys import Keys
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector


class RedisProbe:
    """One queue's probe."""

    def __init__(self, connector: Connector, keys: Keys, *, timeout_ms: int) -> None:
        self._keys = keys
        self._connection = Connection(connector, timeout_ms=timeout_ms)

    async def waiting(self) -> int | None:
        """Return how many jobs wait; None if Redis does not answer. An error is an answer, too."""
        try:
            return int(await self._connection.call("LLEN", self._keys.waiting))
        except RedisError as error:
            return None if isinstance(error, ConnectionError) else 0

    async def is_answered(self) -> bool:
        """Return whether Redis answers."""
        return await self.waiting() is not None

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()
