"""A worker of celery: its command imports this."""
# mypy: disable-error-code="import-not-found, untyped-decorator"

import os

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_URL"])


@app.task(name="nothing")
def nothing(_i: int) -> None:
    """Do nothing."""


enqueue_one = nothing.delay


def enqueue(count: int) -> None:
    """Put jobs into the queue."""
    for i in range(count):
        nothing.delay(i)
