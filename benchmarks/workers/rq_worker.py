"""A job of rq, which its worker imports."""
# mypy: disable-error-code="import-not-found"

import os

from redis import Redis
from rq import Queue

queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_URL"]))


def nothing(_i: int) -> None:
    """Do nothing."""


def enqueue_one(i: int) -> None:
    """Put a job into the queue."""
    queue.enqueue(nothing, i)


def enqueue(count: int) -> None:
    """Put jobs into the queue."""
    queue.enqueue_many([Queue.prepare_data(nothing, [i]) for i in range(count)])
