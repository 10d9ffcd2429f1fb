"""A worker of huey: the consumer imports this."""
# mypy: disable-error-code="import-not-found, untyped-decorator"

import os

from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_URL"])


@huey.task()
def nothing(_i: int) -> None:
    """Do nothing."""


enqueue_one = nothing


def enqueue(count: int) -> None:
    """Put jobs into the queue."""
    for i in range(count):
        nothing(i)
