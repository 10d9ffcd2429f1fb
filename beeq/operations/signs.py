"""Finds out whether a queue has workers: beeq's by their heartbeats, Node's by the jobs that they run.

A Node worker writes nothing about itself. A busy one shows as an active id without a beeq claim that has
given its sign of life; an idle one cannot be seen.
"""

import asyncio
from dataclasses import dataclass

from beeq.client.reader import Stats
from beeq.operations.live_workers import LiveWorker, is_held, live_workers
from beeq.protocol.keys import Keys
from beeq.redis.pipeline import Pipeline

#: How many of the newest active jobs without a beeq claim are read.
_LOOKED_AT = 100
#: A stall check has marked all active jobs just now: Node's signs of life come within half of its interval.
_PAUSE_S, _PATIENCE_S = 0.5, 3.0


@dataclass(frozen=True, slots=True)
class WorkersSeen:
    """The workers seen at a queue.

    Attributes:
        living: beeq worker processes with a heartbeat within the last 30 s.
        node_jobs: active jobs of Node workers, of a hundred that were read.
    """

    living: tuple[LiveWorker, ...]
    node_jobs: int

    @property
    def taking(self) -> int:
        """How many of the living take jobs, by their notes.

        They are not about to stop, and not too many of their handlers hang.
        """
        return sum(worker.is_taking is not False for worker in self.living)

    @property
    def is_any(self) -> bool:
        """Whether any worker takes jobs."""
        return bool(self.taking or self.node_jobs)


async def workers_seen(
    pipeline: Pipeline, keys: Keys, stats: Stats, *, patience_s: float = _PATIENCE_S
) -> WorkersSeen:
    """Return the workers of the queue with these counts. Writes nothing.

    It waits up to ``patience_s`` for Node's signs of life.

    Raises RedisError, QueueClosed.
    """
    tries = 1 + round(patience_s / _PAUSE_S)
    for left in reversed(range(tries)):
        seen, are_marked = await _node_jobs(pipeline, keys) if stats.active else (0, False)
        if stats.workers or seen or not are_marked or not left:
            break
        await asyncio.sleep(_PAUSE_S)
    living = await live_workers(pipeline, keys) if stats.workers else []
    return WorkersSeen(tuple(living), seen)


async def _node_jobs(pipeline: Pipeline, keys: Keys) -> tuple[int, bool]:
    """Return how many active jobs are a Node worker's, and whether others may be."""
    ids = await pipeline.call("LRANGE", keys.active, 0, _LOOKED_AT - 1, repeatable=True)
    if not ids:
        return 0, False
    claims, marks = await asyncio.gather(
        pipeline.call("HMGET", keys.claims, *ids, repeatable=True),
        asyncio.gather(*(pipeline.call("SISMEMBER", keys.stalling, each, repeatable=True) for each in ids)),
    )
    unclaimed = [bool(mark) for claim, mark in zip(claims, marks, strict=True) if not is_held(claim)]
    return unclaimed.count(False), any(unclaimed)
