"""A worker of taskiq with taskiq-redis: its command imports this.

The command uses uvloop by itself.
"""
# mypy: disable-error-code="import-not-found, untyped-decorator"

import asyncio
import os

from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(url=os.environ["BENCH_URL"], queue_name="bench")


@broker.task
async def nothing(_i: int) -> None:
    """Do nothing."""


async def enqueue(count: int) -> None:
    """Put jobs into the queue, a hundred at once."""
    await broker.startup()
    for first in range(0, count, 100):
        await asyncio.gather(*[nothing.kiq(i) for i in range(first, min(first + 100, count))])
    await broker.shutdown()
