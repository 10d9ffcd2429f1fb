"""What is wrong with a queue as far as a few commands tell, however long it is."""

import asyncio

from beeq.operations.diagnosis.findings import Finding
from beeq.operations.diagnosis.workers import check_workers
from beeq.operations.live_workers import live_workers
from beeq.protocol.keys import Keys
from beeq.redis.pipeline import Pipeline

#: A job that is due for so long is raised by nobody.
_OVERDUE_MS = 60_000


async def quick_findings(pipeline: Pipeline, keys: Keys) -> list[Finding]:
    """Return what its workers, and the first delayed job, say. Raises RedisError, QueueClosed."""
    workers, overdue = await asyncio.gather(live_workers(pipeline, keys), check_overdue(pipeline, keys))
    return [*check_workers(workers), *overdue]


async def check_overdue(pipeline: Pipeline, keys: Keys) -> list[Finding]:
    """Return whether delayed jobs are due that nobody raises. Raises RedisError, QueueClosed."""
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
