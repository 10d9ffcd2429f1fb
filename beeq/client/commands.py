"""Changes jobs that are in a queue: remove, cancel, retry, report progress, remember, clean."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from beeq.client.context import QueueContext
from beeq.client.reader import Reader
from beeq.errors import JobLost, JobUnreadable, NotReplicated, RedisRefused, RedisUnavailable
from beeq.job import Job
from beeq.protocol.codec import decode_record, dumps, encode_record
from beeq.protocol.events import encode_event
from beeq.protocol.options import created_ms_of
from beeq.redis import scripts

#: Replies of ``lua/retry_job.lua``.
_QUEUED, _CHANGED = 1, 2
#: One call cleans at most this many jobs, and not much more than this many bytes of records.
_CLEAN_AT_ONCE = 100
_CLEAN_BYTES = 1_000_000
#: How long a claim may take, in longest waits for Redis: it may be lost once, and made again.
_CLAIM_PATIENCE = 3
#: Workers send heartbeats more often than this, with any stall interval.
CANCELLED_MS = 10 * 60_000
#: ``destroy`` deletes the keys of so many worker processes; those of others expire.
_MOST_WORKERS = 1000
#: As text, or as Redis's bytes, which need not be text.
AnyId = TypeVar("AnyId", str, bytes)


class Commands:
    """Changes jobs of one queue."""

    def __init__(self, context: QueueContext, reader: Reader) -> None:
        self._settings = context.settings
        self._pipeline = context.pipeline
        self._keys = context.keys
        self._event_hub = context.event_hub
        self._now_ms = context.now_ms
        self._reader = reader

    async def remove(self, job_id: str) -> bool:
        """Remove the job from wherever it is; return whether it had a record."""
        remove = scripts.remove_job(
            self._pipeline, self._keys, job_id=job_id, outbox_limit=self._settings.outbox_limit
        )
        try:
            existed = await _naming_job(job_id, remove)
        except NotReplicated:
            self.forget(job_id)
            raise
        self.forget(job_id)
        return bool(existed)

    async def destroy(self) -> int:
        """Delete every key of the queue; return how many there were."""
        keys, workers = self._keys, []
        with suppress(RedisRefused):  # a foreign key of another type
            workers = await self._pipeline.call("ZRANGE", keys.workers, -_MOST_WORKERS, -1, repeatable=True)
        running = [replace(keys, worker=name.decode(errors="replace")).running for name in workers]
        deleted = int(await self._pipeline.call("DEL", *keys.every(), *running))
        with suppress(RedisRefused):  # the registry belongs to all queues; the user may lack the right to it
            await self._pipeline.call("ZREM", keys.queues, keys.queue_name, repeatable=True)
        return deleted

    def forget(self, job_id: str) -> None:
        """Hold no events of a job that was removed, nor its objects."""
        self._event_hub.forget(job_id)
        self._event_hub.release(job_id)

    async def cancel(self, job_id: str) -> bool:
        """End the job; return False if it had ended already."""
        raw = await self._reader.record(job_id)
        if raw is None:
            return False
        reason = f"Job {job_id} was cancelled"
        cancel = scripts.cancel_job(
            self._pipeline,
            self._keys,
            job_id=job_id,
            keep=b"%d:c%b" % (_created_ms(job_id, raw), dumps(reason)),
            keep_ms=self._settings.result_ttl,
            memory_ms=CANCELLED_MS,
            events=self._keys.events,
            message=encode_event(job_id, "failed", reason),
            outbox_limit=self._settings.outbox_limit,
        )
        return bool(await _naming_job(job_id, cancel))

    async def retry(self, job: Job) -> bool:
        """Queue the job again if it has failed; return whether it had."""
        job_id = job.saved_id()
        while True:
            raw = await self._reader.record(job_id)
            if raw is None:
                return False
            record = decode_record(job_id, raw, now_ms=self._now_ms())
            record.status = "retrying"
            moment = self._event_hub.moment
            retry = scripts.retry_job(
                self._pipeline,
                self._keys,
                job_id=job_id,
                seen=raw,
                record=encode_record(record),
                outbox_limit=self._settings.outbox_limit,
            )
            fact = await _naming_job(job_id, retry)
            if fact == _CHANGED:
                continue
            if fact == _QUEUED:
                job.status, job.options = record.status, record.options
                self._event_hub.forget(job_id, until=moment)
            return bool(fact)

    async def report_progress(self, job: Job, value: Any) -> int:
        """Publish the progress, store it if the job runs here; return how many subscribers heard it."""
        job_id = job.saved_id()
        message = encode_event(job_id, "progress", value)
        await self.await_claim(job)
        before, job.progress = job.progress, value
        try:
            record = encode_record(job) if job.claim else b""
        except TypeError:
            job.progress = before
            raise
        heard: int = await scripts.report_progress(
            self._pipeline,
            self._keys,
            job_id=job_id,
            claim=job.claim,
            record=record,
            events=self._keys.events,
            message=message,
        )
        return heard

    async def await_claim(self, job: Job) -> None:
        """Wait for the call that claims the job, which is on its way over another connection.

        Raises RedisUnavailable if neither it nor its repetition reached Redis; QueueClosed.
        """
        if job.claim_known is None or job.claim_known.done():
            return
        patience_s = _CLAIM_PATIENCE * self._settings.redis_timeout / 1000
        job_id = job.saved_id()
        ended = self._event_hub.waiter(job_id)  # also raises QueueClosed
        try:
            either: list[asyncio.Future[Any]] = [job.claim_known, ended]
            await asyncio.wait(either, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            is_known = job.claim_known.done() or (ended.done() and ended.result() is not None)
        finally:
            self._event_hub.drop_waiter(job_id, ended)
        if not is_known:
            raise RedisUnavailable("Redis has not confirmed yet that the job is this worker's")

    async def remember(self, job: Job, facts: dict[str, Any]) -> None:
        """Add facts to the memory of a job that runs here."""
        job_id = job.saved_id()
        if not job.claim:
            raise RuntimeError("only a job that runs here can remember")
        await self.await_claim(job)
        before = job.options.get("beeq")
        kept = before if isinstance(before, dict) else {}
        job.options["beeq"] = {**kept, "memory": {**job.memory, **facts}}
        try:
            record = encode_record(job)
        except TypeError:
            job.options["beeq"] = before
            if before is None:
                del job.options["beeq"]
            raise
        is_kept = await scripts.keep_record(
            self._pipeline, self._keys, job_id=job_id, claim=job.claim, record=record
        )
        if not is_kept:
            raise JobLost(job_id)

    async def clean(self, kind: str, *, older_than_ms: int) -> int:
        """Remove finished jobs created longer ago than that; return how many.

        One that is retried or saved again meanwhile stays.
        """
        if kind not in ("succeeded", "failed"):
            raise ValueError("only succeeded and failed jobs can be cleaned")
        key = self._keys.to_key(kind)
        oldest_ms = self._now_ms() - older_than_ms
        removed = 0
        cursor = b"0"
        while True:
            cursor, ids = await self._pipeline.call(
                "SSCAN", key, cursor, "COUNT", _CLEAN_AT_ONCE, repeatable=True
            )
            old = (
                (job_id, raw)
                for job_id, raw in await self._reader.records(ids)
                if _created_ms(job_id, raw) < oldest_ms
            )
            for portion in portions(old):
                removed += await self._remove_as_read(kind, portion)
            if cursor == b"0":
                return removed

    async def _remove_as_read(self, kind: str, jobs: list[tuple[str, bytes]]) -> int:
        """Remove those that are still ``kind`` and have the record that was read; return how many."""
        facts = await scripts.clean_jobs(
            self._pipeline, self._keys, state=kind, outbox_limit=self._settings.outbox_limit, jobs=jobs
        )
        for (job_id, _raw), is_removed in zip(jobs, facts, strict=True):
            if is_removed:
                self.forget(job_id)
        return sum(facts)


async def _naming_job(job_id: str, call: Coroutine[Any, Any, Any]) -> Any:
    """Return the reply; a NotReplicated error names the job."""
    try:
        return await call
    except NotReplicated as error:
        raise error.of(job_id) from None


def portions(jobs: Iterable[tuple[AnyId, bytes]]) -> Iterator[list[tuple[AnyId, bytes]]]:
    """Split ids and records into what one call may take."""
    portion: list[tuple[AnyId, bytes]] = []
    size_bytes = 0
    for job_id, raw in jobs:
        if portion and (len(portion) == _CLEAN_AT_ONCE or size_bytes + len(raw) > _CLEAN_BYTES):
            yield portion
            portion, size_bytes = [], 0
        portion.append((job_id, raw))
        size_bytes += len(raw)
    if portion:
        yield portion


def _created_ms(job_id: str, raw: bytes) -> int:
    """Return when the job was created; an unreadable record counts as old."""
    try:
        return created_ms_of(decode_record(job_id, raw, now_ms=0).options)
    except JobUnreadable:
        return 0
