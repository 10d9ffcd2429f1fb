"""The writer: reads the outboxes and writes the jobs' states to MongoDB, in batches.

It writes the state a job has when it is written, not the change that the entry reports: several
changes of a job need one write, and any later batch makes good for a lost one. While MongoDB is away
the writer holds one batch and retries with growing delays; the other changes stay in Redis. After each
batch it sleeps as long as the write took, so that at least half of the time is left to the jobs of this
process, and of the machine that MongoDB runs on.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from beeq.client.reader import Ended, JobState
from beeq.errors import RedisError
from beeq.mirror.collection import MirrorUnavailable, StatusCollection
from beeq.mirror.documents import Change, change_of, storable
from beeq.mirror.heard_results import HeardResults
from beeq.mirror.outbox import ChangeBatch, Outbox
from beeq.redis.retry_delay import RetryDelay
from beeq.supervision.duty import Duty

_FIRST_RETRY_MS = 100
#: The shortest sleep after a batch: changes that come this close together are merged.
_REST_S = 0.05
_LONGEST_REST_S = 1.0
#: How often abandoned entries are looked for.
_CLAIM_ABANDONED_S = 10.0
#: Jobs in one write, and states read at once, unless they are large.
_JOBS_A_WRITE = 250
#: How much later than Redis's reply an event may arrive.
_EVENT_DELAY_S = 0.2
#: How long changes are built before other tasks get a turn; one large job may take longer.
_TURN_S = 0.005


class MirrorWriter:
    """Writes until cancelled, and goes on after each failure.

    With ``is_alone`` no jobs run in this process, so the writer does not sleep long for their sake.
    """

    def __init__(
        self,
        outbox: Outbox,
        collection: StatusCollection,
        *,
        heard: HeardResults,
        on_error: Callable[[BaseException], None],
        is_alone: bool,
    ) -> None:
        self._heard = heard
        self._longest_rest_s = _REST_S if is_alone else _LONGEST_REST_S
        self._outbox = outbox
        self._collection = collection
        self._on_error = on_error
        self._retry_delay = RetryDelay(_FIRST_RETRY_MS)
        self._claim_abandoned_at = 0.0
        self._turn: Callable[[], object] = lambda: None  # gives a sign of life
        self._hurries = asyncio.Event()  # set while a caller waits for the writer
        #: Whether the last write failed.
        self.is_failing = False

    @contextmanager
    def hurrying(self) -> Iterator[None]:
        """Keep the writer from resting in this block."""
        self._hurries.set()
        try:
            yield
        finally:
            self._hurries.clear()

    async def run(self, duty: Duty) -> None:
        """Write the outboxes' entries, then each change as it comes."""
        self._turn = duty.turn
        while True:
            try:
                await self._outbox.open()
                while True:
                    await self._round()
            except RedisError as error:
                if "NOGROUP" in str(error):
                    continue  # the queue was destroyed, and its outbox with it
                self._on_error(error)
                duty.rests(self._retry_delay.next_ms / 1000)
                await self._retry_delay.wait()

    async def _round(self) -> None:
        self._turn()
        batches: list[ChangeBatch] = []
        if time.monotonic() >= self._claim_abandoned_at:
            self._claim_abandoned_at = time.monotonic() + _CLAIM_ABANDONED_S
            batches += await self._outbox.claim_abandoned()
        batches += await self._outbox.read(wait=not batches)
        for batch in batches:
            await self._write_batch(batch)
        if batches:
            self._retry_delay.reset()

    async def _write_batch(self, batch: ChangeBatch) -> None:
        job_ids = list(batch.revisions)
        async for portion in self._outbox.portions(batch.queue_name, job_ids, _JOBS_A_WRITE):
            started_s = time.monotonic()
            await self._write(batch, portion)
            await self._rest(min(max(_REST_S, time.monotonic() - started_s), self._longest_rest_s))
        await self._outbox.acknowledge(batch)

    async def _rest(self, rest_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(rest_s):
                await self._hurries.wait()

    async def _write(self, batch: ChangeBatch, job_ids: list[str]) -> None:
        """Write the present states of these jobs; retry until MongoDB has taken them."""
        while True:
            self._turn()
            changes = await self.changes_of(batch, job_ids)
            try:
                await self._collection.write(changes)
            except MirrorUnavailable as error:
                if not self.is_failing:
                    self._on_error(error)
                self.is_failing = True
                self._turn()  # the failed write and this wait may be long, each by itself
                await self._retry_delay.wait()
            else:
                self.is_failing = False
                return

    async def changes_of(self, batch: ChangeBatch, job_ids: list[str]) -> list[Change]:
        """Return the changes of these jobs of a batch, from their present state in Redis."""
        name, asked_at_s = batch.queue_name, time.monotonic()
        job_states = await asyncio.gather(*(self._outbox.job_state(name, job_id) for job_id in job_ids))
        await self._hear_of(name, job_ids, job_states)
        changes = []
        turn_s = time.monotonic()
        for job_id, found in zip(job_ids, job_states, strict=True):
            final = batch.final_states.get(job_id)
            job_state = found or final
            if found is not None and found.record is None and final is not None:
                job_state = replace(found, record=final.record)
            change = change_of(name, job_id, job_state, batch.revisions[job_id])
            if _lacks_result(job_state):
                result = self._heard.result_of(name, job_id)
                # The fingerprint stays that of the state in Redis, which has no result to compare with.
                change = replace(change, fields=change.fields | {"result": storable(result)})
            else:
                self._heard.forget(name, job_id, before_s=asked_at_s)  # used, or of an earlier run
            changes.append(change)
            if time.monotonic() - turn_s > _TURN_S:
                await asyncio.sleep(0)
                turn_s = time.monotonic()
        self._heard.forget_old(asked_at_s)
        return changes

    async def _hear_of(self, name: str, job_ids: list[str], job_states: list[JobState | None]) -> None:
        """Let just published results arrive: the channel may be behind Redis's reply."""
        pairs = zip(job_ids, job_states, strict=True)
        if any(_lacks_result(found) and not self._heard.has(name, job_id) for job_id, found in pairs):
            await asyncio.sleep(_EVENT_DELAY_S)


def _lacks_result(job_state: JobState | None) -> bool:
    """Return whether Redis has no result of the succeeded job: a Node worker ran it, or it was None."""
    return job_state is not None and job_state.state == "succeeded" and job_state.ended == Ended()
