"""A worker of saq, on uvloop: its command imports this."""
# mypy: disable-error-code="import-not-found"

import asyncio
import os
from typing import Any

import uvloop
from saq import Queue

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
queue = Queue.from_url(os.environ["BENCH_URL"], name="bench")


async def nothing(_context: Any, *, i: int) -> None:
    """Do nothing with ``i``."""


settings = {
    "queue": queue,
    "functions": [nothing],
    "concurrency": int(os.environ["BENCH_CONCURRENCY"]),
}


async def enqueue(count: int) -> None:
    """Put jobs into the queue, a hundred at once."""
    await queue.connect()
    for first in range(0, count, 100):
        await asyncio.gather(*[queue.enqueue("nothing", i=i) for i in range(first, min(first + 100, count))])
    await queue.disconnect()
