"""A worker of bullmq for Python, on uvloop."""
# mypy: disable-error-code="import-not-found"

import asyncio
import os
import signal
from typing import Any

import uvloop
from bullmq import Queue, Worker

URL = os.environ["BENCH_URL"]


async def nothing(_job: Any, _token: str) -> None:
    """Do nothing."""


async def enqueue(count: int) -> None:
    """Put jobs into the queue, some hundred at a time."""
    queue = Queue("bench", {"connection": URL})
    for first in range(0, count, 500):
        numbers = range(first, min(first + 500, count))
        await queue.addBulk([{"name": "nothing", "data": {"i": i}} for i in numbers])
    await queue.close()


async def work() -> None:
    """Work until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    concurrency = int(os.environ["BENCH_CONCURRENCY"])
    worker = Worker("bench", nothing, {"connection": URL, "concurrency": concurrency})
    await ended.wait()
    await worker.close()


if __name__ == "__main__":
    uvloop.run(work())
