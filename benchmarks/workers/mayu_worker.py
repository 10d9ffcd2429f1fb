"""A worker of mayu: its command imports this."""
# mypy: disable-error-code="import-not-found, untyped-decorator"

import os

from mayu import App

app = App(broker=os.environ["BENCH_URL"])


@app.task
def nothing(_i: int) -> None:
    """Do nothing."""


def enqueue(count: int) -> None:
    """Put jobs into the queue."""
    for i in range(count):
        nothing.delay(i)
