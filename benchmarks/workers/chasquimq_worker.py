"""A worker of chasquimq, on uvloop, which publishes nothing of jobs and keeps nothing of them."""
# mypy: disable-error-code="import-not-found"

import asyncio
import os
import signal
from typing import Any

import uvloop
from chasquimq import Queue, Worker

URL = os.environ["BENCH_URL"]


async def nothing(_job: Any) -> None:
    """Do nothing."""


async def enqueue(count: int) -> None:
    """Put jobs into the queue, some hundred at a time."""
    async with Queue("bench", redis_url=URL) as queue:
        for first in range(0, count, 500):
            numbers = range(first, min(first + 500, count))
            await queue.add_bulk([{"name": "nothing", "data": {"i": i}} for i in numbers])


async def work() -> None:
    """Work until SIGTERM."""
    concurrency = int(os.environ["BENCH_CONCURRENCY"])
    worker = Worker("bench", nothing, redis_url=URL, concurrency=concurrency, events_enabled=False)
    loop, running = asyncio.get_running_loop(), asyncio.ensure_future(worker.run())
    loop.add_signal_handler(signal.SIGTERM, lambda: loop.create_task(worker.close()))
    await running


if __name__ == "__main__":
    uvloop.run(work())
