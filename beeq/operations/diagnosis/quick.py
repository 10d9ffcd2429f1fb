"""A quick diagnosis of a queue by a few commands, however long the queue is."""

import asyncio

from beeq.operations.diagnosis.findings import Finding
from beeq.operations.diagnosis.workers import check_workers
from beeq.operations.live_workers import live_workers
from beeq.protocol.keys import Keys
from beeq.redis.pipeline import Pipeline

#: If a job is overdue for so long, no process raises delayed jobs.
_OVERDUE_MS = 60_000


async def quick_findings(pipeline: Pipeline, keys: Keys) -> list[Finding]:
    """Return the findings on its workers and its first delayed job. Raises RedisError, QueueClosed."""
    workers, overdue = await asyncio.gather(live_workers(pipeline, keys), check_overdue(pipeline, keys))
    return [*check_workers(workers), *overdue]


async def check_overdue(pipeline: Pipeline, keys: Keys) -> list[Finding]:
    """Return whether no process raises due delayed jobs. Raises RedisError, QueueClosed."""
    key = keys.delayed
    first, (seconds, _micros) = await asyncio.gather(
        pipeline.call("ZRANGE", key, 0, 0, "WITHSCORES", repeatable=True),
        pipeline.call("TIME", repeatable=True),
    )
    if not first:
        return []
    now_ms = int(seconds) * 1000
    overdue_ms = now_ms - float(first[1])
    if overdue_ms < _OVERDUE_MS:
        return []
    overdue_ms = min(overdue_ms, now_ms)  # of any time before the epoch, too
    text = f"delayed jobs are overdue, for {overdue_ms / 1000:.0f} s: nobody raises them"
    return [Finding("overdue", f"{text}, which a beeq worker does, or a Node queue with activateDelayedJobs")]
