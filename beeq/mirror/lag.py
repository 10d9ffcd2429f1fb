"""How far the mirror is behind, read from Redis by programs that do not write the mirror."""

import asyncio
from dataclasses import dataclass
from typing import Any

from beeq.errors import RedisRefused
from beeq.jobs import JOB_TYPES
from beeq.mirror.outbox import GROUP, read_note
from beeq.protocol.keys import Keys
from beeq.redis.pipeline import Pipeline

#: A writer asks for changes every two seconds; MongoDB may keep it for half a minute.
_ALIVE_MS = 60_000


@dataclass(frozen=True, slots=True)
class QueueLag:
    """How far the mirror of one queue is behind.

    Attributes:
        waiting: changes that are not mirrored yet; None if this user may not ask, or nothing was ever noted.
        oldest_ms: when the oldest of them was made, by Redis's clock.
        writers: names of the processes that have read changes within a minute; None as above.
    """

    queue_name: str
    waiting: int | None
    oldest_ms: int | None = None
    writers: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class MirrorLag:
    """How far the mirror is behind.

    Attributes:
        queues: those that note changes.
        error, error_at_ms: a writer's last failure within the hour, and when; else "" and 0.
    """

    queues: list[QueueLag]
    error: str = ""
    error_at_ms: int = 0

    @property
    def waiting(self) -> int:
        """Changes of all queues that are not mirrored yet."""
        return sum(each.waiting or 0 for each in self.queues)

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest of them was made."""
        return min((each.oldest_ms for each in self.queues if each.oldest_ms is not None), default=None)

    @property
    def writers(self) -> int | None:
        """How many processes write; None if no queue shows it."""
        known = [each.writers for each in self.queues if each.writers is not None]
        return len(frozenset().union(*known)) if known else None


async def read_lag(pipeline: Pipeline, prefix: str) -> MirrorLag:
    """Return how far the mirror of a prefix's queues is behind; writes nothing. Raises RedisUnavailable."""
    keys = [Keys(prefix, name) for name in JOB_TYPES]
    found, (error, at_ms) = await asyncio.gather(
        asyncio.gather(*(_lag_of(pipeline, each) for each in keys)), _note(pipeline, keys[0])
    )
    return MirrorLag([each for each in found if each.waiting is not None], error, at_ms)


async def _note(pipeline: Pipeline, keys: Keys) -> tuple[str, int]:
    try:
        return await read_note(pipeline, keys)
    except RedisRefused:
        return "", 0


async def _lag_of(pipeline: Pipeline, keys: Keys) -> QueueLag:
    outbox = keys.outbox
    if not await _ask(pipeline, "EXISTS", outbox):
        return QueueLag(keys.queue_name, None)
    waiting = await _ask(pipeline, "XLEN", outbox)
    if waiting is None:
        return QueueLag(keys.queue_name, None)
    oldest = await _ask(pipeline, "XRANGE", outbox, "-", "+", "COUNT", 1) if waiting else None
    consumers = await _ask(pipeline, "XINFO", "CONSUMERS", outbox, GROUP)
    return QueueLag(
        keys.queue_name,
        waiting,
        int(oldest[0][0].partition(b"-")[0]) if oldest else None,
        None if consumers is None else _alive(consumers),
    )


def _alive(consumers: list[list[Any]]) -> frozenset[str]:
    facts = [dict(zip(each[::2], each[1::2], strict=True)) for each in consumers]
    return frozenset(each[b"name"].decode(errors="replace") for each in facts if each[b"idle"] < _ALIVE_MS)


async def _ask(pipeline: Pipeline, *command: Any) -> Any:
    """Return Redis's reply; None if it refuses: the user lacks the right, or no mirror has ever run."""
    try:
        return await pipeline.call(*command, repeatable=True)
    except RedisRefused:
        return None
