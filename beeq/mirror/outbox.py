"""The mirror's side of Redis: the outbox streams, the jobs' states, and the lease of the reconciler."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from beeq.client.reader import JobState, Reader, kept_outcome
from beeq.errors import JobUnreadable, RedisRefused
from beeq.mirror.documents import revision_of, state_without_record
from beeq.protocol.codec import Record, decode_record
from beeq.protocol.keys import Keys
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.redis.pipeline import Pipeline
from beeq.settings import OUTBOX_LIMIT

GROUP = "mirror"
#: Entries read by one call.
_MAX_CHANGES = 1000
#: How long one XREADGROUP waits at empty outboxes.
_WAIT_MS = 2000
#: About how many bytes of jobs are read at once; as objects they may take ten times as much.
_PORTION_BYTES = 8_000_000
#: An entry that is unacknowledged this long may be claimed by another writer.
_ABANDONED_MS = 30_000
#: A consumer that has been idle this long, with nothing pending, is deleted from the group.
_IDLE_CONSUMER_MS = 3_600_000
#: How long the mirror's last failure is kept.
_FAILURE_MS = 3_600_000


async def write_note(pipeline: Pipeline, keys: Keys, text: str) -> None:
    """Keep a failure of the mirror, with the time by Redis's clock."""
    seconds, micros = await pipeline.call("TIME", repeatable=True)
    at_ms = int(seconds) * 1000 + int(micros) // 1000
    note = f"{at_ms} {text}".encode(errors="replace")
    await pipeline.call("SET", keys.mirror_failure, note, "PX", _FAILURE_MS, repeatable=True)


async def read_note(pipeline: Pipeline, keys: Keys) -> tuple[str, int]:
    """Return the mirror's last failure, and when it was, in ms since the epoch; "" and 0: none."""
    note: bytes = await pipeline.call("GET", keys.mirror_failure, repeatable=True) or b""
    at_ms, _, text = note.partition(b" ")
    is_time = at_ms.isdigit() and len(at_ms) < 16  # noqa: PLR2004 - milliseconds
    return (text.decode(errors="replace"), int(at_ms)) if is_time else ("", 0)


@dataclass(slots=True)
class ChangeBatch:
    """Outbox entries of one queue that this writer has read and not yet acknowledged."""

    queue_name: str
    stream_ids: list[bytes] = field(default_factory=list)
    #: Job id → the job's latest change.
    revisions: dict[str, int] = field(default_factory=dict)
    #: Job id → the state that an entry gave for a job whose record was removed.
    final_states: dict[str, JobState] = field(default_factory=dict)

    def add(self, stream_id: bytes, fields: list[bytes]) -> None:
        """Add one entry."""
        self.stream_ids.append(stream_id)
        entry = dict(zip(fields[::2], fields[1::2], strict=True))
        job_id = entry.get(b"id", b"").decode(errors="replace")
        self.revisions[job_id] = max(self.revisions.get(job_id, 0), revision_of(stream_id))
        if b"state" in entry:
            record = _record(job_id, entry.get(b"record"))
            kept = kept_outcome(job_id, entry[b"keep"], created_ms=None) if entry.get(b"keep") else None
            self.final_states[job_id] = state_without_record(entry[b"state"].decode(), record, kept)
        else:
            self.final_states.pop(job_id, None)


def _record(job_id: str, raw: bytes | None) -> Record | None:
    if not raw:
        return None
    try:
        return decode_record(job_id, raw, now_ms=0)
    except JobUnreadable:
        return None


