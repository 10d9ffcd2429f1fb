"""Gives claimed jobs back to the queue: jobs that were given up, and those of a call whose reply was lost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from beeq.scripts import HAND_BACK

if TYPE_CHECKING:
    from beeq.keys import Keys
    from beeq.line import Line

#: Jobs given back in one call.
_MAX_BATCH = 500


class Returns:
    """Calls ``lua/hand_back.lua``. Its methods raise ``RedisError`` when Redis does not do its part."""

    def __init__(self, line: Line, keys: Keys, *, outbox_limit: int) -> None:
        self._line = line
        self._claims = keys.claims
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
            await self._line.run(HAND_BACK, self._keys, [self._outbox_limit, *page])

    async def claimed_with(self, tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """Return id and claim of whatever was claimed with these."""
        found: list[tuple[bytes, bytes]] = []
        cursor = b"0"
        while True:
            cursor, fields = await self._line.call("HSCAN", self._claims, cursor, "COUNT", 500)
            pairs = zip(fields[::2], fields[1::2], strict=True)
            found += [(raw_id, claim) for raw_id, claim in pairs if _token_of(claim) in tokens]
            if cursor == b"0":
                return found


def _token_of(claim: bytes) -> bytes:
    return claim.rpartition(b":")[0].rpartition(b".")[0]
