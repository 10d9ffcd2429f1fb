"""One process of a benchmark, on beeq. The twin of ``bee_queue.js``: the same modes, the same moments.

The argument is a JSON object: ``mode``, ``url``, ``queue``, ``concurrency``, ``count``, ``uvloop``. The
process says ``{"ready": true}`` once it could begin, begins at the first line of its standard input, says
what it measured, if that is its part, and ends with its standard input. Both libraries have their default
settings, and are used as their documentation shows.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from beeq import Job, Queue


def tell(message: dict[str, Any]) -> None:
    """Say something to the harness."""
    print(json.dumps(message), flush=True)


#: The system's monotonic clock, in ns; the same for every process of the machine.
now = time.monotonic_ns


def work(queue: Queue, concurrency: int) -> None:
    """Work on jobs that do nothing."""

    @queue.process(concurrency=concurrency)
    async def handler(_job: Job) -> None:
        return None


def tell_the_time(queue: Queue, concurrency: int) -> None:
    """Work on jobs that return when their handler began."""

    @queue.process(concurrency=concurrency)
    async def handler(_job: Job) -> int:
        return now()


async def save_concurrently(queue: Queue, count: int) -> None:
    """Save all jobs without waiting in between."""
    began = now()
    await asyncio.gather(*[queue.create_job({"i": i}).save() for i in range(count)])
    tell({"seconds": (now() - began) / 1e9})


async def save_one_by_one(queue: Queue, count: int) -> None:
    """Save each job after the one before it was confirmed."""
    began = now()
    for i in range(count):
        await queue.create_job({"i": i}).save()
    tell({"seconds": (now() - began) / 1e9})


async def save_in_bulk(queue: Queue, count: int) -> None:
    """Save a hundred jobs at a time."""
    began = now()
    for first in range(0, count, 100):
        errors = await queue.save_all([queue.create_job({"i": i}) for i in range(first, first + 100)])
        if errors:
            raise next(iter(errors.values()))
    tell({"seconds": (now() - began) / 1e9})


async def wait_for_each(queue: Queue, count: int) -> None:
    """Save a job, wait for its result, and let the worker become idle."""
    starts, results = [], []
    for i in range(count):
        saved = now()
        job = await queue.create_job({"i": i}).save()
        began = await job.result(timeout=10_000)
        results.append((now() - saved) / 1e6)
        starts.append((began - saved) / 1e6)
        await asyncio.sleep(0.002)
    tell({"starts": starts, "results": results})


PRODUCERS = {
    "save concurrently": save_concurrently,
    "save one by one": save_one_by_one,
    "save in bulk": save_in_bulk,
    "wait for each": wait_for_each,
}
WORKERS = {"work": work, "tell the time": tell_the_time}


async def main(ask: dict[str, Any]) -> None:
    """Get ready, wait for the word, play one part, wait for the end."""
    loop = asyncio.get_running_loop()
    queue = Queue(ask["queue"], redis=ask["url"])
    produce = PRODUCERS.get(ask["mode"])
    if produce is not None:
        await queue.ready()
    tell({"ready": True})
    await loop.run_in_executor(None, sys.stdin.readline)
    if produce is not None:
        await produce(queue, ask["count"])
    else:
        WORKERS[ask["mode"]](queue, ask["concurrency"])
        await queue.ready()
        tell({"working": True})
    await loop.run_in_executor(None, sys.stdin.read)
    await queue.close()


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    if options["uvloop"]:
        import uvloop

        uvloop.run(main(options))
    else:
        asyncio.run(main(options))
