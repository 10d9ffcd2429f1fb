"""Gives claimed jobs back to the queue: jobs that were given up, and those of a call whose reply was lost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from beeq.redis.scripts import HAND_BACK
from beeq.worker.claims import token_of

if TYPE_CHECKING:
    from beeq.protocol.keys import Keys
    from beeq.redis.connection import Connection
    from beeq.worker.early_start import Adoption

#: Jobs given back in one call.
_MAX_BATCH = 500


class Returns:
    """Calls ``lua/hand_back.lua``. Its methods raise ``RedisError`` when Redis does not do its part."""

    def __init__(self, connection: Connection, keys: Keys, *, outbox_limit: int) -> None:
        self._connection = connection
        self._claims = keys.claims
        self._jobs = keys.jobs
        self._keys = (keys.waiting, keys.active, keys.stalling, keys.jobs, keys.claims, keys.outbox)
        self._outbox_limit = outbox_limit

    async def give_back(self, claims: Sequence[tuple[bytes, bytes]], *, unclaimed: bytes = b"") -> None:
        """Put jobs, id and claim of each, at the front of the queue; the first runs first.

        Args:
            claims: the jobs. The script pushes each to the front, so it gets the newest first.
            unclaimed: an id that a blocking move has fetched too late, after all of them.
        """
        pairs = [(unclaimed, b"")] if unclaimed else []
        pairs += reversed(claims)
        for first in range(0, len(pairs), _MAX_BATCH):
            page = chain.from_iterable(pairs[first : first + _MAX_BATCH])
            await self._connection.run(HAND_BACK, self._keys, [self._outbox_limit, *page])

    async def claimed_with(self, tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """Return id and claim of whatever was claimed with these."""
        found: list[tuple[bytes, bytes]] = []
        cursor = b"0"
        while True:
            cursor, fields = await self._connection.call("HSCAN", self._claims, cursor, "COUNT", 500)
            pairs = zip(fields[::2], fields[1::2], strict=True)
            found += [(raw_id, claim) for raw_id, claim in pairs if token_of(claim) in tokens]
            if cursor == b"0":
                return found

    async def is_taken(
        self, adopted: Adoption, found: Sequence[tuple[bytes, bytes]], *, has_ended: bool
    ) -> bool:
        """Return whether a call that was lost has claimed an adopted job: another must not take it again.

        Args:
            adopted: the job.
            found: what lost calls have claimed. That runs here, or goes back to be someone else's.
            has_ended: its outcome waits. Two lost calls may have claimed it and recorded that: its record
                is another one then.
        """
        if any(raw_id == adopted.raw_id for raw_id, _ in found):
            return True
        return has_ended and await self._connection.call("HGET", self._jobs, adopted.raw_id) != adopted.record
