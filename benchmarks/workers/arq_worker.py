"""A worker of arq, on uvloop: its command imports this."""
# mypy: disable-error-code="import-not-found"

import asyncio
import os
from typing import Any, ClassVar

import uvloop
from arq import create_pool
from arq.connections import RedisSettings

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
SETTINGS = RedisSettings.from_dsn(os.environ["BENCH_URL"])

#: ``--custom-log-dict``: only warnings, for a line for each job would be part of what is measured.
QUIET = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}


async def nothing(_context: Any, _i: int) -> None:
    """Do nothing."""


class WorkerSettings:
    """The settings for arq's command."""

    functions: ClassVar = [nothing]
    redis_settings = SETTINGS
    max_jobs = int(os.environ["BENCH_CONCURRENCY"])
    # In s. By default 0.5, and one look starts at most so many jobs: 2 jobs/s at concurrency 1.
    poll_delay = 0.001


async def enqueue(count: int) -> None:
    """Put jobs into the queue, a hundred at once."""
    pool = await create_pool(SETTINGS)
    for first in range(0, count, 100):
        await asyncio.gather(*[pool.enqueue_job("nothing", i) for i in range(first, min(first + 100, count))])
    await pool.aclose()
