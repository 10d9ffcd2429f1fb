"""The writer: pays what the outboxes owe, many jobs a call, several changes of one job as one.

What it writes is where a job stands when it is written, not what the change was: so nothing is lost by
merging, and a lost batch is made good by any later one. While MongoDB is away it holds one batch and
asks again, ever less often; the rest waits in Redis. After each batch it rests as long as that took:
at least half of the time belongs to the jobs, here and where MongoDB shares their machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from beeq.errors import RedisError
from beeq.mirror.collection import StatusCollection
from beeq.mirror.documents import Change, change_of
from beeq.mirror.errors import MirrorUnavailable
from beeq.mirror.outbox import Outbox, Owed
from beeq.redis.retry_delay import RetryDelay

_FIRST_PAUSE_MS = 100
#: Changes that come this close together are merged.
_REST_S = 0.05
_LONGEST_REST_S = 1.0
#: How often abandoned changes are looked for.
_TAKE_OVER_S = 10.0
#: Changes of one script call's size: reading where they stand is bounded as everything else.
_AT_ONCE = 250


class Writer:
    """Pays until cancelled.

    Args:
        outbox: what is owed.
        collection: where it is paid.
        on_error: told of each failure; the writer goes on.
        is_alone: no jobs run in this process: it need not rest for them.
    """

    def __init__(
        self,
        outbox: Outbox,
        collection: StatusCollection,
        *,
        on_error: Callable[[BaseException], None],
        is_alone: bool,
    ) -> None:
        self._longest_rest_s = _REST_S if is_alone else _LONGEST_REST_S
        self._outbox = outbox
        self._collection = collection
        self._on_error = on_error
        self._retry_delay = RetryDelay(_FIRST_PAUSE_MS)
        self._take_over_at = 0.0
        #: Whether the last try of a write failed.
        self.is_in_trouble = False
        #: How many documents were written.
        self.written = 0

    async def run(self) -> None:
        """Pay what is owed, and what comes."""
        while True:
            try:
                await self._outbox.open()
                while True:
                    await self._round()
            except RedisError as error:
                if "NOGROUP" in str(error):
                    continue  # the queue was destroyed, and its outbox with it
                self._on_error(error)
                await self._retry_delay.wait(lambda: False)

    async def _round(self) -> None:
        taken: list[Owed] = []
        if time.monotonic() >= self._take_over_at:
            self._take_over_at = time.monotonic() + _TAKE_OVER_S
            taken += await self._outbox.take_over()
        taken += await self._outbox.take(wait=not taken)
        for owed in taken:
            await self._pay(owed)
        if taken:
            self._retry_delay.reset()

    async def _pay(self, owed: Owed) -> None:
        job_ids = list(owed.revisions)
        for start in range(0, len(job_ids), _AT_ONCE):
            started_s = time.monotonic()
            await self._write(owed, job_ids[start : start + _AT_ONCE])
            await asyncio.sleep(min(max(_REST_S, time.monotonic() - started_s), self._longest_rest_s))
        await self._outbox.paid(owed)

    async def _write(self, owed: Owed, job_ids: list[str]) -> None:
        """Write where these jobs stand; as often as it takes."""
        while True:
            changes = await self._changes(owed, job_ids)
            try:
                await self._collection.write(changes)
            except MirrorUnavailable as error:
                if not self.is_in_trouble:
                    self._on_error(error)
                self.is_in_trouble = True
                await self._retry_delay.wait(lambda: False)
            else:
                self.is_in_trouble = False
                self.written += len(changes)
                return

    async def _changes(self, owed: Owed, job_ids: list[str]) -> list[Change]:
        name = owed.queue_name
        job_states = await asyncio.gather(*(self._outbox.job_state(name, job_id) for job_id in job_ids))
        changes = []
        for job_id, found in zip(job_ids, job_states, strict=True):
            remains = owed.remains.get(job_id)
            job_state = found or remains
            if found is not None and found.record is None and remains is not None:
                job_state = replace(found, record=remains.record)
            changes.append(change_of(name, job_id, job_state, owed.revisions[job_id]))
        return changes
