"""The reconciler: finds changes that were not noted, and adds them to the outbox.

Node's bee-queue notes nothing: what it enqueued, ran, finished or removed is found by comparing Redis
with MongoDB. One process at a time compares a queue: in each pass the jobs in flight and the documents
without a final status, and of all other records a bounded number, page by page.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from beeq.errors import RedisError
from beeq.mirror.collection import MirrorUnavailable, StatusCollection
from beeq.mirror.documents import fingerprint_of, has_ended
from beeq.mirror.id_order import IdPlace
from beeq.mirror.outbox import Outbox
from beeq.supervision.duty import Duty

#: The time from the end of one pass to the next.
INTERVAL_S = 20.0
_FIRST_WAIT_S = 5.0
_LONGEST_REST_S = 1.0
_LEASE_MS = 30_000
#: Jobs compared in one call.
_PAGE = 500
#: Records, and documents, compared in one pass.
_BUDGET = 20_000
#: Jobs in flight compared in one pass, from either end of each list.
_EDGE = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """A job whose document does not agree with Redis."""

    queue_name: str
    job_id: str
    in_redis: str | None  # the fingerprint of its state; None if Redis knows nothing of it
    in_mirror: str | None  # the fingerprint that its document was written from; None without a document


class Reconciler:
    """Compares until cancelled; after a failure the next pass finds what this one missed."""

    def __init__(
        self, outbox: Outbox, collection: StatusCollection, *, on_error: Callable[[BaseException], None]
    ) -> None:
        self._outbox = outbox
        self._collection = collection
        self._on_error = on_error
        self._cursors: dict[str, bytes] = {}  # where the next pass goes on among the records
        self._turn: Callable[[], object] = lambda: None  # gives a sign of life
        self._after: dict[str, IdPlace | None] = {}  # where it goes on among the unfinished documents

    async def run(self, duty: Duty) -> None:
        """Make one pass after another; the first a little later, so that the writer can catch up."""
        self._turn = duty.turn
        wait_s = min(_FIRST_WAIT_S, INTERVAL_S)
        while True:
            await duty.rest(wait_s * random.uniform(0.9, 1.1))
            wait_s = INTERVAL_S
            for name in self._outbox.queue_names:
                try:
                    if await self._outbox.may_scan(name, _LEASE_MS):
                        await self.run_once(name)
                except (RedisError, MirrorUnavailable) as error:
                    self._on_error(error)

    async def run_once(self, queue_name: str) -> None:
        """Make one pass over a queue: note each job whose document differs."""
        await self._note(await self._unfinished_documents(queue_name))
        in_flight = await self._outbox.in_flight(queue_name, _EDGE)
        for start in range(0, len(in_flight), _PAGE):
            await self._note(await self.compare(queue_name, in_flight[start : start + _PAGE]))
        compared = 0
        cursor = self._cursors.get(queue_name, b"0")
        while compared < _BUDGET:
            cursor, job_ids = await self._outbox.page(queue_name, cursor, _PAGE)
            await self._note(await self.compare(queue_name, job_ids))
            compared += len(job_ids)
            if cursor == b"0":
                break
        self._cursors[queue_name] = cursor

    async def _unfinished_documents(self, queue_name: str) -> list[Difference]:
        """Compare documents that say queued or processing: their jobs may have ended, or been removed."""
        found: list[Difference] = []
        for _ in range(_BUDGET // _PAGE):
            differences, after = await self._compare_documents(queue_name, self._after.get(queue_name))
            found += differences
            self._after[queue_name] = after
            if after is None:
                break
        return found

    async def _compare_documents(
        self, queue_name: str, after: IdPlace | None
    ) -> tuple[list[Difference], IdPlace | None]:
        """Compare a page of unfinished documents; return the next page's ``after`` too, None at the end."""
        self._turn()
        documents = await self._collection.unfinished(queue_name, after=after, limit=_PAGE)
        known = {job_id: fingerprint for _place, job_id, fingerprint in documents}
        differences = await self._differences(queue_name, list(known), known)
        return differences, documents[-1][0] if len(documents) == _PAGE else None

    async def compare(self, queue_name: str, job_ids: list[str]) -> list[Difference]:
        """Return those of the jobs whose document differs from their state."""
        if not job_ids:
            return []
        self._turn()
        started_s = time.monotonic()
        known = await self._collection.fingerprints(queue_name, job_ids)
        differences = await self._differences(queue_name, job_ids, known)
        # Leave MongoDB to the writer for as long as the reconciler used it.
        await asyncio.sleep(min(time.monotonic() - started_s, _LONGEST_REST_S))
        return differences

    async def _differences(
        self, queue_name: str, job_ids: list[str], known: dict[str, str]
    ) -> list[Difference]:
        differences = []
        async for portion in self._outbox.portions(queue_name, job_ids, _PAGE):
            self._turn()
            job_states = await asyncio.gather(
                *(self._outbox.job_state(queue_name, job_id) for job_id in portion)
            )
            for job_id, job_state in zip(portion, job_states, strict=True):
                in_redis = None if job_state is None else fingerprint_of(job_state)
                if in_redis is None and has_ended(known.get(job_id)):
                    continue  # the job ended and was removed: there is nothing to compare with
                if in_redis != known.get(job_id):
                    differences.append(Difference(queue_name, job_id, in_redis, known.get(job_id)))
        return differences

    async def _note(self, differences: list[Difference]) -> None:
        for difference in differences:
            state = () if difference.in_redis is not None else ("cancelled",)
            await self._outbox.note(difference.queue_name, difference.job_id, *state)

    async def check(self) -> AsyncIterator[Difference]:
        """Compare everything once; yield the differences, and note nothing.

        Raises RedisError or MirrorUnavailable if Redis or MongoDB did not answer.
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
                differences, after = await self._compare_documents(name, after)
                for difference in differences:
                    if difference.in_redis is None:
                        yield difference
                if after is None:
                    break