class Outbox:
    """The outbox streams of several queues on one Redis; every method may raise ``RedisError``.

    ``close`` closes the connector too. ``consumer`` is this process's name in the consumer group.
    """

    def __init__(
        self, connector: Connector, keys: Mapping[str, Keys], *, timeout_ms: int, consumer: str
    ) -> None:
        self._connector = connector
        self._keys = dict(keys)
        self._pipeline = Pipeline(connector, timeout_ms=timeout_ms)
        self._blocking_connection = Connection(connector, timeout_ms=timeout_ms)
        self._consumer = consumer
        self._readers = {
            name: Reader(self._pipeline, keys, scan_count=500) for name, keys in self._keys.items()
        }
        self._names = {keys.outbox.encode(): name for name, keys in self._keys.items()}

    @property
    def queue_names(self) -> list[str]:
        """The mirrored queues."""
        return list(self._keys)

    @property
    def pipeline(self) -> Pipeline:
        """The connection for commands that do not block."""
        return self._pipeline

    async def close(self) -> None:
        """Close both connections and the connector."""
        await self._blocking_connection.close()
        await self._pipeline.close()
        await self._connector.close()

    # The streams.

    async def open(self) -> None:
        """Create the consumer group of each queue where it does not exist."""
        for keys in self._keys.values():
            try:
                await self._pipeline.call("XGROUP", "CREATE", keys.outbox, GROUP, "0", "MKSTREAM")
            except RedisRefused as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def read(self, *, wait: bool = True) -> list[ChangeBatch]:
        """Read new entries, a batch a queue; with ``wait``, wait up to 2 s for the first.

        Raises RedisRefused with ``NOGROUP`` if a queue was destroyed; ``open`` creates its group again.
        """
        blocking = ("BLOCK", _WAIT_MS) if wait else ()
        outboxes = [keys.outbox for keys in self._keys.values()]
        reply = await self._blocking_connection.call(
            *("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", _MAX_CHANGES, *blocking),
            *("STREAMS", *outboxes, *(">" for _ in outboxes)),
            patience_ms=_WAIT_MS,
        )
        return [self._batch(self._names[outbox], entries) for outbox, entries in reply or ()]

    @staticmethod
    def _batch(queue_name: str, entries: list[Any]) -> ChangeBatch:
        batch = ChangeBatch(queue_name)
        for entry in entries:
            # None, or an entry without fields: the bounded stream has dropped it since.
            if entry is not None and entry[1] is not None:
                batch.add(*entry)
        return batch

    async def claim_abandoned(self) -> list[ChangeBatch]:
        """Claim entries that other writers have left unacknowledged; delete consumers long idle."""
        found = []
        for name, keys in self._keys.items():
            outbox = keys.outbox
            _next, entries, *_ = await self._pipeline.call(
                *("XAUTOCLAIM", outbox, GROUP, self._consumer, _ABANDONED_MS, "0-0", "COUNT", _MAX_CHANGES)
            )
            if entries:
                found.append(self._batch(name, entries))
            for consumer in await self._pipeline.call("XINFO", "CONSUMERS", outbox, GROUP, repeatable=True):
                facts = dict(zip(consumer[::2], consumer[1::2], strict=True))
                if not facts[b"pending"] and facts[b"idle"] > _IDLE_CONSUMER_MS:
                    await self._pipeline.call("XGROUP", "DELCONSUMER", outbox, GROUP, facts[b"name"])
        return found

    async def acknowledge(self, batch: ChangeBatch) -> None:
        """Delete a batch's entries. If this raises, they may still be there and will be written again."""
        if batch.stream_ids:
            outbox = self._keys[batch.queue_name].outbox
            await self._pipeline.call("XDEL", outbox, *batch.stream_ids, repeatable=True)
            await self._pipeline.call("XACK", outbox, GROUP, *batch.stream_ids, repeatable=True)

    async def lag(self) -> dict[str, int]:
        """Return how many changes are not yet mirrored, by queue."""
        return {
            name: int(await self._pipeline.call("XLEN", keys.outbox, repeatable=True))
            for name, keys in self._keys.items()
        }

    async def newest(self) -> dict[str, bytes]:
        """Return the id of the newest change of each queue that has ever noted one, mirrored or not."""
        found = {}
        for name, keys in self._keys.items():
            try:
                facts = await self._pipeline.call("XINFO", "STREAM", keys.outbox, repeatable=True)
            except RedisRefused as error:
                if "no such key" not in str(error):
                    raise
            else:
                found[name] = dict(zip(facts[::2], facts[1::2], strict=True))[b"last-generated-id"]
        return found

    async def has_written(self, newest: Mapping[str, bytes]) -> bool:
        """Return whether every change up to these, by queue, is mirrored."""
        for name, stream_id in newest.items():
            outbox = self._keys[name].outbox
            if await self._pipeline.call("XRANGE", outbox, "-", stream_id, "COUNT", 1, repeatable=True):
                return False
        return True

    async def note(self, queue_name: str, job_id: str, *state: str) -> None:
        """Add a job to the outbox: its id alone, or the ``state`` in which it ended without a record."""
        outbox = self._keys[queue_name].outbox
        ended = ("state", *state) if state else ()
        await self._pipeline.call("XADD", outbox, "MAXLEN", "~", OUTBOX_LIMIT, "*", "id", job_id, *ended)

    async def note_failure(self, text: str) -> None:
        """Keep the mirror's failure for an hour, for readers; one key for all its queues."""
        await write_note(self._pipeline, next(iter(self._keys.values())), text)

    # The jobs.

    async def job_state(self, queue_name: str, job_id: str) -> JobState | None:
        """Return a job's present state."""
        return await self._readers[queue_name].job_state(job_id)

    async def portions(self, queue_name: str, job_ids: list[str], most_jobs: int) -> AsyncIterator[list[str]]:
        """Yield the ids in portions to read at once: of so many jobs at most, and of about 8 MB."""
        for start in range(0, len(job_ids), most_jobs):
            page = job_ids[start : start + most_jobs]
            portion: list[str] = []
            portion_bytes = 0
            for job_id, size in zip(page, await self._readers[queue_name].sizes(page), strict=True):
                if portion and portion_bytes + size > _PORTION_BYTES:
                    yield portion
                    portion, portion_bytes = [], 0
                portion.append(job_id)
                portion_bytes += size
            yield portion

    async def page(self, queue_name: str, cursor: bytes, count: int) -> tuple[bytes, list[str]]:
        """Return the next HSCAN cursor (b"0" begins, and ends) and some ids of jobs with a record."""
        key = self._keys[queue_name].jobs
        following, fields = await self._pipeline.call("HSCAN", key, cursor, "COUNT", count, repeatable=True)
        return following, [job_id.decode(errors="replace") for job_id in fields[::2]]

    async def in_flight(self, queue_name: str, limit: int) -> list[str]:
        """Return ids of active, waiting and delayed jobs: of each list at most ``limit`` from either end."""
        keys = self._keys[queue_name]
        found: dict[bytes, None] = {}
        lists = [("LRANGE", key) for key in (keys.active, keys.waiting, keys.hidden)]
        for command, key in (*lists, ("ZRANGE", keys.delayed)):
            for start, end in ((0, limit - 1), (-limit, -1)):
                found.update(
                    dict.fromkeys(await self._pipeline.call(command, key, start, end, repeatable=True))
                )
        return [job_id.decode(errors="replace") for job_id in found]

    async def may_scan(self, queue_name: str, lease_ms: int) -> bool:
        """Take, or prolong, the lease to reconcile a queue; return False if another process has it."""
        key = self._keys[queue_name].scan_lease
        if await self._pipeline.call("SET", key, self._consumer, "PX", lease_ms, "NX"):
            return True
        holder = await self._pipeline.call("GET", key, repeatable=True)
        if holder != self._consumer.encode():
            return False
        await self._pipeline.call("PEXPIRE", key, lease_ms, repeatable=True)
        return True
