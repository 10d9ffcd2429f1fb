"""A worker of dramatiq: its command imports this."""
# mypy: disable-error-code="import-not-found, untyped-decorator"

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_URL"]))


@dramatiq.actor
def nothing(_i: int) -> None:
    """Do nothing."""


enqueue_one = nothing.send


def enqueue(count: int) -> None:
    """Put jobs into the queue."""
    for i in range(count):
        nothing.send(i)
