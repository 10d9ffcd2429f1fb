"""The mirror's side of Redis: what is owed, where jobs stand, and who looks next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from beeq.client.reader import JobState, Reader, kept_outcome
from beeq.errors import JobUnreadable, RedisRefused
from beeq.mirror.documents import gone, revision_of
from beeq.protocol.codec import Record, decode_record
from beeq.protocol.keys import Keys
from beeq.redis.connection import Connection
from beeq.redis.pipeline import Pipeline
from beeq.settings import OUTBOX_LIMIT

if TYPE_CHECKING:
    from beeq.redis.connector import Connector

GROUP = "mirror"
#: Changes taken at once.
_MAX_CHANGES = 1000
#: How long one look at the empty outboxes waits.
_WAIT_MS = 2000
#: Changes that a writer has taken and not paid for so long are another's to pay.
_ABANDONED_MS = 30_000
#: Consumers that have not been heard of for so long are forgotten.
_FORGOTTEN_MS = 3_600_000


@dataclass(slots=True)
class Owed:
    """Changes of one queue that a writer has taken.

    Attributes:
        queue_name: the queue.
        stream_ids: what to strike out once they are paid.
        revisions: job id → the latest change.
        remains: job id → where it stood when its record went, if a change told so.
    """

    queue_name: str
    stream_ids: list[bytes] = field(default_factory=list)
    revisions: dict[str, int] = field(default_factory=dict)
    remains: dict[str, JobState] = field(default_factory=dict)

    def add(self, stream_id: bytes, fields: list[bytes]) -> None:
        """Take one change."""
        self.stream_ids.append(stream_id)
        told = dict(zip(fields[::2], fields[1::2], strict=True))
        job_id = told.get(b"id", b"").decode(errors="replace")
        self.revisions[job_id] = max(self.revisions.get(job_id, 0), revision_of(stream_id))
        if b"state" in told:
            record = _record(job_id, told.get(b"record"))
            kept = kept_outcome(job_id, told[b"keep"], created_ms=None) if told.get(b"keep") else None
            self.remains[job_id] = gone(told[b"state"].decode(), record, kept)
        else:
            self.remains.pop(job_id, None)


def _record(job_id: str, raw: bytes | None) -> Record | None:
    if not raw:
        return None
    try:
        return decode_record(job_id, raw, now_ms=0)
    except JobUnreadable:
        return None


class Outbox:
    """The outboxes of several queues of one Redis.

    Args:
        connector: makes the two connections; the outbox's to close.
        keys: by queue name.
        timeout_ms: the longest wait for one answer.
        consumer: this process's name among the writers.
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

    async def close(self) -> None:
        """Hang up."""
        await self._blocking_connection.close()
        await self._pipeline.close()
        await self._connector.close()

    # What is owed.

    async def open(self) -> None:
        """Make the group of writers for each queue.

        Raises:
            RedisError: Redis is away, or refuses.
        """
        for keys in self._keys.values():
            try:
                await self._pipeline.call("XGROUP", "CREATE", keys.outbox, GROUP, "0", "MKSTREAM")
            except RedisRefused as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def take(self, *, wait: bool = True) -> list[Owed]:
        """Take new changes, by queue; with ``wait``, wait a little where there are none.

        Raises:
            RedisError: Redis is away, or a group is: ``open`` again.
        """
        blocking = ("BLOCK", _WAIT_MS) if wait else ()
        outboxes = [keys.outbox for keys in self._keys.values()]
        reply = await self._blocking_connection.call(
            *("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", _MAX_CHANGES, *blocking),
            *("STREAMS", *outboxes, *(">" for _ in outboxes)),
            patience_ms=_WAIT_MS,
        )
        return [self._owed(self._names[outbox], entries) for outbox, entries in reply or ()]

    @staticmethod
    def _owed(queue_name: str, entries: list[Any]) -> Owed:
        owed = Owed(queue_name)
        for entry in entries:
            # None, or without fields: it was dropped meanwhile, for the outbox is bounded.
            if entry is not None and entry[1] is not None:
                owed.add(*entry)
        return owed

    async def take_over(self) -> list[Owed]:
        """Take changes that another writer has taken and never paid, and forget writers long gone.

        Raises:
            RedisError: Redis is away, or a group is.
        """
        found = []
        for name, keys in self._keys.items():
            outbox = keys.outbox
            _next, entries, *_ = await self._pipeline.call(
                *("XAUTOCLAIM", outbox, GROUP, self._consumer, _ABANDONED_MS, "0-0", "COUNT", _MAX_CHANGES)
            )
            if entries:
                found.append(self._owed(name, entries))
            for consumer in await self._pipeline.call("XINFO", "CONSUMERS", outbox, GROUP, repeatable=True):
                facts = dict(zip(consumer[::2], consumer[1::2], strict=True))
                if not facts[b"pending"] and facts[b"idle"] > _FORGOTTEN_MS:
                    await self._pipeline.call("XGROUP", "DELCONSUMER", outbox, GROUP, facts[b"name"])
        return found

    async def paid(self, owed: Owed) -> None:
        """Strike changes out.

        Raises:
            RedisError: they may still be there, and will be paid again.
        """
        if owed.stream_ids:
            outbox = self._keys[owed.queue_name].outbox
            await self._pipeline.call("XDEL", outbox, *owed.stream_ids, repeatable=True)
            await self._pipeline.call("XACK", outbox, GROUP, *owed.stream_ids, repeatable=True)

    async def debt(self) -> dict[str, int]:
        """Return how many changes are owed, by queue.

        Raises:
            RedisError: Redis is away.
        """
        lengths = {}
        for name, keys in self._keys.items():
            lengths[name] = int(await self._pipeline.call("XLEN", keys.outbox, repeatable=True))
        return lengths

    # Where jobs stand.

    async def job_state(self, queue_name: str, job_id: str) -> JobState | None:
        """Return where a job stands now.

        Raises:
            RedisError: Redis is away.
        """
        return await self._readers[queue_name].job_state(job_id)

    async def page(self, queue_name: str, cursor: bytes, count: int) -> tuple[bytes, list[str]]:
        """Return the next cursor and some ids of jobs that have a record; b"0" begins, and ends.

        Raises:
            RedisError: Redis is away.
        """
        key = self._keys[queue_name].jobs
        following, fields = await self._pipeline.call("HSCAN", key, cursor, "COUNT", count, repeatable=True)
        return following, [job_id.decode(errors="replace") for job_id in fields[::2]]

    async def in_flight(self, queue_name: str, limit: int) -> list[str]:
        """Return ids that run, wait or are delayed: of each list at most ``limit`` at either end.

        Raises:
            RedisError: Redis is away.
        """
        keys = self._keys[queue_name]
        found: dict[bytes, None] = {}
        for command, key in (("LRANGE", keys.active), ("LRANGE", keys.waiting), ("ZRANGE", keys.delayed)):
            for start, end in ((0, limit - 1), (-limit, -1)):
                found.update(
                    dict.fromkeys(await self._pipeline.call(command, key, start, end, repeatable=True))
                )
        return [job_id.decode(errors="replace") for job_id in found]

    async def note(self, queue_name: str, job_id: str, *state: str) -> None:
        """Put a job into the outbox, by its id, or as having ended in ``state`` without a record.

        Raises:
            RedisError: it may not be there.
        """
        outbox = self._keys[queue_name].outbox
        told = ("state", *state) if state else ()
        await self._pipeline.call("XADD", outbox, "MAXLEN", "~", OUTBOX_LIMIT, "*", "id", job_id, *told)

    async def may_scan(self, queue_name: str, lease_ms: int) -> bool:
        """Return whether this process is the one to compare a queue now; asking again prolongs it.

        Raises:
            RedisError: Redis is away.
        """
        key = self._keys[queue_name].scan_lease
        if await self._pipeline.call("SET", key, self._consumer, "PX", lease_ms, "NX"):
            return True
        holder = await self._pipeline.call("GET", key, repeatable=True)
        if holder != self._consumer.encode():
            return False
        await self._pipeline.call("PEXPIRE", key, lease_ms, repeatable=True)
        return True
