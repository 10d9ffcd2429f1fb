"""The reconciler: finds what nobody noted, and puts it into the outbox.

Node peers note nothing: what they enqueued, ran, finished or removed is found by looking. One process
at a time looks at a queue: at what is in flight and at documents that are not final every time, at all
other records page by page, a bounded number a look.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from beeq.errors import RedisError
from beeq.mirror.collection import StatusCollection
from beeq.mirror.documents import fingerprint_of, has_ended
from beeq.mirror.errors import MirrorUnavailable
from beeq.mirror.outbox import Outbox

#: How long after one look the next follows.
INTERVAL_S = 20.0
_FIRST_WAIT_S = 5.0
_LONGEST_REST_S = 1.0
_LEASE_MS = 30_000
#: Jobs compared in one call.
_PAGE = 500
#: Of each kind, jobs looked at in one look.
_BUDGET = 20_000
_EDGE = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """A job whose document does not say what Redis says.

    Attributes:
        queue_name: the queue.
        job_id: the job.
        in_redis: where it stands; None if nothing is there.
        in_mirror: what the document was written from; None if there is none.
    """

    queue_name: str
    job_id: str
    in_redis: str | None
    in_mirror: str | None


class Reconciler:
    """Compares until cancelled.

    Args:
        outbox: where to look, and where to note.
        collection: what to compare with.
        on_error: told of each failure; the next look makes up for it.
    """

    def __init__(
        self, outbox: Outbox, collection: StatusCollection, *, on_error: Callable[[BaseException], None]
    ) -> None:
        self._outbox = outbox
        self._collection = collection
        self._on_error = on_error
        self._cursors: dict[str, bytes] = {}  # where the look at all records goes on
        self._after: dict[str, Any] = {}  # where the look at unfinished documents goes on

    async def run(self) -> None:
        """Look again and again; first when the writer has had a moment for what is owed."""
        wait_s = min(_FIRST_WAIT_S, INTERVAL_S)
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.9, 1.1))
            wait_s = INTERVAL_S
            for name in self._outbox.queue_names:
                try:
                    if await self._outbox.may_scan(name, _LEASE_MS):
                        await self.look(name)
                except (RedisError, MirrorUnavailable) as error:
                    self._on_error(error)

    async def look(self, queue_name: str) -> None:
        """Look once, and note what differs.

        Raises:
            RedisError, MirrorUnavailable: it was not looked to the end.
        """
        await self._note(await self._unfinished_documents(queue_name))
        in_flight = await self._outbox.in_flight(queue_name, _EDGE)
        for start in range(0, len(in_flight), _PAGE):
            await self._note(await self.compare(queue_name, in_flight[start : start + _PAGE]))
        looked_at = 0
        cursor = self._cursors.get(queue_name, b"0")
        while looked_at < _BUDGET:
            cursor, job_ids = await self._outbox.page(queue_name, cursor, _PAGE)
            await self._note(await self.compare(queue_name, job_ids))
            looked_at += len(job_ids)
            if cursor == b"0":
                break
        self._cursors[queue_name] = cursor

    async def _unfinished_documents(self, queue_name: str) -> list[Difference]:
        """Compare documents that say queued or processing: their jobs may have ended, or gone."""
        found: list[Difference] = []
        for _ in range(_BUDGET // _PAGE):
            after = self._after.get(queue_name)
            documents = await self._collection.unfinished(queue_name, after=after, limit=_PAGE)
            known = {job_id: fingerprint for _id, job_id, fingerprint in documents}
            found += await self._differences(queue_name, list(known), known)
            self._after[queue_name] = documents[-1][0] if len(documents) == _PAGE else None
            if len(documents) < _PAGE:
                break
        return found

    async def compare(self, queue_name: str, job_ids: list[str]) -> list[Difference]:
        """Return which of these jobs are not mirrored as they stand.

        Raises:
            RedisError, MirrorUnavailable: the other side could not be asked.
        """
        if not job_ids:
            return []
        started_s = time.monotonic()
        known = await self._collection.fingerprints(queue_name, job_ids)
        differences = await self._differences(queue_name, job_ids, known)
        # MongoDB is the writer's before it is ours.
        await asyncio.sleep(min(time.monotonic() - started_s, _LONGEST_REST_S))
        return differences

    async def _differences(
        self, queue_name: str, job_ids: list[str], known: dict[str, str]
    ) -> list[Difference]:
        job_states = await asyncio.gather(*(self._outbox.job_state(queue_name, job_id) for job_id in job_ids))
        differences = []
        for job_id, job_state in zip(job_ids, job_states, strict=True):
            in_redis = None if job_state is None else fingerprint_of(job_state)
            if in_redis is None and has_ended(known.get(job_id)):
                continue  # it ended, and was removed; its document may say what it likes by now
            if in_redis != known.get(job_id):
                differences.append(Difference(queue_name, job_id, in_redis, known.get(job_id)))
        return differences

    async def _note(self, differences: list[Difference]) -> None:
        for difference in differences:
            state = () if difference.in_redis is not None else ("cancelled",)
            await self._outbox.note(difference.queue_name, difference.job_id, *state)

    async def check(self) -> AsyncIterator[Difference]:
        """Compare everything once; yield what differs, and note nothing.

        Raises:
            RedisError, MirrorUnavailable: one of the two could not be asked.
        """
        for name in self._outbox.queue_names:
            cursor = b"0"
            while True:
                cursor, job_ids = await self._outbox.page(name, cursor, _PAGE)
                for difference in await self.compare(name, job_ids):
                    yield difference
                if cursor == b"0":
                    break
            after = None
            while True:
                documents = await self._collection.unfinished(name, after=after, limit=_PAGE)
                known = {job_id: fingerprint for _id, job_id, fingerprint in documents}
                for difference in await self._differences(name, list(known), known):
                    if difference.in_redis is None:
                        yield difference
                if len(documents) < _PAGE:
                    break
                after = documents[-1][0]
