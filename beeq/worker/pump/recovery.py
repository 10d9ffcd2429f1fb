"""Recovery after a failed call: reconnect, load the script, find the jobs of lost calls, give jobs back.

Commands only; ``scheduling/scheduler.py`` decides what is due.
"""

import re
from collections.abc import Callable

from beeq.errors import RedisError, RedisRefused
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.connection import Connection, lacks_script
from beeq.worker.scheduling.actions import Failure, GiveBack, Recover
from beeq.worker.scheduling.claims import token_of

#: Errors of servers for an argument that is longer than they take (``proto-max-bulk-len``), after which they
#: hang up; or for one that does not fit into a value.
_TOO_LONG = re.compile(r"invalid bulk length|exceeds maximum allowed size|too big", re.IGNORECASE)
#: Jobs given back in one call, at most.
_MAX_BATCH = 500


class Recovery:
    """One worker's recovery, over the connection of its calls. Its methods raise RedisError."""

    def __init__(self, connection: Connection, keys: Keys, *, outbox_limit: int) -> None:
        self._connection = connection
        self._keys = keys
        self._outbox_limit = outbox_limit

    async def run(
        self, action: Recover, on_answer: Callable[[], object]
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Make calls possible; return ids and claims of the jobs of lost calls, and the record ``record_of``.

        ``on_answer`` is called after each reply of a search that may take many calls.
        """
        await self._connection.connect()
        if action.needs_script:
            await self._connection.load(scripts.exchange)
        found = await self._claimed_with(action.tokens, on_answer) if action.tokens else []
        record = b""
        if action.record_of:
            record = await self._connection.call("HGET", self._keys.jobs, action.record_of) or b""
        return found, record

    async def _claimed_with(
        self, tokens: tuple[bytes, ...], on_answer: Callable[[], object]
    ) -> list[tuple[bytes, bytes]]:
        """Return id and claim of each job that calls with these tokens have claimed."""
        found: list[tuple[bytes, bytes]] = []
        cursor = b"0"
        while True:
            cursor, fields = await self._connection.call("HSCAN", self._keys.claims, cursor, "COUNT", 500)
            on_answer()
            pairs = zip(fields[::2], fields[1::2], strict=True)
            found += [(raw_id, claim) for raw_id, claim in pairs if token_of(claim) in tokens]
            if cursor == b"0":
                return found

    async def give_back(self, action: GiveBack, on_answer: Callable[[], object]) -> None:
        """Put jobs at the front of the queue. If that failed, perhaps for some only, it may be repeated.

        ``on_answer`` is called after each reply.
        """
        # The script pushes each to the front, so it gets the newest first.
        pairs = [(action.unclaimed, b"")] if action.unclaimed else []
        pairs += reversed([*action.claims, *action.strays])
        given_back = 0
        while given_back < len(pairs):
            given_back += await scripts.give_back(
                self._connection,
                self._keys,
                outbox_limit=self._outbox_limit,
                jobs=pairs[given_back : given_back + _MAX_BATCH],
            )
            on_answer()


def failure_of(error: RedisError) -> Failure:
    """Return the kind of failure of a call that ended with this error."""
    if lacks_script(error):
        return Failure.SCRIPT_MISSING
    if not isinstance(error, RedisRefused):
        return Failure.REPLY_LOST
    return Failure.CONTENT_REFUSED if _TOO_LONG.search(str(error)) else Failure.REFUSED
