"""A producer of beeq that blocks, as a web application without an event loop has one."""

import os

from beeq.sync import Queue

queue = Queue("bench", redis=os.environ["BENCH_URL"])


def enqueue_one(i: int) -> None:
    """Put a job into the queue."""
    queue.enqueue({"i": i})
