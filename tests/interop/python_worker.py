"""A Python worker in a process of its own, for a test to kill: ``python_worker.py URL QUEUE CONCURRENCY STALL_MS``.

Prints the id of each job it begins with, a line each, and never ends a job.
"""

from __future__ import annotations

import asyncio
import sys

from beeq import Job, Queue


async def main(url: str, name: str, concurrency: int, stall_interval_ms: int) -> None:
    """Work until killed."""
    queue = Queue(name, redis=url, stall_interval=stall_interval_ms)

    async def begin(job: Job) -> None:
        print(job.id, flush=True)  # noqa: T201 - the test reads it
        await asyncio.Event().wait()

    queue.process(begin, concurrency=concurrency)
    await queue.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
